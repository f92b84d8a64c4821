"""Sending to services that fail in every way: each row is right or is an error, and nothing is done twice."""

import asyncio
import dataclasses
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedway.dispatch.circuit_breaker import CircuitBreaker
from embedway.dispatch.rate_limiter import RateLimiter
from embedway.dispatch.recovery import RetryPolicy, ServiceRoute, UpstreamClient, UpstreamRequest, searches_of
from embedway.dispatch.semaphore import PrioritySemaphore
from embedway.errors import (
    AuthenticationError,
    BadVectorsError,
    DeadlineError,
    EmbedwayError,
    InputError,
    NoRouteError,
    ProtocolError,
    QuotaExceededError,
    RateLimitedError,
    RefusedInputError,
    UnavailableError,
    UpstreamError,
)
from embedway.providers.base import Answer, Declared, RateState
from embedway.providers.fake import Fake, vector_of
from embedway.types import Space
from embedway.urgency import Urgency

WIDTH = 16
SPACE = Space(model="fake", weights="f" * 64, dimensions=WIDTH, pooling="mean", normalized=True)


class Time:
    def __init__(self):
        self.now = 0.0
        self.slept = []

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


class House:
    """A sender, its time, and routes to fakes."""

    def __init__(self, *fakes, failures=10_000, **policy):
        self.time = Time()
        self.sender = UpstreamClient(RetryPolicy(**policy), clock=self.time, sleep=self.time.sleep, chance=lambda: 0.0)
        self.fakes = fakes
        self.failures = failures

    def routes(self):
        return [
            ServiceRoute(
                f"fake-{number}",
                fake,
                limiter=RateLimiter(clock=self.time, sleep=self.time.sleep),
                breaker=CircuitBreaker(failures=self.failures, clock=self.time),
            )
            for number, fake in enumerate(self.fakes)
        ]

    def send(self, texts, **more):
        lengths = np.array([len(text.split()) for text in texts], np.int32)
        sending = UpstreamRequest(texts, lengths, "document", SPACE, WIDTH)
        sending = dataclasses.replace(sending, **more)

        async def main():
            return await self.sender.send(sending, self.routes())

        return asyncio.run(main())


def texts_of(count):
    return [f"text number {number}" for number in range(count)]


def assert_right(outcome, texts, width=WIDTH):
    for row, text in enumerate(texts):
        if row in outcome.errors:
            assert np.isnan(outcome.vectors[row]).all()
        else:
            full = vector_of(text, WIDTH)[:width]
            np.testing.assert_allclose(outcome.vectors[row], full / np.linalg.norm(full), atol=1e-6)


def on_calls(*faults):
    """These faults for the first calls, in order, and none after."""
    return lambda number, _texts: faults[number] if number < len(faults) else None


def unavailable(**more):
    return UnavailableError("it failed", route="fake", status=503, **more)


def limited(seconds=None):
    return RateLimitedError("too many requests", route="fake", status=429, retry_after_s=seconds)


def refused():
    return RefusedInputError("it refused the request", route="fake", status=400)


MANGLERS = {
    "short": lambda answer: dataclasses.replace(answer, vectors=answer.vectors[:-1]),
    "nan": lambda answer: dataclasses.replace(answer, vectors=answer.vectors * np.float32("nan")),
    "zeros": lambda answer: dataclasses.replace(answer, vectors=answer.vectors * np.float32(0)),
    "narrow": lambda answer: dataclasses.replace(answer, vectors=answer.vectors[:, :-1]),
    "long": lambda answer: dataclasses.replace(answer, vectors=answer.vectors * np.float32(9)),
}


def test_requests_keep_the_limits_and_rows_their_places():
    fake = Fake(declared=Declared(max_inputs=3, max_request_tokens=8))
    texts = ["a b c d", "e f g h", "i", "j k l m n o p q r", "s", "t", "u", "v"]
    outcome = House(fake).send(texts)
    assert_right(outcome, texts)
    assert [len(call) for call in fake.calls] == [2, 1, 1, 3, 1]
    assert (outcome.attempts, outcome.billed_tokens, outcome.routes) == (5, 22, ["fake-0"])


