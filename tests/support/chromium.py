"""Headless Chromium for tests, driven through its DevTools protocol (https://chromedevtools.github.io/devtools-protocol)."""

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess

import aiohttp

from child_lines import ChildLines

#: Maximum time for the browser to start, and for a condition to become true, on a busy machine, in seconds.
PATIENCE_S = 60.0
#: Keys by name: key code, and the text that they insert.
KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " "), "Escape": (27, ""), "ArrowDown": (40, "")}
_SHIFT = 8


def program():
    """Return the path of the browser. Without it the tests fail: nothing is skipped."""
    path = shutil.which("chromium")
    assert path is not None, "chromium is missing: install it with `make install-chromium`"
    return path


@contextlib.contextmanager
def running_chromium(folder):
    """Run a browser with an empty profile in a folder; yield the address of its protocol."""
    # Without its sandbox: that needs user namespaces, which root in a container has not. It opens our own page only.
    options = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run"]
    options += [
        "--disable-background-networking",
        "--disable-component-update",
        "--hide-scrollbars",
        "--remote-debugging-port=0",
    ]
    process = subprocess.Popen(
        [program(), *options, "--remote-debugging-port=0", f"--user-data-dir={folder}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_CACHE_HOME": str(folder)},
    )
    lines = ChildLines(process.stderr)
    try:
        yield lines.wait_for(r"DevTools listening on (ws://\S+)", PATIENCE_S)
    finally:
        # The browser has processes of its own, which are in its session.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
        lines.close()


@contextlib.asynccontextmanager
async def browser_at(address):
    """Connect to a running browser; yield a Browser."""
    async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
        browser = Browser(socket)
        reading = asyncio.create_task(browser.read())
        try:
            yield browser
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


class Browser:
    """Connection to a browser."""

    def __init__(self, socket):
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers = {}
        self._pages = {}

    async def read(self):
        """Pass answers and events on."""
        async for message in self._socket:
            found = json.loads(message.data)
            if "id" in found:
                future = self._answers.pop(found["id"])
                if not future.done():
                    future.set_result(found)
            elif found.get("sessionId") in self._pages:
                self._pages[found["sessionId"]].note(found["method"], found["params"])

    async def send(self, method, session="", **parameters):
        """Send a command and return its result."""
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        command = {"id": number, "method": method, "params": parameters, **({"sessionId": session} if session else {})}
        await self._socket.send_json(command)
        found = await asyncio.wait_for(self._answers[number], PATIENCE_S)
        assert "error" not in found, (method, found["error"])
        return found["result"]

    @contextlib.asynccontextmanager
    async def page(self, url, *, width=1280, height=900, scheme="light"):
        """Open an address in a context without storage; yield the Page."""
        context = (await self.send("Target.createBrowserContext"))["browserContextId"]
        target = (await self.send("Target.createTarget", url="about:blank", browserContextId=context))["targetId"]
        session = (await self.send("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        page = self._pages[session] = Page(self, session)
        try:
            for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
                await page.send(f"{domain}.enable")
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            await page.send("Emulation.setDeviceMetricsOverride", **size)
            await page.prefer(scheme)
            await page.send("Page.navigate", url=url)
            await page.wait("document.readyState === 'complete'")
            yield page
        finally:
            await self.send("Target.disposeBrowserContext", browserContextId=context)


class Page:
    """A page of a browser. `faults` are its errors: exceptions, messages, and violations of its policy."""

    def __init__(self, browser, session):
        self._browser = browser
        self._session = session
        self.faults = []
        #: Addresses that the page asked for.
        self.asked = []

    def note(self, method, event):
        """Note an event."""
        if method == "Runtime.exceptionThrown":
            self.faults.append(json.dumps(event["exceptionDetails"])[:500])
        elif method == "Runtime.consoleAPICalled" and event["type"] in {"error", "warning", "assert"}:
            self.faults.append(json.dumps(event["args"])[:500])
        elif method == "Log.entryAdded" and event["entry"]["level"] in {"error", "warning"}:
            # The browser itself logs each answer with an error; those are part of some tests.
            if event["entry"]["source"] != "network":
                self.faults.append(event["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.asked.append(event["request"]["url"])

    async def send(self, method, **parameters):
        """Send a command to the page and return its result."""
        return await self._browser.send(method, self._session, **parameters)

    async def prefer(self, scheme):
        """Set the preferred colours of the user: light or dark."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.send("Emulation.setEmulatedMedia", features=features)

    async def run(self, expression):
        """Return the value of an expression of the page."""
        found = await self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def wait(self, expression):
        """Wait until an expression is true."""
        limit = asyncio.get_running_loop().time() + PATIENCE_S
        while not await self.run(f"Boolean({expression})"):
            if asyncio.get_running_loop().time() > limit:
                raise AssertionError(f"{expression}\n{self.faults}\n{await self.run('document.body.innerText')}")
            await asyncio.sleep(0.05)

    async def press(self, key, *, shift=False):
        """Press and release a key."""
        code, text = KEYS[key]
        event = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": _SHIFT if shift else 0}
        await self.send("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **event)
        await self.send("Input.dispatchKeyEvent", type="keyUp", **event)

    async def tab_to(self, element):
        """Press Tab until the element with this id has the focus."""
        for _ in range(60):
            await self.press("Tab")
            if await self.run("document.activeElement.id") == element:
                return
        raise AssertionError(f"{element} cannot be reached with the keyboard")

    async def type(self, text):
        """Insert a text where the focus is."""
        await self.send("Input.insertText", text=text)

    async def accessible(self):
        """Return the role and the name of each node that assistive programs see."""
        nodes = (await self.send("Accessibility.getFullAXTree"))["nodes"]
        seen = [node for node in nodes if not node["ignored"]]
        return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in seen]

    async def screenshot(self, *, whole=False):
        """Return the picture of the page as PNG."""
        options = {"format": "png", "captureBeyondViewport": whole}
        if whole:
            size = (await self.send("Page.getLayoutMetrics"))["cssContentSize"]
            options["clip"] = {**size, "scale": 1}
        return base64.b64decode((await self.send("Page.captureScreenshot", **options))["data"])
