"""Batches shared by several callers: each gets its own result, and does not wait or pay for others without need."""

import asyncio
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedway import AsyncEmbedder, Config
from embedway.batching.backends import LocalBackend, UpstreamBackend, WorkItem
from embedway.batching.scheduler import BatchBackend, BatchScheduler
from embedway.dispatch.recovery import UpstreamClient
from embedway.dispatch.request import RetryPolicy, ServiceRoute, UpstreamRequest
from embedway.errors import BatchError, DeadlineError, NoRouteError, RefusedInputError, UnavailableError, UsageError
from embedway.providers.base import Answer, Declared, RequestLimits
from embedway.providers.fake import Fake, vector_of
from embedway.types import Batch, Space, TokenizedTexts
from embedway.urgency import Urgency
from inside import open_model, provider_of, scheduler_of, set_client, set_faults

POISON = 39
QUERY, DOCUMENT = Urgency(query=True), Urgency()
SPACE = Space(model="fake", weights="f" * 64, dimensions=16, pooling="mean", normalized=True)


class Route:
    """Model whose vectors contain the ids; one id fails. Batches end at once, or with `held` when the gate opens."""

    model, name, streams, token_budget = "told", "local:told", 2, 512

    def __init__(self, *, held=False):
        self.batches = []
        self.started = asyncio.Event()
        self.gate = asyncio.Event()
        if not held:
            self.gate.set()
        self.most = self.under_way = 0

    async def run(self, tokenized, batch):
        self.batches.append([int(tokenized.ids[row][0]) for row in batch.rows])
        self.started.set()
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
            assert all(len(tokenized.ids[row]) <= batch.width for row in batch.rows)
            if any(POISON in tokenized.ids[row] for row in batch.rows):
                raise ValueError("poison")
            return np.array([[tokenized.ids[row][0], len(tokenized.ids[row])] for row in batch.rows], np.float32)
        finally:
            self.under_way -= 1


def item(*rows):
    """Rows given as (id, length)."""
    ids = tuple(np.full(length, number, np.int32) for number, length in rows)
    lengths = np.array([length for _, length in rows], np.int32)
    return WorkItem(TokenizedTexts(ids, lengths), Batch(np.arange(len(rows)), int(lengths.max())))


def right(rows, vectors):
    np.testing.assert_array_equal(vectors, np.array(rows, np.float32))


ROWS = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 60)), min_size=1, max_size=5)
CALLS = st.lists(
    st.tuples(ROWS, st.booleans(), st.integers(0, 9), st.integers(0, 6), st.booleans()), min_size=1, max_size=25
)


@given(CALLS, st.integers(1, 40))
@settings(deadline=None, max_examples=150)
def test_every_caller_gets_his_own_rows_or_his_own_error(calls, most):
    async def main():
        route = Route()
        scheduler = BatchScheduler(LocalBackend(route, max_batch_size=most))

        async def call(rows, query, priority, after, leaves):
            for _ in range(after):
                await asyncio.sleep(0)
            work = asyncio.ensure_future(scheduler.run(item(*rows), Urgency(priority, query=query)))
            if leaves:
                await asyncio.sleep(0)
                work.cancel()
            try:
                right(rows, await work)
            except ValueError:
                assert any(number == POISON for number, _ in rows)
            except asyncio.CancelledError:
                assert leaves
            else:
                assert not any(number == POISON for number, _ in rows)

        await asyncio.wait_for(asyncio.gather(*(call(*one) for one in calls)), 20)
        assert scheduler.waiting == 0
        for batch in route.batches:
            assert len(batch) <= max(most, 5)
        # Streams, one batch ahead, one for queries. Batches that never wait are not limited.
        assert route.most <= 4 + sum(priority > 5 for _, _, priority, _, _ in calls)

    asyncio.run(main())


def held(steps, **options):
    """Run steps with a route whose batches wait until `route.gate` opens."""

    async def main():
        route = Route(held=True)
        scheduler = BatchScheduler(LocalBackend(route, **{"max_batch_size": 1000} | options))

        def call(number, urgency=DOCUMENT, length=8, count=1, **more):
            return asyncio.create_task(scheduler.run(item(*[(number, length)] * count), urgency, **more))

        return await asyncio.wait_for(steps(route, scheduler, call), 20)

    return asyncio.run(main())


async def turns(count=10):
    for _ in range(count):
        await asyncio.sleep(0)


