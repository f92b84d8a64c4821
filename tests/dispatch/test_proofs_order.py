"""Services without `index` that return their rows in any other order are never believed."""

import asyncio
import dataclasses
import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from embedway.dispatch.proofs import ORDER_PATTERN
from embedway.dispatch.request import UpstreamRequest
from embedway.errors import BadVectorsError
from embedway.providers.fake import Fake
from failing_services import SPACE, WIDTH, FakeUpstream, assert_right, refused, texts_of


def by_key(key):
    """Return an order of rows by a key of their texts."""
    return lambda texts: sorted(range(len(texts)), key=lambda row: key(texts[row]))


ORDERS = {
    "reversed": lambda texts: list(range(len(texts)))[::-1],
    "shortest first": by_key(len),
    "longest first": by_key(lambda text: -len(text)),
    "by text": by_key(str),
    "by text, backwards": by_key(lambda text: [-ord(character) for character in text]),
    "by last letter": by_key(lambda text: text[::-1]),
    "evens first": lambda texts: [*range(0, len(texts), 2), *range(1, len(texts), 2)],
    "pairs swapped": lambda texts: sorted(range(len(texts)), key=lambda row: row ^ 1),
}


class Disordered(Fake):
    """A service that answers without index, in an order of its own."""

    def __init__(self, order, **more):
        super().__init__(**more)
        self.order = order

    async def embed(self, texts, *, input_type, dimensions):
        answer = await super().embed(texts, input_type=input_type, dimensions=dimensions)
        return dataclasses.replace(answer, vectors=answer.vectors[self.order(texts)], by_position=True)


def is_believed(order, count):
    """Return whether an answer was accepted; it is right then."""
    upstream = FakeUpstream(Disordered(order))
    lengths = np.full(count, 3, np.int32)
    request = UpstreamRequest(texts_of(count), lengths, "document", SPACE, WIDTH)

    async def main():
        return await upstream.client.send(request, upstream.routes())

    try:
        response = asyncio.run(main())
    except BadVectorsError:
        return False
    assert_right(response, texts_of(count))
    return True


@given(st.sampled_from(sorted(ORDERS)), st.integers(2, 32))
@settings(deadline=None, max_examples=60)
def test_a_fixed_order_is_never_believed(name, count):
    assert not is_believed(ORDERS[name], count)


@given(st.integers(0, 10**9), st.integers(2, 32))
@settings(deadline=None, max_examples=100)
def test_a_random_order_is_never_believed(seed, count):
    chance = random.Random(seed)
    assert not is_believed(lambda texts: chance.sample(range(len(texts)), len(texts)), count)


@given(st.integers(0, 31), st.integers(0, 31), st.integers(2, 32))
@settings(deadline=None, max_examples=60)
def test_no_two_rows_can_be_swapped(one, other, count):
    """A swap of rows that the probe does not have, or of two equal ones, is the limit of a probe."""

    def order(texts):
        rows = list(range(len(texts)))
        if max(one, other) < len(rows):
            rows[one], rows[other] = rows[other], rows[one]
        return rows

    in_probe = max(one, other) < len(ORDER_PATTERN) and ORDER_PATTERN[one] != ORDER_PATTERN[other]
    if in_probe:
        assert not is_believed(order, count)


@given(st.integers(1, 32))
@settings(deadline=None, max_examples=10)
def test_the_order_of_the_texts_is_believed(count):
    assert is_believed(lambda texts: list(range(len(texts))), count)


def reversed_above(most):
    """Return an order that is reversed in requests of more than `most` texts."""
    return lambda texts: list(range(len(texts)))[:: -1 if len(texts) > most else 1]


def test_a_larger_request_than_the_probe_is_split():
    """A gateway may split requests, or a server may order its rows only in small ones."""
    service = Disordered(reversed_above(len(ORDER_PATTERN)))
    upstream = FakeUpstream(service)

    async def main():
        routes = upstream.routes()
        request = UpstreamRequest(texts_of(40), np.full(40, 3, np.int32), "document", SPACE, WIDTH)
        return [await upstream.client.send(request, routes) for _ in range(2)]

    for response in asyncio.run(main()):
        assert_right(response, texts_of(40))
        assert "at most 16 texts" in response.notes[0]
    assert [len(texts) for texts in service.calls] == [32, 8, 1, 1, 16, 16, 16, 16, 16, 8]


def test_the_limit_of_a_split_probe_is_its_largest_part():
    service = Disordered(
        reversed_above(8),
        faults=lambda _number, texts: refused() if len(texts) == len(ORDER_PATTERN) else None,
    )
    response = FakeUpstream(service).send(texts_of(20))
    assert_right(response, texts_of(20))
    assert [len(texts) for texts in service.calls] == [20, 1, 1, 16, 8, 8, 8, 8, 4]
