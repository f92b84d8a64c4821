"""Operations that an embedder reports to its hooks: each kind, its parent, and its outcome."""

import asyncio
import contextlib
import dataclasses

import numpy as np
import pytest

from api_servers import KEY, CohereRerankServer, OpenAIServer
from embedway import AsyncEmbedder, Config
from embedway.errors import (
    BadVectorsError,
    BudgetExceededError,
    DeadlineError,
    RefusedInputError,
    UnavailableError,
    UnknownModelError,
    UnsupportedModelError,
    UpstreamError,
)
from embedway.money import usd
from embedway.providers.base import RateState
from embedway.telemetry.hooks import BaseHook, current_operation
from embedway.telemetry.operations import (
    AttemptDetails,
    BatchDetails,
    BudgetRefusalDetails,
    CacheDetails,
    CircuitDetails,
    LoadDetails,
    RequestDetails,
    ReservationDetails,
    ValidationDetails,
    WaitDetails,
)
from embedway.types import Timing
from inside import cache_of, client_of, places_of, routes_of, set_failures, set_faults, set_time, settle

NAME = "acme/m"
TEXTS = ["one two three", "four five"]
MINIATURE = "sentence-transformers/all-MiniLM-L6-v2"


class Recording(BaseHook):
    """Hook that records its calls, and finds operations in them."""

    def __init__(self):
        self.begun, self.entered, self.left, self.events = [], [], [], []
        #: Copies, because a hook must not retain an outcome.
        self.outcomes = {}

    def begin(self, operation):
        self.begun.append(operation)

    @contextlib.contextmanager
    def context(self, operation):
        self.entered.append(operation.id)
        yield
        self.left.append(operation.id)

    def end(self, operation, outcome):
        assert operation.id not in self.outcomes
        self.outcomes[operation.id] = dataclasses.replace(outcome)

    def event(self, operation):
        self.events.append(operation)

    def of(self, details, **facts):
        """Return the operations with these details, in the order in which they began."""
        return [
            one
            for one in self.begun
            if isinstance(one.details, details)
            and all(getattr(one.details, name) == value for name, value in facts.items())
        ]

    def one(self, details, **facts):
        (found,) = self.of(details, **facts)
        return found

    def ended(self, operation):
        return self.outcomes[operation.id]

    def errors(self, operations):
        return [self.ended(one).error for one in operations]

    def check(self):
        """Check that each operation ended once, in its context, and that its parent began earlier."""
        ids = [one.id for one in self.begun]
        assert sorted(ids) == sorted(self.outcomes) == sorted(self.entered) == sorted(self.left)
        assert all(outcome.duration_s >= 0 for outcome in self.outcomes.values())
        known = set()
        for one in sorted([*self.begun, *self.events], key=lambda one: one.id):
            assert {one.parent, *one.links} <= known | {None}
            known.add(one.id)


def settings(**overrides):
    return Config.load(
        environ={},
        overrides={
            "models.m": {"name": NAME, "dimensions": 16, "max_tokens": 50, "price_usd_per_million_tokens": "1"},
            "routes.r": {"model": NAME, "provider": "fake", "options": {"max_inputs": "8"}},
            "upstream.first_wait_s": 0.001,
            "upstream.longest_wait_s": 0.001,
            "ledger.backend": "none",
            "cache.backend": "none",
            **overrides,
        },
    )


class Time:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.now += seconds
        await asyncio.sleep(0)


class Fixture:
    """Embedder with a fake service that waits or fails on command."""

    def __init__(self, embedder, hook):
        self.embedder, self.hook = embedder, hook
        self.gate = asyncio.Event()
        self.gate.set()
        # A retry depends on the time that the failed attempt took.
        self.time = Time()
        client = client_of(embedder)
        set_time(client, self.time, sleep=self.time.sleep, chance=lambda: 0.0)

    def embed(self, texts=TEXTS, **options):
        return self.embedder.embed(texts, **{"model": NAME} | options)

    def start(self, texts=TEXTS, **options):
        return asyncio.create_task(self.embed(texts, **options))

    @property
    def routes(self):
        return routes_of(self.embedder, NAME)

    def fail(self, *faults, route=0):
        """Fail the next calls with these faults, and no later ones."""
        provider = self.routes[route].provider
        first = len(provider.calls)
        set_faults(provider, lambda number, _texts: dict(enumerate(faults, first)).get(number))

    async def hold(self):
        """Open the model, and make its calls wait for the gate."""
        await self.embedder.models.describe(NAME)
        self.gate.clear()
        provider = self.routes[0].provider
        embed = provider.embed

        async def held(texts, **options):
            await self.gate.wait()
            return await embed(texts, **options)

        provider.embed = held