def test_work_begins_at_once_and_gathers_while_all_streams_are_busy():
    async def steps(route, scheduler, call):
        first = [call(1), call(2)]
        await turns()
        assert sorted(route.batches) == [[1], [2]]
        later = [call(number) for number in range(3, 10)]
        await turns()
        assert (len(route.batches), scheduler.waiting) == (2, 7)
        route.gate.set()
        await asyncio.gather(*first, *later)
        # Both streams share the gathered work.
        assert [len(batch) for batch in route.batches[2:]] == [7]
        assert sorted(route.batches[2]) == list(range(3, 10))

    held(steps)


def test_what_gathers_is_shared_by_the_streams_that_are_free():
    async def steps(route, scheduler, call):
        route.gate.set()
        await asyncio.gather(*(call(number) for number in range(20, 36)))
        route.batches.clear()
        # Callers whose work ended together arrive together again.
        await asyncio.gather(*(call(number) for number in range(20, 36)))
        assert sorted(len(batch) for batch in route.batches) == [8, 8]

    held(steps)


def test_a_query_does_not_wait_for_documents():
    async def steps(route, scheduler, call):
        documents = [call(n, count=30, length=16) for n in range(8)]
        await turns()
        before = len(route.batches)
        assert before == 3  # two streams, and a full batch ahead
        queries = [call(100, QUERY), call(101, QUERY), call(102, QUERY)]
        await turns()
        assert len(route.batches) == before + 1  # beyond the concurrency, one query batch at a time
        route.gate.set()
        await asyncio.gather(*queries, *documents)
        order = [batch[0] for batch in route.batches]
        assert max(order.index(number) for number in (100, 101) if number in order) <= before + 2

    held(steps)


def test_above_five_nothing_waits():
    async def steps(route, scheduler, call):
        tasks = [call(n, count=30, length=16) for n in range(6)]
        await turns()
        before = len(route.batches)
        tasks += [call(50 + n, Urgency(6)) for n in range(5)]
        await turns()
        assert route.batches[before:] == [[50], [51], [52], [53], [54]]
        route.gate.set()
        await asyncio.gather(*tasks)

    held(steps)


def test_higher_priorities_go_first_and_large_requests_leave_room_for_small_ones():
    async def steps(route, scheduler, call):
        first = [call(n, count=30, length=16) for n in range(3)]
        await turns()
        is_large = [call(10 + n, count=30, length=16, behind_s=n * 1.0) for n in range(4)]
        await turns()
        small = [call(20, count=30, length=16), call(30, Urgency(5), count=30, length=16)]
        await turns()
        route.gate.set()
        await asyncio.gather(*first, *is_large, *small)
        order = [batch[0] for batch in route.batches]
        assert order[3:] == [30, 10, 20, 11, 12, 13]

    held(steps)


def test_nothing_starves():
    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    async def main():
        route, clock = Route(held=True), Clock()
        scheduler = BatchScheduler(LocalBackend(route, max_batch_size=1000), clock=clock)
        route.streams = 1

        def call(number, urgency):
            return asyncio.create_task(scheduler.run(item(*[(number, 16)] * 30), urgency))

        tasks = [call(n, QUERY) for n in range(4)]
        await turns()
        tasks.append(call(50, DOCUMENT))
        await turns()
        clock.now = 1.1
        tasks += [call(60 + n, QUERY) for n in range(5)]
        await turns()
        route.gate.set()
        await asyncio.gather(*tasks)
        order = [batch[0] for batch in route.batches]
        assert order.index(50) < order.index(64)

    asyncio.run(main())


def test_cancelled_callers_leave_the_queue_and_their_work_ends():
    async def steps(route, scheduler, call):
        first = [call(1), call(2)]
        await turns()
        waiting = [call(number) for number in range(3, 7)]
        await turns()
        waiting[1].cancel()
        await turns()
        assert scheduler.waiting == 3
        route.gate.set()
        results = await asyncio.gather(*first, *waiting, return_exceptions=True)
        assert isinstance(results[3], asyncio.CancelledError)
        assert 4 not in {number for batch in route.batches for number in batch}
        route.gate.clear()
        blocking = [call(1), call(2)]
        await turns()
        pair = [call(8), call(9)]
        await turns()
        blocking[0].cancel()
        blocking[1].cancel()
        await turns()
        assert route.batches[-1] == [8, 9] or route.batches[-2:] == [[8], [9]]
        pair[0].cancel()
        await turns()
        assert route.under_way > 0
        pair[1].cancel()
        await turns()
        assert route.under_way == 0
        route.gate.set()
        right([(11, 8)], await call(11))

    held(steps)


