"""Batches on a route: each row keeps its position, and finished rows are reported early."""

import asyncio

import numpy as np
import pytest

from embedway.batching.batches import fill_batches
from embedway.batching.run import run_batches
from embedway.errors import BatchError
from embedway.types import TokenizedTexts

POISON = 13


class Route:
    """Vectors contain the ids. Batches with `held` ids end when the gate opens; one id fails."""

    name = "local:told"

    def __init__(self, *, held=()):
        self.gate = asyncio.Event()
        self.held = set(held)

    async def run(self, tokenized, batch):
        numbers = [int(tokenized.ids[row][0]) for row in batch.rows]
        if self.held.intersection(numbers):
            await self.gate.wait()
        if POISON in numbers:
            raise ValueError("poison")
        return np.repeat(np.array(numbers, np.float32)[:, None], 4, axis=1)


def texts(*numbers):
    """Tokenized texts of different lengths, each of one id, and batches of two."""
    ids = tuple(np.full(1 + number % 5, number, np.int32) for number in numbers)
    tokenized = TokenizedTexts(ids, np.array([len(one) for one in ids], np.int32))
    return tokenized, fill_batches(tokenized.lengths, token_budget=10)


class ReadyTexts:
    """Reported rows, by position; each position once."""

    def __init__(self):
        self.rows = {}

    def __call__(self, rows, vectors):
        for row, vector in zip(rows.tolist(), vectors, strict=True):
            assert row not in self.rows
            self.rows[row] = float(vector[0])


async def turns(count=10):
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_batch_is_ready_as_soon_as_it_is_computed():
    async def main():
        numbers = (30, 21, 32, 23, 34, 25, 36)
        tokenized, batches = texts(*numbers)
        assert len(batches) > 2
        route, on_ready = Route(held=[34]), ReadyTexts()
        work = asyncio.create_task(run_batches(tokenized, batches, route, width=4, on_ready=on_ready))
        await turns()
        late = {row for batch in batches for row in batch.rows.tolist() if 4 in batch.rows}
        assert on_ready.rows == {row: number for row, number in enumerate(numbers) if row not in late}
        route.gate.set()
        vectors = await work
        assert on_ready.rows == dict(enumerate(numbers))
        np.testing.assert_array_equal(vectors[:, 0], numbers)

    asyncio.run(asyncio.wait_for(main(), 20))


def test_what_was_ready_before_a_failure_or_a_cancellation_stays():
    async def main():
        tokenized, batches = texts(30, 21, 32, POISON, 34, 25)
        route, on_ready = Route(held=[POISON]), ReadyTexts()
        work = asyncio.create_task(run_batches(tokenized, batches, route, width=4, on_ready=on_ready))
        await turns()
        before = dict(on_ready.rows)
        assert before
        assert 3 not in before
        route.gate.set()
        with pytest.raises(BatchError):
            await work
        assert on_ready.rows == before
        route, on_ready = Route(held=[POISON]), ReadyTexts()
        work = asyncio.create_task(run_batches(tokenized, batches, route, width=4, on_ready=on_ready))
        await turns()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        assert on_ready.rows == before

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_lone_batch_is_ready_without_its_texts_at_fault():
    async def main():
        numbers = (20, 25, POISON, 35, 40)
        tokenized, _ = texts(*numbers)
        batches = fill_batches(tokenized.lengths, token_budget=1000)
        assert len(batches) == 1
        on_ready, errors = ReadyTexts(), {}
        await run_batches(tokenized, batches, Route(), width=4, errors=errors, on_ready=on_ready)
        assert set(errors) == {2}
        assert on_ready.rows == {0: 20, 1: 25, 3: 35, 4: 40}

    asyncio.run(main())
