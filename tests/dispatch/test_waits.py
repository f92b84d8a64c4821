"""Waits: another route at once, an error at once if none can answer in time, and models that load."""

import asyncio
import copy
import dataclasses
import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedway.dispatch.rate_limiter import RateLimiter
from embedway.dispatch.recovery import UpstreamClient
from embedway.dispatch.request import RetryPolicy, ServiceRoute, UpstreamRequest
from embedway.dispatch.waits import waited_for
from embedway.errors import (
    AuthenticationError,
    DeadlineError,
    EmbedwayError,
    NoRouteError,
    RateLimitedError,
    RefusedInputError,
    UnavailableError,
)
from embedway.providers.base import Declared, RateState
from embedway.providers.fake import Fake
from embedway.types import RateLimit, ServiceLimits
from failing_services import (
    SPACE,
    WIDTH,
    FakeUpstream,
    assert_right,
    limited,
    on_calls,
    refused,
    texts_of,
    unavailable,
)
from inside import failures_of

DAY = RateState(requests_limit=1000, requests_remaining=0, requests_reset_s=25_920.0)


def says(rates):
    """Return faults: good answers whose headers have these limits."""
    return lambda _number, _texts: lambda answer: dataclasses.replace(answer, rates=rates)


def loading(**more):
    error = unavailable(**{"billed": True, **more})
    error.loading = True
    return error


def calls(upstream, count, routes=None):
    """Send requests of one text, one after the other; return the responses or errors."""

    async def main():
        used = routes or upstream.routes()
        found = []
        for number in range(count):
            request = UpstreamRequest([f"text {number}"], np.full(1, 2, np.int32), "document", SPACE, WIDTH)
            try:
                found.append(await upstream.client.send(request, used))
            except Exception as error:  # noqa: BLE001  returned
                found.append(error)
        return found

    return asyncio.run(main())


def with_limits(upstream, **limits):
    first, *rest = upstream.routes()
    limiter = RateLimiter(clock=upstream.time, sleep=upstream.time.sleep, **limits)
    return [dataclasses.replace(first, limiter=limiter), *rest]


@pytest.mark.parametrize("own", [False, True])
def test_a_used_up_limit_is_another_routes_chance(own):
    first, second = Fake(faults=None if own else says(DAY)), Fake()
    upstream = FakeUpstream(first, second)
    found = calls(upstream, 4, with_limits(upstream, requests_per_minute=1) if own else None)
    assert [response.routes for response in found] == [["fake-0"], *[["fake-1"]] * 3]
    assert (len(first.calls), len(second.calls), upstream.time.slept) == (1, 3, [])


def test_a_limit_that_ends_after_the_deadline_is_an_error_at_once():
    fake = Fake(faults=says(DAY))
    upstream = FakeUpstream(fake, deadline_s=120.0)
    _, error = calls(upstream, 2)
    assert (type(error), len(fake.calls), upstream.time.slept) == (DeadlineError, 1, [])
    assert (error.route, error.attempts) == ("fake-0", 0)
    assert error.retry_after_s == pytest.approx(25_920)
    assert isinstance(error.__cause__, RateLimitedError)
    assert "fake-0: the limit of 1000 requests per day, announced by the service, is used up until 20" in str(error)
    assert "UTC (in 25920 s), after the deadline of the request (upstream.deadline_s = 120)" in str(error)
    assert copy.copy(error).retry_after_s == error.retry_after_s


def test_the_users_own_limit_is_named_with_its_setting():
    upstream = FakeUpstream(Fake(), deadline_s=15.0)
    *_, error = calls(upstream, 3, with_limits(upstream, requests_per_minute=2))
    assert type(error) is DeadlineError
    assert "the limit of 2 requests per minute, set as requests_per_minute of the route, is used up until" in str(error)
    upstream = FakeUpstream(Fake(), deadline_s=15.0)
    *_, error = calls(upstream, 2, with_limits(upstream, tokens_per_minute=2))
    assert "the limit of 2 tokens per minute, set as tokens_per_minute of the route, is used up until" in str(error)
    assert upstream.time.slept == []


def test_a_limit_that_ends_before_the_deadline_is_waited_for():
    rates = RateState(requests_limit=1000, requests_remaining=0, requests_reset_s=90.0)
    upstream = FakeUpstream(Fake(faults=says(rates)), deadline_s=120.0)
    _, response = calls(upstream, 2)
    assert_right(response, ["text 1"])
    assert upstream.time.now == pytest.approx(90, abs=0.1)


