"""Error rates of routes: raised and cleared once for each episode, by an injected clock, with counts by kind."""

import random

import pytest

from embedway.dispatch.error_rate import AlertPolicy, ErrorRate, ErrorRates
from embedway.errors import (
    BadVectorsError,
    BudgetExceededError,
    DeadlineError,
    InputError,
    RefusedInputError,
    UnavailableError,
    UpstreamError,
)
from embedway.telemetry.hooks import BaseHook, Hooks
from embedway.telemetry.operations import ErrorRateDetails
from failing_services import Time, limited, unavailable

POLICY = AlertPolicy(error_rate=0.2, window_s=300.0, min_requests=10)


class Listener(BaseHook):
    def __init__(self):
        self.told = []

    def event(self, operation):
        self.told.append(operation.details)


class Route:
    """Counters of a route with a simulated clock, and what they report."""

    def __init__(self, policy=POLICY):
        self.time, self.listener = Time(), Listener()
        self.rate = ErrorRate("routes.r", policy, Hooks([self.listener]), clock=self.time)

    def good(self, count):
        for _ in range(count):
            self.rate.record()

    def bad(self, count, error=None):
        for _ in range(count):
            self.rate.record(error or unavailable())

    @property
    def levels(self):
        return [details.level for details in self.listener.told]


def test_an_alert_is_raised_at_the_threshold_and_cleared_at_half_of_it():
    route = Route()
    route.good(9)
    route.bad(2)
    assert route.levels == []  # 2 of 11
    route.bad(1)
    assert route.listener.told == [
        ErrorRateDetails("routes.r", "raised", 3, 12, 0.25, 300.0, (("UnavailableError 503", 3),))
    ]
    route.bad(100)
    assert len(route.levels) == 1
    route.good(103 * 9 - 9 - 1)
    assert len(route.levels) == 1  # 103 of 1029
    route.good(1)
    assert route.levels == ["raised", "cleared"]
    assert (route.listener.told[1].failed, route.listener.told[1].requests) == (103, 1030)


def test_few_requests_raise_nothing():
    route = Route()
    route.bad(9)
    assert route.levels == []
    route.bad(1)
    assert route.levels == ["raised"]


def test_a_rate_about_the_threshold_does_not_flap():
    route, chance = Route(), random.Random(1)
    for _ in range(5000):
        route.time.now += 1
        if chance.random() < 0.2:
            route.bad(1)
        else:
            route.good(1)
    assert route.levels == ["raised"]


def test_old_requests_leave_the_window():
    route = Route()
    route.bad(9)
    route.time.now += 301
    route.bad(9)
    assert route.levels == []
    route.time.now += 150
    route.good(1)
    route.bad(1)
    assert route.levels == ["raised"]
    assert route.listener.told[0].requests == 11


def test_after_silence_one_success_clears_and_one_failure_does_not():
    for outcome, levels in (("good", ["raised", "cleared"]), ("bad", ["raised"])):
        route = Route()
        route.bad(10)
        route.time.now += 10_000
        getattr(route, outcome)(1)
        assert route.levels == levels


def test_each_kind_is_counted_by_class_and_status():
    route = Route()
    route.bad(4, unavailable())
    route.bad(3, limited())
    route.bad(2, BadVectorsError("a text of the user", route="routes.r"))
    route.bad(1, DeadlineError("late", attempts=1))
    assert route.listener.told[0].errors == (
        ("UnavailableError 503", 4),
        ("RateLimitedError 429", 3),
        ("BadVectorsError", 2),
        ("DeadlineError", 1),
    )


@pytest.mark.parametrize(
    "error",
    [
        RefusedInputError("refused", route="r", status=400),
        InputError("a text"),
        BudgetExceededError("over", budget="b", needed=1, left=0),
    ],
)
def test_a_refused_text_and_a_budget_are_no_failures(error):
    route = Route()
    route.bad(100, error)
    assert route.levels == []
    route.bad(25)
    assert (route.listener.told[0].failed, route.listener.told[0].requests) == (25, 125)


def test_skips_of_an_open_circuit_count_once_until_a_request_is_sent():
    route = Route()
    for _ in range(50):
        route.rate.record_skip()
    assert route.levels == []
    route.bad(8)
    route.rate.record_skip()
    assert route.listener.told[0].errors == (("UnavailableError 503", 8), ("skipped: circuit open", 2))


def test_memory_does_not_grow_with_requests_kinds_or_time():
    route = Route(AlertPolicy(error_rate=0.2, window_s=300.0, min_requests=5000))
    for number in range(10_000):
        route.time.now += 0.05
        route.rate.record(UpstreamError("x", route="r", status=number))
    slices = route.rate._kinds  # noqa: SLF001  the only part that could grow
    assert (len(slices), max(map(len, slices))) == (30, 17)
    assert len(route.listener.told[0].errors) == 16


@pytest.mark.parametrize("seed", range(20))
def test_totals_equal_a_plain_count_of_the_window(seed):
    """Compared with a list of all requests, rounded to slices."""
    chance, route, sent = random.Random(seed), Route(AlertPolicy(0.3, 30.0, 5)), []
    raised = False
    for _ in range(2000):
        route.time.now += chance.choice([0, 0.1, 1, 5, 40])
        failed = chance.random() < chance.choice([0.05, 0.9])
        route.rate.record(UnavailableError("x", route="r") if failed else None)
        sent.append((int(route.time.now), failed))
        window = [bad for second, bad in sent if second > int(route.time.now) - 30]
        share = sum(window) / len(window)
        if not raised and failed and len(window) >= 5 and share >= 0.3:
            raised = True
            assert route.listener.told[-1] == ErrorRateDetails(
                "routes.r", "raised", sum(window), len(window), share, 30.0, (("UnavailableError", sum(window)),)
            )
        elif raised and share <= 0.15 and (len(window) >= 5 or not any(window)):
            raised = False
        assert (len(route.levels) % 2 == 1) == raised


def test_a_clock_that_stands_still_or_goes_back_loses_nothing():
    route = Route()
    route.time.now = 1000.0
    route.bad(5)
    route.time.now = 0.0
    route.bad(5)
    assert route.levels == ["raised"]


def test_routes_of_one_name_share_their_counters():
    listener = Listener()
    rates = ErrorRates(POLICY, Hooks([listener]), clock=Time())
    for _ in range(5):
        rates.of("a").record(unavailable())
        rates.of("a").record(unavailable())
        rates.of("b").record(unavailable())
    assert [details.route for details in listener.told] == ["a"]
