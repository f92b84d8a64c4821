"""Tenants of one cache: entries, flights and leases of one are never another's."""

import asyncio
import contextlib
import itertools

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedway import AsyncEmbedder, Config
from embedway.cache import vector_cache
from embedway.cache.base import Group
from embedway.cache.key import KeyMaker
from embedway.cache.vector_cache import namespace_of
from embedway.errors import ConfigError
from embedway.pipeline.request import Call
from embedway.selection.call_options import CallOptions
from embedway.types import Space
from inside import cache_of, counters_of, engine_of, open_model, provider_of, set_delay, settle

MODEL = {"name": "acme/m", "dimensions": 16, "max_tokens": 20, "price_usd_per_million_tokens": "1"}
ROUTE = {"model": "acme/m", "provider": "fake", "options": {"width": "16", "max_inputs": "4"}}
BACKENDS = ["memory", "sqlite", "redis", "redis keyed", "memory over sqlite", "memory over redis"]
_numbers = itertools.count()


def config_for(backend, place, url, **more):
    store = backend.rpartition(" over ")[2].split()[0]
    overrides = {
        "models.m": MODEL,
        "routes.r": ROUTE,
        "cache.backend": store,
        "cache.path": str(place / "v.sqlite"),
        "cache.tiered": " over " in backend,
        "ledger.backend": "none",
        **({"cache.url": url} if store == "redis" else {}),
        **({"cache.secret": "correct-horse-battery-staple"} if "keyed" in backend else {}),
        **more,
    }
    return Config.load(environ={}, overrides=overrides)


@pytest.fixture(params=BACKENDS)
def config(request, tmp_path):
    url = request.getfixturevalue("valkey") if "redis" in request.param else ""
    if url:
        with contextlib.closing(redis.Redis.from_url(url)) as client:
            client.flushall()
    return config_for(request.param, tmp_path, url)


async def embed(embedder, tenant, texts):
    """Embed as the gateway does. Return the result."""
    call = Call(texts, model="acme/m")
    return await engine_of(embedder).pipeline.embed(call, CallOptions(tenant=tenant))


async def plan(embedder, tenant, texts):
    call = Call(texts, model="acme/m")
    return await engine_of(embedder).pipeline.plan(call, CallOptions(tenant=tenant))


TEXTS = st.lists(st.sampled_from([f"text {n}" for n in range(5)]), min_size=1, max_size=5)
CALLS = st.lists(st.tuples(st.sampled_from(["", "acme", "acme2", "b"]), TEXTS), min_size=1, max_size=6)


@pytest.mark.parametrize("backend", BACKENDS)
@given(st.lists(CALLS, min_size=1, max_size=3))
@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_tenant_hits_only_its_own_entries_and_shares_only_its_own_flights(backend, tmp_path, valkey, rounds):
    # A separate namespace acts as an empty cache.
    config = config_for(backend, tmp_path, valkey, **{"cache.namespace": f"t{next(_numbers)}"})

    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            await open_model(embedder)
            known = set()
            for calls in rounds:
                # Concurrent calls of one round may share flights.
                sent = len(provider_of(embedder).calls)
                results = await asyncio.gather(*(embed(embedder, tenant, texts) for tenant, texts in calls))
                new = {(tenant, text) for tenant, texts in calls for text in texts} - known
                computed = [text for call in provider_of(embedder).calls[sent:] for text in call]
                # Each tenant's text is computed exactly once for this tenant, and never for another.
                assert sorted(computed) == sorted(text for _, text in new)
                await settle(embedder)
                for (tenant, texts), result in zip(calls, results, strict=True):
                    own = {(tenant, text) for text in texts}
                    assert result.receipt.cache_hits <= len(own)
                    if not own & known:
                        others = {text for other, texts in calls if other == tenant for text in texts}
                        assert result.receipt.cache_hits <= len(own & {(tenant, text) for text in others})
                known |= new

    asyncio.run(main())