def test_batches_are_even_and_within_the_budget():
    async def steps(route, scheduler, call):
        tasks = [call(1), call(2)]
        await turns()
        tasks += [call(10 + n, length=60) for n in range(12)] + [call(40 + n, length=20) for n in range(12)]
        await turns()
        route.gate.set()
        await asyncio.gather(*tasks)
        lengths = {n: 60 if n < 30 else 20 for n in range(10, 60)} | {1: 8, 2: 8}
        for batch in route.batches:
            sizes = [lengths[number] for number in batch]
            assert len(sizes) * max(sizes) <= route.token_budget
            assert min(sizes) >= 0.75 * max(sizes) or len(sizes) * max(sizes) < 256

    held(steps)


def test_a_batch_holds_as_many_texts_as_the_settings_allow():
    async def steps(route, scheduler, call):
        route.token_budget = 1 << 20
        first = [call(1), call(2)]
        await turns()
        more = [call(number) for number in range(100, 2600)]
        await turns()
        route.gate.set()
        await asyncio.gather(*first, *more)
        assert [len(batch) for batch in route.batches[2:]] == [2400, 100]

    held(steps, max_batch_size=2400)


def test_a_text_at_fault_is_searched_for_by_halves():
    async def steps(route, scheduler, call):
        route.token_budget = 1 << 14
        first = [call(1), call(2)]
        await turns()
        others = [call(number) for number in (*range(100, 227), POISON)]
        await turns()
        route.gate.set()
        results = await asyncio.gather(*first, *others, return_exceptions=True)
        assert [isinstance(result, ValueError) for result in results] == [False] * 129 + [True]
        assert len(route.batches) == 2 + 1 + 2 * 7

    held(steps)


def test_a_text_that_fills_the_model_is_joined_by_nothing():
    async def steps(route, scheduler, call):
        route.token_budget = 1 << 14
        first = [call(1), call(2)]
        await turns()
        others = [call(number, length=1000) for number in range(3, 6)] + [call(9, length=1100)]
        await turns()
        route.gate.set()
        await asyncio.gather(*first, *others)
        assert sorted(map(sorted, route.batches[2:])) == [[3, 4, 5], [9]]

    held(steps)


# ---- services


def upstream(*fakes, concurrency=8, max_wait_s=0.002, most=1000, later=None, clock=None, **policy):
    async def sleep(_):
        await asyncio.sleep(0)

    client = UpstreamClient(RetryPolicy(**policy), sleep=sleep, chance=lambda: 0.0)
    routes = [ServiceRoute(f"routes.{n}", fake, limits=RequestLimits(most)) for n, fake in enumerate(fakes)]
    backend = UpstreamBackend(client, routes, concurrency=concurrency, max_wait_s=max_wait_s)
    options = {name: value for name, value in {"later": later, "clock": clock}.items() if value is not None}
    return backend, BatchScheduler(backend, **options)


def request(*texts, partial=False, **more):
    lengths = np.array([len(text) for text in texts], np.int32)
    return UpstreamRequest(texts, lengths, "document", SPACE, full_width=16, partial=partial, **more)


def fake(**options):
    declared = Declared(max_inputs=options.pop("max_inputs", 32), max_request_tokens=options.pop("tokens", None))
    return Fake(width=16, declared=declared, **options)


def same(response, texts):
    np.testing.assert_allclose(response.vectors, [vector_of(text, 16) for text in texts], atol=1e-6)


def test_callers_of_a_service_share_requests():
    async def main():
        service = fake(delay_s=0.01)
        _, scheduler = upstream(service)
        texts = [f"text {n}" for n in range(40)]
        outcomes = await asyncio.gather(*(scheduler.run(request(text), DOCUMENT) for text in texts))
        for text, response in zip(texts, outcomes, strict=True):
            same(response, [text])
        assert [len(call) for call in service.calls] == [1, 32, 7]
        assert sum(response.billed_tokens for response in outcomes) == 80  # the service counts words
        assert {tuple(response.routes) for response in outcomes} == {("routes.0",)}

    asyncio.run(main())