def test_only_what_failed_is_sent_again():
    fake = Fake(declared=Declared(max_inputs=2), faults=on_calls(None, unavailable(), None, limited(3.0)))
    house = House(fake)
    outcome = house.send(texts_of(10))
    assert_right(outcome, texts_of(10))
    assert max(Counter(text for call in fake.done for text in call).values()) == 1
    assert len(fake.calls) == 7
    assert house.time.now >= 3.0


@pytest.mark.parametrize("kind", sorted(MANGLERS))
def test_a_bad_answer_is_asked_for_once_more_and_then_is_the_routes_error(kind):
    fake = Fake(faults=on_calls(MANGLERS[kind]))
    outcome = House(fake).send(texts_of(3))
    assert_right(outcome, texts_of(3))
    assert len(fake.calls) == 2
    always = Fake(faults=lambda _number, _texts: MANGLERS[kind])
    with pytest.raises(BadVectorsError):
        House(always).send(texts_of(3))
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
    house = House(fake)
    with pytest.raises(type(error)):
        house.send(texts_of(3))
    assert len(fake.calls) == 1
    assert house.time.slept == []


def test_waits_double_and_respect_what_the_service_asks_for():
    fake = Fake(faults=on_calls(unavailable(), unavailable(), unavailable(retry_after_s=9.0)))
    house = House(fake, first_wait_s=1.0)
    house.send(texts_of(1))
    assert house.time.slept == [1.0, 2.0, 9.0]


def test_attempts_never_pass_the_total():
    fake = Fake(faults=lambda _number, _texts: unavailable())
    with pytest.raises(UnavailableError):
        House(fake, max_attempts=3).send(texts_of(1))
    assert len(fake.calls) == 3


def test_the_deadline_ends_it_before_a_wait_that_would_pass_it():
    fake = Fake(faults=lambda _number, _texts: unavailable(retry_after_s=50.0))
    house = House(fake, deadline_s=120.0, max_attempts=100)
    with pytest.raises(DeadlineError, match="time for the request is up") as caught:
        house.send(texts_of(1))
    assert house.time.now <= 120
    assert caught.value.attempts == len(fake.calls) == 3


def test_another_route_of_the_space_takes_over_with_its_own_limits():
    dead = Fake(faults=lambda _number, _texts: unavailable())
    well = Fake(declared=Declared(max_inputs=2))
    texts = texts_of(5)
    outcome = House(dead, well).send(texts)
    assert_right(outcome, texts)
    assert [len(call) for call in well.calls] == [2, 2, 1]
    assert len(dead.calls) == 2
    assert outcome.routes == ["fake-1"]


def test_when_all_routes_fail_each_is_named_with_its_reason():
    fakes = [Fake(faults=lambda _number, _texts: unavailable()), Fake(faults=lambda _number, _texts: limited())]
    with pytest.raises(NoRouteError, match=r"(?s)fake-0: .*it failed.*fake-1: .*too many requests"):
        House(*fakes, max_attempts=4).send(texts_of(2))
    assert sum(len(fake.calls) for fake in fakes) == 4


def test_a_refused_text_fails_alone():
    poison = {"text number 5", "text number 11"}
    fake = Fake(faults=lambda _number, texts: refused() if poison & set(texts) else None)
    texts = texts_of(16)
    outcome = House(fake).send(texts, partial=True)
    assert_right(outcome, texts)
    assert sorted(outcome.errors) == [5, 11]
    assert all(isinstance(error, RefusedInputError) for error in outcome.errors.values())
    assert max(Counter(text for call in fake.done for text in call).values()) == 1
    with pytest.raises(RefusedInputError):
        House(Fake(faults=lambda _number, texts: refused() if poison & set(texts) else None)).send(texts)


