import asyncio
from collections import Counter

import pytest

from damaged_collection import damage
from embedway import AsyncEmbedder
from embedway.collections.options import SyncOptions
from embedway.collections.stores import open_store
from embedway.collections.sync import sync_collection
from embedway.collections.verification import verify_collection
from embedway.errors import EmbedwayError
from held_service import config_of, held_service

DOCUMENTS = 256


def run(service, folder, work):
    async def main():
        config = config_of(service.url, folder, **{"cache.backend": "none", "upstream.max_attempts": 1})
        async with AsyncEmbedder(config=config) as embedder:
            return await work(embedder)

    return asyncio.run(main())


def test_an_interrupted_repair_sends_no_answered_text_again(tmp_path):
    folder, destination = tmp_path / "docs", str(tmp_path / "out.parquet")
    folder.mkdir()
    for number in range(DOCUMENTS):
        (folder / f"{number}.txt").write_text(f"the event loop of {number}")

    def repair(embedder):
        store = open_store(destination)
        return verify_collection(embedder, store, sample=DOCUMENTS, repair=True)

    with held_service(free=99) as service:
        run(service, tmp_path, lambda embedder: sync_collection(embedder, destination, [str(folder)], SyncOptions()))
    damage(destination)
    with held_service(free=5, fault=402) as service, pytest.raises(EmbedwayError):
        run(service, tmp_path, repair)
    with held_service(free=99) as again:
        report = run(again, tmp_path, repair)
    assert len(service.answered) == 5 * 32
    assert max(Counter(service.answered + again.answered).values()) == 1
    assert (report.wrong, report.repaired, report.faultless) == (DOCUMENTS, DOCUMENTS, True)