def test_company_is_waited_for_no_longer_than_was_set():
    timers = []

    class Handle:
        def cancel(self):
            timers.clear()

    def later(seconds, call):
        timers.append((seconds, call))
        return Handle()

    async def main():
        service = fake()
        gate = asyncio.Event()
        embed = service.embed

        async def slow(texts, **options):
            answer = await embed(texts, **options)
            await gate.wait()
            return answer

        service.embed = slow
        now = [5.0]
        _, scheduler = upstream(service, max_wait_s=0.05, later=later, clock=lambda: now[0])
        tasks = [asyncio.create_task(scheduler.run(request("a"), DOCUMENT))]
        await turns()
        tasks += [asyncio.create_task(scheduler.run(request(text), DOCUMENT)) for text in "bc"]
        await turns()
        assert service.calls == [("a",)]
        assert [seconds for seconds, _ in timers] == [pytest.approx(0.05)]
        now[0] += 0.06
        timers[0][1]()
        await turns()
        assert service.calls == [("a",), ("b", "c")]
        gate.set()
        await asyncio.gather(*tasks)

    asyncio.run(main())


def test_requests_of_another_kind_do_not_share():
    async def main():
        service = fake(delay_s=0.005)
        _, scheduler = upstream(service)
        queries = [request(f"q{n}") for n in range(3)]
        object.__setattr__(queries[1], "input_type", "query")
        narrow = UpstreamRequest(
            ("n",),
            np.array([1], np.int32),
            "document",
            SPACE.__class__(**{**{name: getattr(SPACE, name) for name in SPACE.__slots__}, "dimensions": 8}),
            full_width=16,
        )
        await asyncio.gather(
            *(scheduler.run(one, DOCUMENT) for one in (request("first"), *queries, narrow, request("z")))
        )
        assert sorted(map(sorted, service.calls)) == [["first"], ["n"], ["q0", "q2", "z"], ["q1"]]

    asyncio.run(main())


def test_a_shared_request_is_as_urgent_as_its_most_urgent_part():
    async def main():
        backend, _ = upstream(fake())
        sent = []

        async def send(merged, routes):
            sent.append(merged.urgency)
            return await UpstreamClient(RetryPolicy()).send(merged, routes)

        set_client(backend, type("Told", (), {"send": staticmethod(send)})())
        priorities = (1, 5, 3)
        await backend.run_merged([request(f"text {n}", urgency=Urgency(n)) for n in priorities])
        await backend.run_merged([request(f"text {n}", urgency=Urgency(n, query=True)) for n in priorities[:1]])
        assert sent == [Urgency(5), Urgency(1, query=True)]

    asyncio.run(main())


def test_each_caller_of_a_shared_request_receives_its_own_texts_as_they_arrive():
    def faults(_, texts):
        return RefusedInputError("no", route="r") if "bad" in texts else None

    async def main():
        backend, _ = upstream(fake(faults=faults))
        told = {}

        def on_ready(name):
            def tell(rows, vectors):
                for row, vector in zip(rows.tolist(), vectors, strict=True):
                    assert (name, row) not in told
                    told[name, row] = vector

            return tell

        requests = {"a": ("one", "two"), "b": ("three",), "c": ("four", "bad", "five"), "d": ("six",)}
        jobs = [
            request(*texts, on_ready=None if name == "b" else on_ready(name), partial=True)
            for name, texts in requests.items()
        ]
        await backend.run_merged(jobs)
        assert set(told) == {("a", 0), ("a", 1), ("c", 0), ("c", 2), ("d", 0)}
        for (name, row), vector in told.items():
            np.testing.assert_allclose(vector, vector_of(requests[name][row], 16), atol=1e-6)

    asyncio.run(main())


def test_limits_on_inputs_and_tokens_hold():
    async def main():
        service = fake(delay_s=0.001, max_inputs=10, tokens=50)
        backend, scheduler = upstream(service, most=8)
        assert backend.is_large(request(*"abcde"))
        assert backend.is_large(request("x" * 26))
        assert not backend.is_large(request("x" * 25))
        texts = [f"{n}" * (1 + n % 9) for n in range(60)]
        await asyncio.gather(*(scheduler.run(request(text), DOCUMENT) for text in texts))
        assert Counter(text for call in service.calls for text in call) == Counter(texts)
        for call in service.calls:
            assert len(call) <= 8
            assert sum(map(len, call)) <= 50
        assert len(service.calls) < 20

    asyncio.run(main())


