"""One attempt on one route: its deadline, the provider's call, the answer, and learned limits."""

import asyncio
import dataclasses

import numpy as np
import pytest

from embedway.dispatch.request import UpstreamRequest
from embedway.dispatch.semaphore import PrioritySemaphore
from embedway.errors import AuthenticationError, DeadlineError, UpstreamError
from embedway.providers.base import Answer, Declared, RateState
from embedway.providers.fake import Fake, vector_of
from embedway.urgency import DOCUMENTS
from failing_services import SPACE, WIDTH, FakeUpstream, assert_right, limited, on_calls, texts_of
from inside import failures_of, set_time


def test_a_route_that_hangs_leaves_time_for_the_next_and_opens_its_circuit():
    hanging, well = Fake(delay_s=60), Fake()
    upstream = FakeUpstream(hanging, well, deadline_s=0.2)

    async def main():
        routes = upstream.routes()
        request = UpstreamRequest(texts_of(2), np.full(2, 3, np.int32), "document", SPACE, WIDTH)
        response = await upstream.client.send(request, routes)
        return response, failures_of(routes[0].circuit)

    response, failed = asyncio.run(main())
    assert_right(response, texts_of(2))
    assert (len(hanging.calls), hanging.cancelled, failed) == (1, 1, 1)
    alone = Fake(delay_s=60)
    with pytest.raises(DeadlineError, match="did not answer before the deadline"):
        FakeUpstream(alone, deadline_s=0.05).send(texts_of(1))
    assert alone.cancelled == 1


def test_waiting_for_a_place_is_within_the_deadline():
    fake = Fake(declared=Declared(max_inputs=1), delay_s=0.04)
    upstream = FakeUpstream(fake, deadline_s=0.1)

    async def main():
        (route,) = upstream.routes()
        route = dataclasses.replace(route, semaphore=PrioritySemaphore(1))
        await upstream.client.send(
            UpstreamRequest(texts_of(20), np.ones(20, np.int32), "document", SPACE, WIDTH), [route]
        )

    set_time(upstream.client, lambda: asyncio.get_running_loop().time())
    with pytest.raises(DeadlineError):
        asyncio.run(main())
    assert len(fake.calls) <= 3


def test_what_computes_here_takes_as_long_as_it_takes():
    fake = Fake(declared=Declared(max_inputs=1, local=True), delay_s=0.02)
    upstream = FakeUpstream(fake, deadline_s=0.001)
    set_time(upstream.client, lambda: asyncio.get_running_loop().time())
    assert_right(upstream.send(texts_of(20)), texts_of(20))


def test_limits_that_come_with_an_error_are_learned():
    error = limited()
    error.rates = RateState(requests_limit=60, requests_remaining=0, requests_reset_s=2.0)
    fake = Fake(faults=on_calls(error))
    upstream = FakeUpstream(fake)
    assert_right(upstream.send(["a"]), ["a"])
    assert upstream.time.now == pytest.approx(2.0, abs=0.1)


def test_a_third_party_error_becomes_the_routes_error_without_text():
    odd = Fake(faults=lambda _number, texts: KeyError(f"cannot embed {texts[0]}"))
    with pytest.raises(UpstreamError, match=r"its provider failed \(KeyError at fake.py:\d+\)") as caught:
        FakeUpstream(odd).send(["secret words"])
    assert caught.value.__cause__ is None
    assert "secret" not in "".join(map(str, (caught.value, caught.value.__cause__)))
    partial = FakeUpstream(odd).send(["secret words"], partial=True)
    assert isinstance(partial.errors[0], UpstreamError)
    well = Fake()
    assert_right(FakeUpstream(odd, well).send(["secret words"]), ["secret words"])


