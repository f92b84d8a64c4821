"""Outcomes and events for operators: what is known of a call that fails, shared texts, failovers, failing stores."""

import asyncio
import contextlib
import dataclasses
import uuid

import pytest

from api_servers import KEY, CohereRerankServer
from embedway import AsyncEmbedder, Config
from embedway.errors import (
    DeadlineError,
    EmbedwayError,
    InputError,
    LedgerError,
    UnavailableError,
    UnknownModelError,
    UpstreamError,
)
from embedway.ledger.sqlite_pins import SqlitePins
from embedway.telemetry.hooks import BaseHook
from embedway.telemetry.operations import (
    AttemptDetails,
    BatchDetails,
    CostDetails,
    FailoverDetails,
    LoadDetails,
    RequestDetails,
    StoreErrorDetails,
    WaitDetails,
)
from inside import client_of, routes_of, set_failures, set_faults, set_time, settle

NAME = "acme/m"
TEXTS = ["one two three", "four five"]


class Recording(BaseHook):
    """Hook that records what it receives."""

    def __init__(self):
        self.begun, self.outcomes, self.events = [], {}, []

    def begin(self, operation):
        self.begun.append(operation)

    def end(self, operation, outcome):
        self.outcomes[operation.id] = dataclasses.replace(outcome)

    def event(self, operation):
        self.events.append(operation)

    def of(self, details, **facts):
        found = [one for one in [*self.begun, *self.events] if isinstance(one.details, details)]
        return [one for one in found if facts.items() <= dataclasses.asdict(one.details).items()]

    def ended(self, details=RequestDetails, **facts):
        """Return the outcomes of the operations with these details, in the order in which they began."""
        return [self.outcomes.get(one.id) for one in self.of(details, **facts)]

    @property
    def waiting(self):
        return [one.details.reason for one in self.of(WaitDetails) if one.id not in self.outcomes]


def settings(**overrides):
    return Config.load(
        environ={},
        overrides={
            "models.m": {"name": NAME, "dimensions": 16, "max_tokens": 50, "price_usd_per_million_tokens": "1"},
            "routes.r": {"model": NAME, "provider": "fake", "options": {"max_inputs": "8"}},
            "embedding.default_model": NAME,
            "upstream.first_wait_s": 0.001,
            "upstream.longest_wait_s": 0.001,
            "ledger.backend": "none",
            "cache.backend": "memory",
            **overrides,
        },
    )


@contextlib.asynccontextmanager
async def opened(hook, config):
    """Open an embedder and its model, whose retries take no time."""
    async with AsyncEmbedder(config=config, hooks=[hook]) as embedder:
        await embedder.models.describe(NAME)
        set_time(client_of(embedder), asyncio.get_running_loop().time, sleep=lambda _seconds: asyncio.sleep(0))
        for route in routes_of(embedder, NAME):
            set_failures(route.circuit, 1_000_000)
        yield embedder


def run(work, **overrides):
    """Run work with an embedder, and return its hook. Every operation must end."""
    hook = Recording()

    async def main():
        async with opened(hook, settings(**overrides)) as embedder:
            await work(embedder, hook)

    asyncio.run(asyncio.wait_for(main(), 60))
    assert [one.id for one in hook.begun if one.id not in hook.outcomes] == []
    return hook


def fail(embedder, *errors, route=0):
    """Fail the next requests with these errors."""
    provider = routes_of(embedder, NAME)[route].provider
    first = len(provider.calls)
    set_faults(provider, lambda number, _texts: dict(enumerate(errors, first)).get(number))


def hold(embedder):
    """Make requests wait for the returned event."""
    gate, provider = asyncio.Event(), routes_of(embedder, NAME)[0].provider
    embed = provider.embed

    async def held(texts, **options):
        await gate.wait()
        return await embed(texts, **options)

    provider.embed = held
    return gate


def billed(route="routes.r"):
    return UpstreamError("it failed", route=route, status=500, billed=True)


