"""The page at `/`: its headers, and what its files contain."""

import asyncio
import base64
import hashlib
import re

import aiohttp
import pytest

import embedway.server.pages
from embedway.files import read_package_text
from embedway.server.pages.page import page_reply
from gateways import gateway_at

FILES = ("page.html", "page.css", "elements.js", "charts.js", "tables.js", "page.js")
PACKAGE = embedway.server.pages.__name__


def policy():
    """Return the sources of each rule of the policy."""
    text = dict(page_reply().headers)[b"content-security-policy"].decode()
    return {rule[0]: rule[1:] for rule in map(str.split, text.split("; "))}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_page_is_served_with_its_headers(method):
    async def main():
        settings = {"server.auth": "keys"}
        async with gateway_at(**settings) as (url, _), aiohttp.ClientSession() as session:
            async with session.request(method, f"{url}/") as answer:
                found = answer.status, answer.headers, await answer.read()
            async with session.get(f"{url}/overview.json") as data:
                return *found, data.status

    status, headers, body, status_of_data = asyncio.run(main())
    assert (status, status_of_data) == (200, 401)  # the page contains no data; those need a key
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["content-security-policy"].startswith("default-src 'none'; ")
    assert body == (page_reply().body if method == "GET" else b"")


def test_the_policy_allows_the_own_script_and_style_only():
    found = policy()
    document = page_reply().body.decode()
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        (inline,) = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", document, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert found[rule] == [f"'sha256-{digest}'"]
    assert found["default-src"] == found["frame-ancestors"] == found["base-uri"] == ["'none'"]
    assert found["connect-src"] == found["form-action"] == ["'self'"]


def test_nothing_of_elsewhere_is_loaded():
    for name in FILES:
        # Names of the two XML namespaces are no addresses.
        text = read_package_text(PACKAGE, name).replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[\w.-]+\.\w|@import|url\((?!#)|\bimport\b|\bsrc=", text), name


def test_the_script_inserts_text_only():
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|\bon\w+="
    for name in FILES:
        assert not re.search(forbidden, read_package_text(PACKAGE, name)), name


def test_fields_have_no_names_so_that_a_form_can_send_nothing():
    assert " name=" not in read_package_text(PACKAGE, "page.html").replace("<meta name=", "")


def test_the_page_is_small():
    assert len(page_reply().body) < 60_000
