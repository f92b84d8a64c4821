"""Proofs of a route: when they are repeated, what a refusal does, and which orders a probe tells apart."""

import asyncio
import dataclasses

import numpy as np
import pytest

from embedway.dispatch.probes import Probe
from embedway.dispatch.proofs import ORDER_PATTERN, ORDER_TEXTS, ProofResult, RouteProof, has_order
from embedway.dispatch.request import ServiceRoute, UpstreamRequest
from embedway.errors import BadVectorsError, NoRouteError, UnavailableError
from embedway.providers.fake import Fake, vector_of
from failing_services import SPACE, WIDTH, FakeUpstream, Time, assert_right, on_calls, texts_of, unavailable

ALONE = np.stack([vector_of(text, WIDTH) for text in ORDER_TEXTS])
ROWS = ALONE[list(ORDER_PATTERN)]

ORDERS = {
    "reversed": ROWS[::-1],
    "sorted by length": ROWS[np.argsort([len(ORDER_TEXTS[n]) for n in ORDER_PATTERN], kind="stable")],
    "longest first": ROWS[np.argsort([-len(ORDER_TEXTS[n]) for n in ORDER_PATTERN], kind="stable")],
    "sorted by text": ROWS[np.argsort([ORDER_TEXTS[n] for n in ORDER_PATTERN], kind="stable")],
    "grouped": ROWS[np.argsort(list(ORDER_PATTERN), kind="stable")],
    "evens first": np.concatenate([ROWS[::2], ROWS[1::2]]),
    "first and last": ROWS[[15, *range(1, 15), 0]],
    **{f"shifted by {n}": np.roll(ROWS, n, axis=0) for n in range(1, 16)},
    **{f"swapped at {n}": ROWS[[*range(n), n + 1, n, *range(n + 2, 16)]] for n in range(15)},
    **{f"reversed by {n}": np.concatenate([ROWS[i : i + n][::-1] for i in range(0, 16, n)]) for n in (2, 4, 8)},
}


def test_the_order_of_the_texts_is_proved():
    assert has_order(ROWS, ALONE[:2])
    assert has_order(ROWS + 1e-3, ALONE[:2])


@pytest.mark.parametrize("order", ORDERS)
def test_another_order_is_not(order):
    assert not has_order(ORDERS[order], ALONE[:2])


@pytest.mark.parametrize(
    "rows",
    [
        ROWS[:1].repeat(16, axis=0),
        ROWS[:-1],
        ROWS * np.float32("nan"),
        ROWS * 0,
        np.where(ALONE[2] == ROWS, ALONE[0], ROWS),
    ],
    ids=["all equal", "too few", "nan", "zeros", "two texts alike"],
)
def test_rows_that_cannot_be_distinguished_prove_nothing(rows):
    assert not has_order(rows, ALONE[:2])


class Compared:
    """A route whose comparison returns the next reason, and the times of its comparisons."""

    def __init__(self, *reasons):
        self.reasons = list(reasons)
        self.time, self.times = Time(), []
        self.proof = RouteProof(self.compare, valid_s=300.0, clock=self.time)
        self.route = ServiceRoute("r", Fake(), proof=self.proof)
        self.failing = None

    async def compare(self, route, send):
        self.times.append(self.time.now)
        await asyncio.sleep(0)
        if self.failing:
            self.failing()
        reason = self.reasons.pop(0) if self.reasons else ""
        if isinstance(reason, Exception):
            raise reason
        return ProofResult(reason)

    async def verify(self, texts=1):
        await self.proof.verify(self.route, texts, None)


def test_a_route_is_compared_again_after_a_time_and_after_a_failure():
    async def main():
        one = Compared()
        for one.time.now in (0.0, 299.0, 300.0, 599.0):
            await one.verify()
        one.proof.record_failure()
        await one.verify()
        await asyncio.gather(*(one.verify() for _ in range(9)))
        return one.times

    assert asyncio.run(main()) == [0.0, 300.0, 599.0]


def test_requests_at_a_time_share_one_comparison():
    async def main():
        one = Compared()
        await asyncio.gather(*(one.verify() for _ in range(9)))
        return one.times

    assert asyncio.run(main()) == [0.0]


def test_a_failure_during_a_comparison_makes_it_void():
    async def main():
        one = Compared()
        one.failing = one.proof.record_failure
        await one.verify()
        one.failing = None
        await one.verify()
        await one.verify()
        return one.times

    assert asyncio.run(main()) == [0.0, 0.0]


def test_a_refused_route_is_compared_again_after_the_time_and_both_are_logged(caplog):
    async def main():
        one = Compared("is another model", "is another model")
        for one.time.now in (0.0, 299.0, 300.0):
            with pytest.raises(BadVectorsError, match=r"r: is another model.*again within 300 s") as caught:
                await one.verify()
            assert not caught.value.billed
            one.proof.record_failure()  # sends nothing more either
        one.time.now = 600.0
        await one.verify()
        return one.times

    assert asyncio.run(main()) == [0.0, 300.0, 600.0]
    assert [record.message for record in caplog.records] == [
        "r is not used: it is another model",
        "r is used again: its vectors are those of the model's space",
    ]


