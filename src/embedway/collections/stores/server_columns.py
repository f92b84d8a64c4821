"""Columns of collections on servers, and keys of their documents."""

from __future__ import annotations

import hashlib
import json
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from embedway.collections.columns import COLUMNS, values_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from embedway.collections.chunks import Chunk
    from embedway.collections.documents import DocumentKey
    from embedway.collections.record import Record
    from embedway.collections.values import ColumnType


def stored_columns(record: Record) -> dict[str, ColumnType]:
    """Return all columns of a collection except the vector, with their types."""
    return {**COLUMNS, **record.keep}


def fields_of(chunk: Chunk, keep: Mapping[str, ColumnType]) -> dict[str, Any]:
    """Return the columns of a chunk, in the order of `stored_columns`."""
    fields = dict(zip(COLUMNS, values_of(chunk), strict=True))
    if keep:
        fields.update((name, chunk.metadata.get(name)) for name in keep)
    return fields


def ids_by_source(documents: Iterable[DocumentKey], *, most: int) -> Iterator[tuple[str, list[str]]]:
    """Iterate over each source of some documents with the ids of at most `most` of its documents."""
    for source, keys in groupby(sorted(documents), key=itemgetter(0)):
        ids = [key[1] for key in keys]
        for first in range(0, len(ids), most):
            yield source, ids[first : first + most]


def lock_key(*names: str) -> int:
    """Return a number of 64 bits, with sign, that stands for some names."""
    digest = hashlib.blake2b(json.dumps(["embedway", *names]).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
