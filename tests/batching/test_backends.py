"""Requests of several callers to one service: what they share, and their limits."""

import asyncio

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from embedway.batching import backends
from embedway.batching.backends import UpstreamBackend
from embedway.batching.scheduler import BatchScheduler
from embedway.dispatch.recovery import UpstreamClient
from embedway.dispatch.request import RetryPolicy, ServiceRoute, UpstreamRequest
from embedway.providers.base import Declared
from embedway.providers.fake import Fake
from embedway.types import Space
from embedway.urgency import Urgency

WIDTH = 4
SPACE = Space(model="fake", weights="f" * 64, dimensions=WIDTH, pooling="mean", normalized=True)


def request_of(number, texts, tokens=3, input_type="document"):
    names = tuple(f"text {number}-{row}" for row in range(texts))
    return UpstreamRequest(names, np.full(texts, tokens, np.int32), input_type, SPACE, full_width=WIDTH)


def backend_of(service):
    route = ServiceRoute("routes.r", service)
    return UpstreamBackend(UpstreamClient(RetryPolicy()), [route], concurrency=2, max_wait_s=60)


REQUESTS = st.lists(
    st.tuples(st.integers(1, 200), st.integers(1, 400), st.sampled_from(["document", "query"])), min_size=1, max_size=40
)


@given(REQUESTS, st.sampled_from([1, 100, 128, 2048]), st.sampled_from([None, 500, 100_000]))
@settings(max_examples=200)
def test_a_shared_request_is_of_one_kind_and_within_every_limit(facts, max_inputs, max_tokens):
    declared = Declared(max_inputs=max_inputs, max_request_tokens=max_tokens)
    backend = backend_of(Fake(width=WIDTH, declared=declared))
    waiting = [request_of(number, *one) for number, one in enumerate(facts)]
    chosen, is_full = backend.select_jobs(waiting, free=1)
    shared = [waiting[position] for position in chosen]
    assert chosen == sorted(set(chosen))
    assert chosen[0] == 0  # the next one in the queue always goes
    assert {one.input_type for one in shared} == {waiting[0].input_type}
    most_texts, most_tokens = min(128, max_inputs), min(16_384, max_tokens or 16_384)

    def fits(requests):
        return (
            sum(len(one.texts) for one in requests) <= most_texts
            and sum(int(one.lengths.sum()) for one in requests) <= most_tokens
        )

    assert len(shared) == 1 or fits(shared)
    left = [one for position, one in enumerate(waiting) if position not in chosen]
    same = [one for one in left if one.input_type == waiting[0].input_type]
    assert not any(fits([*shared, one]) for one in same)  # no room is left that a waiting one would fill
    assert is_full or not same


def test_many_callers_share_requests_of_at_most_128_texts():
    service = Fake(width=WIDTH, declared=Declared(max_inputs=2048))
    sent, both_run, first_may_end, embed = [], asyncio.Event(), asyncio.Event(), service.embed

    async def noted(texts, **options):
        sent.append(len(texts))
        if len(sent) == 2:
            both_run.set()
        await first_may_end.wait()
        return await embed(texts, **options)

    service.embed = noted

    async def main():
        scheduler = BatchScheduler(backend_of(service))
        tasks = [asyncio.create_task(scheduler.run(request_of(n, 1), Urgency())) for n in range(1000)]
        await both_run.wait()
        first_may_end.set()
        return await asyncio.gather(*tasks)

    responses = asyncio.run(main())
    assert max(sent) == backends._SHARED_TEXTS == 128  # noqa: SLF001  the limit
    assert sum(sent) == 1000
    expected = asyncio.run(embed([f"text {n}-0" for n in range(1000)], input_type="document", dimensions=WIDTH))
    np.testing.assert_array_equal(np.concatenate([one.vectors for one in responses]), expected.vectors)
