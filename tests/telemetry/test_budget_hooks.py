"""The webhook of budgets: one request to one address, in limited time, and no error leaves it."""

import asyncio
import contextlib
import logging

import pytest
from aiohttp import web

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
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}", paths
    finally:
        await runner.cleanup()


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
    assert f"the webhook answered a budget's warning with HTTP {status}" in caplog.text
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
    assert "a budget's warning could not be sent to the webhook: TimeoutError" in caplog.text
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
    assert "a budget's warning could not be sent to the webhook" in caplog.text
    assert "secret" not in caplog.text


def test_an_error_of_any_kind_stays_in_the_hook(monkeypatch, caplog):
    def fail(*_arguments, **_options):
        raise RuntimeError("secret")

    monkeypatch.setattr("aiohttp.ClientSession", fail)
    asyncio.run(post("https://hooks.example.com/secret"))
    assert "could not be sent to the webhook: RuntimeError" in caplog.text
    assert "secret" not in caplog.text