def test_twenty_calls_under_a_limit_of_fifty_a_day_do_not_wait():
    def faults(number, _texts):
        rates = RateState(requests_limit=50, requests_remaining=49 - number, requests_reset_s=86_400.0)
        return lambda answer: dataclasses.replace(answer, rates=rates)

    fake = Fake(faults=faults)
    upstream = FakeUpstream(fake)
    found = calls(upstream, 51)
    assert (len(fake.calls), upstream.time.slept) == (50, [])
    assert "the limit of 50 requests per day" in str(found[50])


def test_when_all_routes_have_used_up_their_limits_each_is_named():
    later = RateState(more=(RateLimit("tokens", 10_000, 0, 50_000.0, 86_400.0),))
    upstream = FakeUpstream(Fake(faults=says(DAY)), Fake(faults=says(later)))
    *_, error = calls(upstream, 3)
    assert type(error) is NoRouteError
    assert [route for route, _ in error.failed] == ["fake-0", "fake-1"]
    assert "1000 requests per day" in error.failed[0][1]
    assert "10000 tokens per day" in error.failed[1][1]
    assert error.retry_after_s == pytest.approx(25_920)


def test_the_route_whose_limit_ends_first_is_used_again_if_the_others_take_longer():
    soon = RateState(requests_limit=60, requests_remaining=0, requests_reset_s=10.0)
    first, second = Fake(faults=on_calls(says(soon)(0, []))), Fake(faults=says(DAY))
    upstream = FakeUpstream(first, second)
    found = calls(upstream, 3)
    assert [response.routes for response in found] == [["fake-0"], ["fake-1"], ["fake-0"]]
    assert upstream.time.now == pytest.approx(10, abs=0.1)


def test_a_route_that_was_closed_is_used_again_if_the_next_one_fails():
    first = Fake(faults=on_calls(limited(7.0)))
    refuses = Fake(faults=lambda _number, _texts: AuthenticationError("no", route="fake-1", status=401))
    upstream = FakeUpstream(first, refuses)
    assert_right(upstream.send(["a"]), ["a"])
    assert (len(first.calls), len(refuses.calls)) == (2, 1)
    assert upstream.time.now == pytest.approx(7, abs=0.1)


def test_a_wait_of_a_day_ends_at_once_and_closes_the_route_for_later_calls():
    fake = Fake(faults=lambda _number, _texts: limited(86_400.0))
    upstream = FakeUpstream(fake)
    first, second = calls(upstream, 2)
    for error in (first, second):
        assert type(error) is DeadlineError
        assert error.retry_after_s == pytest.approx(86_400)
        assert "UTC" in str(error)
    assert isinstance(first.__cause__, RateLimitedError)
    assert "too many requests (HTTP 429)" in str(first)
    assert "the service asks to wait until" in str(second)
    assert (len(fake.calls), upstream.time.slept) == (1, [])


def test_each_route_that_asks_for_a_long_wait_is_named_with_its_end():
    fakes = [Fake(faults=lambda _number, _texts: limited(7200.0)) for _ in range(2)]
    with pytest.raises(NoRouteError) as caught:
        FakeUpstream(*fakes).send(["a"])
    for _, reason in caught.value.failed:
        assert "too many requests (HTTP 429)" in reason
        assert "UTC" in reason
    assert caught.value.retry_after_s == pytest.approx(7200)
    assert [len(fake.calls) for fake in fakes] == [1, 1]


def test_the_limit_is_named_beside_a_requested_wait():
    error = limited(25_000.0)
    error.rates = DAY
    upstream = FakeUpstream(Fake(faults=lambda _number, _texts: error))
    (found,) = calls(upstream, 1)
    assert "the limit of 1000 requests per day, announced by the service, is used up until" in str(found)


def test_parts_under_way_are_answered_before_a_limit_ends_a_request():
    told = {}
    fake = Fake(declared=Declared(max_inputs=1), delay_s=0.02)
    upstream = FakeUpstream(fake, deadline_s=15.0)

    async def main():
        request = UpstreamRequest(
            texts_of(5),
            np.full(5, 3, np.int32),
            "document",
            SPACE,
            WIDTH,
            on_ready=lambda rows, vectors: told.update(zip(rows.tolist(), vectors, strict=True)),
        )
        await upstream.client.send(request, with_limits(upstream, requests_per_minute=3))

    with pytest.raises(DeadlineError, match="the limit of 3 requests per minute"):
        asyncio.run(main())
    assert (len(told), fake.cancelled) == (3, 0)


