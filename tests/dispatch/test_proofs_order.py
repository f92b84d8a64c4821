"""Services without `index` that return their rows in any other order are never believed."""

import asyncio
import dataclasses
import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from embedway.dispatch.request import UpstreamRequest
from embedway.errors import BadVectorsError
from embedway.providers.fake import Fake
from failing_services import SPACE, WIDTH, FakeUpstream, assert_right, texts_of


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

    def __init__(self, order):
        super().__init__()
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
    from embedway.dispatch.proofs import ORDER_PATTERN

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