def test_a_request_that_is_refused_as_such_is_not_halved_to_the_end():
    fake = Fake(declared=Declared(max_inputs=1000), faults=lambda _number, _texts: refused())
    outcome = House(fake).send(texts_of(1000), partial=True)
    assert len(outcome.errors) == 1000
    assert len(fake.calls) < 60


def test_innocent_texts_pass_however_many_requests_hold_a_refused_one():
    texts = texts_of(40 * 32)
    poison = set(texts[::32])
    fake = Fake(faults=lambda _number, sent: refused() if poison & set(sent) else None)
    outcome = House(fake).send(texts, partial=True)
    assert_right(outcome, texts)
    assert {texts[row] for row in outcome.errors} == poison
    assert max(Counter(text for call in fake.done for text in call).values()) == 1


def test_a_whole_request_of_refused_texts_but_one_gives_that_one():
    texts = texts_of(23)
    fake = Fake(faults=lambda _number, sent: refused() if set(sent) != {texts[13]} else None)
    outcome = House(fake).send(texts, partial=True)
    assert_right(outcome, texts)
    assert set(outcome.errors) == set(range(23)) - {13}


def test_refusals_use_up_no_attempts():
    texts = texts_of(256)
    once = iter([unavailable()])

    def faults(_number, sent):
        if texts[77] in sent:
            return refused()
        return next(once, None) if len(sent) == 8 else None

    fake = Fake(declared=Declared(max_inputs=256), faults=faults)
    outcome = House(fake, max_attempts=2).send(texts, partial=True)
    assert_right(outcome, texts)
    assert set(outcome.errors) == {77}


def test_a_long_wait_that_a_service_asks_for_is_another_routes_chance():
    busy = Fake(declared=Declared(max_inputs=2), faults=lambda _number, _texts: limited(17.0))
    well = Fake()
    house = House(busy, well, deadline_s=5.0)
    texts = texts_of(6)
    assert_right(house.send(texts), texts)
    assert (house.time.slept, len(busy.calls) <= 3) == ([], True)
    with pytest.raises(DeadlineError):
        House(busy, deadline_s=5.0).send(texts_of(1))


def test_a_route_that_its_service_closed_is_not_asked_while_there_is_another():
    busy = Fake(faults=on_calls(limited(17.0)))
    well = Fake()
    house = House(busy, well)

    async def main():
        routes = house.routes()
        for _ in range(3):
            await house.sender.send(UpstreamRequest(["a"], np.ones(1, np.int32), "document", SPACE, WIDTH), routes)

    asyncio.run(main())
    assert (len(busy.calls), len(well.calls), house.time.slept) == (1, 3, [])


def test_a_route_that_hangs_leaves_time_for_the_next_and_opens_its_circuit():
    hanging, well = Fake(delay_s=60), Fake()
    house = House(hanging, well, deadline_s=0.2)

    async def main():
        routes = house.routes()
        sending = UpstreamRequest(texts_of(2), np.full(2, 3, np.int32), "document", SPACE, WIDTH)
        outcome = await house.sender.send(sending, routes)
        return outcome, routes[0].breaker._failed

    outcome, failed = asyncio.run(main())
    assert_right(outcome, texts_of(2))
    assert (len(hanging.calls), hanging.cancelled, failed) == (1, 1, 1)
    alone = Fake(delay_s=60)
    with pytest.raises(DeadlineError, match="did not answer before the time"):
        House(alone, deadline_s=0.05).send(texts_of(1))
    assert alone.cancelled == 1


def test_waiting_for_a_place_is_within_the_deadline():
    fake = Fake(declared=Declared(max_inputs=1), delay_s=0.04)
    house = House(fake, deadline_s=0.1)

    async def main():
        (route,) = house.routes()
        route = dataclasses.replace(route, slots=PrioritySemaphore(1))
        await house.sender.send(UpstreamRequest(texts_of(20), np.ones(20, np.int32), "document", SPACE, WIDTH), [route])

    house.sender._clock = lambda: asyncio.get_running_loop().time()
    with pytest.raises(DeadlineError):
        asyncio.run(main())
    assert len(fake.calls) <= 3


