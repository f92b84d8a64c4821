"""Rows as points of Qdrant: ids, payloads and vectors."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.collections.stores.json_values import JsonValues
from embedway.collections.stores.server_columns import fields_of, stored_columns
from embedway.collections.stores.tally import TALLY_COLUMNS, DocumentTally, StoredDocument
from embedway.errors import SinkError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from embedway.collections.chunks import Chunk
    from embedway.collections.record import Record
    from embedway.collections.values import ColumnType
    from embedway.types import Vectors

#: Payload with the length of a vector; Qdrant stores vectors for the cosine distance with length 1.
LENGTH = "vector_scale"
#: Types of payload indexes. Columns of JSON are stored as text and not indexed.
INDEX_TYPES: dict[ColumnType, str] = {
    "text": "keyword",
    "int": "integer",
    "float": "float",
    "bool": "bool",
    "timestamp": "datetime",
    "list": "keyword",
}
#: Built-in columns that are indexed, for removal, updates and conditions.
INDEXED = ("id", "source", "document_id")
#: Maximum bytes of one request; the server accepts 32 MB by default.
MAX_REQUEST_BYTES = 8 << 20
MAX_REQUEST_ROWS = 1_000
_NUMBER_BYTES = 20  # of a number as JSON
_DOCUMENT_BYTES, _NUMBER_MAX = 7, (1 << 24) - 1
#: Deviation from length 1 that rounding of float32 explains.
_UNIT = 1e-6
_VALUES = JsonValues(
    types_as_text={"json"},
    write_timestamp=lambda value: value.astimezone(UTC).isoformat(timespec="microseconds"),
    read_timestamp=datetime.fromisoformat,
)


def point_id(chunk: Chunk, document: bytes) -> str:
    """Return the id of a row's point: a UUID of 7 bytes of hash(document), 3 of the number, and 6 of hash(row id).

    Qdrant scrolls in the order of ids, so the chunks of a document come together and in order.
    """
    number = min(max(chunk.number, 0), _NUMBER_MAX).to_bytes(3, "big")
    digits = (document + number + _hash([chunk.id], 6)).hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def document_part(found: str) -> str:
    """Return the part of a point's id that is equal for all rows of a document."""
    return found.replace("-", "")[: 2 * _DOCUMENT_BYTES]


def _hash(names: Sequence[str], size: int) -> bytes:
    return hashlib.blake2b(json.dumps(names).encode(), digest_size=size).digest()


def points_of(chunks: Sequence[Chunk], vectors: Vectors, record: Record, *, destination: str) -> list[Any]:
    """Return rows as points of the client; of rows with the same id, only the last. Raises `SinkError`."""
    from qdrant_client.models import PointStruct  # noqa: PLC0415 - heavy, and an extra

    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    documents: dict[tuple[str, str], bytes] = {}
    points: dict[str, Any] = {}
    for chunk, vector, length in zip(chunks, vectors.tolist(), lengths.tolist(), strict=True):
        payload = fields_of(chunk, record.keep)
        for name, kind in record.keep.items():
            payload[name] = _VALUES.to_json(
                payload[name], kind, f"row {chunk.id!r}: field {name!r}", destination=destination
            )
        if abs(length - 1) > _UNIT:
            payload[LENGTH] = length
        key = (chunk.source, chunk.document_id)
        if key not in documents:
            documents[key] = _hash(key, _DOCUMENT_BYTES)
        one = point_id(chunk, documents[key])
        # Without validation: all values were made here, and checking each number takes half of the time.
        points[one] = PointStruct.model_construct(id=one, vector=vector, payload=payload)
    return list(points.values())


def requests_of(points: Sequence[Any], dimensions: int) -> Iterator[list[Any]]:
    """Iterate over parts of the points, each small enough for one request."""
    part: list[Any] = []
    size = 0
    for point in points:
        own = _NUMBER_BYTES * dimensions + sum(map(_size, point.payload.values()))
        if part and (size + own > MAX_REQUEST_BYTES or len(part) >= MAX_REQUEST_ROWS):
            yield part
            part, size = [], 0
        part.append(point)
        size += own
    if part:
        yield part


def _size(value: Any) -> int:
    """Return the bytes of a value in a request, roughly."""
    return 2 * len(value if isinstance(value, str) else str(value))


def document_of(rows: Sequence[dict[str, Any]]) -> StoredDocument:
    """Return the document with these rows."""
    tally = DocumentTally()
    for row in rows:
        tally.add(rows[0]["source"] or "", rows[0]["document_id"] or "", *(row[name] for name in TALLY_COLUMNS[2:]))
    return next(tally.documents())


def fields_from(payload: Mapping[str, Any] | None, names: Sequence[str], record: Record) -> dict[str, Any]:
    """Return the columns in a payload. Values that another program wrote with another type are null."""
    kinds = stored_columns(record)
    found = payload or {}
    return {name: _VALUES.from_json(found.get(name), kinds[name]) for name in names}


def vectors_from(points: Sequence[Any], dimensions: int, *, destination: str, strict: bool = True) -> Vectors:
    """Return the vectors (n, d) of points with their original lengths.

    Raises `SinkError` for an invalid one, or without `strict`, makes it NaN.
    """
    vectors = [point.vector for point in points]
    if not strict:
        nothing = [np.nan] * dimensions
        vectors = [one if isinstance(one, list) and len(one) == dimensions else nothing for one in vectors]
    try:
        found: Vectors = np.array(vectors, np.float32)
    except (ValueError, TypeError):
        found = np.empty(0, np.float32)
    if found.shape != (len(points), dimensions):
        raise SinkError(f"has vectors without {dimensions} numbers; embed again", destination=destination)
    lengths = [(point.payload or {}).get(LENGTH, 1.0) for point in points]
    if any(length != 1.0 for length in lengths):
        scale = np.array([one if isinstance(one, (int, float)) else 1.0 for one in lengths], np.float64)
        norms = np.sqrt(np.einsum("nd,nd->n", found, found, dtype=np.float64))
        scale /= np.where((norms == 0) | (scale == 1), 1, norms)
        found = (found * scale[:, None]).astype(np.float32)
    return found
