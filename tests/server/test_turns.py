"""Calls of one key: the most urgent first, and what has left is skipped."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from embedway.server.turns import KeyCalls, Turn, level_of


def turn_of(arrived, priority, *, query=False, cost=1.0):
    level = level_of(priority, query=query)
    turn = Turn(None, "k", cost=cost, weight=1.0, level=level, deadline_s=None)
    turn.arrived, turn.is_waiting = arrived, True
    return turn


def calls_of(*turns):
    calls = KeyCalls("k")
    for number, turn in enumerate(turns):
        calls.add(turn, number)
    return calls


def popped(calls):
    found = []
    while calls.waiting:
        turn = calls.pop()
        turn.is_waiting = False
        calls.remove(turn)
        found.append(turn)
    return found


def test_queries_go_first_then_higher_priorities_then_earlier_calls():
    low, high = turn_of(0, 0), turn_of(0.1, 9)
    query, urgent = turn_of(0.2, 0, query=True), turn_of(0.3, 9, query=True)
    later = turn_of(0.4, 9, query=True)
    assert popped(calls_of(low, high, query, urgent, later)) == [urgent, later, query, high, low]


def test_calls_age():
    old, new = turn_of(0, 0), [turn_of(at, 9, query=True) for at in (0, 5, 9, 10, 20)]
    order = popped(calls_of(old, *new))
    assert order.index(old) == 3  # after the queries of the first ten seconds
    assert level_of(-5, query=False) == level_of(0, query=False) == 0
    assert level_of(12, query=True) == level_of(9, query=True) == 19


#: Times of a clock: multiples of a microsecond.
MOMENTS = st.integers(0, 10**8).map(lambda number: number / 10**6)


@given(
    st.lists(st.tuples(MOMENTS, st.integers(0, 9), st.booleans(), st.floats(0.1, 9)), min_size=1),
    st.data(),
)
def test_costs_and_the_order_stay_right_when_calls_leave(facts, data):
    turns = [turn_of(at, priority, query=query, cost=cost) for at, priority, query, cost in facts]
    calls = calls_of(*turns)
    for turn in data.draw(st.lists(st.sampled_from(turns), unique=True)):
        turn.is_waiting = False
        calls.remove(turn)
    left = [turn for turn in turns if turn.is_waiting]
    assert calls.waiting == len(left)
    for level in range(20):
        expected = sum(turn.cost for turn in left if turn.level >= level)
        assert abs(calls.cost_before(level) - expected) < 1e-6
    assert calls.oldest() == min((turn.arrived for turn in left), default=None)
    order = popped(calls)
    assert len(order) == len(left)
    for one, next_one in itertools.pairwise(order):
        # Only an earlier call goes before one that is as urgent or more.
        assert one.level > next_one.level or one.arrived <= next_one.arrived


def test_calls_that_left_need_no_memory():
    calls = KeyCalls("k")
    first = turn_of(0, 9)
    calls.add(first, 0)
    for number in range(1, 10_000):
        turn = turn_of(1, 0)
        calls.add(turn, number)
        turn.is_waiting = False
        calls.remove(turn)
    assert len(calls._calls) < 20  # noqa: SLF001  the bound
    assert popped(calls) == [first]
