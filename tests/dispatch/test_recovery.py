"""Requests to services that fail in every way: each row is right or has an error, and no work is repeated."""

import asyncio
import dataclasses
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedway.dispatch.rate_limiter import RateLimiter
from embedway.dispatch.request import UpstreamRequest
from embedway.errors import (
    AuthenticationError,
    BadVectorsError,
    DeadlineError,
    EmbedwayError,
    InputError,
    NoRouteError,
    ProtocolError,
    QuotaExceededError,
    RefusedInputError,
    UnavailableError,
    UpstreamError,
)
from embedway.providers.base import Declared
from embedway.providers.fake import Fake
from failing_services import (
    MANGLERS,
    SPACE,
    WIDTH,
    FakeUpstream,
    Poisoned,
    assert_right,
    limited,
    on_calls,
    refused,
    texts_of,
    unavailable,
)


def test_requests_keep_the_limits_and_rows_their_places():
    fake = Fake(declared=Declared(max_inputs=3, max_request_tokens=8))
    texts = ["a b c d", "e f g h", "i", "j k l m n o p q r", "s", "t", "u", "v"]
    response = FakeUpstream(fake).send(texts)
    assert_right(response, texts)
    assert [len(call) for call in fake.calls] == [2, 1, 1, 3, 1]
    assert (response.attempts, response.billed_tokens, response.routes) == (5, 22, ["fake-0"])


def test_only_what_failed_is_sent_again():
    fake = Fake(declared=Declared(max_inputs=2), faults=on_calls(None, unavailable(), None, limited(3.0)))
    upstream = FakeUpstream(fake)
    response = upstream.send(texts_of(10))
    assert_right(response, texts_of(10))
    assert max(Counter(text for call in fake.done for text in call).values()) == 1
    assert len(fake.calls) == 7
    assert upstream.time.now >= 3.0


@pytest.mark.parametrize("kind", sorted(MANGLERS))
def test_a_bad_answer_is_asked_for_once_more_and_then_is_the_routes_error(kind):
    fake = Fake(faults=on_calls(MANGLERS[kind]))
    response = FakeUpstream(fake).send(texts_of(3))
    assert_right(response, texts_of(3))
    assert len(fake.calls) == 2
    always = Fake(faults=lambda _number, _texts: MANGLERS[kind])
    with pytest.raises(BadVectorsError):
        FakeUpstream(always).send(texts_of(3))
    assert len(always.calls) == 2


