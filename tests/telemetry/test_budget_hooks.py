"""The webhook of budgets: one request to one address, in limited time, and no error leaves it."""

import asyncio
import contextlib
import logging
import re

import pytest
from aiohttp import web

import serving as tcp
from embedway.telemetry import webhook
from embedway.telemetry.budget_hooks import WebhookHook
from embedway.telemetry.operations import BudgetWarningDetails, Operation

WARNING = Operation(1, None, BudgetWarningDetails("b", 50, 5, 10, "*", "total", True))


@contextlib.asynccontextmanager
async def serving(answer):
    """Run a server that calls `answer` for each request, and yield its address and the paths that were requested."""
    paths = []

    async def handle(request):
        paths.append(request.path)
        return await answer(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    async with tcp.serving_app(app) as port:
        yield f"127.0.0.1:{port}", paths


async def post(url):
    before = asyncio.all_tasks()
    WebhookHook(url).event(WARNING)
    await asyncio.gather(*(asyncio.all_tasks() - before))


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(caplog, status):
    async def main():
        async def answer(request):
            return web.Response(status=status, headers={"Location": f"http://{request.host}/elsewhere"})

        async with serving(answer) as (address, paths):
            await post(f"http://user:secret@{address}/hook")
            assert paths == ["/hook"]

    caplog.set_level(logging.WARNING, "embedway.budget")
    asyncio.run(main())
    assert f"ledger.webhook: it answered a budget's warning with HTTP {status}" in caplog.text
    assert "secret" not in caplog.text
    assert "elsewhere" not in caplog.text


def test_an_answer_without_end_is_not_read(caplog):
    async def main():
        ended = asyncio.Event()

        async def answer(request):
            response = web.StreamResponse()
            await response.prepare(request)
            try:
                while True:
                    await response.write(bytes(65_536))
            except ConnectionError:
                ended.set()
                raise

        async with serving(answer) as (address, _):
            await post(f"http://{address}/hook")
            await ended.wait()

    asyncio.run(main())
    assert "webhook" not in caplog.text


def test_a_request_has_a_time_limit(monkeypatch, caplog):
    monkeypatch.setattr(webhook, "REQUEST_S", 0.05)

    async def main():
        over = asyncio.Event()

        async def answer(_request):
            await over.wait()
            return web.Response()

        async with serving(answer) as (address, _):
            await post(f"http://{address}/secret-token")
            over.set()

    asyncio.run(main())
    assert "ledger.webhook: it did not answer in 0.05 s; a budget's warning could not be sent" in caplog.text
    assert "secret-token" not in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/secret",
        "https://a..b/secret",
        "https://[::1/secret",
        "https://host:99999/secret",
        "secret",
        "",
    ],
)
def test_no_address_fails_anything(url, caplog):
    asyncio.run(post(url))
    assert "a budget's warning could not be sent" in caplog.text
    assert "secret" not in caplog.text


def test_an_error_of_any_kind_stays_in_the_hook(monkeypatch, caplog):
    def fail(*_arguments, **_options):
        raise RuntimeError("secret")

    monkeypatch.setattr("aiohttp.ClientSession", fail)
    asyncio.run(post("https://hooks.example.com/secret"))
    assert "ledger.webhook: it failed (RuntimeError); a budget's warning could not be sent" in caplog.text
    assert "secret" not in caplog.text


async def hang_up(reader, writer):
    await reader.read(1)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://127.0.0.1:1/secret", "it refuses the connection"),
        ("http://127.0.0.1:{port}/secret", "the connection was lost"),
        ("https://127.0.0.1:{port}/secret", "the TLS handshake failed|the connection was lost|it is unreachable"),
        ("secret", "it is not a valid URL"),
    ],
)
def test_a_webhook_that_fails_is_named_with_the_reason(address, reason, caplog):
    async def main():
        async with tcp.serving(hang_up) as port:
            await post(address.format(port=port))

    asyncio.run(main())
    assert re.search(f"ledger.webhook: ({reason}); a budget's warning could not be sent", caplog.text)
