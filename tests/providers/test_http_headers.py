"""Headers of rate limits and waits: every known form, and values that no service can mean."""

import datetime as dt
import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.dispatch.rate_limiter import RateLimiter
from embedway.providers.http_headers import duration_s, read_rates, retry_after_s
from embedway.types import NO_RATES, RateLimit, RateState

NOW = dt.datetime(2026, 11, 26, 12, 0, 0, tzinfo=dt.UTC)
DATE = email.utils.format_datetime(dt.datetime.now(dt.UTC), usegmt=True)


def soon(seconds):
    return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("headers", "limits"),
    [
        # Mistral.
        (
            {"x-ratelimit-limit-tokens-minute": "5000000", "x-ratelimit-remaining-tokens-minute": "4999911"},
            [RateLimit("tokens", 5_000_000, 4_999_911, None, 60.0)],
        ),
        (
            {"x-ratelimit-limit-req-minute": "720", "x-ratelimit-remaining-req-minute": "717"},
            [RateLimit("requests", 720, 717, None, 60.0)],
        ),
        # Cerebras.
        (
            {
                "x-ratelimit-limit-requests-day": "14400",
                "x-ratelimit-remaining-requests-day": "0",
                "x-ratelimit-reset-requests-day": "33011.382867",
            },
            [RateLimit("requests", 14_400, 0, 33_011.382867, 86_400.0)],
        ),
        # Kong.
        (
            {"X-RateLimit-Limit-Hour": "500", "X-RateLimit-Remaining-Hour": "499"},
            [RateLimit("requests", 500, 499, None, 3600.0)],
        ),
        # Together.
        (
            {"x-tokenlimit-limit": "6000", "x-tokenlimit-remaining": "0", "x-tokenlimit-reset": "3"},
            [RateLimit("tokens", 6000, 0, 3.0, None)],
        ),
        # IETF drafts 0 to 6, 7, and 8 to 10.
        (
            {"RateLimit-Limit": "100", "RateLimit-Remaining": "0", "RateLimit-Reset": "50"},
            [RateLimit("requests", 100, 0, 50.0, None)],
        ),
        (
            {"X-RateLimit-Limit": "100, 100;window=60, 10000;window=86400", "X-RateLimit-Remaining": "98"},
            [RateLimit("requests", 100, 98, None, 60.0)],
        ),
        (
            {"RateLimit": "limit=1000, remaining=0, reset=5000", "RateLimit-Policy": "1000;w=86400"},
            [RateLimit("requests", 1000, 0, 5000.0, 86_400.0)],
        ),
        (
            {
                "RateLimit": '"burst";r=50;t=30, "daily";r=0;t=5000',
                "RateLimit-Policy": '"burst";q=100;w=60,"daily";q=1000;w=86400;qu="requests"',
            },
            [RateLimit("requests", 100, 50, 30.0, 60.0), RateLimit("requests", 1000, 0, 5000.0, 86_400.0)],
        ),
    ],
)
def test_each_form_of_limits_is_read(headers, limits):
    assert list(read_rates(headers).more) == limits
    assert list(read_rates({name.lower(): value for name, value in headers.items()}).more) == limits


def test_limits_without_a_period_are_those_of_openais_form():
    groq = {
        "x-ratelimit-limit-requests": "14400",
        "x-ratelimit-remaining-requests": "14370",
        "x-ratelimit-reset-requests": "2m59.56s",
    }
    assert read_rates(groq) == RateState(14_400, 14_370, pytest.approx(179.56))
    assert read_rates({"x-ratelimit-remaining-tokens": "7"}) == RateState(tokens_remaining=7)  # Azure
    anthropic = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": (NOW + dt.timedelta(seconds=40)).isoformat().replace("+00:00", "Z"),
        "Date": email.utils.format_datetime(NOW, usegmt=True),
    }
    rates = read_rates(anthropic)
    assert (rates.requests_limit, rates.requests_remaining) == (50, 0)
    assert 0 <= rates.requests_reset_s <= 40


@pytest.mark.parametrize(
    "value", ["", " ", "-1", "nan", "inf", "1e308", "9" * 400, "9" * 5000, "0x10", "1,5", "\x00", "a"]
)
def test_a_number_that_is_none_is_ignored(value):
    names = ("limit-requests", "remaining-tokens", "reset-requests", "limit", "remaining", "limit-req-minute")
    rates = read_rates({f"x-ratelimit-{name}": value for name in names if value != "1,5" or "reset" in name})
    assert rates == NO_RATES
    assert read_rates({"RateLimit": value, "RateLimit-Policy": value}).requests_limit is None
    assert retry_after_s({"Retry-After": value, "retry-after-ms": value, "x-ms-retry-after-ms": value}) is None


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"x-ms-retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "1764100000000", "Retry-After": "3"}, 3.0),
        ({"Retry-After": "86400"}, 86_400.0),
        ({"Retry-After": "1764100000"}, None),  # a Unix time
        ({"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}, None),
        ({"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"Retry-After": "Thu, 99 Jan 1970 00:00:00 GMT"}, None),
    ],
)
def test_waits(headers, wait_s):
    assert retry_after_s(headers) == wait_s


def test_a_date_that_a_cache_stored_does_not_lengthen_a_wait():
    until = email.utils.format_datetime(soon(30), usegmt=True)
    old = email.utils.format_datetime(soon(-86_400), usegmt=True)
    assert 20 < retry_after_s({"Retry-After": until, "Date": old}) <= 30
    assert 20 < retry_after_s({"Retry-After": soon(30).isoformat(), "Date": DATE}) <= 31
    # This machine's clock is ahead: only the service's own says how long.
    assert retry_after_s({"Retry-After": old, "Date": email.utils.format_datetime(soon(-86_407), usegmt=True)}) == 7


def test_durations_of_parts_of_a_millisecond():
    assert duration_s("559.9µs") == pytest.approx(559.9e-6)
    assert duration_s("12us") == pytest.approx(12e-6)
    assert duration_s("1s20ns") == pytest.approx(1.0)


NAMES = [
    *(
        f"x-ratelimit-{field}{kind}"
        for field in ("limit", "remaining", "reset")
        for kind in ("", "-requests", "-tokens")
    ),
    *(f"x-ratelimit-{field}-tokens-day" for field in ("limit", "remaining", "reset")),
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "date",
]
VALUES = st.one_of(
    st.integers(-5, 10**12).map(str),
    st.sampled_from(["0", "1", "600", "1764100000", "6ms", "7h12m0s", "nan", "9" * 400, '"a";r=0;t=9', '"a";q=0;w=0']),
    st.text(max_size=40),
)


@given(st.dictionaries(st.sampled_from(NAMES), VALUES), st.dictionaries(st.sampled_from(NAMES), VALUES))
def test_no_headers_fail_or_block_a_route_for_long(first, second):
    limiter = RateLimiter(clock=lambda: 1000.0)
    for headers in (first, second):
        limiter.learn(read_rates(headers), 1)
        limiter.close_for(retry_after_s(headers) or 0.0)
    assert 0 <= limiter.wait_s(1) <= 2 * 86_400
    assert limiter.most_tokens is None or limiter.most_tokens >= 1
