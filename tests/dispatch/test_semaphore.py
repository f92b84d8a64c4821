"""The places of a route are assigned by urgency, and released."""

import asyncio
import dataclasses

import numpy as np
import pytest

from embedway.dispatch.request import UpstreamRequest
from embedway.dispatch.semaphore import PrioritySemaphore
from embedway.providers.base import Declared
from embedway.providers.fake import Fake
from embedway.urgency import BACKGROUND, DOCUMENTS, Urgency
from failing_services import SPACE, WIDTH, FakeUpstream, assert_right, limited, texts_of
from inside import places_of


class Gate:
    """Fake that answers one request at a time, on command."""

    def __init__(self):
        self.fake = Fake(declared=Declared(max_inputs=1))
        self.open = asyncio.Semaphore(0)
        self.declared = self.fake.declared

    async def embed(self, texts, *, input_type, dimensions):
        await self.open.acquire()
        return await self.fake.embed(texts, input_type=input_type, dimensions=dimensions)


@pytest.mark.parametrize("urgency", [Urgency(query=True), Urgency(priority=9)], ids=["query", "priority 9"])
def test_what_is_urgent_goes_before_the_rest_of_a_large_request(urgency):
    async def main():
        gate, upstream = Gate(), FakeUpstream()
        (route,) = FakeUpstream(gate).routes()
        route = dataclasses.replace(route, semaphore=PrioritySemaphore(2, clock=upstream.time))

        def send(texts, urgency):
            lengths = np.ones(len(texts), np.int32)
            request = UpstreamRequest(texts, lengths, "document", SPACE, WIDTH, urgency=urgency)
            return asyncio.create_task(upstream.client.send(request, [route]))

        async def settled():
            for _ in range(50):
                await asyncio.sleep(0)

        bulk = send(texts_of(20), Urgency())
        await settled()
        upstream.time.now += 30  # longer than any slack
        first, second = send(["one"], urgency), send(["two"], urgency)
        await settled()
        for _ in range(4):
            gate.open.release()
            await settled()
        done = [call[0] for call in gate.fake.done]
        for _ in range(18):
            gate.open.release()
        await asyncio.gather(bulk, first, second)
        return done, route.semaphore

    done, semaphore = asyncio.run(main())
    assert {"one", "two"} <= set(done)
    assert places_of(semaphore) == (0, False, [])


def test_places_are_given_back_by_those_who_go_away():
    async def main():
        semaphore = PrioritySemaphore(1)

        async def hold():
            async with semaphore.hold():
                await asyncio.sleep(30)

        tasks = [asyncio.create_task(hold()) for _ in range(3)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        async with semaphore.hold():
            return places_of(semaphore)[0]

    assert asyncio.run(main()) == 1


class Crowded(Fake):
    """Fake that refuses what is more than `most` requests at a time, and does not say for how long."""

    def __init__(self, most):
        super().__init__(declared=Declared(max_inputs=1))
        self.most, self.inside, self.refusals = most, 0, 0

    async def embed(self, texts, *, input_type, dimensions):
        self.inside += 1
        try:
            if self.inside > self.most:
                self.refusals += 1
                raise limited()
            for _ in range(20):
                await asyncio.sleep(0)
            return await super().embed(texts, input_type=input_type, dimensions=dimensions)
        finally:
            self.inside -= 1


@pytest.mark.parametrize("most", [1, 2, 5])
def test_a_service_that_serves_a_few_at_a_time_is_sent_no_more(most):
    crowded, texts = Crowded(most), texts_of(200)
    assert_right(FakeUpstream(crowded).send(texts), texts)
    assert crowded.refusals < 40


def test_slots_are_fewer_after_a_refusal_and_return_with_answers():
    async def main():
        semaphore, sizes = PrioritySemaphore(8), []
        async with semaphore.hold(), semaphore.hold(), semaphore.hold():
            for _ in range(4):
                semaphore.narrow()
                sizes.append(semaphore.allowed)
        for _ in range(1000):
            semaphore.widen()
        return sizes, semaphore.allowed

    assert asyncio.run(main()) == ([2, 1, 1, 1], 8)


def test_a_narrowed_semaphore_has_no_slot_beyond_its_own_for_queries():
    async def main():
        semaphore = PrioritySemaphore(2, express=True)
        async with semaphore.hold():
            semaphore.narrow()
            query = asyncio.create_task(enter(semaphore))
            await asyncio.sleep(0)
            assert places_of(semaphore)[:2] == (1, False)
        await query

    async def enter(semaphore):
        async with semaphore.hold(Urgency(0, query=True)):
            pass

    asyncio.run(main())


def test_a_check_in_the_background_is_overtaken_for_some_seconds_and_never_starved():
    now, order = [0.0], []

    async def enter(semaphore, name, urgency):
        async with semaphore.hold(urgency):
            order.append(name)

    async def main():
        semaphore = PrioritySemaphore(1, clock=lambda: now[0])
        async with semaphore.hold():
            tasks = [asyncio.create_task(enter(semaphore, "check", BACKGROUND))]
            for second in range(1, 10):
                await asyncio.sleep(0)
                now[0] = float(second)
                tasks.append(asyncio.create_task(enter(semaphore, second, DOCUMENTS)))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert order == [1, 2, 3, 4, "check", 5, 6, 7, 8, 9]