def test_what_computes_here_takes_as_long_as_it_takes():
    fake = Fake(declared=Declared(max_inputs=1, local=True), delay_s=0.02)
    house = House(fake, deadline_s=0.001)
    house.sender._clock = lambda: asyncio.get_running_loop().time()
    assert_right(house.send(texts_of(20)), texts_of(20))


@pytest.mark.parametrize("stays", [False, True])
def test_a_body_that_cannot_be_read_is_asked_for_once_more(stays):
    broken = ProtocolError("its answer is no JSON", route="fake", status=200, billed=True)
    fake = Fake(faults=(lambda _number, _texts: broken) if stays else on_calls(broken))
    if stays:
        with pytest.raises(ProtocolError):
            House(fake).send(texts_of(3))
    else:
        assert_right(House(fake).send(texts_of(3)), texts_of(3))
    assert len(fake.calls) == 2
    lost = Fake(faults=lambda _number, _texts: ProtocolError("no such model", route="fake", status=404))
    with pytest.raises(ProtocolError):
        House(lost).send(texts_of(3))
    assert len(lost.calls) == 1


def test_limits_that_come_with_an_error_are_learned():
    error = limited()
    error.rates = RateState(requests_limit=60, requests_remaining=0, requests_reset_s=2.0)
    fake = Fake(faults=on_calls(error))
    house = House(fake)
    assert_right(house.send(["a"]), ["a"])
    assert house.time.now == pytest.approx(2.0, abs=0.1)


def test_no_request_has_more_tokens_than_its_minute():
    fake = Fake()
    house = House(fake)

    async def main():
        (route,) = house.routes()
        limiter = RateLimiter(tokens_per_minute=6, clock=house.time, sleep=house.time.sleep)
        sending = UpstreamRequest(texts_of(4), np.full(4, 3, np.int32), "document", SPACE, WIDTH)
        return await house.sender.send(sending, [dataclasses.replace(route, limiter=limiter)])

    assert_right(asyncio.run(main()), texts_of(4))
    assert [len(call) for call in fake.calls] == [2, 2]
    assert house.time.now == pytest.approx(60)


def test_a_strangers_error_is_the_routes_and_says_nothing_of_the_texts():
    odd = Fake(faults=lambda _number, texts: KeyError(f"cannot embed {texts[0]}"))
    with pytest.raises(UpstreamError, match=r"its provider failed \(KeyError at fake.py:\d+\)") as caught:
        House(odd).send(["secret words"])
    assert caught.value.__cause__ is None
    assert "secret" not in "".join(map(str, (caught.value, caught.value.__cause__)))
    partial = House(odd).send(["secret words"], partial=True)
    assert isinstance(partial.errors[0], UpstreamError)
    well = Fake()
    assert_right(House(odd, well).send(["secret words"]), ["secret words"])


def test_parts_are_told_of_as_they_are_answered():
    told = {}

    def landed(rows, vectors):
        told.update(zip(rows.tolist(), vectors, strict=True))

    dead = on_calls(None, None, AuthenticationError("no", route="fake", status=401))
    fake = Fake(declared=Declared(max_inputs=2), faults=dead)
    house = House(fake)
    texts = texts_of(6)

    async def main():
        (route,) = house.routes()
        sending = UpstreamRequest(texts, np.full(6, 3, np.int32), "document", SPACE, WIDTH, landed=landed)
        await house.sender.send(sending, [dataclasses.replace(route, slots=PrioritySemaphore(1))])

    with pytest.raises(AuthenticationError):
        asyncio.run(main())
    assert sorted(told) == [0, 1, 2, 3]
    for row, vector in told.items():
        np.testing.assert_allclose(vector, vector_of(texts[row], WIDTH), atol=1e-6)


class SlowBooks:
    """An account whose bookings take until `go`."""

    def __init__(self):
        self.budgets = self
        self.booking, self.go = asyncio.Event(), asyncio.Event()

    def run_in_background(self, work):
        return asyncio.create_task(work)

    async def mark_sent(self, tokens, searches):
        return 1

    async def settle_answer(self, sent, **reported):
        self.booking.set()
        await self.go.wait()


