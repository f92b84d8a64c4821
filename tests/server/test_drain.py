"""Measured drain: only time in which calls wait counts."""

import pytest

from clocks import Clock
from embedway.server.drain import Drain


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def drain(clock):
    return Drain(clock)


def serve(drain, clock, *, calls, cost, each_s):
    for _ in range(calls):
        clock.now += each_s
        drain.finish(cost)


def test_it_is_unknown_until_a_call_finishes_while_another_waits(drain, clock):
    serve(drain, clock, calls=10, cost=5, each_s=0.1)
    assert drain.per_s is None
    drain.start()
    clock.now += 3
    assert drain.per_s is None
    drain.finish(6)
    assert drain.per_s == pytest.approx(2.3, rel=0.1)


@pytest.mark.parametrize(("cost", "each_s"), [(1, 0.001), (100, 0.5), (0.01, 2.0)])
def test_a_steady_speed_is_measured(drain, clock, cost, each_s):
    drain.start()
    serve(drain, clock, calls=int(30 / each_s), cost=cost, each_s=each_s)
    assert drain.per_s == pytest.approx(cost / each_s, rel=0.12)


def test_time_without_waiting_calls_does_not_count(drain, clock):
    drain.start()
    serve(drain, clock, calls=1000, cost=1, each_s=0.01)
    drain.stop()
    before = drain.per_s
    serve(drain, clock, calls=10, cost=1, each_s=10)
    assert drain.per_s == before
    drain.start()
    serve(drain, clock, calls=100, cost=1, each_s=0.01)
    assert drain.per_s == pytest.approx(100, rel=0.05)


def test_a_change_of_speed_is_followed_within_the_window(drain, clock):
    drain.start()
    serve(drain, clock, calls=3000, cost=1, each_s=0.01)
    serve(drain, clock, calls=300, cost=1, each_s=0.1)
    assert drain.per_s == pytest.approx(10, rel=0.5)


def test_it_falls_while_nothing_finishes(drain, clock):
    drain.start()
    serve(drain, clock, calls=3000, cost=1, each_s=0.01)
    clock.now += 30
    assert drain.per_s < 10


def test_a_clock_that_stands_still_gives_no_infinite_speed(drain):
    drain.start()
    drain.finish(5)
    assert drain.per_s is None
