"""Facts of a collection's space that its record lacks: proven by computing rows anew, and written back.

Collections of version 1 do not name the tokenizer and the configuration of their model. A search with the model accepts
that, and proves it: some rows are embedded again, and their vectors must be those that are stored.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from embedway.collections.stores.temporary import write_whole
from embedway.pipeline.proof import check_same
from embedway.space import Space, SpaceVersionError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from embedway.collections.search import Collection
    from embedway.types import EmbedResult

#: Rows that are computed anew are among the first ones: the shortest, because long texts may have been cut or averaged,
#: and those in which tokenizers differ most.
SHORTEST_ROWS = 3
SAMPLED_ROWS = 256
#: Texts of so many characters are cut by no model's limit.
_WHOLE_CHARACTERS = 500
_FORMAT, _VERSION = "embedway proven space", 1
_MOST_BYTES = 1 << 20


class VerifyEmbedder(Protocol):
    """The part of an embedder that a proof uses."""

    async def embed(self, texts: Sequence[str], *, model: str = "auto", dimensions: int | None = None) -> EmbedResult:
        """Embed documents."""


async def verify_space(
    embedder: VerifyEmbedder, collection: Collection, space: Space, unknown: Sequence[str], *, model: str
) -> str:
    """Prove facts that a collection's record lacks, write them back, and return a sentence that says so.

    `space` is that of `model`, at the collection's size. Raises SpaceMismatchError where rows that are computed anew
    are not those that are stored.
    """
    facts, name = " and ".join(unknown), collection.destination
    rows = await asyncio.to_thread(collection.sample)
    if not rows:
        return f"{name} does not name the {facts} of its vectors, and has no rows to prove them"
    texts = [text for text, _ in rows]
    stored = np.array([vector for _, vector in rows], np.float32)
    anew = (await embedder.embed(texts, model=model, dimensions=collection.space.dimensions)).vectors
    check_same(stored, anew, name=name, recorded=collection.space, asked=space, facts=unknown)
    written = await asyncio.to_thread(collection.write_facts, space)
    kept = "they are written down now" if written else "they could not be written down"
    return f"{name} did not name the {facts} of its vectors; {len(rows)} rows computed anew are the same, and {kept}"


def choose_rows(texts: Sequence[str]) -> list[int]:
    """Positions of the rows to compute anew: no more than 6, and of short texts those that tell tokenizers apart."""
    order = sorted(range(len(texts)), key=lambda row: (len(texts[row]), row))
    rows = [row for row in order if texts[row].strip()]
    chosen = rows[:SHORTEST_ROWS]
    whole = [row for row in rows if len(texts[row]) <= _WHOLE_CHARACTERS]
    for distinguishes in (str.isupper, str.isdigit, lambda char: not char.isascii()):
        counts = {row: sum(map(distinguishes, texts[row])) for row in whole if row not in chosen}
        most = max(counts, key=lambda row: (counts[row], -row), default=None)
        if most is not None and counts[most]:
            chosen.append(most)
    return chosen


def with_verified_facts(space: Space, proof: Path, recorded: bytes, rows: int) -> Space:
    """The space of a record with the facts that were proven for it. A proof of another record counts for nothing."""
    if space.tokenizer is not None and space.config is not None:
        return space
    try:
        if proof.stat().st_size > _MOST_BYTES:
            return space
        content = json.loads(proof.read_bytes())
        known = (content["format"], content["version"]) == (_FORMAT, _VERSION)
        if known and content["of"] == _of(recorded, rows):
            return space.with_facts(Space.from_json(content["space"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SpaceVersionError):
        pass
    return space


def write_verified_facts(space: Space, proof: Path, recorded: bytes, rows: int) -> None:
    """Keep proven facts beside a collection whose own record cannot be changed in place. Raises OSError."""
    content: dict[str, Any] = {
        "format": _FORMAT,
        "version": _VERSION,
        "of": _of(recorded, rows),
        "space": space.to_json(),
    }
    write_whole(proof, json.dumps(content, indent=1) + "\n")


def _of(recorded: bytes, rows: int) -> str:
    """The collection that a proof is of: its record of the space, and how many rows it has."""
    return hashlib.sha256(recorded + f" {rows}".encode()).hexdigest()
