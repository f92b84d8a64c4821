"""A route that keeps failing is skipped, and returns after one successful request."""

import pytest

from clocks import Clock
from embedway.dispatch.circuit_breaker import CircuitBreaker


@pytest.fixture
def clock():
    return Clock(0.0)


@pytest.fixture
def circuit(clock):
    return CircuitBreaker(failures=3, rest_s=10, clock=clock)


def opened(circuit):
    for _ in range(3):
        assert circuit.allow()
        circuit.record_failure()
    return circuit


def test_it_opens_after_failures_in_a_row_only(circuit):
    for _ in range(2):
        circuit.record_failure()
    circuit.record_success()
    for _ in range(2):
        circuit.record_failure()
    assert circuit.state == "closed"
    circuit.record_failure()
    assert (circuit.state, circuit.allow()) == ("open", False)


def test_after_its_rest_one_request_is_let_through(circuit, clock):
    opened(circuit)
    clock.now = 9.9
    assert not circuit.allow()
    clock.now = 10
    assert circuit.state == "half-open"
    assert [circuit.allow() for _ in range(3)] == [True, False, False]


def test_a_good_probe_closes_it_and_a_bad_one_restarts_the_pause(circuit, clock):
    opened(circuit)
    clock.now = 10
    assert circuit.allow()
    circuit.record_failure()
    clock.now = 19
    assert not circuit.allow()
    clock.now = 20
    assert circuit.allow()
    circuit.record_success()
    assert (circuit.state, circuit.allow()) == ("closed", True)


def test_a_cancelled_probe_leaves_the_place_to_the_next(circuit, clock):
    opened(circuit)
    clock.now = 10
    assert circuit.allow()
    circuit.release_probe()
    assert circuit.allow()


def test_late_failures_of_requests_sent_before_do_not_lengthen_the_rest(circuit, clock):
    opened(circuit)
    clock.now = 5
    circuit.record_failure()
    clock.now = 10
    assert circuit.state == "half-open"


def test_a_text_is_new_until_the_next_success(circuit):
    assert [circuit.is_new(text) for text in ("a", "a", "b", "a")] == [True, False, True, False]
    circuit.record_success()
    assert circuit.is_new("a")
    assert all(circuit.is_new(f"text {number}") for number in range(500))


def test_it_says_how_long_requests_are_skipped_and_why(circuit, clock):
    for _ in range(3):
        circuit.record_failure(reason="the service failed (HTTP 500)")
    clock.now = 2.5
    assert circuit.skipped == (
        "skipped for another 7.5 s, after several failures in a row; the last error: the service failed (HTTP 500)"
    )
    clock.now = 11.0
    assert "until a request under way is answered" in circuit.skipped
