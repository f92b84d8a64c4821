"""The page in Chromium, before real gateways: what it shows, its forms, the keyboard, colours and widths.

These tests need Debian's package `chromium`, and fail without it (make test-page).
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

import chromium
from async_tests import in_loop
from gateways import gateway_process

pytestmark = pytest.mark.chromium

HOSTILE = "<img src=x onerror=document.title='hit'>"
SETTINGS = f"""
[embedding]
default_model = "all-MiniLM-L6-v2"
[models.m]
name = "{HOSTILE}"
dimensions = 16
max_tokens = 500
price_usd_per_million_tokens = "20"
[routes.east]
model = "{HOSTILE}"
provider = "fake"
[models.n]
name = "acme/broken"
dimensions = 16
max_tokens = 500
price_usd_per_million_tokens = "1"
[routes.broken]
model = "acme/broken"
provider = "openai-compatible"
base_url = "http://127.0.0.1:9/v1"
upstream_model = "x"
api_key = "kkkkkkkkkkkkkkkkkkkk"
[budgets."<b>all</b>"]
usd = "50"
period = "month"
[budgets.warns]
usd = "0.0001"
hard = false
[upstream]
max_attempts = 1
"""
CONTRAST = (Path(chromium.__file__).parent / "page_checks.js").read_text("utf-8")
IS_SHOWN = "!document.getElementById('data').hidden"
CONTROLS = {
    "button",
    "link",
    "textbox",
    "combobox",
    "checkbox",
    "DisclosureTriangle",
    "image",
    "table",
    "region",
    "form",
}


def ask(url, body, key=""):
    """Send a request for vectors, and return the answer; an error as its status."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"{url}/v1/embeddings", json.dumps(body).encode(), headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium.running_chromium(tmp_path_factory.mktemp("chromium")) as address:
        yield address


@pytest.fixture(scope="module")
def home(tmp_path_factory, default_model_directory):
    """Return a settings file, and variables with a ledger of their own."""
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "settings.toml").write_text(SETTINGS)
    return folder / "settings.toml", {
        "EMBEDWAY_WEIGHTS__DIRECTORY": str(default_model_directory),
        "EMBEDWAY_WEIGHTS__OFFLINE": "true",
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }


@pytest.fixture(scope="module")
def gateway(home):
    """Run a gateway with two workers that has answered some requests."""
    settings, environment = home
    with gateway_process("--workers", "2", files=[settings], environment=environment) as process:
        for number in range(1, 6):
            ask(process.url, {"model": HOSTILE, "input": [f"text {number}", "the same text"]})
            ask(process.url, {"model": "all-MiniLM-L6-v2", "input": f"text {number}"})
            assert ask(process.url, {"model": "acme/broken", "input": f"text {number}"}) in {502, 503}
        yield process.url


@contextlib.asynccontextmanager
async def opened(browser, url, **options):
    """Open the page in the browser; yield it."""
    async with chromium.browser_at(browser) as connected, connected.page(url, **options) as page:
        yield page


async def texts(page, selector):
    return await page.run(f"[...document.querySelectorAll({json.dumps(selector)})].map(one => one.innerText)")


@in_loop
async def test_it_shows_what_the_gateway_does(browser, gateway):
    async with opened(browser, gateway) as page:
        # The workers share their counts every two seconds.
        await page.wait("parseInt(document.getElementById('facts').innerText.split('· ').at(-1)) >= 15")
        assert await page.run("document.getElementById('ready').innerText") == "Ready"
        assert "3 processes" in await page.run("document.getElementById('facts').innerText")
        models = {row.split("\t")[0].strip(): row for row in await texts(page, "#models tbody tr")}
        assert int(models[HOSTILE].split("\t")[4]) >= 5
        assert "loaded" in models["sentence-transformers/all-MiniLM-L6-v2 default"]
        budgets = await texts(page, "#budgets tbody tr")
        assert any("<b>all</b>" in row and "of $50.00" in row and "hard" in row for row in budgets)
        assert any("warns" in row and "soft" in row and " %" in row for row in budgets)
        assert any("routes.broken" in row for row in await texts(page, "#routes tbody tr"))
        assert any("MiB" in row for row in await texts(page, "#inference tbody tr"))
        failed = await texts(page, "#recent tbody tr")
        assert len(failed) >= 5
        assert all("/v1/embeddings" in row and ("502" in row or "503" in row) for row in failed)
        # The chart shows periods of five seconds that have ended.
        await page.wait("/[1-9] failed/.test(document.getElementById('traffic').getAttribute('aria-label'))")
        assert page.faults == []
        assert {one.removeprefix(gateway) for one in page.asked} == {"/", "/overview.json"}


