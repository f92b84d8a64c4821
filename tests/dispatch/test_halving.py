"""Texts that a service refuses or fails on, and invalid rows of an answer: only these texts fail, in few requests."""

import asyncio
import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedway.dispatch.request import UpstreamRequest
from embedway.errors import (
    BadVectorsError,
    DeadlineError,
    NoRouteError,
    RefusedInputError,
    UnavailableError,
    UpstreamError,
)
from embedway.providers.base import Declared
from embedway.providers.fake import Fake
from failing_services import (
    SPACE,
    SPOILERS,
    WIDTH,
    FakeUpstream,
    Poisoned,
    assert_right,
    failed,
    refused,
    texts_of,
    unavailable,
)

WIDE = Declared(max_inputs=1000, dimensions=True)


def rows_of(response):
    """Return the rows with an error, after a check that each error names its row."""
    assert all(error.row == row for row, error in response.errors.items())
    assert all(str(error).startswith(f"text {row}: ") for row, error in response.errors.items())
    return sorted(response.errors)


def assert_sent_once(*fakes):
    assert set(sum((fake.answered for fake in fakes), Counter()).values()) <= {1}


@pytest.mark.parametrize("row", [0, 7, 31])
def test_a_text_that_makes_a_service_fail_fails_alone(row):
    texts = texts_of(32)
    fake = Poisoned(failing=[texts[row]])
    upstream = FakeUpstream(fake)
    response = upstream.send(texts, partial=True)
    assert_right(response, texts)
    assert rows_of(response) == [row]
    assert isinstance(response.errors[row], UnavailableError)
    assert_sent_once(fake)
    # Two with all texts, two for each halving, and the retries of the text.
    assert len(fake.calls) == 2 + 2 * 5 + 2
    assert upstream.time.now <= 15
    with pytest.raises(UnavailableError, match=f"^text {row}: ") as caught:
        FakeUpstream(Poisoned(failing=[texts[row]])).send(texts)
    assert caught.value.row == row


def test_a_failing_text_is_found_with_the_last_attempts():
    texts = texts_of(8)
    response = FakeUpstream(Poisoned(failing=[texts[3]]), max_attempts=2).send(texts, partial=True)
    assert rows_of(response) == [3]


def test_a_service_that_restarts_after_a_crash_answers_the_other_texts():
    texts, down = texts_of(16), []

    def crash(_number, sent):
        if down:
            return down.pop()
        if texts[5] in sent:
            down.extend([unavailable(), unavailable()])
            return UnavailableError("the connection was lost", route="fake", billed=True)
        return None

    fake = Fake(faults=crash)
    response = FakeUpstream(fake).send(texts, partial=True)
    assert_right(response, texts)
    assert 5 in response.errors
    assert len(response.errors) == 1
    assert max(Counter(text for call in fake.done for text in call).values()) == 1


def test_a_service_that_is_down_for_seconds_loses_no_text():
    texts, fakes = texts_of(40), []
    fake = Fake(faults=lambda _number, _texts: failed() if fakes[0].time.now < 6 else None)
    fakes.append(FakeUpstream(fake))
    assert_right(fakes[0].send(texts), texts)


@pytest.mark.parametrize("count", [1, 32, 2048])
def test_a_service_that_is_down_gets_few_requests(count):
    fake = Fake(faults=lambda _number, _texts: failed())
    response = FakeUpstream(fake, failures=8).send(texts_of(count), partial=True)
    assert len(response.errors) == count
    assert len(fake.calls) <= 32
    # No text is known to be at fault, unless there is only one.
    assert all((error.row is None) == (count > 1) for error in response.errors.values())
    fake = Fake(faults=lambda _number, _texts: failed())
    with pytest.raises(UpstreamError) as caught:
        FakeUpstream(fake, failures=8).send(texts_of(count))
    assert (caught.value.row is None) == (count > 1)


def test_without_a_circuit_a_service_that_is_down_gets_a_bounded_number_of_requests():
    fake = Fake(declared=WIDE, faults=lambda _number, _texts: failed())
    response = FakeUpstream(fake, deadline_s=1e9).send(texts_of(1000), partial=True)
    assert len(response.errors) == 1000
    assert len(fake.calls) < 100


