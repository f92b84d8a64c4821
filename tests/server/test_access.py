"""Keys over HTTP: who needs one, what a key may do, and that tenants have nothing in common."""

import asyncio

import aiohttp
import pytest

from embedway import Config
from embedway.ledger.opening import open_records
from embedway.server.keys import new_key as make_key
from embedway.server.keys import store_new_key
from gateways import gateway_at

MODEL = "all-MiniLM-L6-v2"


@pytest.fixture
def settings(default_model_directory):
    return {"weights.directory": str(default_model_directory), "weights.offline": True, "server.auth": "keys"}


async def new_key(settings, name, **rights):
    records = open_records(Config.load([], overrides=settings))
    try:
        key, text = make_key(name, **rights)
        await store_new_key(records, key)
        return text
    finally:
        await records.aclose()


async def embed(session, url, key=None, *, header="Authorization", text="a cat", **fields):
    headers = {} if key is None else {header: f"Bearer {key}" if header == "Authorization" else key}
    body = {"model": MODEL, "input": text, **fields}
    async with session.post(f"{url}/v1/embeddings", json=body, headers=headers) as answer:
        return answer.status, answer.headers, await answer.json()


def test_a_key_is_needed_and_only_a_valid_one_works(settings):
    async def main():
        key = await new_key(settings, "web")
        async with gateway_at(**settings) as (url, _), aiohttp.ClientSession() as session:
            found = [(await embed(session, url, one))[0] for one in (None, "sk-abc", key, key[:-1] + "!")]
            found.append((await embed(session, url, key, header="X-API-Key"))[0])
            wrong = await embed(session, url, key[:-4] + "AAAA")
            unknown = await embed(session, url, f"ew_000000000000_{'A' * 43}")
            async with session.get(f"{url}/metrics", headers={"X-API-Key": key}) as answer:
                found.append(answer.status)
            async with session.get(f"{url}/health/ready") as answer:
                found.append(answer.status)
            return found, (wrong[0], wrong[2]), (unknown[0], unknown[2])

    found, wrong, unknown = asyncio.run(main())
    assert found == [401, 401, 200, 401, 200, 403, 200]
    assert wrong == unknown
    assert wrong[1]["error"]["code"] == "invalid_api_key"


def test_a_revoked_key_ends_and_a_restricted_one_is_held(settings):
    async def main():
        narrow = await new_key(settings, "narrow", models=("text-embedding-3-small",), max_priority=3)
        key = await new_key(settings, "low", max_priority=3)
        async with gateway_at(**settings) as (url, _), aiohttp.ClientSession() as session:
            other = await embed(session, url, narrow)
            high = await embed(session, url, key, priority=4)
            return other[0], high[0], high[2]["error"]["param"]

    assert asyncio.run(main()) == (404, 400, "priority")


def test_tenants_have_no_cache_and_no_collection_in_common(settings):
    async def main():
        keys = [await new_key(settings, f"key-{tenant}", tenant=tenant) for tenant in ("a", "b")]
        async with gateway_at(**settings) as (url, gateway), aiohttp.ClientSession() as session:
            hits = []
            for key in (keys[0], keys[0], keys[1]):
                _, headers, _ = await embed(session, url, key, collection="docs")
                hits.append(headers["x-embedway-cache"])
            async with gateway.engines.call() as engine:
                pins = [pin.collection for pin in await engine.pins.store.all()]
            return hits, sorted(pins)

    assert asyncio.run(main()) == (["0/1", "1/1", "0/1"], ["@a/docs", "@b/docs"])


def test_without_keys_other_values_are_ignored_and_own_keys_are_checked(settings):
    async def main():
        key = await new_key(settings, "web", tenant="a")
        async with gateway_at(**{**settings, "server.auth": "auto"}) as (url, _), aiohttp.ClientSession() as session:
            return [(await embed(session, url, one))[0] for one in (None, "sk-anything", key, key[:-4] + "AAAA")]

    assert asyncio.run(main()) == [200, 200, 200, 401]


def test_only_budgets_of_the_key_are_named(settings, caplog):
    """A name and the spending of all callers are the operator's."""
    route = {
        "model": "text-embedding-3-small",
        "provider": "openai",
        "base_url": "https://api.openai.com/v1",
        "api_key": "sk-unused",
    }

    async def is_named(key, **budget):
        """Return whether a refusal by this budget names it. Nothing is sent."""
        config = {**settings, "routes.r": route, "budgets.board": {"usd": "0.000000001", **budget}}
        async with gateway_at(**config) as (url, _), aiohttp.ClientSession() as session:
            status, _, answer = await embed(session, url, key, model="text-embedding-3-small")
            assert (status, answer["error"]["code"]) == (429, "insufficient_quota")
            return "board" in answer["error"]["message"]

    async def main():
        key, admin = await new_key(settings, "web"), await new_key(settings, "root", admin=True)
        return await is_named(key), await is_named(admin), await is_named(key, api_key="web")

    assert asyncio.run(main()) == (False, True, True)
    assert "a call of key web was refused: the call may cost" in caplog.text


def test_a_call_that_is_left_keeps_its_estimated_tokens(settings, monkeypatch):
    """A client that leaves before each answer would otherwise have no limit."""
    text = "a" * 3_000  # 754 tokens by the estimate

    async def main():
        key = await new_key(settings, "web", tokens_per_minute=1_000)
        async with gateway_at(**settings) as (url, gateway), aiohttp.ClientSession() as session:
            started, ended = asyncio.Event(), asyncio.Event()

            async def compute(*_):
                started.set()
                try:
                    await asyncio.sleep(600)
                finally:
                    ended.set()

            engine = await gateway.engines.current()
            monkeypatch.setattr(type(engine.pipeline), "embed", compute)
            asking = asyncio.create_task(embed(session, url, key, text=text))
            await asyncio.wait_for(started.wait(), 30)
            asking.cancel()
            await asyncio.wait_for(ended.wait(), 30)
            monkeypatch.undo()
            return [(await embed(session, url, key, text=one))[0] for one in (text, "short")]

    assert asyncio.run(main()) == [429, 200]


@pytest.mark.parametrize(("priority", "expected"), [(0, 5), (7, 7)])
def test_the_seventeenth_running_call_of_a_key_is_computed_among_documents(settings, monkeypatch, priority, expected):
    """As queries, many calls of one key would all be before the query of another key."""

    async def main():
        web, other = await new_key(settings, "web", max_priority=9), await new_key(settings, "other")
        async with gateway_at(**settings) as (url, gateway), aiohttp.ClientSession() as session:
            begun, asked = asyncio.Queue(), []

            async def compute(_, call, *__):
                begun.put_nowait(call)
                await asyncio.Event().wait()

            engine = await gateway.engines.current()
            monkeypatch.setattr(type(engine.pipeline), "embed", compute)
            calls = []
            for key in [web] * 17 + [other]:
                more = {"priority": priority} if key is web else {}
                asked.append(asyncio.create_task(embed(session, url, key, **more)))
                calls.append(await asyncio.wait_for(begun.get(), 30))
            for one in asked:
                one.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            await asyncio.wait_for(gateway.queue.finished(), 30)
            return [(call.is_interactive, call.priority) for call in calls]

    assert asyncio.run(main()) == [(True, priority)] * 16 + [(False, expected), (True, 0)]