@in_loop
async def test_names_with_html_are_text(browser, gateway):
    async with opened(browser, gateway) as page:
        await page.wait(IS_SHOWN)
        assert HOSTILE in await page.run("document.body.innerText")
        assert await page.run("document.querySelectorAll('main img, main td b b, main th b').length") == 0
        assert await page.run("document.title") == "embedway gateway"
        assert page.faults == []


@in_loop
async def test_two_texts_are_compared_with_the_keyboard_alone(browser, gateway):
    async with opened(browser, gateway) as page:
        await page.wait(IS_SHOWN)
        await page.tab_to("model")
        await page.tab_to("first")
        await page.run("document.activeElement.value = ''")
        await page.type("a small cat")
        await page.press("Tab")
        await page.run("document.activeElement.value = ''")
        await page.type("a kitten")
        await page.tab_to("embed")
        await page.press("Enter")
        await page.wait("document.querySelector('#compared dl, #compared .fault')")
        shown = dict(zip(await texts(page, "#compared dt"), await texts(page, "#compared dd"), strict=True))
        assert await page.run("document.activeElement.id") == "embed"
        rows = ask(gateway, {"model": "all-MiniLM-L6-v2", "input": ["a small cat", "a kitten"]})
        left, right = (np.float32(one["embedding"]) for one in rows["data"])
        assert float(shown["Similarity (cosine)"]) == pytest.approx(float(left @ right), abs=2e-4)
        assert shown["Tokens"] == str(rows["usage"]["total_tokens"])
        assert shown["Cost"] == "$0.00"
        assert shown["Dimensions"] == "384"
        assert page.faults == []


