"""Log lines on requests to services: one for each event, a bounded number for each request, no text and no key."""

import logging

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedway.dispatch.circuit_breaker import CircuitBreaker
from embedway.dispatch.log_lines import RequestLog, log_circuit
from embedway.errors import AuthenticationError, UnavailableError
from embedway.providers.base import Declared
from embedway.providers.fake import Fake
from failing_services import FakeUpstream, Poisoned, Time, limited, on_calls, texts_of, unavailable


@pytest.fixture
def lines(caplog):
    """Return a function that returns the level and message of each line so far."""
    caplog.set_level(logging.INFO, "embedway")
    return lambda: [(one.levelname, one.getMessage()) for one in caplog.records if one.name == "embedway.dispatch"]


def test_a_retry_is_one_line(lines):
    FakeUpstream(Fake(faults=on_calls(unavailable()))).send(texts_of(3))
    assert lines() == [
        ("INFO", "route fake-0: 3 texts are sent again in 0.5 s, after attempt 1: UnavailableError 503"),
    ]


def test_a_failover_is_one_line_with_its_reason(lines):
    failing = Fake(faults=on_calls(*[AuthenticationError("no", route="fake-0", status=401)] * 9))
    FakeUpstream(failing, Fake()).send(texts_of(3))
    assert lines() == [
        ("WARNING", "route fake-0 failed (AuthenticationError 401): 3 texts are sent to route fake-1"),
    ]


def test_a_request_of_many_parts_says_once_that_it_fails_over(lines):
    closed = AuthenticationError("no", route="fake-0", status=401)
    failing = Fake(declared=Declared(max_inputs=1), faults=on_calls(*[closed] * 2000))
    FakeUpstream(failing, Fake()).send(texts_of(1000))
    assert [level for level, _ in lines()] == ["WARNING"]


def test_a_route_that_is_skipped_is_no_new_warning(lines):
    failing, other = Fake(faults=on_calls(*[unavailable()] * 99)), Fake()
    upstream = FakeUpstream(failing, other, failures=1, max_attempts=2)
    routes = upstream.routes()
    upstream.routes = lambda: routes
    for _ in range(5):
        upstream.send(["a"])
    said = [(level, message.split(" (")[0]) for level, message in lines() if "sent to" in message]
    assert said == [("WARNING", "route fake-0 failed")] + [("INFO", "route fake-0 is skipped")] * 4


def test_a_service_that_sets_a_limit_is_left_with_one_line(lines):
    closed = Fake(declared=Declared(max_inputs=1), faults=on_calls(*[limited(600.0)] * 99))
    FakeUpstream(closed, Fake()).send(texts_of(30))
    assert [level for level, _ in lines()] == ["WARNING"]


def test_a_search_for_refused_texts_is_one_line_however_many_there_are(lines):
    poison = Poisoned({f"text number {number}" for number in range(0, 1000, 3)})
    response = FakeUpstream(poison).send(texts_of(1000), partial=True)
    assert len(response.errors) > 300
    assert [(level, message.split(":")[0]) for level, message in lines()] == [("INFO", "route fake-0")]


def test_a_circuit_is_a_warning_when_it_opens_and_a_line_when_it_closes(lines):
    clock = Time()

    def report(before, after):
        log_circuit("routes.r", before, after)

    breaker = CircuitBreaker(failures=2, rest_s=30.0, clock=clock, on_change=report)
    for _ in range(5):
        breaker.record_failure()
    clock.now += 31
    assert breaker.allow()
    breaker.record_failure()
    clock.now += 31
    assert breaker.allow()
    breaker.record_success()
    assert [(level, message.split(" ", 2)[2]) for level, message in lines()] == [
        ("WARNING", "failed several times in a row: it is skipped for a while, then probed"),
        ("INFO", "failed again when it was probed, and is skipped for a while"),
        ("INFO", "answers again, and is used again"),
    ]


ADDRESS = "https://user:hunter2@example.com/v1"


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(min_size=8, max_size=300), name=st.text(max_size=60), status=st.one_of(st.none(), st.integers()))
def test_lines_have_no_texts_and_no_control_characters(caplog, text, name, status):
    caplog.set_level(logging.INFO, "embedway")
    caplog.clear()
    marked = f"«{text}»"
    error = UnavailableError(marked, route=marked, status=status)
    request = RequestLog()
    route = f"{name}\n{ADDRESS}\x1b[31m"
    request.retry(route, 2, error, attempts=1, wait_s=0.5)
    request.retry_alone(route, 2, error)
    request.search(route, 2, error)
    request.failover(route, name, 2, error, is_sent=True)
    log_circuit(route, "closed", "open")
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 5
    for message in messages:
        assert marked not in message
        assert "hunter2" not in message
        assert message.isprintable()
