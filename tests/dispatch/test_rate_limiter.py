"""Limits per minute: never exceeded, learned from the service, and fair. Time is simulated."""

import asyncio
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedway.dispatch.rate_limiter import RateLimiter
from embedway.types import RateLimit, RateState


class Time:
    """Clock that advances only when a task sleeps."""

    def __init__(self):
        self.now = 1000.0
        self.slept = []

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def time():
    return Time()


def limiter(time, **limits):
    return RateLimiter(clock=time, sleep=time.sleep, **limits)


async def moments(limiter, time, amounts):
    found = []
    for amount in amounts:
        await limiter.acquire(amount)
        found.append((time.now, amount))
    return found


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=60),
    st.integers(1, 30),
    st.integers(500, 5000),
)
def test_no_minute_holds_more_than_a_burst_and_a_minute(amounts, requests, tokens):
    time = Time()
    sent = asyncio.run(moments(limiter(time, requests_per_minute=requests, tokens_per_minute=tokens), time, amounts))
    for start, _ in sent:
        within = [amount for moment, amount in sent if start <= moment < start + 60]
        # A full bucket, and its refill in that time; the tolerance is one request's amount.
        assert len(within) <= 2 * requests + 1
        assert sum(within) <= 2 * tokens + max(within)


def test_without_limits_no_request_waits(time):
    asyncio.run(moments(limiter(time), time, [10**9] * 50))
    assert time.slept == []


def test_an_even_rate_once_the_burst_is_used_up(time):
    sent = asyncio.run(moments(limiter(time, requests_per_minute=60), time, [1] * 70))
    gaps = [later - earlier for (earlier, _), (later, _) in itertools.pairwise(sent)]
    assert gaps[:59] == [0] * 59
    assert gaps[60:] == pytest.approx([1.0] * 9, abs=0.01)


def test_what_is_over_the_limit_itself_goes_when_the_bucket_is_full_and_is_paid_for_after(time):
    sent = asyncio.run(moments(limiter(time, tokens_per_minute=600), time, [1200, 10]))
    assert sent[0][0] == 1000
    assert sent[1][0] == pytest.approx(1000 + 61, abs=0.1)


def test_limits_are_learned_from_headers(time):
    made = limiter(time)
    made.learn(RateState(requests_limit=60, requests_remaining=0, requests_reset_s=5.0))
    sent = asyncio.run(moments(made, time, [1, 1]))
    assert sent[0][0] == pytest.approx(1005, abs=0.1)
    assert sent[1][0] == pytest.approx(1006, abs=0.1)


def test_others_who_use_the_key_are_seen(time):
    made = limiter(time, tokens_per_minute=6000)
    made.learn(RateState(tokens_limit=6000, tokens_remaining=100))
    sent = asyncio.run(moments(made, time, [100, 100]))
    assert sent[0][0] == 1000
    assert sent[1][0] == pytest.approx(1001, abs=0.1)


def test_a_service_that_names_more_than_we_have_left_gives_nothing_back(time):
    made = limiter(time, requests_per_minute=60)
    asyncio.run(moments(made, time, [1] * 60))
    made.learn(RateState(requests_limit=60, requests_remaining=60))
    assert made.wait_s(1) == pytest.approx(1.0, abs=0.01)


def test_retry_after_delays_all_requests(time):
    made = limiter(time)
    made.close_for(7)
    made.close_for(3)
    assert asyncio.run(moments(made, time, [1]))[0][0] == pytest.approx(1007, abs=0.01)


def test_callers_go_in_the_order_they_came(time):
    async def main():
        made = limiter(time, requests_per_minute=1)
        order = []

        async def one(number):
            await made.acquire(1)
            order.append(number)

        await asyncio.gather(*(one(number) for number in range(5)))
        return order

    assert asyncio.run(main()) == list(range(5))


def test_the_users_own_limit_is_never_lifted(time):
    made = limiter(time, requests_per_minute=10, tokens_per_minute=100)
    made.learn(RateState(requests_limit=3000, requests_remaining=2999, tokens_limit=50, tokens_remaining=50))
    assert made.most_tokens == 50
    sent = asyncio.run(moments(made, time, [1] * 11))
    assert sent[-1][0] == pytest.approx(1006, abs=0.01)


@pytest.mark.parametrize("kind", ["requests", "tokens"])
@pytest.mark.parametrize("reset_s", [1_764_100_000.0, 1e30])
def test_a_reset_far_in_the_future_is_a_mistake_and_is_ignored(time, kind, reset_s):
    made = limiter(time)
    made.learn(RateState(**{f"{kind}_limit": 600, f"{kind}_remaining": 0, f"{kind}_reset_s": reset_s}), 1)
    asyncio.run(made.acquire(1))
    assert sum(time.slept) <= 60


