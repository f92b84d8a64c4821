"""Numbers of waiting calls and their limits."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clocks import Clock
from embedway.errors import OverloadedError
from embedway.server.turns import KeyCalls, Turn
from embedway.server.waiting_calls import WaitingCalls, WaitingLimits


def waiting_of(calls=100, cost=math.inf, wait_s=math.inf, clock=None):
    return WaitingCalls(WaitingLimits(calls, cost, wait_s), clock or Clock())


def turn_of(cost=1.0, weight=1.0, level=0, deadline_s=None):
    return Turn(None, "k", cost=cost, weight=weight, level=level, deadline_s=deadline_s)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 50), st.sampled_from([0.5, 1.0, 3.0]))), st.data())
def test_the_numbers_are_those_of_the_calls(facts, data):
    waiting, keys = waiting_of(), {name: KeyCalls(name) for name in "abc"}
    turns = []
    for name, cost, weight in facts:
        turn = turn_of(cost=cost, weight=weight)
        waiting.add(turn, keys[name])
        turns.append(turn)
    for turn in data.draw(st.permutations(turns)):
        assert waiting.count == len(turns)
        assert waiting.cost == sum(one.cost for one in turns)
        assert waiting.keys == len({one.key.name for one in turns})
        waiting.remove(turn, turn.key)
        turns.remove(turn)
    assert (waiting.count, waiting.cost, waiting.keys) == (0, 0, 0)


def test_a_key_may_use_as_many_places_as_it_leaves_free():
    waiting, bulk, other = waiting_of(calls=10), KeyCalls("bulk"), KeyCalls("other")
    for _ in range(5):
        waiting.check_place(turn_of(), bulk)
        waiting.add(turn_of(), bulk)
    with pytest.raises(OverloadedError, match="5 calls wait, 5 of them with this key; try again in 1 s"):
        waiting.check_place(turn_of(), bulk)
    waiting.check_place(turn_of(), other)


def test_a_call_waits_only_if_its_turn_comes_in_time_by_the_measured_speed():
    clock = Clock(0.0)
    waiting, key = waiting_of(wait_s=5.0, clock=clock), KeyCalls("k")
    waiting.check_place(turn_of(cost=1e6, deadline_s=1.0), key)  # the speed is not known yet
    waiting.add(turn_of(cost=30.0), key)
    clock.now += 1
    waiting.drain.finish(10.0)
    speed = waiting.drain.per_s
    waiting.check_place(turn_of(cost=speed), key)
    waiting.add(turn_of(cost=100.0), key)
    with pytest.raises(OverloadedError, match="calls wait for at most 5 s"):
        waiting.check_place(turn_of(cost=speed), key)
    # Another key gets half of the speed.
    waiting.check_place(turn_of(cost=speed, deadline_s=2.5), KeyCalls("other"))
    with pytest.raises(OverloadedError, match=r"after its deadline of 1\.5 s") as refused:
        waiting.check_place(turn_of(cost=speed, deadline_s=1.5), KeyCalls("other"))
    assert refused.value.retry_after_s == pytest.approx(2.0)