def unavailable(route="routes.r", **facts):
    return UnavailableError("it failed", route=route, status=503, **facts)


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - no event signals it
            await asyncio.sleep(0)


# ------------------------------------------------------------------------------ requests


def test_a_request_has_all_facts_of_its_receipt():
    async def work(embedder, _hook):
        await embedder.embed(["kept", "kept too"])
        await embedder.embed(["kept", "new", "new", "word " * 90])

    first, second = run(work).ended()
    assert (first.unique_texts, first.truncations, first.shared) == (2, 0, 0)
    assert (first.cache_hits, first.saved_nanousd, first.failures) == (0, 0, 0)
    assert (second.unique_texts, second.truncations, second.shared) == (3, 1, 0)
    assert (second.cache_hits, second.failures, second.dimensions) == (1, 0, 16)
    assert second.saved_nanousd > 0
    assert second.cost_nanousd > first.cost_nanousd > 0


def test_a_request_without_a_model_names_the_one_that_it_chose_even_if_it_fails():
    async def work(embedder, hook):
        await embedder.embed(TEXTS)
        fail(embedder, *[billed()] * 9)
        with pytest.raises(UpstreamError):
            await embedder.embed(["other"])
        set_faults(routes_of(embedder, NAME)[0].provider, lambda _number, _texts: None)
        with pytest.raises(InputError):
            await embedder.embed([""])
        hold(embedder)
        with pytest.raises(DeadlineError):
            await embedder.embed(["late"], deadline_s=0.01)
        task = asyncio.create_task(embedder.embed(["cancelled"]))
        await until(lambda: len(hook.of(AttemptDetails, texts=1)) == 3)
        task.cancel()
        await asyncio.wait([task])

    hook = run(work, **{"upstream.max_attempts": 2})
    assert [one.details.model for one in hook.of(RequestDetails)] == ["auto"] * 5
    ended = hook.ended()
    assert [one.model for one in ended] == [NAME] * 5
    assert [one.error for one in ended] == [None, "UpstreamError", "InputError", "DeadlineError", "CancelledError"]


def test_a_name_that_is_no_model_is_not_in_the_outcome():
    async def work(embedder, _hook):
        with pytest.raises(UnknownModelError):
            await embedder.embed(TEXTS, model="nobody/nothing")

    (ended,) = run(work).ended()
    assert ended.model is None


def test_a_request_that_fails_has_its_texts_its_hits_and_its_cost():
    async def work(embedder, _hook):
        await embedder.embed(["kept"])
        fail(embedder, *[unavailable(billed=True)] * 9)
        with pytest.raises(UnavailableError):
            await embedder.embed(["kept", "one two three", "one two three"])

    hook = run(work, **{"upstream.max_attempts": 2})
    failed = hook.ended()[1]
    costs = [one.details.nanousd for one in hook.of(CostDetails, source="unsure")]
    assert (failed.unique_texts, failed.cache_hits, failed.billed_tokens) == (2, 1, 0)
    assert failed.cost_nanousd == sum(costs) > 0
    # One for each of two attempts.
    assert len(costs) == 2


def test_a_request_whose_texts_fail_alone_counts_them():
    async def work(embedder, _hook):
        await embedder.embed(["a", "", "b"], partial=True)

    (ended,) = run(work).ended()
    assert (ended.failures, ended.unique_texts, ended.error) == (1, 2, None)


def test_backups_that_fail_too_add_their_cost():
    async def work(embedder, _hook):
        await embedder.models.describe("acme/n")
        for name in (NAME, "acme/n"):
            set_faults(routes_of(embedder, name)[0].provider, lambda _number, _texts: billed("routes.s"))
        with pytest.raises(EmbedwayError):
            await embedder.embed(["one two"], backup=["acme/n"])

    other = {"name": "acme/n", "dimensions": 16, "max_tokens": 50, "price_usd_per_million_tokens": "1"}
    hook = run(work, **{"models.n": other, "routes.s": {"model": "acme/n", "provider": "fake"}})
    (ended,) = hook.ended()
    costs = [one.details for one in hook.of(CostDetails)]
    assert {one.model for one in costs} == {NAME, "acme/n"}
    assert ended.cost_nanousd == sum(one.nanousd for one in costs)
    assert (ended.model, ended.unique_texts) == (NAME, 1)


