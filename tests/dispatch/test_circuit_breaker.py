"""A route that keeps failing rests, and comes back by one request."""

import pytest

from embedway.dispatch.circuit_breaker import CircuitBreaker


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return CircuitBreaker(failures=3, rest_s=10, clock=clock)


def opened(breaker):
    for _ in range(3):
        assert breaker.allow()
        breaker.failed()
    return breaker


def test_it_opens_after_failures_in_a_row_only(breaker):
    for _ in range(2):
        breaker.failed()
    breaker.succeeded()
    for _ in range(2):
        breaker.failed()
    assert breaker.state == "closed"
    breaker.failed()
    assert (breaker.state, breaker.allow()) == ("open", False)


def test_after_its_rest_one_request_is_let_through(breaker, clock):
    opened(breaker)
    clock.now = 9.9
    assert not breaker.allow()
    clock.now = 10
    assert breaker.state == "half-open"
    assert [breaker.allow() for _ in range(3)] == [True, False, False]


def test_a_good_probe_closes_it_and_a_bad_one_starts_the_rest_anew(breaker, clock):
    opened(breaker)
    clock.now = 10
    assert breaker.allow()
    breaker.failed()
    clock.now = 19
    assert not breaker.allow()
    clock.now = 20
    assert breaker.allow()
    breaker.succeeded()
    assert (breaker.state, breaker.allow()) == ("closed", True)


def test_a_cancelled_probe_leaves_the_place_to_the_next(breaker, clock):
    opened(breaker)
    clock.now = 10
    assert breaker.allow()
    breaker.abandoned()
    assert breaker.allow()


def test_late_failures_of_requests_sent_before_do_not_lengthen_the_rest(breaker, clock):
    opened(breaker)
    clock.now = 5
    breaker.failed()
    clock.now = 10
    assert breaker.state == "half-open"