@in_loop
async def test_an_error_of_the_form_is_shown(browser, gateway):
    async with opened(browser, gateway) as page:
        await page.wait(IS_SHOWN)
        await page.run("document.getElementById('model').value = 'acme/broken'")
        await page.run("document.getElementById('embed').click()")
        await page.wait("document.querySelector('#compared .fault')")
        assert (await texts(page, "#compared"))[0].startswith(("Error 502", "Error 503"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@in_loop
async def test_every_text_has_enough_contrast(browser, gateway, scheme):
    async with opened(browser, gateway, scheme=scheme) as page:
        await page.wait(IS_SHOWN)
        await page.run("document.querySelector('details').open = true")
        await page.run("document.getElementById('embed').click()")
        await page.wait("document.querySelector('#compared dl')")
        found = await page.run(CONTRAST)
        assert found["count"] > 100
        assert found["poor"] == []
        is_dark = await page.run("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)[0] < 128")
        assert is_dark == (scheme == "dark")


@pytest.mark.parametrize("width", [320, 500, 900, 1920])
@in_loop
async def test_no_width_needs_horizontal_scrolling(browser, gateway, width):
    async with opened(browser, gateway, width=width) as page:
        await page.wait(IS_SHOWN)
        await page.run("document.querySelector('details').open = true")
        await page.run("document.getElementById('embed').click()")
        await page.wait("document.querySelector('#compared dl')")
        assert await page.run("document.documentElement.scrollWidth") == width
        outside = f"[...document.querySelectorAll('h1, h2, button, input, select, svg, dd')].filter(one => {{ \
            const box = one.getBoundingClientRect(); return box.right > {width} || box.left < 0; }}).length"
        assert await page.run(outside) == 0


@in_loop
async def test_assistive_programs_find_names_landmarks_and_headings(browser, gateway):
    async with opened(browser, gateway) as page:
        await page.wait(IS_SHOWN)
        await page.run("document.querySelector('details').open = true")
        await page.wait("document.querySelector('#minutes td')")
        nodes = await page.accessible()
        assert [one for one in nodes if one[0] in CONTROLS and not one[1].strip()] == []
        roles = [role for role, _ in nodes]
        assert (roles.count("main"), roles.count("banner")) == (1, 1)
        named = {name for role, name in nodes if role in {"textbox", "combobox", "button"}}
        assert named >= {"Model", "First text", "Second text", "Embed and compare", "Pause updates"}
        headings = [name for role, name in nodes if role == "heading"]
        assert len(headings) == len(set(headings)) >= 8
        assert await page.run("document.querySelectorAll('th:not([scope]), table:not(:has(caption))').length") == 0


@in_loop
async def test_the_focus_is_visible_everywhere_and_stays_at_an_update(browser, gateway):
    async with opened(browser, gateway, width=400) as page:
        await page.wait(IS_SHOWN)
        seen, facts = (
            [],
            "[document.activeElement.id || document.activeElement.tagName, \
            getComputedStyle(document.activeElement).outlineStyle]",
        )
        while True:
            await page.press("Tab")
            name, outline = await page.run(facts)
            if name == "BODY" or seen[:1] == [name]:
                break
            seen.append(name)
            assert outline == "solid", name
        assert {"pause", "model", "first", "second", "embed", "SUMMARY"} <= set(seen)
        assert "DIV" in seen  # a table that is wider than its place
        await page.tab_to("model")
        before = len(page.asked)
        while len(page.asked) < before + 2:
            await page.run("new Promise(resolve => setTimeout(resolve, 100))")
        assert await page.run("document.activeElement.id") == "model"


@in_loop
async def test_reduced_motion_is_respected(browser, gateway):
    async with opened(browser, gateway) as page:
        await page.wait(IS_SHOWN)
        duration = "getComputedStyle(document.querySelector('.track b')).transitionDuration"
        assert await page.run(duration) == "0.3s"
        features = [{"name": "prefers-reduced-motion", "value": "reduce"}]
        await page.send("Emulation.setEmulatedMedia", features=features)
        assert await page.run(duration) == "0s"


@in_loop
async def test_hidden_and_paused_pages_ask_for_nothing(browser, gateway):
    async with opened(browser, gateway) as page:
        await page.wait(IS_SHOWN)
        await page.run("window.setTimeout = (next) => { window.next = next; }")
        await page.wait("window.next")
        await page.run("Object.defineProperty(document, 'hidden', { get: () => window.away, configurable: true })")
        before = len(page.asked)
        await page.run("window.away = true; next()")
        assert len(page.asked) == before
        await page.run("window.away = false; document.getElementById('pause').click(); next()")
        assert len(page.asked) == before
        assert await page.run("document.getElementById('pause').getAttribute('aria-pressed')") == "true"
        await page.run("window.next = null; document.getElementById('pause').click()")
        await page.wait("window.next")
        assert len(page.asked) == before + 1


@in_loop
async def test_it_says_when_the_gateway_is_gone(browser, home):
    settings, environment = home
    with gateway_process(files=[settings], environment=environment) as process:
        async with opened(browser, process.url) as page:
            await page.wait(IS_SHOWN)
            process.process.terminate()
            await asyncio.to_thread(process.process.wait, 60)
            await page.wait("/cannot be reached/.test(document.getElementById('banner').innerText)")
            assert await page.run("document.getElementById('ready').innerText") == "Not reachable"
            assert (await page.run(CONTRAST))["count"] > 50


def created_key(home, *arguments):
    """Create a key of the gateway, and return its text."""
    settings, environment = home
    command = [sys.executable, "-m", "embedway", "--config", str(settings), "keys", "create", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **environment})
    return done.stdout.strip()


@in_loop
async def test_a_key_is_asked_for_and_stays_in_the_tab(browser, home):
    settings, environment = home
    admin, other = created_key(home, "boss", "--admin"), created_key(home, "caller")
    environment = {**environment, "EMBEDWAY_SERVER__AUTH": "keys"}

    async def sign_in(page, key):
        await page.wait("document.activeElement.id === 'key'")
        await page.run("document.getElementById('key-fault').textContent = ''")
        await page.type(key)
        await page.press("Enter")

    with gateway_process(files=[settings], environment=environment) as process:
        async with opened(browser, process.url) as page:
            await page.wait("!document.getElementById('key-section').hidden")
            assert not await page.run(IS_SHOWN)
            for key, message in (("ew_wrong", "does not accept"), (other, "no admin rights"), ("a b", "letters")):
                await sign_in(page, key)
                await page.wait(f"document.getElementById('key-fault').innerText.includes({json.dumps(message)})")
                assert await page.run("sessionStorage.length") == 0
                await page.run("document.getElementById('key').value = ''")
            assert (await page.run(CONTRAST))["poor"] == []
            assert [one for one in await page.accessible() if one[0] in CONTROLS and not one[1].strip()] == []
            await sign_in(page, admin)
            await page.wait(IS_SHOWN)
            assert await page.run("document.activeElement.id") == "main"
            assert await page.run("[sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
            assert admin not in await page.run("document.documentElement.outerHTML + location")
            await page.run("document.getElementById('embed').click()")
            await page.wait("document.querySelector('#compared dl')")
            await page.run("document.getElementById('sign-out').click()")
            await page.wait("document.readyState === 'complete' && !document.getElementById('key-section').hidden")
            assert await page.run("sessionStorage.length") == 0
            assert await page.run("document.getElementById('models').rows.length") == 0
            assert page.faults == []