async def until(condition):
    """Run other tasks until the condition is true."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - no event signals it
            await asyncio.sleep(0)


def run(work, config=None, **overrides):
    """Run work with an embedder, and return its hook with the records."""
    hook = Recording()

    async def main():
        async with AsyncEmbedder(config=config or settings(**overrides), hooks=[hook]) as embedder:
            await work(Fixture(embedder, hook))
        assert current_operation.get() is None

    asyncio.run(asyncio.wait_for(main(), 60))
    hook.check()
    return hook


def here(default_model_directory, tmp_path, **overrides):
    """Return settings for the local default model."""
    own = {"weights.directory": str(default_model_directory), "tune.directory": str(tmp_path / "tune")}
    return Config.load(environ={}, overrides={**own, "cache.backend": "none", **overrides})


def unavailable():
    return UnavailableError("it failed", route="routes.r", status=503)


# ------------------------------------------------------------------------------ requests


def test_a_request_begins_and_ends_once_with_the_facts_of_its_receipt():
    receipts = []

    async def work(fixture):
        first = await fixture.embed()
        second = await fixture.embed(input_type="query", collection="docs", dimensions=16)
        receipts.extend([first.receipt, second.receipt])

    hook = run(work, **{"cache.backend": "memory"})
    first, second = hook.of(RequestDetails)
    assert first.details == RequestDetails("embed", NAME, 2, "document", "")
    assert second.details == RequestDetails("embed", NAME, 2, "query", "docs")
    assert (first.parent, second.parent) == (None, None)
    for one, receipt in zip((first, second), receipts, strict=True):
        ended = hook.ended(one)
        assert (ended.error, ended.failures, ended.dimensions) == (None, 0, 16)
        assert (ended.model, ended.routes, ended.attempts) == (NAME, ("routes.r",), 1)
        assert (ended.tokens, ended.billed_tokens) == (receipt.tokens, receipt.billed_tokens)
        assert (ended.cost_nanousd, ended.cache_hits) == (receipt.cost_nanousd, 0)
        assert receipt.cost_nanousd > 0


@pytest.mark.parametrize(
    ("texts", "options", "error"),
    [(["a", ""], {}, "InputError"), (TEXTS, {"model": "nobody/nothing"}, UnknownModelError.__name__)],
)
def test_a_request_that_is_wrong_ends_with_the_errors_name(texts, options, error):
    async def work(fixture):
        with pytest.raises(Exception) as caught:
            await fixture.embed(texts, **options)
        assert type(caught.value).__name__ == error

    hook = run(work)
    request = hook.one(RequestDetails)
    assert hook.ended(request).error == error
    assert hook.ended(request).tokens is None
    assert not hook.of(BatchDetails)


def test_a_partial_request_reports_how_many_of_its_texts_failed():
    async def work(fixture):
        result = await fixture.embed(["a", "", "b"], partial=True)
        assert list(result.errors) == [1]

    hook = run(work)
    assert hook.ended(hook.one(RequestDetails)).failures == 1
    assert hook.one(BatchDetails).details.texts == hook.one(ValidationDetails).details.texts == 2


def test_a_cancelled_request_ends_all_its_operations():
    async def work(fixture):
        await fixture.hold()
        task = fixture.start()
        await until(lambda: fixture.hook.of(AttemptDetails))
        task.cancel()
        await asyncio.wait([task])
        ended = fixture.hook.outcomes
        assert len(ended) == len(fixture.hook.begun)

    hook = run(work, **{"cache.backend": "memory"})
    for details in (RequestDetails, BatchDetails, AttemptDetails):
        assert hook.ended(hook.one(details)).error == "CancelledError"
    assert hook.ended(hook.one(CacheDetails)).error is None
    assert not hook.of(ValidationDetails)


def test_a_request_whose_time_is_up_ends_with_the_error_that_its_caller_gets():
    async def work(fixture):
        await fixture.hold()
        with pytest.raises(DeadlineError):
            await fixture.embed(deadline_s=0.01)

    hook = run(work)
    assert hook.ended(hook.one(RequestDetails)).error == "DeadlineError"
    assert hook.errors(hook.of(BatchDetails)) == ["CancelledError"]


def test_reranking_is_a_request_with_a_batch_of_its_own():
    hook = Recording()

    async def main():
        server = CohereRerankServer()
        async with server.running():
            own = {"model": "rerank-v3.5", "provider": "cohere", "base_url": server.url, "api_key": KEY}
            config = Config.load(environ={}, overrides={"routes.r": own})
            async with AsyncEmbedder(config=config, hooks=[hook]) as embedder:
                await embedder.rerank("a question", TEXTS, model="rerank-v3.5", collection="docs")

    asyncio.run(main())
    hook.check()
    request, batch, attempt = hook.one(RequestDetails), hook.one(BatchDetails), hook.one(AttemptDetails)
    assert request.details == RequestDetails("rerank", "rerank-v3.5", 2, None, "docs")
    ended = hook.ended(request)
    assert (ended.model, ended.routes, ended.failures, ended.error) == ("rerank-v3.5", ("routes.r",), 0, None)
    assert (batch.parent, batch.details.texts, batch.details.model) == (request.id, 2, "rerank-v3.5")
    assert (attempt.parent, attempt.details.model) == (batch.id, "rerank-v3.5")
    assert hook.one(LoadDetails).parent == hook.one(ReservationDetails).parent == request.id
    assert hook.one(ValidationDetails).parent == attempt.id
    assert not hook.of(CacheDetails)


# --------------------------------------------------------------------------------- loads


def test_a_model_is_loaded_once_for_the_request_that_came_first():
    async def work(fixture):
        await asyncio.gather(fixture.embed(), fixture.embed(["six"]))
        await fixture.embed(["seven"])

    hook = run(work)
    load = hook.one(LoadDetails)
    assert load.details == LoadDetails(NAME)
    assert load.parent == hook.of(RequestDetails)[0].id
    assert hook.ended(load).error is None


def test_a_model_that_cannot_be_loaded_ends_its_load_with_the_error(tmp_path):
    async def work(fixture):
        with pytest.raises(UnsupportedModelError):
            await fixture.embedder.models.describe(str(tmp_path))

    hook = run(work)
    load = hook.one(LoadDetails)
    assert (load.parent, hook.ended(load).error) == (None, "UnsupportedModelError")


# --------------------------------------------------------------------------------- cache


def test_a_miss_is_looked_up_and_stored_and_a_hit_has_no_batch():
    async def work(fixture):
        await fixture.embed()
        await settle(fixture.embedder)
        before = len(fixture.hook.begun)
        await fixture.embed([*TEXTS, TEXTS[0]])
        hit = fixture.hook.begun[before:]
        assert [type(one.details) for one in hit] == [RequestDetails, CacheDetails]
        assert fixture.hook.ended(hit[0]).cache_hits == 2
        await fixture.embed(["six", *TEXTS])

    hook = run(work, **{"cache.backend": "memory"})
    requests = [one.id for one in hook.of(RequestDetails)]
    lookups, stores = hook.of(CacheDetails, action="lookup"), hook.of(CacheDetails, action="store")
    assert [one.parent for one in lookups] == requests
    assert [(one.details.model, one.details.texts) for one in lookups] == [(NAME, 2), (NAME, 2), (NAME, 3)]
    assert [hook.ended(one).cache_hits for one in lookups] == [0, 2, 2]
    assert [(one.parent, one.links, one.details.texts) for one in stores] == [
        (requests[0], (), 2),
        (requests[2], (), 1),
    ]
    assert [one.parent for one in hook.of(BatchDetails)] == [requests[0], requests[2]]
    assert len(hook.of(AttemptDetails)) == len(stores)


def test_a_store_of_several_requests_vectors_belongs_to_the_first_and_is_linked_to_the_others():
    async def work(fixture):
        await fixture.hold()
        first = fixture.start(["a"])
        await until(lambda: fixture.hook.of(AttemptDetails))
        others = [fixture.start([text]) for text in "bcd"]
        await until(lambda: len(fixture.hook.of(WaitDetails, reason="scheduler")) == 3)
        fixture.gate.set()
        await asyncio.gather(first, *others)

    hook = run(work, **{"cache.backend": "memory", "upstream.concurrency": 1})
    first, *others = [one.id for one in hook.of(RequestDetails)]
    stores = hook.of(CacheDetails, action="store")
    # The three are answered together. A write that waits for more vectors includes the first caller's too.
    assert [(one.parent, *one.links) for one in stores] in ([(first, *others)], [(first,), tuple(others)])
    assert sum(one.details.texts for one in stores) == 4


def test_a_text_that_another_process_computes_is_waited_for(valkey, tmp_path):
    def config():
        cache = {"cache.backend": "redis", "cache.url": valkey, "cache.namespace": str(tmp_path)}
        return settings(**cache, **{"cache.lease_s": 600.0})

    async def work(fixture):
        cache = cache_of(fixture.embedder)
        async with AsyncEmbedder(config=config()) as another:
            other = Fixture(another, None)
            await other.hold()
            computing = other.start()
            await until(lambda: cache_of(another).writes is not None and places_of(other.routes[0].semaphore)[0])

            async def sleep(_seconds):
                other.gate.set()
                await computing
                await settle(another)

            cache.sleep = sleep
            result = await fixture.embed()
            np.testing.assert_array_equal(result.vectors, (await computing).vectors)

    hook = run(work, config())
    wait = hook.one(WaitDetails)
    assert (wait.details, wait.parent) == (WaitDetails("lease"), hook.one(RequestDetails).id)
    assert not hook.of(BatchDetails)


# ------------------------------------------------------------------------------- batches


def test_a_batch_of_several_callers_belongs_to_the_first_and_is_linked_to_the_others():
    async def work(fixture):
        await fixture.hold()
        first = fixture.start(["a"])
        await until(lambda: fixture.hook.of(AttemptDetails))
        others = [fixture.start([text, f"{text} again"]) for text in "bcd"]
        await until(lambda: len(fixture.hook.of(WaitDetails)) == 3)
        fixture.gate.set()
        await asyncio.gather(first, *others)

    hook = run(work, **{"upstream.concurrency": 1})
    first, *others = [one.id for one in hook.of(RequestDetails)]
    own, merged = hook.of(BatchDetails)
    assert (own.parent, own.links) == (first, ())
    assert (merged.parent, merged.links) == (others[0], tuple(others[1:]))
    assert merged.details.texts == 6
    assert (merged.details.model, merged.details.backend) == (NAME, "routes.r")
    assert [one.parent for one in hook.of(AttemptDetails)] == [own.id, merged.id]
    assert [(one.details, one.parent) for one in hook.of(WaitDetails)] == [
        (WaitDetails("scheduler", "routes.r"), other) for other in others
    ]


def test_a_caller_who_goes_while_it_waits_for_a_batch_ends_its_wait_and_is_no_part_of_it():
    async def work(fixture):
        await fixture.hold()
        first = fixture.start(["a"])
        await until(lambda: fixture.hook.of(AttemptDetails))
        leaving, staying = fixture.start(["b"]), fixture.start(["c"])
        await until(lambda: len(fixture.hook.of(WaitDetails)) == 2)
        leaving.cancel()
        await asyncio.wait([leaving])
        fixture.gate.set()
        await asyncio.gather(first, staying)

    hook = run(work, **{"upstream.concurrency": 1})
    requests = hook.of(RequestDetails)
    assert hook.errors(requests) == [None, "CancelledError", None]
    assert hook.errors(hook.of(WaitDetails)) == ["CancelledError", None]
    assert [(one.parent, one.links) for one in hook.of(BatchDetails)] == [(requests[0].id, ()), (requests[2].id, ())]


@pytest.mark.parametrize("across", [True, False])
@pytest.mark.parametrize("count", [1, 20])
def test_every_request_to_a_service_has_a_batch_whatever_its_size(across, count):
    async def work(fixture):
        await fixture.embed([f"text {number}" for number in range(count)])

    hook = run(work, **{"batching.across_callers": across})
    batch, attempts = hook.one(BatchDetails), hook.of(AttemptDetails)
    assert (batch.parent, batch.links) == (hook.one(RequestDetails).id, ())
    assert batch.details.texts == count
    assert [one.parent for one in attempts] == [batch.id] * -(-count // 8)
    assert sum(one.details.texts for one in attempts) == count
    assert sum(one.details.tokens for one in attempts) == batch.details.tokens > 0


@pytest.mark.parametrize("across", [True, False])
def test_batches_on_this_machine_belong_to_their_request(across, default_model_directory, tmp_path):
    async def work(fixture):
        await fixture.embed(["short", "a text " * 60], model="auto")

    hook = run(work, here(default_model_directory, tmp_path, **{"batching.across_callers": across}))
    request, batches = hook.one(RequestDetails), hook.of(BatchDetails)
    assert {(one.parent, one.links) for one in batches} == {(request.id, ())}
    assert sum(one.details.texts for one in batches) == 2
    assert sum(one.details.tokens for one in batches) >= hook.ended(request).tokens
    backend, model = "local:all-MiniLM-L6-v2", MINIATURE
    assert {(one.details.model, one.details.backend) for one in batches} == {(model, backend)}
    assert (hook.ended(request).model, hook.ended(request).routes) == (model, (backend,))
    assert not hook.of(AttemptDetails)


def test_callers_on_this_machine_are_merged_with_links(default_model_directory, tmp_path):
    async def work(fixture):
        await fixture.embedder.models.warm()
        await asyncio.gather(*(fixture.embed(f"text {number}", model="auto") for number in range(20)))

    hook = run(work, here(default_model_directory, tmp_path))
    requests, batches = [one.id for one in hook.of(RequestDetails)], hook.of(BatchDetails)
    merged = [one for one in batches if one.links]
    assert merged
    assert sorted([one.parent for one in batches] + [link for one in batches for link in one.links]) == requests
    assert all(one.details.texts == 1 + len(one.links) for one in batches)


# ------------------------------------------------------------------------------ attempts


def test_retries_are_attempts_of_one_batch_with_their_numbers():
    async def work(fixture):
        await fixture.embedder.models.describe(NAME)
        fixture.fail(unavailable(), unavailable())
        await fixture.embed()

    hook = run(work)
    batch, attempts = hook.one(BatchDetails), hook.of(AttemptDetails)
    assert [one.details.number for one in attempts] == [1, 2, 3]
    assert [one.parent for one in attempts] == [batch.id] * 3
    tokens = batch.details.tokens
    assert {dataclasses.replace(one.details, number=0) for one in attempts} == {
        AttemptDetails(NAME, "routes.r", 0, 2, tokens)
    }
    assert hook.errors(attempts) == ["UnavailableError", "UnavailableError", None]
    assert [hook.ended(one).billed_tokens for one in attempts] == [None, None, 5]
    waits = hook.of(WaitDetails)
    assert [(one.details, one.parent) for one in waits] == [(WaitDetails("retry", "routes.r"), batch.id)] * 2
    kinds = [type(one.details) for one in hook.begun if one.parent == batch.id]
    assert kinds == [AttemptDetails, WaitDetails] * 2 + [AttemptDetails]
    assert hook.ended(hook.one(RequestDetails)).attempts == 3


def test_a_failover_goes_on_counting_and_names_the_route_that_answers():
    async def work(fixture):
        await fixture.embedder.models.describe(NAME)
        fixture.fail(unavailable(), unavailable())
        await fixture.embed()

    second = {"model": NAME, "provider": "fake", "same_space": True}
    hook = run(work, **{"routes.s": second})
    attempts = hook.of(AttemptDetails)
    wanted = [(1, "routes.r"), (2, "routes.r"), (3, "routes.s")]
    assert [(one.details.number, one.details.route) for one in attempts] == wanted
    assert {one.parent for one in attempts} == {hook.one(BatchDetails).id}
    assert hook.one(ValidationDetails).details.route == "routes.s"
    assert hook.ended(hook.one(RequestDetails)).routes == ("routes.s",)


def test_an_error_of_all_attempts_is_in_each_outcome_up_to_the_request():
    async def work(fixture):
        await fixture.embedder.models.describe(NAME)
        fixture.fail(*[unavailable()] * 9)
        with pytest.raises(UnavailableError):
            await fixture.embed()

    hook = run(work, **{"upstream.max_attempts": 2})
    assert hook.errors(hook.of(AttemptDetails)) == ["UnavailableError"] * 2
    assert hook.errors([hook.one(BatchDetails), hook.one(RequestDetails)]) == ["UnavailableError"] * 2


def test_halves_of_what_is_refused_are_attempts_of_their_own():
    async def work(fixture):
        await fixture.embedder.models.describe(NAME)
        refused = RefusedInputError("no", route="routes.r")
        set_faults(fixture.routes[0].provider, lambda _number, texts: refused if "bad" in texts else None)
        result = await fixture.embed(["good", "better", "bad", "best"], partial=True)
        assert list(result.errors) == [2]

    hook = run(work)
    attempts = hook.of(AttemptDetails)
    assert sum(one.error == "RefusedInputError" for one in map(hook.ended, attempts)) >= 2
    assert {one.parent for one in attempts} == {hook.one(BatchDetails).id}
    # A refusal does not count as an attempt.
    assert {one.details.number for one in attempts} == {1}
    assert hook.ended(hook.one(RequestDetails)).failures == 1


# --------------------------------------------------------------------------------- waits


def test_a_wait_for_a_free_place_is_reported():
    async def work(fixture):
        await fixture.hold()
        first = fixture.start(["a"])
        await until(lambda: fixture.hook.of(AttemptDetails))
        second = fixture.start(["b"])
        await until(lambda: fixture.hook.of(WaitDetails))
        assert len(fixture.hook.of(AttemptDetails)) == 1
        fixture.gate.set()
        await asyncio.gather(first, second)

    hook = run(work, **{"upstream.concurrency": 1, "batching.across_callers": False})
    wait = hook.one(WaitDetails)
    assert (wait.details, wait.parent) == (WaitDetails("semaphore", "routes.r"), hook.of(BatchDetails)[1].id)
    assert hook.ended(wait).error is None


def test_parts_of_a_large_request_that_wait_for_each_other_are_reported():
    async def work(fixture):
        await fixture.hold()
        task = fixture.start([f"text {number}" for number in range(24)])
        await until(lambda: fixture.hook.of(AttemptDetails))
        await until(lambda: len(fixture.hook.of(WaitDetails)) == 2)
        fixture.gate.set()
        await task

    hook = run(work, **{"upstream.concurrency": 1})
    assert len(hook.of(AttemptDetails)) == 3
    waits = hook.of(WaitDetails)
    assert {(one.details, one.parent) for one in waits} == {
        (WaitDetails("semaphore", "routes.r"), hook.one(BatchDetails).id)
    }
    # The first of them gets a place at once.
    assert len(waits) == 2


def test_each_wait_for_a_rate_limit_is_reported_from_its_beginning():
    async def work(fixture):
        await fixture.embedder.models.describe(NAME)
        (route,) = fixture.routes
        time, slept = Time(), asyncio.Event()

        async def sleep(seconds):
            await slept.wait()
            await time.sleep(seconds)

        set_time(route.limiter, time, sleep=sleep)
        route.limiter.learn(RateState(requests_limit=60, requests_remaining=1))
        await fixture.embed(["a"])
        waiting = [fixture.start([text]) for text in "bc"]
        await until(lambda: len(fixture.hook.of(WaitDetails)) == 2)
        slept.set()
        await asyncio.gather(*waiting)
        assert time.now == pytest.approx(2)

    hook = run(work, **{"batching.across_callers": False})
    batches = hook.of(BatchDetails)
    assert [(one.details, one.parent) for one in hook.of(WaitDetails)] == [
        (WaitDetails("rate_limit", "routes.r"), one.id) for one in batches[1:]
    ]
    assert len(hook.of(AttemptDetails)) == 3


# ------------------------------------------------------------------------------ circuits


def test_a_circuit_that_opens_is_probed_and_closes_reports_each_change_once():
    async def work(fixture):
        await fixture.embedder.models.describe(NAME)
        (route,) = fixture.routes
        time = Time()
        set_time(route.circuit, time)
        set_failures(route.circuit, 2)
        fixture.fail(unavailable(), unavailable(), unavailable())

        async def fail():
            with pytest.raises(UpstreamError):
                await fixture.embed()

        for _ in range(3):
            await fail()  # two are sent; the third is not, because the circuit is open
        assert len(fixture.hook.of(AttemptDetails)) == 2
        time.now += 31
        await fail()  # the probe
        time.now += 31
        await fixture.hold()
        probe = fixture.start()
        await until(lambda: len(fixture.hook.of(AttemptDetails)) == 4)
        probe.cancel()  # it ends without an answer, so the next request is the probe
        await asyncio.wait([probe])
        fixture.gate.set()
        await fixture.embed()
        await fixture.embed(["more"])

    hook = run(work, **{"upstream.max_attempts": 1})
    events = [one for one in hook.events if isinstance(one.details, CircuitDetails)]
    assert [(one.details.before, one.details.after) for one in events] == [
        ("closed", "open"),
        ("open", "half-open"),
        ("half-open", "open"),
        ("open", "half-open"),
        ("half-open", "closed"),
    ]
    assert {one.details.route for one in events} == {"routes.r"}
    assert events[0].parent == hook.of(AttemptDetails)[1].id
    assert events[-1].parent == hook.of(AttemptDetails)[4].id
    assert events[1].parent == hook.of(BatchDetails)[3].id
    # A request that is not sent has a batch but no attempt.
    assert hook.errors(hook.of(BatchDetails)) == [
        "UnavailableError",
        "UnavailableError",
        "UpstreamError",
        "UnavailableError",
        "CancelledError",
        None,
        None,
    ]


# ------------------------------------------------------------------------ reservations


def test_a_refusal_belongs_to_the_reservation_and_the_next_calls_reserve_before_their_batch():
    async def work(fixture):
        await fixture.embed()
        for _ in range(2):
            with pytest.raises(BudgetExceededError):
                await fixture.embed(["six seven eight", "nine ten"])

    hook = run(work, **{"ledger.backend": "sqlite", "budgets.b": {"usd": usd(17_000)}})
    first, second, third = hook.of(RequestDetails)
    kept, refused, refused_first = hook.of(ReservationDetails)
    batch, other_batch = hook.of(BatchDetails)
    # Twice its estimated tokens.
    assert kept.details == ReservationDetails(NAME, batch.details.tokens * 2 * 1000)
    assert (kept.parent, refused.parent, refused_first.parent) == (first.id, second.id, third.id)
    assert (batch.parent, other_batch.parent) == (first.id, second.id)
    assert len(hook.of(AttemptDetails)) == 1
    assert hook.errors([kept, refused, second, third]) == [None, *["BudgetExceededError"] * 3]
    events = [one for one in hook.events if isinstance(one.details, BudgetRefusalDetails)]
    assert [(event.details.budget, event.parent) for event in events] == [("b", refused.id), ("b", refused_first.id)]


def test_an_attempt_that_no_money_is_left_for_is_none():
    async def work(fixture):
        await fixture.embedder.models.describe(NAME)
        fixture.fail(UnavailableError("it failed", route="routes.r", status=503, billed=True))
        with pytest.raises(BudgetExceededError):
            await fixture.embed()
        assert len(fixture.routes[0].provider.calls) == 1

    hook = run(work, **{"ledger.backend": "sqlite", "budgets.b": {"usd": usd(17_000)}})
    attempt = hook.one(AttemptDetails)
    assert hook.ended(attempt).error == "UnavailableError"
    assert hook.ended(hook.one(BatchDetails)).error == "BudgetExceededError"
    (event,) = [one for one in hook.events if isinstance(one.details, BudgetRefusalDetails)]
    assert event.parent == hook.one(BatchDetails).id


# --------------------------------------------------------------------------- validations


def test_each_answer_of_a_service_is_validated_in_its_attempt():
    async def work(fixture):
        await fixture.embedder.models.describe(NAME)
        fixture.fail(lambda answer: dataclasses.replace(answer, vectors=answer.vectors * np.float32("nan")))
        await fixture.embed()

    hook = run(work)
    attempts, checks = hook.of(AttemptDetails), hook.of(ValidationDetails)
    assert [one.details for one in checks] == [ValidationDetails("routes.r", 2)] * 2
    assert [one.parent for one in checks] == [one.id for one in attempts]
    assert hook.errors(checks) == hook.errors(attempts) == [BadVectorsError.__name__, None]


def test_vectors_of_this_machine_are_validated_once_for_each_request(default_model_directory, tmp_path):
    async def work(fixture):
        await fixture.embed(["short", "a text " * 60, "short"], model="auto")

    hook = run(work, here(default_model_directory, tmp_path))
    check = hook.one(ValidationDetails)
    assert check.details == ValidationDetails("local:all-MiniLM-L6-v2", 2)
    assert (check.parent, hook.ended(check).error) == (hook.one(RequestDetails).id, None)


# ----------------------------------------------------------------- private data


class Service(OpenAIServer):
    width = 1536


SECRET_TEXTS = ["marmalade-zebra crosses", "quibbling-okapi sleeps"]


def test_nothing_of_texts_vectors_or_keys_is_in_what_hooks_are_given():
    hook, vectors = Recording(), []

    async def main():
        server = Service()
        async with server.running():
            model = "text-embedding-3-small"
            route = {"model": model, "provider": "openai", "base_url": f"{server.url}/v1", "api_key": KEY}
            own = {"routes.r": route, "cache.backend": "memory", "budgets.b": {"usd": usd(900)}}
            quick = {"upstream.first_wait_s": 0.001, "upstream.longest_wait_s": 0.001}
            config = Config.load(environ={}, overrides={**own, **quick})
            async with AsyncEmbedder(config=config, hooks=[hook]) as embedder:
                server.misdeeds = ["500"]
                for _ in range(2):
                    result = await embedder.embed(SECRET_TEXTS, model=model, api_key_name="team", collection="docs")
                    vectors.extend(result.vectors)
                server.misdeeds = ["400"]
                for texts in (SECRET_TEXTS[0] + " again", SECRET_TEXTS[1] * 99):
                    with pytest.raises(Exception):  # noqa: B017 - the service refuses one, the budget the other
                        await embedder.embed(texts, model=model)
            return server.url

    url = asyncio.run(main())
    hook.check()
    kinds = {type(one.details).kind for one in [*hook.begun, *hook.events]}
    assert kinds >= {"request", "batch", "attempt", "wait", "cache", "load", "reservation", "validation"}
    assert {"budget_warning", "budget_refusal"} & kinds
    told = repr((hook.begun, hook.outcomes, hook.events))
    numbers = [str(number) for vector in vectors for number in vector[:50].tolist()]
    assert len(numbers) == 200
    for secret in ("zebra", "okapi", "marmalade", "quibbling", KEY, url, *numbers):
        assert secret not in told


class Raising(BaseHook):
    """Hook that fails in every method."""

    failed = 0

    def fail(self, *_arguments):
        type(self).failed += 1
        raise ValueError("no")

    begin = end = context = event = fail

    async def flush(self):
        self.fail()


@pytest.mark.parametrize("place", ["service", "machine"])
def test_a_hook_that_raises_everywhere_changes_neither_vectors_nor_receipts(place, default_model_directory, tmp_path):
    async def results(hooks, number):
        texts = [f"text {place} {row}" for row in range(20)]
        if place == "service":
            config = settings(
                **{"cache.backend": "memory", "routes.s": {"model": NAME, "provider": "fake", "same_space": True}}
            )
            model = NAME
        else:
            cache = {"cache.backend": "sqlite", "cache.path": str(tmp_path / f"{number}.sqlite")}
            config, model = here(default_model_directory, tmp_path, **cache), "auto"
        async with AsyncEmbedder(config=config, hooks=hooks) as embedder:
            if place == "service":
                await embedder.models.describe(model)
                Fixture(embedder, None).fail(unavailable(), unavailable())
            calls = [
                (texts[:3], {}),
                (texts, {}),
                (texts[:4], {"input_type": "query"}),
                (["", *texts], {"partial": True}),
            ]
            return [await embedder.embed(given, model=model, **options) for given, options in calls]

    Raising.failed = 0
    plain, raised = asyncio.run(results([], 1)), asyncio.run(results([Raising()], 2))
    assert Raising.failed > 20
    for one, other in zip(plain, raised, strict=True):
        np.testing.assert_array_equal(one.vectors, other.vectors)
        assert list(one.errors) == list(other.errors)
        receipts = [dataclasses.replace(result.receipt, timing=Timing(0, 0, 0)) for result in (one, other)]
        assert receipts[0] == receipts[1]