@pytest.mark.parametrize("fails", [False, True])
def test_a_call_of_a_reranker_has_the_facts_of_a_call_that_embeds(fails):
    hook = Recording()

    async def main():
        server = CohereRerankServer()
        async with server.running():
            own = {"model": "rerank-v3.5", "provider": "cohere", "base_url": server.url, "api_key": KEY}
            overrides = {"routes.r": own, "rerank.default_model": "rerank-v3.5", "upstream.max_attempts": 1}
            async with AsyncEmbedder(config=Config.load(environ={}, overrides=overrides), hooks=[hook]) as embedder:
                if fails:
                    server.misdeeds = ["down"]
                    server.answer = lambda _body: 1 / 0
                    with pytest.raises(EmbedwayError):
                        await embedder.rerank("a question", ["one", "two", "two"])
                else:
                    await embedder.rerank("a question", ["one", "two", "two"])

    asyncio.run(main())
    (ended,) = hook.ended()
    assert (ended.model, ended.unique_texts) == ("rerank-v3.5", 2)
    assert (ended.error is None) is not fails
    assert ended.cost_nanousd == sum(one.details.nanousd for one in hook.of(CostDetails))
    if not fails:
        assert (ended.truncations, ended.failures, ended.saved_nanousd) == (0, 0, 0)
        assert ended.cost_nanousd > 0


# -------------------------------------------------------------------------- shared texts


def test_a_call_waits_for_texts_that_another_call_computes():
    async def work(embedder, hook):
        gate = hold(embedder)
        first = asyncio.create_task(embedder.embed(["same"]))
        await until(lambda: hook.of(AttemptDetails))
        others = [asyncio.create_task(embedder.embed(["same"])) for _ in range(2)]
        await until(lambda: hook.waiting == ["shared"] * 2)
        others[1].cancel()
        await asyncio.wait(others[1:])
        assert hook.waiting == ["shared"]
        gate.set()
        await asyncio.gather(first, others[0])

    hook = run(work)
    assert len(hook.of(AttemptDetails)) == 1
    own, shared, cancelled = hook.ended()
    assert [(one.shared, one.cache_hits) for one in (own, shared)] == [(0, 0), (1, 0)]
    assert shared.cost_nanousd == 0
    assert shared.saved_nanousd > 0
    assert (cancelled.error, cancelled.shared, cancelled.unique_texts) == ("CancelledError", None, 1)
    assert [one.error for one in hook.ended(WaitDetails)] == [None, "CancelledError"]
    requests = hook.of(RequestDetails)
    assert [one.parent for one in hook.of(WaitDetails)] == [one.id for one in requests[1:]]


def test_a_text_that_another_process_computes_is_shared(valkey):
    """Each embedder has its own connection to the cache, like another process."""
    first_hook, hook = Recording(), Recording()
    config = settings(**{"cache.backend": "redis", "cache.url": valkey, "cache.namespace": uuid.uuid4().hex})

    async def main():
        async with opened(first_hook, config) as first, opened(hook, config) as second:
            gate = hold(first)
            computing = asyncio.create_task(first.embed(["same"]))
            await until(lambda: first_hook.of(AttemptDetails))
            waiting = asyncio.create_task(second.embed(["same"]))
            await until(lambda: hook.waiting == ["lease"])
            gate.set()
            await asyncio.gather(computing, waiting)
            await settle(first)

    asyncio.run(asyncio.wait_for(main(), 60))
    (ended,) = hook.ended()
    assert (ended.shared, ended.cache_hits, ended.cost_nanousd) == (1, 0, 0)
    assert not hook.of(AttemptDetails)
    assert [one.error for one in hook.ended(WaitDetails, reason="lease")] == [None]


# -------------------------------------------------------------------- batches, failovers


