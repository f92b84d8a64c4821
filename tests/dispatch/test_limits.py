"""Limits learned from refusals: requests are split at once, no limit is halved to, and remedies are named."""

import asyncio
import dataclasses
import logging

import numpy as np
import pytest

from embedway.batching.backends import UpstreamBackend
from embedway.batching.scheduler import BatchScheduler
from embedway.dispatch.limits import LearnedLimits, add_note
from embedway.dispatch.request import UpstreamRequest
from embedway.errors import BadVectorsError, InputError, RefusedInputError
from embedway.providers.base import Declared
from embedway.providers.fake import Fake
from embedway.types import ServiceLimits
from failing_services import MANGLERS, SPACE, WIDTH, FakeUpstream, Poisoned, assert_right, refused, texts_of


def tokens_of(texts):
    return sum(len(text.split()) for text in texts)


def over(is_over, **limits):
    """Return faults: requests over the limit are refused, and the refusal names the limit."""

    def faults(_number, texts):
        if not is_over(texts):
            return None
        error = refused()
        error.limits = ServiceLimits(**limits)
        return error

    return faults


def send_twice(upstream, *requests):
    async def main():
        routes = upstream.routes()
        return [
            await upstream.client.send(
                UpstreamRequest(
                    texts, np.array([len(text.split()) for text in texts], np.int32), "document", SPACE, WIDTH
                ),
                routes,
            )
            for texts in requests
        ]

    return asyncio.run(main())


def test_a_limit_on_inputs_is_learned_from_one_refusal_and_kept(caplog):
    fake = Fake(declared=Declared(max_inputs=64), faults=over(lambda texts: len(texts) > 10, max_inputs=10))
    texts = texts_of(60)
    with caplog.at_level(logging.WARNING, logger="embedway.dispatch.limits"):
        first, second = send_twice(FakeUpstream(fake), texts, texts[:25])
    assert_right(first, texts)
    assert_right(second, texts[:25])
    assert [len(call) for call in fake.calls] == [60, *[10] * 6, 10, 10, 5]
    assert first.notes == ["fake-0 accepts at most 10 inputs per request (max_inputs), learned from a refusal"]
    assert second.notes == ["requests to fake-0 were split at 10 inputs, learned from a refusal"]
    assert len(caplog.records) == 1


def test_requests_that_were_under_way_are_split_too():
    fake = Fake(
        declared=Declared(max_inputs=16), faults=over(lambda texts: len(texts) > 4, max_inputs=4), delay_s=0.001
    )
    texts = texts_of(64)
    response = FakeUpstream(fake, max_attempts=1).send(texts)
    assert_right(response, texts)
    assert len(fake.calls) == 4 + 16


def test_a_limit_on_tokens_of_a_request_is_learned():
    faults = over(lambda texts: tokens_of(texts) > 12, max_request_tokens=12)
    fake = Fake(declared=Declared(max_inputs=64, max_request_tokens=1000), faults=faults)
    first, second = send_twice(FakeUpstream(fake), texts_of(20), texts_of(8))
    assert_right(first, texts_of(20))
    assert_right(second, texts_of(8))
    assert [len(call) for call in fake.calls] == [20, *[4] * 5, 4, 4]


def test_a_service_that_counts_more_tokens_than_we_do_gets_smaller_requests():
    # The service counts twice our tokens, so that its limit of 60 is 30 in our count.
    faults = over(lambda texts: 2 * tokens_of(texts) > 60, max_request_tokens=60)
    fake = Fake(declared=Declared(max_inputs=64), faults=faults)
    (response,) = send_twice(FakeUpstream(fake), texts_of(40))
    assert_right(response, texts_of(40))
    assert len(fake.calls) - len(fake.done) <= 8


def test_texts_over_a_learned_limit_fail_alone_and_name_it():
    texts = texts_of(20)
    texts[3] = "a b c d e f g h i j"
    texts[11] = "a b c d e f g h i j k"
    faults = over(lambda sent: any(len(text.split()) > 8 for text in sent), max_tokens=8)
    fake = Fake(faults=faults)
    response = FakeUpstream(fake).send(texts, partial=True)
    assert_right(response, texts)
    assert sorted(response.errors) == [3, 11]
    assert len(fake.calls) == 4
    error = response.errors[3]
    assert type(error) is RefusedInputError
    assert (error.status, error.limits.max_tokens) == (400, 8)
    assert "has 10 tokens by our count, and the service accepts 8: split it into chunks; if the model has" in str(error)
    assert "its own section [models.NAME], set max_tokens = 8 there" in str(error)
    assert "chunks" in str(error)
    assert "a b c" not in str(error)


def test_the_error_of_a_single_text_over_the_tokens_of_a_request_names_the_remedy():
    fake = Fake(faults=over(lambda sent: tokens_of(sent) > 8, max_request_tokens=8))
    with pytest.raises(RefusedInputError, match="the service accepts 8: split it into chunks"):
        FakeUpstream(fake).send(["a b c d e f g h i j"])
    assert len(fake.calls) == 1


@pytest.mark.parametrize("limits", [{"max_inputs": 100}, {"max_inputs": 0}, {"max_inputs": -3}, {"max_tokens": 10**9}])
def test_a_limit_that_does_not_explain_the_refusal_changes_nothing(limits):
    poison = "text number 5"
    fake = Fake(faults=over(lambda sent: poison in sent, **limits))
    response = FakeUpstream(fake).send(texts_of(16), partial=True)
    assert_right(response, texts_of(16))
    assert sorted(response.errors) == [5]
    assert response.notes == []


