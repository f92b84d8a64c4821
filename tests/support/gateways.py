"""Gateways for tests: in the event loop of a test, or as the command with its processes."""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from child_lines import ChildLines
from embedway.config import Config
from embedway.server.listening import listen
from embedway.server.worker import make_server, open_gateway


@contextlib.asynccontextmanager
async def gateway_at(config=None, **overrides):
    """Run a gateway in this event loop; yield its URL and the `Gateway`."""
    config = Config.load([], overrides=overrides) if config is None else config
    folder = tempfile.TemporaryDirectory()
    gateway, app = await open_gateway(config, Path(folder.name))
    server = make_server(app, config.server)
    (own,) = listen("127.0.0.1", 0, 1)
    serving = asyncio.create_task(server.serve(sockets=[own]))
    try:
        while not server.started:  # noqa: ASYNC110  uvicorn has no event
            await asyncio.sleep(0.005)
        yield f"http://127.0.0.1:{own.getsockname()[1]}", gateway
    finally:
        server.should_exit = True
        await serving
        await gateway.aclose()
        own.close()
        folder.cleanup()


@contextlib.contextmanager
def gateway_in_thread(config=None, **overrides):
    """Run a gateway in a thread, for blocking clients; yield its URL."""
    ready, ended = threading.Event(), threading.Event()
    found = {}

    async def run():
        async with gateway_at(config, **overrides) as (url, gateway):
            found.update(url=url, gateway=gateway)
            ready.set()
            while not ended.is_set():  # noqa: ASYNC110  an event of a thread
                await asyncio.sleep(0.02)

    def main():
        try:
            asyncio.run(run())
        except BaseException as error:  # noqa: BLE001  passed to the test
            found["error"] = error
        finally:
            ready.set()

    thread = threading.Thread(target=main)
    thread.start()
    ready.wait()
    try:
        if "error" in found:
            raise found["error"]
        yield found["url"]
    finally:
        ended.set()
        thread.join()


class GatewayProcess:
    """The command `embedway serve` with its processes."""

    def __init__(self, url, process, lines):
        self.url = url
        self.process = process
        #: Lines of standard error.
        self.lines = lines

    @property
    def children(self):
        """Process ids of the supervisor's children."""
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(one) for one in listed.split()]


@contextlib.contextmanager
def gateway_process(*arguments, files=(), environment=None):
    """Run `embedway serve` on a free port; yield a GatewayProcess when it serves."""
    options = [part for file in files for part in ("--config", str(file))]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "embedway", *options, "serve", "--port", "0", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    lines = ChildLines(process.stderr)
    try:
        yield GatewayProcess(lines.wait_for(r"serving on (\S+)", 120), process, lines.lines)
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(60)
        finally:
            if process.poll() is None:
                process.kill()
            lines.close()