def test_with_partial_results_only_the_parts_over_the_limit_fail():
    fake = Fake(declared=Declared(max_inputs=1))
    upstream = FakeUpstream(fake, deadline_s=15.0)

    async def main():
        request = UpstreamRequest(texts_of(5), np.full(5, 3, np.int32), "document", SPACE, WIDTH, partial=True)
        return await upstream.client.send(request, with_limits(upstream, requests_per_minute=3))

    response = asyncio.run(main())
    assert_right(response, texts_of(5))
    assert len(response.errors) == 2


@pytest.mark.parametrize("asked_s", [None, 4.0])
def test_a_model_that_loads_is_waited_for_and_uses_up_no_attempts(asked_s):
    upstream = FakeUpstream()

    def faults(_number, _texts):
        return loading(retry_after_s=asked_s) if upstream.time.now < 20 else None

    fake = Fake(faults=faults)
    upstream.fakes = (fake,)

    async def main():
        (route,) = upstream.routes()
        request = UpstreamRequest(["a"], np.ones(1, np.int32), "document", SPACE, WIDTH)
        return await upstream.client.send(request, [route]), failures_of(route.circuit)

    response, failures = asyncio.run(main())
    assert_right(response, ["a"])
    assert failures == 0
    assert 20 <= upstream.time.now <= 25
    assert max(upstream.time.slept) <= 5.0
    assert len(fake.calls) <= 9
    assert asked_s is None or upstream.time.slept == [4.0] * 5


def test_a_model_that_loads_past_the_deadline_is_reported():
    fake = Fake(faults=lambda _number, _texts: loading())
    upstream = FakeUpstream(fake, deadline_s=30.0, max_attempts=2)
    with pytest.raises(
        DeadlineError, match=r"still loading its model.*upstream.deadline_s = 30\).*it failed"
    ) as caught:
        upstream.send(["a"])
    assert 25 <= upstream.time.now <= 30
    assert isinstance(caught.value.__cause__, UnavailableError)
    upstream = FakeUpstream(fake := Fake(faults=lambda _number, _texts: loading(retry_after_s=40.0)), deadline_s=30.0)
    with pytest.raises(DeadlineError):
        upstream.send(["a"])
    assert (len(fake.calls), upstream.time.slept) == (1, [])


def test_while_a_model_loads_another_route_answers_at_once():
    first, second = Fake(faults=lambda _number, _texts: loading()), Fake()
    upstream = FakeUpstream(first, second)
    assert_right(upstream.send(texts_of(3)), texts_of(3))
    assert (len(first.calls), len(second.calls), upstream.time.slept) == (1, 1, [])


def test_callers_of_a_merged_request_wait_together_for_a_model_that_loads():
    fake = Fake(faults=on_calls(loading(), loading()))
    upstream = FakeUpstream(fake)
    response = upstream.send(texts_of(4), callers=np.array([0, 0, 1, 1]), partial=True)
    assert_right(response, texts_of(4))
    assert [len(call) for call in fake.calls] == [4, 4, 4]


@pytest.mark.parametrize("kind", [unavailable, limited])
def test_exhausted_tries_name_their_number_their_time_and_the_settings(kind):
    error = kind()
    upstream = FakeUpstream(Fake(faults=lambda _number, _texts: error), max_attempts=3)
    with pytest.raises(type(error)) as caught:
        upstream.send(["a"])
    assert "gave up after 3 tries in 1.5 s (settings: upstream.max_attempts = 3, upstream.deadline_s = 120)" in str(
        caught.value
    )
    assert (caught.value.route, caught.value.status) == (error.route, error.status)
    assert "gave up" not in str(error)


def test_a_real_clock_ends_a_call_at_once_too():

    client, route = UpstreamClient(RetryPolicy(deadline_s=600.0)), ServiceRoute("r", Fake(faults=says(DAY)))
    request = UpstreamRequest(["a"], np.ones(1, np.int32), "document", SPACE, WIDTH)

    async def main():
        await client.send(request, [route])
        await client.send(request, [route])

    started = time.monotonic()
    with pytest.raises(DeadlineError):
        asyncio.run(main())
    assert time.monotonic() - started < 300


