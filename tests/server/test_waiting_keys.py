"""Order of waiting keys: lowest virtual time first, and what has changed meanwhile is skipped or moved."""

from hypothesis import given
from hypothesis import strategies as st

from embedway.server.turns import KeyCalls
from embedway.server.waiting_keys import KeyHeap, WaitingKeys

TIMES = st.integers(0, 20).map(float)


def key_of(name, time=0.0, waiting=1, running=0):
    key = KeyCalls(name, time=time)
    key.waiting, key.running = waiting, running
    return key


@given(st.lists(TIMES), st.data())
def test_waiting_keys_leave_a_heap_by_their_present_times(times, data):
    heap, keys = KeyHeap(), [key_of(str(number), time) for number, time in enumerate(times)]
    for key in keys:
        heap.push(key)
    for key in keys:
        key.time += data.draw(TIMES)  # times only grow
        key.waiting = data.draw(st.integers(0, 1))
        heap.push(key)  # it is there already
    popped = list(iter(heap.pop, None))
    assert [key.time for key in popped] == sorted(key.time for key in keys if key.waiting)
    assert set(popped) == {key for key in keys if key.waiting}


def test_a_key_with_its_share_of_slots_is_set_aside_while_others_wait():
    order, bulk, other = WaitingKeys(most_of_key=2), key_of("bulk", running=2), key_of("other", time=5.0, running=1)
    order.add(bulk)
    order.add(other)
    assert order.pop(others_wait=True) is other
    assert order.pop(others_wait=True) is bulk  # no other key can use the slot
    order.add(bulk)
    assert order.pop(others_wait=False) is bulk


def test_a_key_set_aside_returns_when_a_call_of_it_ends_and_catches_nothing_up():
    order, bulk, other = WaitingKeys(most_of_key=1), key_of("bulk", running=1), key_of("other", time=3.0)
    order.add(bulk)
    order.add(other)
    assert order.pop(others_wait=True) is other
    bulk.running = 0
    order.end_call(bulk, now=4.0)
    order.add(other)
    assert bulk.time == 4.0
    assert [order.pop(others_wait=True), order.pop(others_wait=True)] == [other, bulk]


def test_slots_kept_for_keys_that_run_nothing_go_to_these():
    order, busy, idle = WaitingKeys(most_of_key=9), key_of("busy", running=1), key_of("idle", time=7.0)
    order.add(busy)
    order.add(idle)
    assert order.pop_idle() is idle
    assert order.pop_idle() is None
    busy.running = 0
    order.end_call(busy, now=0.0)
    assert order.pop_idle() is busy


def test_a_key_set_aside_whose_calls_have_left_is_forgotten():
    order, bulk = WaitingKeys(most_of_key=1), key_of("bulk", running=1)
    order.add(bulk)
    other = key_of("other", time=1.0)
    order.add(other)
    assert order.pop(others_wait=True) is other
    bulk.waiting = 0
    order.discard(bulk)
    assert order.pop(others_wait=False) is None
