"""Headers that say when to retry."""

import datetime as dt
import email.utils

import pytest

from embedway.errors import AuthenticationError, QuotaExceededError, RateLimitedError
from embedway.providers.http_errors import error_of
from embedway.providers.http_headers import duration_s, read_rates, retry_after_s
from embedway.types import RateState


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6ms", 0.006),
        ("1s", 1),
        ("0.5s", 0.5),
        ("1m30s", 90),
        ("6m0s", 360),
        ("1h2m3s", 3723),
        ("1d", 86400),
        ("12", 12),
        ("", None),
        ("soon", None),
        ("1.2.3s", None),
        ("-5", None),
    ],
)
def test_durations(text, seconds):
    assert duration_s(text) == (None if seconds is None else pytest.approx(seconds))


def test_retry_after_in_every_form():
    assert retry_after_s({"Retry-After": "7"}) == 7
    assert retry_after_s({"Retry-After": "7", "retry-after-ms": "1500"}) == 1.5
    assert retry_after_s({"Retry-After": "tomorrow"}) is None
    assert retry_after_s({}) is None
    later = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=100)
    assert 90 < retry_after_s({"Retry-After": email.utils.format_datetime(later, usegmt=True)}) <= 100
    earlier = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=100)
    assert retry_after_s({"Retry-After": email.utils.format_datetime(earlier, usegmt=True)}) == 0


def test_a_date_to_retry_after_is_by_the_clock_of_the_service():
    there = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    until = there + dt.timedelta(seconds=7)
    dates = {
        name: email.utils.format_datetime(when, usegmt=True) for name, when in (("Date", there), ("Retry-After", until))
    }
    assert retry_after_s(dates) == 7
    assert retry_after_s({**dates, "Date": "today"}) > 86_000


@pytest.mark.parametrize("seconds", ["172801", "20000000", str(2**31)])
def test_waits_above_two_days_are_ignored_in_headers_and_bodies(seconds):
    body = b'{"error": "Model x is currently loading", "estimated_time": %s}' % seconds.encode()
    for headers, content, status in (({"Retry-After": seconds}, b"{}", 429), ({}, body, 503)):
        error = error_of(status, headers, content, route="r")
        assert error.retry_after_s is None
    assert error.loading


@pytest.mark.parametrize("digits", ["9" * 31, "9" * 400, "9" * 5_000])
def test_numbers_without_end_in_headers_are_none(digits):
    names = ("x-ratelimit-limit-requests", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-requests")
    assert read_rates(dict.fromkeys(names, digits)) == RateState()
    assert read_rates({"x-ratelimit-reset-tokens": f"{digits}d1s"}) == RateState()
    assert retry_after_s({"Retry-After": digits, "retry-after-ms": digits}) is None


def test_google_names_the_wait_in_the_body():
    body = b'{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [{"retryDelay": "17s"}]}}'
    error = error_of(429, {}, body, route="r")
    assert type(error) is RateLimitedError
    assert error.retry_after_s == 17


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (403, b'{"detail": "no money", "code": "AUTHZ_INSUFFICIENT_BALANCE"}', QuotaExceededError),
        (402, b"", QuotaExceededError),
        (400, b'{"error": {"details": [{"reason": "API_KEY_INVALID"}]}}', AuthenticationError),
        (403, b"[1, 2", AuthenticationError),
        (403, b'{"error": "a text"}', AuthenticationError),
        (403, b'{"error": {"details": ["a", 3], "code": 7}}', AuthenticationError),
    ],
)
def test_bodies_that_say_more_than_the_status(status, body, kind):
    assert type(error_of(status, {}, body, route="r")) is kind


def test_a_code_is_shown_only_if_it_is_one():
    assert "model_not_found" in str(error_of(404, {}, b'{"error": {"code": "model_not_found"}}', route="r"))
    assert "secret" not in str(error_of(404, {}, b'{"error": {"code": "your secret text"}}', route="r"))