def test_an_open_circuit_ends_the_search():
    texts, routes = texts_of(32), []

    def fault(number, _texts):
        for _ in range(8 if number == 4 else 0):  # as by the requests of other callers
            routes[0].circuit.record_failure()
        return failed()

    fake = Fake(faults=fault)
    upstream = FakeUpstream(fake, failures=8)

    async def main():
        routes.extend(upstream.routes())
        request = UpstreamRequest(texts, np.full(32, 3, np.int32), "document", SPACE, WIDTH, partial=True)
        return await upstream.client.send(request, routes)

    assert len(asyncio.run(main()).errors) == 32
    assert len(fake.calls) == 5


def test_many_failing_texts_do_not_open_the_circuit():
    texts = texts_of(128)
    poison = {*texts[8:24], texts[40], texts[70], texts[100], texts[127]}
    fake = Poisoned(failing=poison)
    response = FakeUpstream(fake, failures=8, deadline_s=1e9).send(texts, partial=True)
    assert_right(response, texts)
    assert {texts[row] for row in rows_of(response)} == poison
    assert_sent_once(fake)


def test_another_route_is_tried_before_texts_are_halved_and_the_last_route_halves():
    texts = texts_of(16)
    first, second = Poisoned(failing=[texts[3], texts[9]]), Poisoned(failing=[texts[3]])
    response = FakeUpstream(first, second).send(texts, partial=True)
    assert_right(response, texts)
    assert rows_of(response) == [3]
    assert isinstance(response.errors[3], NoRouteError)
    assert [len(call) for call in first.calls] == [16, 16]
    assert_sent_once(first, second)


def test_a_text_that_fails_another_callers_costs_them_one_request():
    texts = texts_of(9)
    for attempts in (1, 5):
        fake = Poisoned(failing=[texts[4]])
        response = FakeUpstream(fake, max_attempts=attempts).send(
            texts, partial=True, callers=np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])
        )
        assert_right(response, texts)
        expected = [3, 4, 5] if attempts == 1 else [4]
        assert sorted(response.errors) == expected
        assert_sent_once(fake)
        sent = Counter(text for call in fake.calls for text in call)
        assert {sent[text] for text in (*texts[:3], *texts[6:])} == {2}


def test_failing_texts_of_one_comparable_answer_are_not_halved():
    declared = Declared(max_inputs=8, batch_dependent=True)
    fake = Poisoned(failing=["text number 1"], declared=declared)
    response = FakeUpstream(fake).send(texts_of(4), one_answer=True, partial=True)
    assert (sorted(response.errors), {len(call) for call in fake.calls}) == ([0, 1, 2, 3], {4})
    assert len(fake.calls) == 5