def test_parts_are_reported_as_they_are_answered():
    told = {}

    def on_ready(rows, vectors):
        told.update(zip(rows.tolist(), vectors, strict=True))

    dead = on_calls(None, None, AuthenticationError("no", route="fake", status=401))
    fake = Fake(declared=Declared(max_inputs=2), faults=dead)
    upstream = FakeUpstream(fake)
    texts = texts_of(6)

    async def main():
        (route,) = upstream.routes()
        request = UpstreamRequest(texts, np.full(6, 3, np.int32), "document", SPACE, WIDTH, on_ready=on_ready)
        await upstream.client.send(request, [dataclasses.replace(route, semaphore=PrioritySemaphore(1))])

    with pytest.raises(AuthenticationError):
        asyncio.run(main())
    assert sorted(told) == [0, 1, 2, 3]
    for row, vector in told.items():
        np.testing.assert_allclose(vector, vector_of(texts[row], WIDTH), atol=1e-6)


def test_a_service_whose_own_width_is_another_is_asked_for_the_wanted_one():
    def answers(width):
        seen = []

        class Narrow(Fake):
            async def embed(self, texts, *, input_type, dimensions):
                seen.append(dimensions)
                return await super().embed(texts, input_type=input_type, dimensions=dimensions or 8)

        response = FakeUpstream(Narrow()).send(
            texts_of(2), space=dataclasses.replace(SPACE, dimensions=width), default_width=8
        )
        assert_right(response, texts_of(2), width=width)
        return seen

    assert (answers(16), answers(8), answers(4)) == ([16], [None], [4])


def test_dimensions_are_asked_for_where_honoured_and_cut_here_elsewhere():
    for honours in (True, False):
        seen = []
        fake = Fake(declared=Declared(max_inputs=32, dimensions=honours))
        embed = fake.embed

        async def spy(texts, *, input_type, dimensions, embed=embed, seen=seen):
            seen.append(dimensions)
            return await embed(texts, input_type=input_type, dimensions=dimensions)

        fake.embed = spy
        response = FakeUpstream(fake).send(texts_of(3), space=dataclasses.replace(SPACE, dimensions=8))
        assert_right(response, texts_of(3), width=8)
        assert seen == [8 if honours else None]


def test_what_the_service_says_of_its_limits_is_learned():
    told = RateState(requests_limit=60, requests_remaining=0, requests_reset_s=2.0)
    fake = Fake(
        declared=Declared(max_inputs=1), faults=on_calls(lambda answer: dataclasses.replace(answer, rates=told))
    )
    upstream = FakeUpstream(fake)
    request = ["a", "b"]

    async def main():
        routes = upstream.routes()
        for text in request:
            one = UpstreamRequest([text], np.array([1], np.int32), "document", SPACE, WIDTH)
            await upstream.client.send(one, routes)

    asyncio.run(main())
    assert upstream.time.now == pytest.approx(2.0, abs=0.1)


def test_cancelling_stops_work_without_a_caller():
    fake = Fake(declared=Declared(max_inputs=1), delay_s=30)
    upstream = FakeUpstream(fake)

    async def main():
        lengths = np.ones(20, np.int32)
        request = UpstreamRequest(texts_of(20), lengths, "document", SPACE, WIDTH)
        task = asyncio.create_task(upstream.client.send(request, upstream.routes()))
        for _ in range(100):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert (len(fake.calls), fake.cancelled) == (8, 8)


def test_the_fake_distinguishes_queries_from_documents():
    async def both():
        fake = Fake()
        return [await fake.embed(["a"], input_type=kind, dimensions=None) for kind in ("query", "document")]

    query, document = asyncio.run(both())
    assert isinstance(query, Answer)
    assert not np.allclose(query.vectors, document.vectors)


def test_a_deadline_that_passes_while_the_route_is_busy_says_so():
    upstream = FakeUpstream(Fake(delay_s=60), deadline_s=0.05)

    async def main():
        routes = upstream.routes()
        routes[0] = dataclasses.replace(routes[0], semaphore=PrioritySemaphore(1, express=False))
        request = UpstreamRequest(["a"], np.ones(1, np.int32), "document", SPACE, WIDTH)
        async with routes[0].semaphore.hold(DOCUMENTS):
            await upstream.client.send(request, routes)

    with pytest.raises(
        DeadlineError, match=r"fake-0 could not be asked, because 1 of its requests are under way, befo"
    ):
        asyncio.run(main())