@pytest.mark.parametrize("partial", [True, False])
def test_a_text_that_is_refused_fails_its_own_caller_alone(partial):
    def faults(_, texts):
        return RefusedInputError("no", route="r") if any("bad" in text for text in texts) else None

    async def main():
        service = fake(delay_s=0.005, faults=faults)
        _, scheduler = upstream(service)
        jobs = [request("first"), *(request(f"bad {n} {i}", "good" * n, partial=partial) for n, i in [(1, 1), (2, 2)])]
        jobs += [request(*(f"bad {n}" for n in range(14)), partial=partial)]  # enough refusals to end a search
        jobs += [request(f"well {n}") for n in range(5)]
        results = await asyncio.gather(*(scheduler.run(job, DOCUMENT) for job in jobs), return_exceptions=True)
        for job, result in zip(jobs, results, strict=True):
            bad = {row for row, text in enumerate(job.texts) if "bad" in text}
            if not bad:
                same(result, job.texts)
            elif not partial:
                assert isinstance(result, RefusedInputError)
            else:
                assert set(result.errors) == bad
                for row in set(range(len(job.texts))) - bad:
                    np.testing.assert_allclose(result.vectors[row], vector_of(job.texts[row], 16), atol=1e-6)
        done = Counter(text for call in service.done for text in call)
        assert max(done.values()) == 1

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["fails", "answers badly"])
def test_a_text_that_brings_a_service_down_fails_its_own_caller_alone(kind):
    def faults(_, texts):
        if "poison" not in texts:
            return None
        if kind == "fails":
            return UnavailableError("500", route="r")
        return lambda answer: Answer(np.full_like(answer.vectors, np.nan))

    async def main():
        service = fake(delay_s=0.005, faults=faults)
        _, scheduler = upstream(service, max_attempts=3)
        jobs = [request(text) for text in ("first", "a", "poison", "b", "c")]
        results = await asyncio.gather(*(scheduler.run(job, DOCUMENT) for job in jobs), return_exceptions=True)
        for job, result in zip(jobs, results, strict=True):
            if job.texts == ("poison",):
                assert isinstance(result, Exception)
            else:
                same(result, job.texts)
        attempts = Counter(text for call in service.calls for text in call)
        assert max(attempts.values()) <= 3

    asyncio.run(main())


# ---- the engine


def config(**overrides):
    return Config.load(
        environ={},
        overrides={
            "models.m": {"name": "acme/m", "dimensions": 16, "max_tokens": 50, "price_usd_per_million_tokens": "1"},
            "routes.r": {"model": "acme/m", "provider": "fake", "options": {"max_inputs": "64", "delay_s": "0.005"}},
            "upstream.first_wait_s": 0.001,
            "upstream.longest_wait_s": 0.001,
            "cache.backend": "none",
            **overrides,
        },
    )


@pytest.mark.parametrize("across", [True, False])
def test_concurrent_calls_are_computed_together_where_that_is_wanted(across):
    async def main():
        # Without a ledger, whose answers would make the calls continue one after the other.
        settings = config(**{"batching.across_callers": across, "ledger.backend": "none"})
        async with AsyncEmbedder(config=settings) as embedder:
            await embedder.models.describe("acme/m")
            texts = [f"text {n}" for n in range(30)]
            results = await asyncio.gather(*(embedder.embed(text, model="acme/m") for text in texts))
            for text, result in zip(texts, results, strict=True):
                np.testing.assert_allclose(result.vectors, [vector_of(text, 16)], atol=1e-6)
                assert result.receipt.cost_nanousd == 1000 * result.receipt.billed_tokens
            # The service counts words.
            assert sum(result.receipt.billed_tokens for result in results) == 60
            return [len(call) for call in provider_of(embedder).calls]

    assert asyncio.run(main()) == ([1, 29] if across else [1] * 30)


def test_a_deadline_ends_a_call_and_takes_it_out_of_the_queue():
    async def main():
        slow = {"model": "acme/m", "provider": "fake", "options": {"delay_s": "600"}}
        # Without a ledger, which waits for the disk.
        settings = config(**{"routes.r": slow, "upstream.concurrency": 1, "ledger.backend": "none"})
        async with AsyncEmbedder(config=settings) as embedder:
            await embedder.models.describe("acme/m")
            first = asyncio.create_task(embedder.embed("a", model="acme/m"))
            await turns()
            with pytest.raises(DeadlineError, match=r"0\.05 s"):
                await embedder.embed("b", model="acme/m", deadline_s=0.05)
            scheduler = scheduler_of(embedder)
            assert scheduler.waiting == 0
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            assert provider_of(embedder).calls == [("a",)]

    asyncio.run(asyncio.wait_for(main(), 20))