@pytest.mark.parametrize(
    "error",
    [
        AuthenticationError("the key was refused", route="fake", status=401),
        QuotaExceededError("used up", route="fake", status=429),
        UpstreamError("odd", route="fake", status=418),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_waiting_does_not_help_is_not_tried_again(error):
    fake = Fake(faults=lambda _number, _texts: error)
    upstream = FakeUpstream(fake)
    with pytest.raises(type(error)):
        upstream.send(texts_of(3))
    assert len(fake.calls) == 1
    assert upstream.time.slept == []


def test_waits_double_and_respect_what_the_service_asks_for():
    fake = Fake(faults=on_calls(unavailable(), unavailable(), unavailable(retry_after_s=9.0)))
    upstream = FakeUpstream(fake, first_wait_s=1.0)
    upstream.send(texts_of(1))
    assert upstream.time.slept == [1.0, 2.0, 9.0]


def test_attempts_never_pass_the_total():
    fake = Fake(faults=lambda _number, _texts: unavailable())
    with pytest.raises(UnavailableError):
        FakeUpstream(fake, max_attempts=3).send(texts_of(1))
    assert len(fake.calls) == 3


def test_the_deadline_ends_it_before_a_wait_that_would_pass_it():
    fake = Fake(faults=lambda _number, _texts: unavailable(retry_after_s=50.0))
    upstream = FakeUpstream(fake, deadline_s=120.0, max_attempts=100)
    with pytest.raises(DeadlineError, match="after the deadline of the request") as caught:
        upstream.send(texts_of(1))
    assert upstream.time.now <= 120
    assert caught.value.attempts == len(fake.calls) == 3


def test_another_route_of_the_space_takes_over_with_its_own_limits():
    dead = Fake(faults=lambda _number, _texts: unavailable())
    well = Fake(declared=Declared(max_inputs=2))
    texts = texts_of(5)
    response = FakeUpstream(dead, well).send(texts)
    assert_right(response, texts)
    assert [len(call) for call in well.calls] == [2, 2, 1]
    assert len(dead.calls) == 2
    assert response.routes == ["fake-1"]


def test_when_all_routes_fail_each_is_named_with_its_reason():
    fakes = [Fake(faults=lambda _number, _texts: unavailable()), Fake(faults=lambda _number, _texts: limited())]
    with pytest.raises(NoRouteError, match=r"(?s)fake-0: .*it failed.*fake-1: .*too many requests"):
        FakeUpstream(*fakes, max_attempts=4).send(texts_of(2))
    assert sum(len(fake.calls) for fake in fakes) == 4


def test_a_refused_text_fails_alone():
    poison = {"text number 5", "text number 11"}
    fake = Fake(faults=lambda _number, texts: refused() if poison & set(texts) else None)
    texts = texts_of(16)
    response = FakeUpstream(fake).send(texts, partial=True)
    assert_right(response, texts)
    assert sorted(response.errors) == [5, 11]
    assert all(isinstance(error, RefusedInputError) for error in response.errors.values())
    assert max(Counter(text for call in fake.done for text in call).values()) == 1
    with pytest.raises(RefusedInputError):
        FakeUpstream(Fake(faults=lambda _number, texts: refused() if poison & set(texts) else None)).send(texts)


def test_a_request_that_is_refused_as_such_is_not_halved_to_the_end():
    fake = Fake(declared=Declared(max_inputs=1000), faults=lambda _number, _texts: refused())
    response = FakeUpstream(fake).send(texts_of(1000), partial=True)
    assert len(response.errors) == 1000
    assert len(fake.calls) < 60


def test_innocent_texts_pass_however_many_requests_hold_a_refused_one():
    texts = texts_of(40 * 32)
    poison = set(texts[::32])
    fake = Fake(faults=lambda _number, sent: refused() if poison & set(sent) else None)
    response = FakeUpstream(fake).send(texts, partial=True)
    assert_right(response, texts)
    assert {texts[row] for row in response.errors} == poison
    assert max(Counter(text for call in fake.done for text in call).values()) == 1


def test_a_whole_request_of_refused_texts_but_one_gives_that_one():
    texts = texts_of(23)
    fake = Fake(faults=lambda _number, sent: refused() if set(sent) != {texts[13]} else None)
    response = FakeUpstream(fake).send(texts, partial=True)
    assert_right(response, texts)
    assert set(response.errors) == set(range(23)) - {13}


def test_refusals_use_up_no_attempts():
    texts = texts_of(256)
    once = iter([unavailable()])

    def faults(_number, sent):
        if texts[77] in sent:
            return refused()
        return next(once, None) if len(sent) == 8 else None

    fake = Fake(declared=Declared(max_inputs=256), faults=faults)
    response = FakeUpstream(fake, max_attempts=2).send(texts, partial=True)
    assert_right(response, texts)
    assert set(response.errors) == {77}


def test_a_long_wait_that_a_service_asks_for_is_another_routes_chance():
    busy = Fake(declared=Declared(max_inputs=2), faults=lambda _number, _texts: limited(17.0))
    well = Fake()
    upstream = FakeUpstream(busy, well, deadline_s=5.0)
    texts = texts_of(6)
    assert_right(upstream.send(texts), texts)
    assert (upstream.time.slept, len(busy.calls) <= 3) == ([], True)
    with pytest.raises(DeadlineError):
        FakeUpstream(busy, deadline_s=5.0).send(texts_of(1))


def test_a_route_that_its_service_closed_is_not_asked_while_there_is_another():
    busy = Fake(faults=on_calls(limited(17.0)))
    well = Fake()
    upstream = FakeUpstream(busy, well)

    async def main():
        routes = upstream.routes()
        for _ in range(3):
            await upstream.client.send(UpstreamRequest(["a"], np.ones(1, np.int32), "document", SPACE, WIDTH), routes)

    asyncio.run(main())
    assert (len(busy.calls), len(well.calls), upstream.time.slept) == (1, 3, [])


@pytest.mark.parametrize("stays", [False, True])
def test_a_body_that_cannot_be_read_is_asked_for_once_more(stays):
    broken = ProtocolError("the answer is text/html, not JSON", route="fake", status=200, billed=True)
    fake = Fake(faults=(lambda _number, _texts: broken) if stays else on_calls(broken))
    if stays:
        with pytest.raises(ProtocolError):
            FakeUpstream(fake).send(texts_of(3))
    else:
        assert_right(FakeUpstream(fake).send(texts_of(3)), texts_of(3))
    assert len(fake.calls) == 2
    lost = Fake(faults=lambda _number, _texts: ProtocolError("no such model", route="fake", status=404))
    with pytest.raises(ProtocolError):
        FakeUpstream(lost).send(texts_of(3))
    assert len(lost.calls) == 1


def test_no_request_has_more_tokens_than_its_minute():
    fake = Fake()
    upstream = FakeUpstream(fake)

    async def main():
        (route,) = upstream.routes()
        limiter = RateLimiter(tokens_per_minute=6, clock=upstream.time, sleep=upstream.time.sleep)
        request = UpstreamRequest(texts_of(4), np.full(4, 3, np.int32), "document", SPACE, WIDTH)
        return await upstream.client.send(request, [dataclasses.replace(route, limiter=limiter)])

    assert_right(asyncio.run(main()), texts_of(4))
    assert [len(call) for call in fake.calls] == [2, 2]
    assert upstream.time.now == pytest.approx(60)


def test_what_is_compared_is_never_of_two_requests_where_answers_depend_on_each():
    declared = Declared(max_inputs=2, batch_dependent=True)
    fake = Fake(declared=declared)
    with pytest.raises(InputError, match="at most 2 texts"):
        FakeUpstream(fake).send(texts_of(3), one_answer=True)
    assert fake.calls == []
    assert_right(FakeUpstream(fake).send(texts_of(2), one_answer=True), texts_of(2))
    picky = Fake(declared=declared, faults=lambda _number, texts: refused() if "text number 1" in texts else None)
    response = FakeUpstream(picky).send(texts_of(2), one_answer=True, partial=True)
    assert (sorted(response.errors), len(picky.calls)) == ([0, 1], 1)


def test_a_route_that_keeps_failing_is_left_alone():
    dead = Fake(declared=Declared(max_inputs=1), faults=lambda _number, _texts: unavailable())
    well = Fake()
    upstream = FakeUpstream(dead, well, failures=4)
    texts = texts_of(40)
    assert_right(upstream.send(texts), texts)
    assert len(dead.calls) <= 4 + 8  # requests already sent when it opened


FAULTS = [None, None, None, "unavailable", "limited", "refused", *sorted(MANGLERS)]


@settings(deadline=None, max_examples=150)
@given(st.data(), st.integers(1, 40), st.integers(1, 7), st.integers(1, 3), st.integers(1, 6))
def test_every_row_is_right_or_an_error_and_nothing_is_done_twice(data, count, inputs, routes, attempts):
    per_text = Counter()

    def faults(_number, texts):
        kind = data.draw(st.sampled_from(FAULTS))
        if kind != "refused":
            per_text.update(texts)
        if kind is None:
            return None
        made = {"unavailable": unavailable, "limited": lambda: limited(1.0), "refused": refused}
        return made[kind]() if kind in made else MANGLERS[kind]

    fakes = [Fake(declared=Declared(max_inputs=inputs), faults=faults) for _ in range(routes)]
    texts = texts_of(count)
    response = FakeUpstream(*fakes, max_attempts=attempts, deadline_s=1e9).send(texts, partial=True)
    assert_right(response, texts)
    assert all(isinstance(error, EmbedwayError) for error in response.errors.values())
    done = Counter(text for fake in fakes for call in fake.done for text in call)
    assert set(done) == {text for row, text in enumerate(texts) if row not in response.errors}
    assert set(done.values()) <= {1}
    assert all(times <= attempts for times in per_text.values())
    assert response.attempts == sum(len(fake.calls) for fake in fakes)


def call_each(upstream, batches):
    """Return the error of each call with some texts, None for an answer."""

    async def main():
        routes, errors = upstream.routes(), []
        for texts in batches:
            request = UpstreamRequest(texts, np.ones(len(texts), np.int32), "document", SPACE, WIDTH, partial=True)
            errors.append((await upstream.client.send(request, routes)).errors.get(0))
        return errors

    return asyncio.run(main())


def test_one_text_that_fails_in_every_call_opens_no_circuit():
    fake = Poisoned(failing=["poison"])
    assert call_each(FakeUpstream(fake, failures=8), [["poison"]] * 20 + [["good"]])[-1] is None


def test_many_texts_that_fail_open_the_circuit_and_the_error_names_the_failure_and_the_time():
    texts = texts_of(12)
    upstream = FakeUpstream(Poisoned(failing=texts), failures=8, first_wait_s=0.01)
    error = call_each(upstream, [[text] for text in texts])[-1]
    assert re.fullmatch(
        r"fake-0: skipped for another [\d.]+ s, after several failures in a row; the last error: .*HTTP 500\).*",
        str(error),
    )


@pytest.mark.parametrize(
    "error",
    [
        ProtocolError("the certificate has expired", route="fake-1"),
        AuthenticationError("the key was refused", route="fake-1", status=401),
        UnavailableError("the service is unreachable", route="fake-1"),
    ],
)
@pytest.mark.parametrize("callers", [None, np.arange(6) // 3])
def test_the_text_at_fault_is_found_on_an_earlier_route_if_the_last_one_cannot_be_used(error, callers):
    texts = texts_of(6)
    first, second = Poisoned(failing=[texts[1]]), Fake(faults=lambda _number, _texts: error)
    response = FakeUpstream(first, second).send(texts, partial=True, callers=callers)
    assert_right(response, texts)
    assert list(response.errors) == [1]
    assert isinstance(response.errors[1], NoRouteError)
    assert {name for name, _ in response.errors[1].failed} == {"fake-0", "fake-1"}
    assert not [reason for _, reason in response.errors[1].failed if reason.startswith("fake-1")]
    assert len(first.calls) <= 24


def test_an_outage_of_two_routes_is_searched_a_bounded_number_of_times():
    texts = texts_of(64)
    first = Poisoned(failing=texts, declared=Declared(max_inputs=64))
    second = Fake(faults=lambda _number, _texts: ProtocolError("the certificate has expired", route="fake"))
    response = FakeUpstream(first, second).send(texts, partial=True)
    assert len(response.errors) == 64
    assert len(first.calls) <= 200


def test_a_search_that_comes_back_to_its_route_does_not_wait_for_itself():
    """Both halves are limited on the first route, fail on the second one, and are refused on the first one again."""
    first = Fake(faults=on_calls(refused(), limited(5.0), limited(5.0), refused(), refused()))
    second = Fake(faults=lambda _number, _texts: MANGLERS["zeros"])
    upstream = FakeUpstream(first, second, max_attempts=6)
    response = asyncio.run(asyncio.wait_for(sending(upstream, texts_of(8)), 30))
    assert_right(response, texts_of(8))
    assert response.errors == {}


async def sending(upstream, texts):
    request = UpstreamRequest(texts, np.full(len(texts), 3, np.int32), "document", SPACE, WIDTH, partial=True)
    return await upstream.client.send(request, upstream.routes())