@pytest.mark.parametrize("inputs", [1, 32, 1000])
def test_after_some_texts_were_refused_alone_and_none_accepted_the_rest_is_not_sent(inputs):
    fake = Poisoned(texts_of(1000), declared=Declared(max_inputs=inputs))
    response = FakeUpstream(fake).send(texts_of(1000), partial=True)
    assert len(response.errors) == 1000
    assert all(isinstance(error, RefusedInputError) for error in response.errors.values())
    assert sum(len(call) == 1 for call in fake.calls) <= 16 + 8
    assert len(fake.calls) <= -(-1000 // inputs) + 60 if inputs > 1 else 24


def test_refused_texts_of_one_caller_do_not_count_for_another():
    texts = texts_of(64)
    fake = Poisoned(texts[:32], declared=WIDE)
    response = FakeUpstream(fake).send(texts, partial=True, callers=np.repeat([0, 1], 32))
    assert_right(response, texts)
    assert sorted(response.errors) == list(range(32))


@pytest.mark.parametrize("kind", sorted(SPOILERS))
@pytest.mark.parametrize("partial", [True, False])
def test_valid_rows_of_an_answer_are_kept_and_the_others_asked_for_alone(kind, partial):
    texts, ready = texts_of(20), {}

    def on_ready(rows, vectors):
        assert np.isfinite(vectors).all()
        for row, vector in zip(rows.tolist(), vectors, strict=True):
            assert row not in ready
            ready[row] = vector

    fake = Poisoned(spoiled=[texts[7], texts[8]], kind=kind)
    if partial:
        response = FakeUpstream(fake).send(texts, partial=True, on_ready=on_ready)
        assert_right(response, texts)
        assert rows_of(response) == [7, 8]
        assert all(isinstance(error, BadVectorsError) for error in response.errors.values())
        assert all("of 20 rows" not in str(error) for error in response.errors.values())
        assert [len(call) for call in fake.calls] == [20, 1, 1]
        assert response.billed_tokens == fake.billed
    else:
        with pytest.raises(BadVectorsError, match=r"^text [78]: ") as caught:
            FakeUpstream(fake).send(texts, on_ready=on_ready)
        assert caught.value.row in {7, 8}
    assert sorted(ready) == [row for row in range(20) if row not in {7, 8}]
    assert_sent_once(fake)


def test_a_row_that_is_valid_the_second_time_is_no_error():
    texts = texts_of(5)
    fake = Poisoned(spoiled=[texts[2]])
    fake.more = lambda number, _texts: fake.spoiled.clear() if number else None
    response = FakeUpstream(fake).send(texts)
    assert_right(response, texts)
    assert [len(call) for call in fake.calls] == [5, 1]
    assert response.billed_tokens == fake.billed


def test_an_invalid_row_is_another_routes_chance():
    texts = texts_of(5)
    first, second = Poisoned(spoiled=[texts[2]]), Poisoned()
    response = FakeUpstream(first, second).send(texts)
    assert_right(response, texts)
    assert ([len(call) for call in first.calls], second.calls) == ([5, 1], [(texts[2],)])
    assert response.routes == ["fake-0", "fake-1"]


def test_a_route_with_only_invalid_rows_fails_over_and_its_circuit_opens():
    bad, good = Poisoned(spoiled=texts_of(100), declared=Declared(max_inputs=5)), Poisoned()
    texts = texts_of(100)
    response = FakeUpstream(bad, good, failures=8).send(texts)
    assert_right(response, texts)
    assert len(bad.calls) <= 16
    assert response.routes == ["fake-1"]


def test_texts_that_are_each_invalid_twice_have_errors_of_their_own():
    response = FakeUpstream(Poisoned(spoiled=texts_of(2))).send(texts_of(2), partial=True)
    assert rows_of(response) == [0, 1]


def test_one_invalid_text_does_not_open_the_circuit():
    fake = Poisoned(spoiled=["bad"])
    upstream = FakeUpstream(fake, failures=8)

    async def main():
        routes = upstream.routes()
        for texts in [["bad"]] * 7 + [["a", "bad"]] * 20:
            request = UpstreamRequest(texts, np.ones(len(texts), np.int32), "document", SPACE, WIDTH, partial=True)
            response = await upstream.client.send(request, routes)
            assert rows_of(response) == [len(texts) - 1]
        return routes[0].circuit.state

    assert asyncio.run(main()) == "closed"


def test_many_invalid_rows_are_not_all_asked_for_alone():
    texts = texts_of(500)
    fake = Poisoned(spoiled=texts[1:], declared=WIDE)
    response = FakeUpstream(fake).send(texts, partial=True)
    assert_right(response, texts)
    assert rows_of(response) == list(range(1, 500))
    assert len(fake.calls) <= 1 + 16
    assert response.billed_tokens == fake.billed


def test_an_invalid_row_uses_up_attempts():
    fake = Poisoned(spoiled=texts_of(1))
    response = FakeUpstream(fake, max_attempts=1).send(texts_of(3), partial=True)
    assert (rows_of(response), len(fake.calls)) == ([0], 1)


def test_an_invalid_score_is_asked_for_with_all_documents_where_scores_are_not_comparable():
    texts = texts_of(4)
    declared = Declared(max_inputs=8, batch_dependent=True)
    fake = Poisoned(spoiled=[texts[1]], declared=declared)
    response = FakeUpstream(fake).send(texts, one_answer=True, partial=True)
    assert_right(response, texts)
    assert rows_of(response) == [1]
    assert [len(call) for call in fake.calls] == [4, 4]
    fake.spoiled.clear()
    assert_right(FakeUpstream(fake).send(texts, one_answer=True), texts)


def test_an_invalid_score_without_attempts_left_fails_alone():
    fake = Poisoned(spoiled=texts_of(1), declared=Declared(max_inputs=8, batch_dependent=True))
    response = FakeUpstream(fake, max_attempts=1).send(texts_of(3), one_answer=True, partial=True)
    assert (rows_of(response), len(fake.calls)) == ([0], 1)


@pytest.mark.parametrize("kind", ["failing", "spoiled"])
def test_a_route_on_which_each_text_alone_fails_is_left(kind):
    texts = texts_of(100)
    first, second = Poisoned(**{kind: texts}, declared=Declared(max_inputs=1)), Poisoned()
    response = FakeUpstream(first, second).send(texts)
    assert_right(response, texts)
    assert len(first.calls) <= {"failing": 48, "spoiled": 140}[kind]


@pytest.mark.parametrize("kind", ["failing", "spoiled"])
def test_a_text_without_attempts_for_the_next_route_has_its_row(kind):
    texts = texts_of(4)
    fakes = [Poisoned(**{kind: texts[:1]}), Poisoned(**{kind: texts[:1]})]
    response = FakeUpstream(*fakes, max_attempts=2).send(texts, partial=True)
    assert rows_of(response) == [0]
    assert isinstance(response.errors[0], NoRouteError)


def test_the_deadline_ends_a_search():
    texts = texts_of(64)
    fake = Poisoned(failing=texts[:40])
    with pytest.raises((DeadlineError, UnavailableError)):
        FakeUpstream(fake, deadline_s=2.0).send(texts)
    assert len(fake.calls) < 20


@settings(deadline=None, max_examples=120)
@given(st.data(), st.integers(1, 60), st.integers(1, 40))
def test_each_good_row_is_right_and_each_bad_one_has_its_error(data, count, inputs):
    texts = texts_of(count)
    kinds = dict(
        zip(texts, data.draw(st.lists(st.sampled_from("....rfs"), min_size=count, max_size=count)), strict=True)
    )
    poison = [text for text in texts if kinds[text] != "."]
    for text in poison[12:]:  # fewer than the texts alone after which the rest is not sent
        kinds[text] = "."
    fake = Poisoned(
        *({text for text in texts if kinds[text] == kind} for kind in "rfs"),
        kind=data.draw(st.sampled_from(sorted(SPOILERS))),
        declared=Declared(max_inputs=inputs, dimensions=True),
    )
    callers = np.sort(np.array(data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))))
    response = FakeUpstream(fake, deadline_s=1e9).send(texts, partial=True, callers=callers)
    assert_right(response, texts)
    bad = [row for row, text in enumerate(texts) if kinds[text] != "."]
    assert sorted(response.errors) == bad
    classes = {"r": RefusedInputError, "f": UnavailableError, "s": BadVectorsError}
    assert all(isinstance(response.errors[row], classes[kinds[texts[row]]]) for row in bad)
    good_callers = {int(callers[row]) for row in range(count) if row not in bad}
    for row in bad:
        assert response.errors[row].row in ({row} if int(callers[row]) in good_callers else {row, None})
    assert_sent_once(fake)
    assert response.billed_tokens == fake.billed
    assert response.attempts == len(fake.calls)
    parts = -(-count // inputs) + 2 * 3
    assert len(fake.calls) <= 3 * parts + len(bad) * (2 * math.ceil(math.log2(inputs + 1)) + 6)


@settings(deadline=None, max_examples=150)
@given(st.data(), st.integers(1, 40), st.integers(1, 12), st.integers(1, 3))
def test_random_failures_of_a_service_lose_no_answer_and_no_bill(data, count, inputs, routes):
    texts = texts_of(count)
    chance = data.draw(st.randoms(use_true_random=False))

    def fault(_number, _texts):
        return chance.choice([None, None, None, failed(), unavailable(), refused()])

    poison = data.draw(st.lists(st.sampled_from(texts), max_size=4))
    fakes = [
        Poisoned(failing=poison[:1], spoiled=poison[1:], more=fault, declared=Declared(max_inputs=inputs))
        for _ in range(routes)
    ]
    response = FakeUpstream(*fakes, deadline_s=1e9).send(texts, partial=True)
    assert_right(response, texts)
    assert set(response.errors) >= {row for row, text in enumerate(texts) if text in poison}
    assert_sent_once(*fakes)
    answered = sum((fake.answered for fake in fakes), Counter())
    assert set(answered) == {text for row, text in enumerate(texts) if row not in response.errors}
    assert response.billed_tokens == sum(fake.billed for fake in fakes)


def test_the_error_of_a_text_is_a_copy():
    error = refused()
    fake = Fake(faults=lambda _number, texts: error if "text number 1" in texts else None)
    response = FakeUpstream(fake).send(texts_of(3), partial=True)
    assert (error.row, response.errors[1].row) == (None, 1)
    assert dataclasses.asdict(response)["errors"][1].row == 1
