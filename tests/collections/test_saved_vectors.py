import asyncio
import threading

import numpy as np
import pytest

from embedway import AsyncEmbedder
from embedway.collections import saved_vectors
from embedway.collections.journal import Journal
from embedway.collections.saved_vectors import SavedVectors
from embedway.pipeline.ready_texts import ready_texts_to
from embedway.providers.fake import vector_of
from embedway.space import Space
from held_service import WIDTH, config_of, held_service

SPACE = Space("m", "w", 4, "service", normalized=True)
TEXTS = [f"the event loop of {number}" for number in range(96)]  # three full requests


def embedder_of(service, folder, backend):
    return AsyncEmbedder(
        config=config_of(
            service.url, folder, **{"cache.backend": backend, "upstream.max_attempts": 1, "models.mine.matryoshka": [8]}
        )
    )


@pytest.mark.parametrize("backend", ["none", "memory"])
def test_a_cancelled_call_has_saved_the_texts_of_answered_requests(tmp_path, backend):
    async def interrupted(service):
        async with embedder_of(service, tmp_path, backend) as embedder:
            space = (await embedder.models.describe("acme/m")).space
            saved = SavedVectors(Journal(tmp_path / "a.journal", space), space)
            await saved.open()
            arrived = asyncio.Event()
            add = saved.add

            def add_and_tell(texts, vectors):
                add(texts, vectors)
                arrived.count = getattr(arrived, "count", 0) + len(texts)
                if arrived.count == 64:
                    arrived.set()

            saved.add = add_and_tell
            texts = [*TEXTS, TEXTS[0]]
            call = asyncio.create_task(
                saved.compute(texts, embedder.embed(texts, partial=True), lambda found: (found.vectors, found.errors))
            )
            await asyncio.wait_for(arrived.wait(), 60)
            call.cancel()
            await asyncio.wait([call])
            await saved.close()
            assert call.cancelled()
            assert saved.count == 64
            again = SavedVectors(Journal(tmp_path / "a.journal", space), space)
            await again.open()
            found = again.find(TEXTS)
            await again.close(remove=True)
            return found

    with held_service(free=2) as service:
        found = asyncio.run(interrupted(service))
        answered = set(service.answered)
    assert {TEXTS[row] for row in found} == answered
    assert all(abs(vector - vector_of(TEXTS[row], WIDTH)).max() < 1e-5 for row, vector in found.items())


@pytest.mark.parametrize("backend", ["none", "memory"])
@pytest.mark.parametrize("dimensions", [None, 8])
def test_received_vectors_are_those_of_the_result(tmp_path, backend, dimensions):
    received = {}

    def receive(texts, vectors, space):
        received.update(zip(texts, vectors, strict=True))
        assert space.dimensions == (dimensions or WIDTH)

    async def embed(service):
        async with embedder_of(service, tmp_path, backend) as embedder:
            with ready_texts_to(receive):
                return await embedder.embed([*TEXTS, TEXTS[0]], dimensions=dimensions)

    with held_service(free=99) as service:
        result = asyncio.run(embed(service))
    assert set(received) == set(TEXTS)
    assert all((received[text] == row).all() for text, row in zip(TEXTS, result.vectors, strict=False))


def test_closing_again_returns_and_a_cancelled_close_ends_the_thread(tmp_path):
    async def main():
        saved = SavedVectors(Journal(tmp_path / "a.journal", SPACE), SPACE)
        await saved.open()
        closing = asyncio.create_task(saved.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        await asyncio.wait_for(saved.close(remove=True), 60)
        return [thread for thread in threading.enumerate() if thread.name == "embedway-journal" and not ended(thread)]

    def ended(thread):
        thread.join(60)
        return not thread.is_alive()

    assert asyncio.run(main()) == []


def test_texts_that_are_found_twice_count_once(tmp_path, monkeypatch):
    monkeypatch.setattr(saved_vectors, "_MAX_WRITTEN", 2)

    async def main():
        for texts in (TEXTS[:3], []):
            saved = SavedVectors(Journal(tmp_path / "a.journal", SPACE), SPACE)
            await saved.open()
            saved.add(texts, np.ones((len(texts), 4), np.float32))
            if texts:
                await saved.close()
        saved.find([TEXTS[0]] * 3)
        early = saved.is_large
        saved.find(TEXTS[:3])
        late = saved.is_large
        await saved.close()
        return early, late

    assert asyncio.run(main()) == (False, True)
