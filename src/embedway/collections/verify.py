"""Verification of a store's space: rows are computed again and compared, and the record gets the facts that it lacks.

Collections of version 1 do not name the tokenizer and the configuration of their model. A search with the model accepts
that and verifies it: some rows are embedded again, and their vectors must be those that are stored.
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

#: Rows that are computed anew are among the first ones: the shortest, because long texts may have been cut or averaged,
#: and those in which tokenizers differ most.
SHORTEST_ROWS = 3
SAMPLED_ROWS = 256
#: A text of this length is cut by no model's limit.
_UNCUT_CHARACTERS = 500


async def verify_space(
    embedder: AsyncEmbedder, store: Store, space: Space, unknown: Sequence[str], *, model: str
) -> str:
    """Verify facts that a store's record lacks, add them to it, and return a sentence for the user.

    `space` is that of `model`, at the store's size. Raises SpaceMismatchError where rows that are computed anew are not
    those that are stored.
    """
    facts, name = " and ".join(unknown), store.destination
    rows = await asyncio.to_thread(sample_rows, store)
    if not rows:
        return f"{name} does not name the {facts} of its vectors, and has no rows to prove them"
    texts = [text for text, _ in rows]
    stored = np.array([vector for _, vector in rows], np.float32)
    anew = (await embedder.embed(texts, model=model, dimensions=store.space.dimensions)).vectors
    check_same(stored, anew, name=name, recorded=store.space, asked=space, facts=unknown)
    written = await asyncio.to_thread(store.write_facts, space)
    kept = "they are written down now" if written else "they could not be written down"
    return f"{name} did not name the {facts} of its vectors; {len(rows)} rows computed anew are the same, and {kept}"


def sample_rows(store: Store) -> list[tuple[str, Vectors]]:
    """Some texts of a store with their vectors, float32 (d,). Raises SinkError."""
    first = next(store.read(), None)
    if first is None:
        return []
    texts = [str(row["text"]) for row in first.fields[:SAMPLED_ROWS]]
    return [(first.fields[row]["text"], first.vectors[row]) for row in choose_rows(texts)]


def choose_rows(texts: Sequence[str]) -> list[int]:
    """Positions of the rows to compute anew: 6 at most, short ones, and those that distinguish tokenizers."""
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
