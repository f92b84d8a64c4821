"""Fair queue against a simple simulation: bounded unfairness, no idle slots, no starvation."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from clocks import Clock
from embedway.server.fair_queue import FairQueue

KEYS = "abcd"
WEIGHTS = st.sampled_from([0.25, 1.0, 2.0, 7.0])
COSTS = st.integers(1, 100)


def enter(queue, key, **options):
    """Enter a call without a task. Return its turn, which runs or waits."""
    turn = queue.turn(key, **options)
    queue.enter(turn)
    return turn


def runs(turn):
    return turn.key is not None and not turn.is_waiting


@given(
    st.dictionaries(st.sampled_from(KEYS), WEIGHTS, min_size=2),
    st.data(),
)
@settings(deadline=None, max_examples=200)
def test_served_costs_of_two_waiting_keys_differ_by_one_largest_call_of_each(weights, data):
    queue = FairQueue(max_running=1, max_waiting=100_000, share=1.0, reserved=0.0, clock=Clock(0.0))
    first = enter(queue, "first", cost=1.0)
    calls = {key: data.draw(st.lists(COSTS, min_size=3, max_size=25), label=key) for key in weights}
    order = data.draw(st.permutations([(key, cost) for key, costs in calls.items() for cost in costs]))
    waiting = [enter(queue, key, cost=cost, weight=weights[key]) for key, cost in order]
    left = {key: len(costs) for key, costs in calls.items()}
    served = dict.fromkeys(weights, 0.0)
    queue.leave(first)
    while waiting:
        (turn,) = [one for one in waiting if runs(one)]
        waiting.remove(turn)
        served[turn.key_name] += turn.cost / weights[turn.key_name]
        left[turn.key_name] -= 1
        for one in weights:
            for other in weights:
                if left[one] and left[other]:
                    bound = max(calls[one]) / weights[one] + max(calls[other]) / weights[other]
                    assert abs(served[one] - served[other]) <= bound + 1e-6
        queue.leave(turn)
    assert queue.state().running == queue.state().waiting == 0


class Simulation:
    """The numbers of a queue, counted anew from its turns."""

    def __init__(self, max_running, share, reserved):
        self.clock = Clock(0.0)
        self.queue = FairQueue(
            max_running=max_running, max_waiting=10**6, share=share, reserved=reserved, clock=self.clock
        )
        self.max_running = max_running
        self.common = max_running - int(max_running * reserved)
        self.most_of_key = max(1, math.ceil(max_running * share))
        self.turns = []

    def running(self, key=None):
        return [turn for turn in self.turns if runs(turn) and key in {None, turn.key_name}]

    def waiting(self):
        return [turn for turn in self.turns if turn.is_waiting]

    def enter(self, key, **options):
        self._watched(lambda: self.turns.append(enter(self.queue, key, **options)))

    def leave(self, turn):
        self.turns.remove(turn)
        self._watched(lambda: self.queue.leave(turn))

    def _watched(self, change):
        before, waited = set(map(id, self.running())), self.waiting()
        change()
        started = [turn for turn in waited if runs(turn) and id(turn) not in before]
        self._check_numbers()
        for turn in started:
            others = {one.key_name for one in self.waiting()} - {turn.key_name}
            # A key above its share got a slot only where every other waiting key was above it too.
            if others and len(started) == 1 and len(self.running(turn.key_name)) > self.most_of_key:
                assert all(len(self.running(other)) >= self.most_of_key for other in others)

    def _check_numbers(self):
        state, running, waiting = self.queue.state(), self.running(), self.waiting()
        assert (state.running, state.waiting) == (len(running), len(waiting))
        assert abs(state.waiting_cost - sum(turn.cost for turn in waiting)) < 1e-6
        assert len(running) <= self.max_running
        # No slot is idle while a call may use it.
        if waiting:
            assert len(running) >= self.common
            if any(not self.running(turn.key_name) for turn in waiting):
                assert len(running) == self.max_running
        oldest = min((turn.arrived for turn in waiting), default=self.clock.now)
        assert state.oldest_wait_s == self.clock.now - oldest


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.sampled_from(KEYS), COSTS, st.integers(0, 9), st.booleans()),
        st.tuples(st.just("end"), st.integers(0, 10**6)),
        st.tuples(st.just("cancel"), st.integers(0, 10**6)),
        st.tuples(st.just("pass"), st.floats(0, 5)),
    ),
    max_size=120,
)


@given(
    st.integers(1, 20),
    st.sampled_from([0.1, 0.5, 1.0]),
    st.sampled_from([0.0, 0.125, 0.5]),
    st.fixed_dictionaries(dict.fromkeys(KEYS, WEIGHTS)),
    STEPS,
)
@settings(deadline=None, max_examples=300)
def test_any_calls_and_cancellations_keep_every_rule(max_running, share, reserved, weights, steps):
    simulation = Simulation(max_running, share, reserved)
    for kind, *facts in steps:
        if kind == "enter":
            key, cost, priority, query = facts
            simulation.enter(key, cost=cost, weight=weights[key], priority=priority, query=query)
        elif kind == "pass":
            simulation.clock.now += facts[0]
        else:
            chosen = simulation.running() if kind == "end" else simulation.waiting()
            if chosen:
                simulation.leave(chosen[facts[0] % len(chosen)])
    # All that waits gets its turn: each end of a call starts another one.
    left = len(simulation.turns)
    for _ in range(left):
        simulation.leave(simulation.running()[0])
    assert simulation.turns == []
    assert simulation.queue.state().waiting_cost == 0


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans(), st.floats(0.01, 1.0)), min_size=60, max_size=60))
@settings(deadline=None, max_examples=50)
def test_the_least_urgent_call_of_a_key_waits_for_a_bounded_time(stream):
    clock = Clock(0.0)
    queue = FairQueue(max_running=1, max_waiting=10**6, clock=clock)
    running = [enter(queue, "a", cost=1.0)]
    least = enter(queue, "a", cost=1.0, priority=0)
    for priority, query, pause_s in stream:
        # More urgent calls arrive faster than they are served.
        more = [enter(queue, "a", cost=1.0, priority=priority, query=query) for _ in range(2)]
        running += more
        clock.now += pause_s
        (current,) = [one for one in running if runs(one)]
        running.remove(current)
        queue.leave(current)
        if runs(least):
            break
        # No call that arrived more than 9.5 s after it goes before it.
        (current,) = [one for one in running if runs(one)]
        assert current.arrived <= 9.5


@given(st.integers(2, 40), COSTS)
@settings(deadline=None, max_examples=50)
def test_a_bulk_never_delays_a_query_of_another_key_by_more_than_one_call(bulk, cost):
    queue = FairQueue(max_running=1, max_waiting=10**6, clock=Clock(0.0))
    turns = [enter(queue, "bulk", cost=cost) for _ in range(bulk)]
    query = enter(queue, "other", cost=1, query=True)
    queue.leave(turns[0])
    queue.leave(next((turn for turn in turns[1:] if runs(turn)), query))
    assert not query.is_waiting
