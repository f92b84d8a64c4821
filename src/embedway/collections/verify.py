"""Verify a store's space: recompute some rows, compare them, and add missing facts to the store's record.

Collections of version 1 do not record the tokenizer and the configuration of their model. A search with the model
accepts this and verifies it: some rows are embedded again, and must have the same vectors as the stored rows.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np

from embedway.pipeline.proof import check_same

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway._embedder import AsyncEmbedder
    from embedway.collections.stores.base import Store
    from embedway.space import Space
    from embedway.types import Vectors

#: Number of shortest rows to recompute, and of first rows to choose from. Long texts may have been truncated or
#: averaged. Rows in which tokenizers differ most are recomputed too.
SHORTEST_ROWS = 3
SAMPLED_ROWS = 256
#: Maximum characters of a text that no model's limit truncates.
_UNCUT_CHARACTERS = 500


async def verify_space(
    embedder: AsyncEmbedder, store: Store, space: Space, unknown: Sequence[str], *, model: str
) -> str:
    """Verify facts that a store's record lacks, add them to it, and return a sentence for the user.

    `space` is the space of `model`, with the store's dimensions. Raises SpaceMismatchError if recomputed rows differ
    from the stored rows.
    """
    facts, name = " and ".join(unknown), store.destination
    rows = await asyncio.to_thread(sample_rows, store)
    if not rows:
        return f"{name} does not record the {facts} of its vectors, and has no rows to verify them"
    texts = [text for text, _ in rows]
    stored = np.array([vector for _, vector in rows], np.float32)
    computed = (await embedder.embed(texts, model=model, dimensions=store.space.dimensions)).vectors
    check_same(stored, computed, name=name, recorded=store.space, asked=space, facts=unknown)
    written = await asyncio.to_thread(store.write_facts, space)
    kept = "the record is updated" if written else "the record could not be updated"
    return f"{name} did not record the {facts} of its vectors; {len(rows)} recomputed rows are the same, and {kept}"


def sample_rows(store: Store) -> list[tuple[str, Vectors]]:
    """Return some texts of a store with their vectors, float32 (d,). Raises SinkError."""
    first = next(store.read(), None)
    if first is None:
        return []
    texts = [str(row["text"]) for row in first.fields[:SAMPLED_ROWS]]
    return [(first.fields[row]["text"], first.vectors[row]) for row in choose_rows(texts)]


def choose_rows(texts: Sequence[str]) -> list[int]:
    """Return the positions of at most 6 rows to recompute: short ones, and those that distinguish tokenizers."""
    order = sorted(range(len(texts)), key=lambda row: (len(texts[row]), row))
    rows = [row for row in order if texts[row].strip()]
    chosen = rows[:SHORTEST_ROWS]
    uncut = [row for row in rows if len(texts[row]) <= _UNCUT_CHARACTERS]
    for distinguishes in (str.isupper, str.isdigit, lambda char: not char.isascii()):
        counts = {row: sum(map(distinguishes, texts[row])) for row in uncut if row not in chosen}
        most = max(counts, key=lambda row: (counts[row], -row), default=None)
        if most is not None and counts[most]:
            chosen.append(most)
    return chosen