def test_a_comparison_that_fails_is_no_result():
    async def main():
        one = Compared(UnavailableError("it failed", route="r"), "")
        with pytest.raises(UnavailableError):
            await one.verify()
        await one.verify()
        return one.times

    assert asyncio.run(main()) == [0.0, 0.0]


class Slow(Compared):
    """A route whose comparisons wait for `go`."""

    def __init__(self):
        super().__init__()
        self.began, self.go = asyncio.Event(), asyncio.Event()

    async def compare(self, route, send):
        verdict = await super().compare(route, send)
        self.began.set()
        await self.go.wait()
        return verdict


def test_a_cancelled_or_late_caller_does_not_stop_a_proof():
    async def main():
        one = Slow()
        callers = [asyncio.create_task(one.verify()) for _ in range(3)]
        await one.began.wait()
        callers[0].cancel()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(one.verify(), 0)
        one.go.set()
        ended = await asyncio.gather(*callers, return_exceptions=True)
        await one.verify()
        return one.times, [type(error) for error in ended]

    assert asyncio.run(main()) == ([0.0], [asyncio.CancelledError, type(None), type(None)])


def test_the_error_of_a_proof_is_only_its_callers():
    async def main():
        one = Compared(UnavailableError("it failed", route="r"))
        return await asyncio.gather(*(one.verify() for _ in range(3)), return_exceptions=True)

    assert [type(error) for error in asyncio.run(main())] == [UnavailableError, type(None), type(None)]


def test_closing_ends_a_proof_without_callers():
    async def main():
        one = Slow()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(one.verify(), 0.001)
        assert len(asyncio.all_tasks()) == 2
        await one.proof.aclose()
        return len(asyncio.all_tasks())

    assert asyncio.run(main()) == 1


def by_position(answer):
    return dataclasses.replace(answer, by_position=True)


class Unindexed(Fake):
    """A service without `index`, whose rows `order` puts in another order."""

    def __init__(self, order=lambda rows: rows, **more):
        super().__init__(**more)
        self.order = order

    async def embed(self, texts, *, input_type, dimensions):
        answer = by_position(await super().embed(texts, input_type=input_type, dimensions=dimensions))
        return dataclasses.replace(answer, vectors=self.order(answer.vectors))


def send_twice(*fakes, count=5, **policy):
    """Send two requests over the same routes; return the responses or errors, and the routes."""
    upstream = FakeUpstream(*fakes, **policy)

    async def main():
        routes = upstream.routes()
        request = UpstreamRequest(texts_of(count), np.full(count, 3, np.int32), "document", SPACE, WIDTH)
        return await asyncio.gather(
            *(upstream.client.send(request, routes) for _ in range(2)), return_exceptions=True
        ), routes

    return asyncio.run(main())


def test_an_answer_without_index_is_proved_once_and_noted():
    service = Unindexed()
    (first, second), _ = send_twice(service)
    assert_right(first, texts_of(5))
    assert_right(second, texts_of(5))
    assert [len(texts) for texts in service.calls] == [5, 5, 1, 1, 16]
    assert first.attempts + second.attempts == 5
    assert first.billed_tokens + second.billed_tokens == sum(len(t.split()) for call in service.calls for t in call)
    assert first.notes == second.notes
    assert "by position, after a probe of its order" in first.notes[0]


def test_the_probe_keeps_the_limits_of_the_route():
    service = Unindexed()
    service.declared = dataclasses.replace(service.declared, max_inputs=3)
    (first, _), _ = send_twice(service, count=3)
    assert_right(first, texts_of(3))
    assert max(map(len, service.calls)) == 3


def test_an_order_that_is_not_proved_fails_over_and_sends_nothing_more():
    wrong, right = Unindexed(lambda rows: rows[::-1]), Fake()
    (first, second), routes = send_twice(wrong, right)
    assert_right(first, texts_of(5))
    assert_right(second, texts_of(5))
    assert first.routes == ["fake-1"]
    before = len(wrong.calls)
    with pytest.raises(BadVectorsError, match="max_inputs"):
        asyncio.run(routes[0].proof.verify(routes[0], 2, None))
    asyncio.run(routes[0].proof.verify(routes[0], 1, None))  # one text has one position
    assert len(wrong.calls) == before


def test_a_gateway_that_puts_rows_of_its_cache_first_is_not_believed():
    """LiteLLM's partial cache hits came in another order (#2990, #20456)."""

    class Cached(Unindexed):
        def __init__(self):
            super().__init__()
            self.cache = set()

        async def embed(self, texts, *, input_type, dimensions):
            hits = [row for row, text in enumerate(texts) if text in self.cache]
            order = [*hits, *(row for row in range(len(texts)) if row not in hits)]
            answer = await super().embed(texts, input_type=input_type, dimensions=dimensions)
            self.cache.update(texts)
            return dataclasses.replace(answer, vectors=answer.vectors[order])

    (first, second), _ = send_twice(Cached())
    assert isinstance(first, BadVectorsError)
    assert isinstance(second, BadVectorsError)


