"""Whatever is edited between two syncs, the collection equals one that is made new."""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from embedway.collections.options import SyncOptions
from embedway.collections.sync import sync_collection
from fake_embedder import FakeEmbedder
from memory_store import PLACES, MemoryStore

NAMES = st.sampled_from(["a.md", "b.md", "guide/c.md", "guide/d.txt"])
TEXTS = st.sampled_from(["", "the event loop", "# Title\n\nthe event loop\n", "one part of the loop\n\n" * 30])
EDITS = st.lists(st.tuples(NAMES, st.none() | TEXTS), max_size=5)


def synced(folder, place):
    options = SyncOptions(chunk_tokens=32, allow_empty=True)
    embedder = FakeEmbedder()
    asyncio.run(sync_collection(embedder, MemoryStore(place), [str(folder)], options))
    return sum(embedder.calls)


def rows(place):
    return {key: (fields, vector.tobytes()) for key, (fields, vector) in PLACES[place][1].items()}


@settings(max_examples=25, deadline=None)
@given(st.lists(EDITS, min_size=1, max_size=4))
def test_a_collection_equals_its_sources_after_any_edits(rounds):
    PLACES.clear()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "docs"
        (folder / "guide").mkdir(parents=True)
        (folder / "always.md").write_text("a text that stays")
        for edits in rounds:
            for name, text in edits:
                if text is None:
                    (folder / name).unlink(missing_ok=True)
                else:
                    (folder / name).write_text(text)
            synced(folder, "memory:kept")
        synced(folder, "memory:new")
        assert rows("memory:kept") == rows("memory:new")
        assert synced(folder, "memory:kept") == 0