def test_no_limit_is_below_what_was_accepted_or_above_the_declared_one():
    learned, lengths = LearnedLimits(), np.full(16, 3, np.int32)
    learned.accept(lengths[:8])
    learned.learn(ServiceLimits(max_inputs=2, max_request_tokens=5, max_tokens=1), lengths, route="r")
    declared = learned.applied_to(Declared(max_inputs=32))
    assert (declared.max_inputs, declared.max_request_tokens, learned.max_tokens) == (8, 24, None)
    assert learned.applied_to(Declared(max_inputs=4, max_request_tokens=7)) == Declared(4, 7)
    assert learned.learn(ServiceLimits(max_inputs=12), lengths, route="r") == ""
    assert learned.max_inputs == 8


def test_merged_requests_keep_the_learned_limit():
    fake = Fake(declared=Declared(max_inputs=64), faults=over(lambda texts: len(texts) > 6, max_inputs=6))
    upstream = FakeUpstream(fake)

    async def main():
        backend = UpstreamBackend(upstream.client, upstream.routes(), concurrency=4, max_wait_s=0.01)
        scheduler = BatchScheduler(backend)
        one = UpstreamRequest(texts_of(2), np.full(2, 3, np.int32), "document", SPACE, WIDTH)
        merged = await backend.run_merged([one] * 10)
        calls = len(fake.calls)
        later = await asyncio.gather(*(scheduler.run(one, one.urgency) for _ in range(12)))
        return merged, calls, later

    merged, calls, later = asyncio.run(main())
    for response in (*merged, *later):
        assert_right(response, texts_of(2))
    assert [len(call) for call in fake.calls[:calls]] == [20, 6, 6, 6, 2]
    assert max(len(call) for call in fake.calls[calls:]) <= 6
    assert all(response.notes for response in merged)


def test_what_must_be_one_answer_is_not_split_at_a_learned_limit():
    declared = Declared(max_inputs=32, batch_dependent=True)
    fake = Fake(declared=declared, faults=over(lambda texts: len(texts) > 4, max_inputs=4))
    with pytest.raises(InputError, match="send at most 4 texts"):
        FakeUpstream(fake).send(texts_of(8), one_answer=True)
    assert len(fake.calls) == 1


def test_another_width_or_length_names_the_setting():
    with pytest.raises(BadVectorsError, match=r"15 dimensions, not 16: .*\[models.NAME\], set dimensions = 15"):
        FakeUpstream(Fake(faults=lambda _number, _texts: MANGLERS["narrow"])).send(texts_of(2))
    with pytest.raises(BadVectorsError, match=r"one has length 9: .* \[models.NAME\] .* set normalized = false there"):
        FakeUpstream(Fake(faults=lambda _number, _texts: MANGLERS["long"])).send(texts_of(2))
    space = dataclasses.replace(SPACE, normalized=False)
    assert (
        len(FakeUpstream(Fake(faults=lambda _number, _texts: MANGLERS["long"])).send(["a"], space=space).vectors) == 1
    )


def test_a_wrong_width_is_not_the_fault_of_a_text():
    response = FakeUpstream(Fake(faults=lambda _number, _texts: MANGLERS["narrow"])).send(["a"], partial=True)
    assert response.errors[0].row is None


def test_texts_with_invalid_vectors_have_a_share_of_a_merged_bill():
    fake = Poisoned(spoiled=["bad"], refused=["refused"], declared=Declared(max_inputs=64))
    upstream = FakeUpstream(fake)
    jobs = [
        UpstreamRequest(texts, np.ones(len(texts), np.int32), "document", SPACE, WIDTH, partial=True)
        for texts in (["bad"], ["b", "c"], ["refused"])
    ]

    async def main():
        backend = UpstreamBackend(upstream.client, upstream.routes(), concurrency=1, max_wait_s=0)
        return await backend.run_merged(jobs)

    bad, good, refused_one = asyncio.run(main())
    assert bad.billed_tokens + good.billed_tokens == fake.billed
    assert bad.billed_tokens >= 1
    assert refused_one.billed_tokens == 0


def test_a_server_that_always_names_one_less_is_halved_for(caplog):
    caplog.set_level(logging.WARNING)

    def faults(_number, texts):
        return over(lambda sent: len(sent) > 1, max_inputs=len(texts) - 1)(0, texts)

    fake = Fake(declared=Declared(max_inputs=512), faults=faults)
    response = FakeUpstream(fake).send(texts_of(512))
    assert_right(response, texts_of(512))
    assert len(fake.calls) <= 512 + 200
    assert sum(map(len, fake.calls)) <= 512 * 20  # not half of 512 * 512
    assert len(response.notes) == 1
    assert len(caplog.records) <= 20


def test_a_limit_that_was_lowered_often_is_learned_each_time_once_it_is_confirmed():
    learned, lengths = LearnedLimits(), np.full(100, 3, np.int32)
    for most in (90, 80, 70, 60, 50):
        assert learned.learn(ServiceLimits(max_inputs=most), lengths, route="r")
        learned.accept(lengths[:most])
        learned = dataclasses.replace(learned, _inputs=0, _tokens=0)  # the server has restarted
    assert learned.max_inputs == 50


def test_the_note_of_a_route_does_not_depend_on_the_names_of_others():
    notes = ["r2 accepts at most 3 inputs per request (max_inputs), learned from a refusal", "x r y"]
    add_note(notes, "r accepts at most 8 inputs", "r")
    add_note(notes, "r accepts at most 7 inputs", "r")
    assert notes[2:] == ["r accepts at most 7 inputs"]