def test_batches_have_tokens_and_the_tokens_with_padding(default_model_directory, tmp_path):
    hook = Recording()
    own = {"weights.directory": str(default_model_directory), "tune.directory": str(tmp_path / "tune")}

    async def main():
        config = Config.load(environ={}, overrides={**own, "cache.backend": "none"})
        async with AsyncEmbedder(config=config, hooks=[hook]) as embedder:
            receipt = (await embedder.embed(["short", "a longer text of some words"])).receipt
            await asyncio.gather(*(embedder.embed("word " * (number + 1)) for number in range(20)))
            return receipt

    receipt = asyncio.run(main())
    batches = [one.details for one in hook.of(BatchDetails)]
    assert all(one.tokens <= one.padded_tokens for one in batches)
    assert sum(one.tokens for one in batches) == sum(one.tokens for one in hook.ended())
    first = [one.details for one in hook.of(BatchDetails) if one.parent == hook.of(RequestDetails)[0].id]
    assert sum(one.tokens for one in first) == receipt.tokens
    (load,) = hook.of(LoadDetails)
    assert hook.outcomes[load.id].model == receipt.model


def test_batches_of_a_service_have_no_padding():
    async def work(embedder, _hook):
        await embedder.embed(TEXTS)

    (batch,) = run(work).of(BatchDetails)
    assert batch.details.padded_tokens is None


def test_each_failover_is_an_event():
    async def work(embedder, _hook):
        fail(embedder, *[unavailable()] * 99)
        await embedder.embed(TEXTS)
        await embedder.embed(["other"])

    hook = run(work, **{"routes.s": {"model": NAME, "provider": "fake", "same_space": True}})
    events = hook.of(FailoverDetails)
    assert [one.details for one in events] == [
        FailoverDetails(NAME, "routes.r", "routes.s", 2, "UnavailableError"),
        FailoverDetails(NAME, "routes.r", "routes.s", 1, "UnavailableError"),
    ]
    assert [one.parent for one in events] == [one.id for one in hook.of(BatchDetails)]


def test_a_route_that_is_skipped_is_a_failover_too():
    async def work(embedder, _hook):
        set_failures(routes_of(embedder, NAME)[0].circuit, 1)
        fail(embedder, *[unavailable()] * 99)
        await embedder.embed(["first"])
        await embedder.embed(["second"])

    hook = run(work, **{"routes.s": {"model": NAME, "provider": "fake", "same_space": True}})
    _, skipped = hook.of(FailoverDetails)
    assert skipped.details == FailoverDetails(NAME, "routes.r", "routes.s", 1, "UpstreamError")
    assert len(hook.of(AttemptDetails, route="routes.r")) == 1


# ------------------------------------------------------------------------ failing stores


def test_a_cache_that_fails_is_reported():
    hook = Recording()

    async def main():
        # Nothing listens on this port.
        config = settings(**{"cache.backend": "redis", "cache.url": "redis://127.0.0.1:1"})
        async with opened(hook, config) as embedder:
            await embedder.embed(TEXTS)

    asyncio.run(main())
    failures = [one.details for one in hook.of(StoreErrorDetails)]
    assert failures
    assert {one.store for one in failures} == {"cache"}
    # The later ones are skipped, because the first one failed a moment ago.
    assert {"read", "write"} <= {one.action for one in failures}
    assert {one.error for one in failures} == {"unreachable 111"}


def test_pins_that_fail_are_reported(monkeypatch):
    async def failing(_self, *_arguments):
        raise LedgerError("the disk is full")

    monkeypatch.setattr(SqlitePins, "claim", failing)

    async def work(embedder, _hook):
        with pytest.raises(LedgerError):
            await embedder.embed(TEXTS, collection="docs")

    hook = run(work)
    assert [one.details for one in hook.of(StoreErrorDetails)] == [StoreErrorDetails("pins", "claim", "LedgerError")]
    (ended,) = hook.ended()
    assert (ended.model, ended.error) == (NAME, "LedgerError")
