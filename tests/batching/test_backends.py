"""Local backend: bulk beside queries."""

import asyncio

import numpy as np

from async_tests import in_loop
from embedway.batching.backends import LocalBackend, WorkItem
from embedway.types import Batch, TokenizedTexts


class Model:
    """Model whose batches end on command."""

    name, model, streams, token_budget = "local:m", "m", 2, 2048

    def __init__(self):
        self.runs = []

    async def run(self, tokenized, batch):
        end = asyncio.Event()
        self.runs.append((len(batch.rows), end))
        await end.wait()
        return np.array([tokenized.ids[row][:1] for row in batch.rows], np.float32)


def item(count, *, query=False, length=16):
    ids = tuple(np.full(length, number, np.int32) for number in range(count))
    lengths = np.full(count, length, np.int32)
    return WorkItem(TokenizedTexts(ids, lengths), Batch(np.arange(count)[::-1], length), query)


async def settled():
    for _ in range(5):
        await asyncio.sleep(0)


async def end(model, place):
    model.runs[place][1].set()
    await settled()


def make():
    model, now = Model(), [100.0]
    return model, now, LocalBackend(model, max_batch_size=1000, clock=lambda: now[0])


def sizes(model):
    return [count for count, _ in model.runs]


@in_loop
async def test_bulk_is_computed_in_slices_that_let_queries_end():
    model, now, backend = make()
    query = asyncio.create_task(backend.run(item(1, query=True)))
    await settled()
    bulk = asyncio.create_task(backend.run(item(70)))
    await settled()
    assert sizes(model) == [1]
    await end(model, 0)
    assert sizes(model) == [1, 32]
    await query
    second = asyncio.create_task(backend.run(item(1, query=True)))
    await settled()
    await end(model, 1)
    assert sizes(model) == [1, 32, 1]  # the next slice waits for this query
    await end(model, 2)
    await second
    for place in (3, 4):
        await end(model, place)
    assert sizes(model) == [1, 32, 1, 32, 6]
    assert (await bulk)[:, 0].tolist() == list(range(70))[::-1]
    # Without queries, bulk is computed whole.
    now[0] += 60
    bulk = asyncio.create_task(backend.run(item(70)))
    await settled()
    await end(model, 5)
    assert sizes(model)[5:] == [70]
    assert (await bulk)[:, 0].tolist() == list(range(70))[::-1]


@in_loop
async def test_endless_queries_starve_no_slice():
    model, _, backend = make()
    queries = [asyncio.create_task(backend.run(item(1, query=True)))]
    await settled()
    bulk = asyncio.create_task(backend.run(item(64)))
    for _ in range(4):
        queries.append(asyncio.create_task(backend.run(item(1, query=True))))
        await settled()
        place = next(place for place, (count, ended) in enumerate(model.runs) if count == 1 and not ended.is_set())
        await end(model, place)
        for place, (count, _) in enumerate(list(model.runs)):
            if count > 1:
                await end(model, place)
        if bulk.done():
            break
    assert bulk.done()
    for place in range(len(model.runs)):
        await end(model, place)
    await asyncio.gather(*queries)