@pytest.mark.parametrize(
    "fault", [unavailable(), lambda answer: dataclasses.replace(answer, vectors=answer.vectors[:-1])]
)
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_probe_that_fails_is_sent_again_without_the_texts(fault, number):
    service = Unindexed(faults=on_calls(*[None] * number, fault))
    response = FakeUpstream(service).send(texts_of(5))
    assert_right(response, texts_of(5))
    assert [len(texts) for texts in service.calls].count(5) == 1


def test_a_probe_that_always_fails_uses_up_the_attempts_of_the_texts():
    service = Unindexed(faults=lambda number, _texts: unavailable() if number else None)
    with pytest.raises(UnavailableError, match="gave up after 4 tries"):
        FakeUpstream(service, max_attempts=4).send(texts_of(5))
    assert [len(texts) for texts in service.calls] == [5, 1, 1, 1, 1]


def test_the_order_is_proved_again_after_a_time():
    service = Unindexed()
    upstream, now = FakeUpstream(service), Time()

    async def main():
        (route,) = upstream.routes()
        route = dataclasses.replace(route, proof=RouteProof(valid_s=300.0, clock=now))
        request = UpstreamRequest(texts_of(5), np.full(5, 3, np.int32), "document", SPACE, WIDTH)
        for now.now in (0.0, 299.0, 300.0):
            await upstream.client.send(request, [route])
        service.order, now.now = (lambda rows: rows[::-1]), 600.0
        with pytest.raises(BadVectorsError):
            await upstream.client.send(request, [route])

    asyncio.run(main())
    assert [len(texts) for texts in service.calls] == [5, 1, 1, 16, 5, 5, 1, 1, 16, 5, 1, 1, 16]


@pytest.mark.parametrize("is_same", [True, False])
def test_an_answer_during_which_the_route_failed_is_used_only_after_a_new_comparison(is_same):
    async def main():
        one = Compared("", "" if is_same else "is another model")
        other = Fake()

        class Failing(Fake):
            async def embed(self, texts, **more):
                one.proof.record_failure()  # of another request at the same time
                return await super().embed(texts, **more)

        upstream = FakeUpstream(Failing(), other)
        first, second = upstream.routes()
        first = dataclasses.replace(first, proof=one.proof)
        request = UpstreamRequest(texts_of(3), np.full(3, 3, np.int32), "document", SPACE, WIDTH)
        return await upstream.client.send(request, [first, second]), one.times

    response, times = asyncio.run(main())
    assert_right(response, texts_of(3))
    assert response.routes == ["fake-0" if is_same else "fake-1"]
    assert times == [0.0, 0.0]


def test_the_order_is_proved_again_after_a_failure():
    service = Unindexed(faults=on_calls(None, None, None, None, unavailable()))
    upstream = FakeUpstream(service)

    async def main():
        routes = upstream.routes()
        request = UpstreamRequest(texts_of(5), np.full(5, 3, np.int32), "document", SPACE, WIDTH)
        for _ in range(3):
            await upstream.client.send(request, routes)

    asyncio.run(main())
    assert [len(texts) for texts in service.calls] == [5, 1, 1, 16, 5, 5, 1, 1, 16, 5]


def test_a_probe_that_never_ends_leaves_time_for_the_next_route():
    async def hang(route, send):
        await asyncio.sleep(60)

    well = Fake()
    upstream = FakeUpstream(Fake(), well, deadline_s=2.0)

    async def main():
        first, second = upstream.routes()
        first = dataclasses.replace(first, proof=RouteProof(hang))
        request = UpstreamRequest(texts_of(2), np.full(2, 3, np.int32), "document", SPACE, WIDTH)
        return await upstream.client.send(request, [first, second])

    assert_right(asyncio.run(main()), texts_of(2))


def test_a_route_that_can_never_be_verified_uses_up_its_attempts():
    service = Fake(faults=lambda *_: unavailable())

    async def compare(route, send):
        await send(route, Probe(1, 3, lambda: service.embed(["probe"], input_type="query", dimensions=None)))
        return ""

    upstream = FakeUpstream(service, Fake(declared=dataclasses.replace(service.declared)), max_attempts=3)

    async def main():
        (route, _) = upstream.routes()
        route = dataclasses.replace(route, proof=RouteProof(compare))
        request = UpstreamRequest(texts_of(2), np.full(2, 3, np.int32), "document", SPACE, WIDTH)
        await upstream.client.send(request, [route])

    with pytest.raises((UnavailableError, NoRouteError)):
        asyncio.run(main())
    assert service.calls == [("probe",)] * 3