def test_what_is_answered_is_told_of_before_it_is_booked():
    told = []

    async def main():
        books, house = SlowBooks(), House(Fake())
        sending = UpstreamRequest(
            ["a"],
            np.ones(1, np.int32),
            "document",
            SPACE,
            WIDTH,
            accounts=(books,),
            landed=lambda rows, vectors: told.extend(zip(rows.tolist(), vectors, strict=True)),
        )
        task = asyncio.create_task(house.sender.send(sending, house.routes()))
        await books.booking.wait()
        task.cancel()
        books.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    ((row, vector),) = told
    assert row == 0
    np.testing.assert_allclose(vector, vector_of("a", WIDTH), atol=1e-6)


def test_a_service_whose_own_width_is_another_is_asked_for_the_wanted_one():
    def answers(width):
        seen = []

        class Narrow(Fake):
            async def embed(self, texts, *, input_type, dimensions):
                seen.append(dimensions)
                return await super().embed(texts, input_type=input_type, dimensions=dimensions or 8)

        outcome = House(Narrow()).send(texts_of(2), space=dataclasses.replace(SPACE, dimensions=width), default_width=8)
        assert_right(outcome, texts_of(2), width=width)
        return seen

    assert (answers(16), answers(8), answers(4)) == ([16], [None], [4])


def test_what_is_compared_is_never_of_two_requests_where_answers_depend_on_each():
    declared = Declared(max_inputs=2, batch_dependent=True)
    fake = Fake(declared=declared)
    with pytest.raises(InputError, match="at most 2 at once"):
        House(fake).send(texts_of(3), compared=True)
    assert fake.calls == []
    assert_right(House(fake).send(texts_of(2), compared=True), texts_of(2))
    picky = Fake(declared=declared, faults=lambda _number, texts: refused() if "text number 1" in texts else None)
    outcome = House(picky).send(texts_of(2), compared=True, partial=True)
    assert (sorted(outcome.errors), len(picky.calls)) == ([0, 1], 1)


def test_searches_are_never_too_few():
    assert searches_of(np.full(100, 500, np.int32)) == 1
    assert searches_of(np.full(101, 20, np.int32)) == 2
    # A document of 760 tokens with a query of 250 makes ceil(510 / 250) parts.
    assert searches_of(np.full(100, 760, np.int32)) == 4


class Gate:
    """A fake that answers one request at a time, when it is told to."""

    def __init__(self):
        self.fake = Fake(declared=Declared(max_inputs=1))
        self.open = asyncio.Semaphore(0)
        self.declared = self.fake.declared

    async def embed(self, texts, *, input_type, dimensions):
        await self.open.acquire()
        return await self.fake.embed(texts, input_type=input_type, dimensions=dimensions)


@pytest.mark.parametrize("urgency", [Urgency(query=True), Urgency(priority=9)], ids=["query", "priority 9"])
def test_what_is_urgent_goes_before_the_rest_of_a_large_request(urgency):
    async def main():
        gate, house = Gate(), House()
        (route,) = House(gate).routes()
        route = dataclasses.replace(route, slots=PrioritySemaphore(2, clock=house.time))

        def send(texts, urgency):
            lengths = np.ones(len(texts), np.int32)
            sending = UpstreamRequest(texts, lengths, "document", SPACE, WIDTH, urgency=urgency)
            return asyncio.create_task(house.sender.send(sending, [route]))

        async def settled():
            for _ in range(50):
                await asyncio.sleep(0)

        bulk = send(texts_of(20), Urgency())
        await settled()
        house.time.now += 30  # longer than any slack
        first, second = send(["one"], urgency), send(["two"], urgency)
        await settled()
        for _ in range(4):
            gate.open.release()
            await settled()
        done = [call[0] for call in gate.fake.done]
        for _ in range(18):
            gate.open.release()
        await asyncio.gather(bulk, first, second)
        return done, route.slots

    done, slots = asyncio.run(main())
    assert {"one", "two"} <= set(done)
    assert (slots._taken, slots._express_taken, slots._waiting) == (0, False, [])