def test_a_limit_below_the_tokens_of_the_answered_request_is_ignored(time):
    made = limiter(time)
    made.learn(RateState(tokens_limit=1, tokens_remaining=0, tokens_reset_s=60.0), 50)
    asyncio.run(made.acquire(50))
    assert time.slept == []
    made.learn(RateState(tokens_limit=50, tokens_remaining=0), 50)
    asyncio.run(made.acquire(50))
    assert sum(time.slept) == pytest.approx(60)


def test_a_limit_per_day_is_not_refilled_each_minute(time):
    made = limiter(time)
    made.learn(RateState(requests_limit=1000, requests_remaining=0, requests_reset_s=25_920.0))
    assert made.wait_s(1) == pytest.approx(25_920)
    time.now += 25_000
    assert made.wait_s(1) == pytest.approx(920)
    time.now += 921
    assert asyncio.run(moments(made, time, [1] * 1000))[-1][0] == time.now


def test_limits_of_different_periods_apply_together(time):
    made = limiter(time)
    minute = RateLimit("tokens", 60_000, 0, 10.0, 60.0)
    day = RateLimit("requests", 100, 0, 5000.0, 86_400.0)
    made.learn(RateState(more=(minute,)))
    assert (made.wait_s(1), made.most_tokens) == (pytest.approx(10), 60_000)
    made.learn(RateState(more=(minute, day)))
    assert made.wait_s(1) == pytest.approx(5000)
    assert made.obstacle(1).reason == "the limit of 100 requests per day, announced by the service, is used up"


def test_a_service_with_a_limit_per_second_is_not_held_to_it_per_minute(time):
    made = limiter(time)

    async def main():
        for _ in range(100):
            await made.acquire(1)
            made.learn(RateState(more=(RateLimit("requests", 10, 9, 1.0),)))
            time.now += 0.2

    asyncio.run(main())
    assert sum(time.slept) == 0


def test_a_used_up_limit_without_a_number_ends_with_its_reset(time):
    made = limiter(time)
    made.learn(RateState(requests_remaining=0, requests_reset_s=40.0))
    assert made.wait_s(1) == pytest.approx(40)
    assert made.obstacle(1).reason == "the limit of requests, announced by the service, is used up"
    time.now += 41
    asyncio.run(moments(made, time, [1] * 100))
    assert time.slept == []
    made.learn(RateState(requests_remaining=0))  # unknown when it ends
    assert made.wait_s(1) == 0


@pytest.mark.parametrize(
    "rates",
    [
        RateState(requests_limit=0, requests_remaining=0, requests_reset_s=60.0),
        RateState(tokens_limit=0, tokens_remaining=0, tokens_reset_s=60.0),
        RateState(requests_limit=10, requests_remaining=10**30, requests_reset_s=1.0),
        RateState(more=(RateLimit("requests", 10, None, None),)),
        RateState(more=(RateLimit("requests", 10**30, 10**30, 86_400.0, 1e-9),)),
    ],
)
def test_limits_that_no_service_can_mean_hold_nobody_up(time, rates):
    made = limiter(time)
    made.learn(rates, 1)
    asyncio.run(moments(made, time, [1] * 3))
    assert time.slept == []


def test_the_users_limit_holds_beside_a_services_reset(time):
    made = limiter(time, requests_per_minute=10)
    sent = []

    async def main():
        for _ in range(40):
            await made.acquire(1)
            sent.append(time.now)
            made.learn(RateState(requests_limit=1000, requests_remaining=0, requests_reset_s=0.001))
            time.now += 0.01

    asyncio.run(main())
    for start in sent:
        assert sum(start <= moment < start + 60 for moment in sent) <= 21


def test_a_limiter_that_would_wait_too_long_says_so_at_once(time):
    made = limiter(time, requests_per_minute=1)
    assert asyncio.run(made.acquire(1, longest_s=lambda: 0.0)) is None
    obstacle = asyncio.run(made.acquire(1, longest_s=lambda: 59.0))
    assert (obstacle.wait_s, time.slept) == (pytest.approx(60), [])
    assert str(obstacle).endswith("UTC (in 60.0 s)")
    assert asyncio.run(made.acquire(1, longest_s=lambda: 61.0)) is None


def test_while_callers_wait_a_limit_that_became_long_ends_their_wait(time):
    async def sleep(seconds):
        await time.sleep(seconds)
        made.learn(RateState(requests_limit=1000, requests_remaining=0, requests_reset_s=25_920.0))

    made = RateLimiter(clock=time, sleep=sleep, requests_per_minute=60)
    asyncio.run(moments(made, time, [1] * 60))
    assert asyncio.run(made.acquire(1, longest_s=lambda: 10.0)).wait_s == pytest.approx(25_920, abs=1)