@pytest.mark.parametrize("asked_s", [float("nan"), float("inf"), -5.0, 1e30, 1_764_100_000, "7", True])
@pytest.mark.parametrize("kind", [unavailable, limited])
def test_a_wait_that_nobody_can_mean_is_ignored(kind, asked_s):
    error = kind()
    error.retry_after_s = asked_s
    upstream = FakeUpstream(Fake(faults=on_calls(error)))
    assert_right(upstream.send(["a"]), ["a"])
    assert upstream.time.now <= 1.1


def test_limits_of_another_type_in_an_error_are_ignored():
    error = limited(1.0)
    error.rates, error.limits = {"requests_limit": 1}, 7
    assert_right(FakeUpstream(Fake(faults=on_calls(error))).send(texts_of(2)), texts_of(2))


def test_a_request_over_a_limit_on_tokens_that_a_refusal_names_is_split():
    def faults(_number, texts):
        error = limited(2.0)
        error.rates = RateState(tokens_limit=12, tokens_remaining=12, tokens_reset_s=0.0)
        return error if len(texts) > 4 else None

    fake = Fake(faults=faults)
    upstream = FakeUpstream(fake, deadline_s=1000.0)
    assert_right(upstream.send(texts_of(8)), texts_of(8))
    assert [len(call) for call in fake.calls] == [8, 4, 4]


RATES = [
    RateState(requests_limit=1000, requests_remaining=0, requests_reset_s=50.0),
    RateState(tokens_limit=40, tokens_remaining=3, tokens_reset_s=20.0),
    RateState(more=(RateLimit("requests", 9, 0, 700.0, 86_400.0),)),
]


@settings(deadline=None, max_examples=150)
@given(st.data(), st.integers(1, 30), st.integers(1, 9), st.integers(1, 3), st.sampled_from([20.0, 200.0, 1e9]))
def test_with_limits_loading_models_and_named_limits_every_row_is_right_or_an_error(
    data, count, inputs, routes, deadline_s
):
    def faults(_number, _texts):
        kind = data.draw(st.sampled_from([None, None, "rates", "loading", "limited", "day", "named", "unavailable"]))
        if kind == "rates":
            rates = data.draw(st.sampled_from(RATES))
            return lambda answer: dataclasses.replace(answer, rates=rates)
        if kind == "named":
            error = refused()
            error.limits = ServiceLimits(max_inputs=data.draw(st.integers(0, 9)))
            return error
        made = {"loading": loading, "limited": lambda: limited(1.0), "day": lambda: limited(86_400.0)}
        return {**made, "unavailable": unavailable, None: lambda: None}[kind]()

    fakes = [Fake(declared=Declared(max_inputs=inputs), faults=faults) for _ in range(routes)]
    upstream, texts = FakeUpstream(*fakes, deadline_s=deadline_s), texts_of(count)
    response = upstream.send(texts, partial=True)
    assert_right(response, texts)
    assert all(isinstance(error, EmbedwayError) for error in response.errors.values())
    assert upstream.time.now <= deadline_s + 0.01
    done = [text for fake in fakes for call in fake.calls for text in call]
    answered = {text for row, text in enumerate(texts) if row not in response.errors}
    assert answered <= set(done)
    for error in response.errors.values():
        late = error.__cause__ if isinstance(error, DeadlineError) else None
        assert late is None or isinstance(late, (RateLimitedError, UnavailableError, RefusedInputError))


def test_a_wait_that_ends_at_the_deadline_names_its_limit():
    rates = [lambda answer: dataclasses.replace(answer, rates=RATES[1])]
    fake = Fake(declared=Declared(max_inputs=4), faults=on_calls(*rates, loading(), loading()))
    upstream = FakeUpstream(fake, deadline_s=20.0)
    response = upstream.send(texts_of(11), partial=True)
    late = [error for error in response.errors.values() if isinstance(error, DeadlineError)]
    assert late
    assert all(error.__cause__ is None or isinstance(error.__cause__, EmbedwayError) for error in late)
    assert all("limit of" in str(error) or "loading its model" in str(error) for error in late)


def test_the_reason_of_a_wait_is_named():
    (route,) = FakeUpstream(Fake()).routes()
    assert waited_for(route, 5) == "after a wait"
    route.limiter.close_for(7.0)
    assert re.match(r"because the service asks to wait until .* \(in 7.0 s\)", waited_for(route, 5))