def test_places_are_given_back_by_those_who_go_away():
    async def main():
        slots = PrioritySemaphore(1)

        async def hold():
            async with slots.place():
                await asyncio.sleep(30)

        tasks = [asyncio.create_task(hold()) for _ in range(3)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        async with slots.place():
            return slots._taken

    assert asyncio.run(main()) == 1


def test_a_route_that_keeps_failing_is_left_alone():
    dead = Fake(declared=Declared(max_inputs=1), faults=lambda _number, _texts: unavailable())
    well = Fake()
    house = House(dead, well, failures=4)
    texts = texts_of(40)
    assert_right(house.send(texts), texts)
    assert len(dead.calls) <= 4 + 8  # those that were on their way when it opened


def test_dimensions_are_asked_for_where_honoured_and_cut_here_elsewhere():
    for honours in (True, False):
        seen = []
        fake = Fake(declared=Declared(max_inputs=32, dimensions=honours))
        embed = fake.embed

        async def spy(texts, *, input_type, dimensions, embed=embed, seen=seen):
            seen.append(dimensions)
            return await embed(texts, input_type=input_type, dimensions=dimensions)

        fake.embed = spy
        outcome = House(fake).send(texts_of(3), space=dataclasses.replace(SPACE, dimensions=8))
        assert_right(outcome, texts_of(3), width=8)
        assert seen == [8 if honours else None]


def test_what_the_service_says_of_its_limits_is_learned():
    told = RateState(requests_limit=60, requests_remaining=0, requests_reset_s=2.0)
    fake = Fake(
        declared=Declared(max_inputs=1), faults=on_calls(lambda answer: dataclasses.replace(answer, rates=told))
    )
    house = House(fake)
    sending = ["a", "b"]

    async def main():
        routes = house.routes()
        for text in sending:
            one = UpstreamRequest([text], np.array([1], np.int32), "document", SPACE, WIDTH)
            await house.sender.send(one, routes)

    asyncio.run(main())
    assert house.time.now == pytest.approx(2.0, abs=0.1)


def test_cancelling_stops_what_nobody_waits_for():
    fake = Fake(declared=Declared(max_inputs=1), delay_s=30)
    house = House(fake)

    async def main():
        lengths = np.ones(20, np.int32)
        sending = UpstreamRequest(texts_of(20), lengths, "document", SPACE, WIDTH)
        task = asyncio.create_task(house.sender.send(sending, house.routes()))
        for _ in range(100):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert (len(fake.calls), fake.cancelled) == (8, 8)


def test_answers_that_do_not_say_what_they_cost_are_counted_apart():
    fake = Fake(faults=on_calls(lambda answer: dataclasses.replace(answer, tokens=None)))
    outcome = House(fake).send(["one two", "three"])
    assert (outcome.billed_tokens, outcome.unreported_tokens) == (0, 3)


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
    outcome = House(*fakes, max_attempts=attempts, deadline_s=1e9).send(texts, partial=True)
    assert_right(outcome, texts)
    assert all(isinstance(error, EmbedwayError) for error in outcome.errors.values())
    done = Counter(text for fake in fakes for call in fake.done for text in call)
    assert set(done) == {text for row, text in enumerate(texts) if row not in outcome.errors}
    assert set(done.values()) <= {1}
    assert all(times <= attempts for times in per_text.values())
    assert outcome.attempts == sum(len(fake.calls) for fake in fakes)


def test_the_fake_tells_queries_from_documents():
    async def both():
        fake = Fake()
        return [await fake.embed(["a"], input_type=kind, dimensions=None) for kind in ("query", "document")]

    query, document = asyncio.run(both())
    assert isinstance(query, Answer)
    assert not np.allclose(query.vectors, document.vectors)