def test_what_is_urgent_goes_before_the_parts_of_large_calls():
    async def main():
        settings = config(**{"upstream.concurrency": 1, "ledger.backend": "none"})
        async with AsyncEmbedder(config=settings) as embedder:
            await embedder.models.describe("acme/m")
            provider, gate = provider_of(embedder), asyncio.Event()
            embed = provider.embed

            async def held(texts, **options):
                await gate.wait()
                return await embed(texts, **options)

            provider.embed = held

            def call(name, count, **options):
                texts = [f"{name} {number}" for number in range(count)]
                return asyncio.create_task(embedder.embed(texts, model="acme/m", **options))

            calls = [call("document", 64 * 6)]
            await turns()
            # Large and small calls: parts of one call, and parts of shared requests.
            calls += [call("query", 16, input_type="query"), call("urgent", 1, priority=9), call("small", 1)]
            await turns()
            gate.set()
            await asyncio.gather(*calls)
            return [texts[0].split()[0] for texts in provider.calls]

    order = asyncio.run(asyncio.wait_for(main(), 20))
    assert Counter(order) == {"document": 6, "query": 1, "urgent": 1, "small": 1}
    assert max(place for place, name in enumerate(order) if name in ("query", "urgent", "small")) <= 4


def test_priorities_and_deadlines_are_checked():
    async def main():
        async with AsyncEmbedder(config=config()) as embedder:
            for options, words in (
                ({"priority": 10}, "from 0 to 9"),
                ({"priority": -1}, "from 0 to 9"),
                ({"deadline_s": 0}, "greater than 0"),
                ({"deadline_s": float("nan")}, "greater than 0"),
            ):
                with pytest.raises(UsageError, match=words):
                    await embedder.embed("a", model="acme/m", **options)

    asyncio.run(main())


def test_when_a_service_is_down_every_caller_hears_of_it():
    async def main():
        async with AsyncEmbedder(config=config(**{"upstream.max_attempts": 2})) as embedder:
            await embedder.models.describe("acme/m")
            set_faults(provider_of(embedder), lambda *_: UnavailableError("down", route="r"))
            calls = (embedder.embed(f"text {n}", model="acme/m") for n in range(6))
            return await asyncio.gather(*calls, return_exceptions=True)

    errors = asyncio.run(main())
    assert all(isinstance(error, UnavailableError | NoRouteError) for error in errors)


def test_the_default_model_gives_the_vectors_of_lone_calls(default_model_directory, tmp_path):
    overrides = {"weights.directory": str(default_model_directory), "tune.directory": str(tmp_path)}
    overrides["cache.backend"] = "none"
    texts = ["What is a coroutine?", *(f"How do I open file {n}?" for n in range(30)), "word " * 600]

    async def main():
        async with AsyncEmbedder(config=Config.load(environ={}, overrides=overrides)) as embedder:
            alone = [(await embedder.embed(text)).vectors[0] for text in texts]
            model = (await open_model(embedder, "auto")).encoder()
            sizes, run = [], model.run

            async def counted(tokenized, batch):
                sizes.append(len(batch.rows))
                return await run(tokenized, batch)

            model.run = counted
            together = await asyncio.gather(*(embedder.embed(text) for text in texts))
            return np.array(alone), np.array([result.vectors[0] for result in together]), sizes

    alone, together, sizes = asyncio.run(main())
    assert (alone * together).sum(1).min() > 0.9999
    assert sum(sizes) == len(texts)
    assert len(sizes) < len(texts) / 3


def test_a_backend_is_abstract():
    with pytest.raises(TypeError):
        BatchBackend()


def test_a_failing_batch_names_the_route_and_not_another_callers_text():
    async def main():
        route = Route()
        scheduler = BatchScheduler(LocalBackend(route, max_batch_size=100))
        calls = (scheduler.run(item((number, 8)), DOCUMENT) for number in (1, 2, 3, POISON, 5))
        return await asyncio.gather(*calls, return_exceptions=True)

    results = asyncio.run(main())
    assert [isinstance(result, ValueError) for result in results] == [False, False, False, True, False]
    assert not any(isinstance(result, BatchError) for result in results)