def test_concurrent_calls_of_two_tenants_share_no_flight(config):
    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            await open_model(embedder)
            set_delay(embedder, 0.05)
            results = await asyncio.gather(*(embed(embedder, tenant, ["one text"]) for tenant in ("a", "b", "a", "")))
            return results, counters_of(embedder).shared, provider_of(embedder).calls

    results, shared, calls = asyncio.run(main())
    assert sum(len(call) for call in calls) == 3
    assert shared == 1
    assert [one.receipt.cost_nanousd > 0 for one in results].count(True) == 3


def test_hits_plans_and_clear_are_those_of_one_tenant(config):
    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            await embed(embedder, "acme", ["a", "b"])
            await embed(embedder, "", ["a"])
            await settle(embedder)
            hits = [(await embed(embedder, tenant, ["a", "b"])).receipt.cache_hits for tenant in ("acme", "", "other")]
            await settle(embedder)
            missing = [(await plan(embedder, tenant, ["a", "b", "c"])).cached_texts for tenant in ("acme", "new", "")]
            sizes = {size.group.namespace: size.entries for size in await cache_of(embedder).store.group_sizes()}
            cleared = await embedder.cache.clear(namespace="@acme/")
            after = [(await plan(embedder, tenant, ["a", "b", "c"])).cached_texts for tenant in ("acme", "other", "")]
            return hits, missing, sizes, (cleared.before, cleared.after), after

    hits, planned, sizes, cleared, after = asyncio.run(main())
    assert hits == [2, 1, 0]
    assert planned == [2, 0, 2]
    assert sizes == {"": 2, "@acme/": 2, "@other/": 2}
    assert cleared == (2, 0)
    assert after == [0, 2, 2]


def test_no_setting_is_the_namespace_of_a_tenant():
    with pytest.raises(ConfigError, match="must not begin with @, which begins the namespaces of the gateway's"):
        Config.load(environ={}, overrides={"cache.namespace": "@acme/"})
    names = {namespace_of(tenant, own) for tenant in ("", "a", "a.b", "b") for own in ("", "a", "a/b", "b/", "/")}
    assert len(names) == 20


@given(
    st.lists(st.tuples(st.text("ab.", max_size=3), st.text("ab/.", max_size=3)), min_size=2, max_size=2, unique=True)
)
def test_namespaces_and_keys_of_two_tenants_differ(pairs):
    made = [namespace_of(tenant, namespace) for tenant, namespace in pairs]
    assert made[0] != made[1]
    space = Space("m", "1", 4, "mean", normalized=True)
    options = {"variant": "", "input_type": "document", "on_overflow": "truncate", "max_tokens": 8}
    keys = [KeyMaker(space, **options, namespace=one).keys(["x"]) for one in made]
    assert keys[0] != keys[1]
    assert len({Group("m", space.id, one).id for one in made}) == 2


def test_the_tenants_in_memory_are_bounded_and_any_can_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_cache, "_MOST_TENANTS", 3)

    async def main():
        async with AsyncEmbedder(config=config_for("memory", tmp_path, "")) as embedder:
            model, cache = await open_model(embedder), cache_of(embedder)
            first = cache.wrap(model, "t0")
            for number in range(1, 3):
                cache.wrap(model, f"t{number}")
            assert cache.wrap(model, "t0") is first
            cache.wrap(model, "t3")  # drops t1, which was used least recently
            assert cache.wrap(model, "t0") is first
            assert cache.wrap(model) is cache.wrap(model)
            await asyncio.gather(*(embed(embedder, f"t{number}", ["a"]) for number in range(20)))
            results = [await embed(embedder, f"t{number}", ["a"]) for number in range(20)]
            assert len(cache._tenants) == 3  # noqa: SLF001  the bound
            return [result.receipt.cache_hits for result in results]

    assert asyncio.run(main()) == [1] * 20
