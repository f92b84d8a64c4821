"""Headers that say when to come back."""

import datetime as dt
import email.utils

import pytest

from embedway.providers.http import duration_s, retry_after_s


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
