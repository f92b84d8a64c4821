"""Lines of a JSON Lines collection: the fields before the vector, and fast conversion of vectors.

embedway writes the vector last, after the id of the space. A line in this form is cut there without reading its
numbers. Any other line is parsed completely.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import orjson

from embedway.collections.column_types import coerce
from embedway.collections.columns import CHUNK_COLUMNS, HIT_COLUMNS
from embedway.collections.record import FORMAT_VERSION
from embedway.collections.stores.base import check_fields
from embedway.errors import SinkError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import ThreadPoolExecutor
    from typing import IO

    from embedway.collections.chunks import Chunk
    from embedway.collections.record import Record
    from embedway.types import Vectors

#: Maximum bytes of a line.
MAX_LINE_BYTES = 1 << 28
_BLOCK_BYTES = 8 << 20
#: Lines whose vectors one thread converts at a time.
_PART = 512
_VECTOR = b',"vector":'


def lines_of(chunks: Sequence[Chunk], vectors: Vectors, record: Record) -> list[bytes]:
    """Return a line for each chunk. Raises ValueError for text that is not valid Unicode."""
    lines = []
    for chunk, numbers in zip(chunks, _join_numbers(vectors), strict=True):
        row = {
            "id": chunk.id,
            "document_id": chunk.document_id,
            "source": chunk.source,
            "number": chunk.number,
            "total": chunk.total,
            "fingerprint": chunk.fingerprint,
            "start_line": chunk.start_line,
            "page": chunk.page,
            "title": chunk.title,
            "headings": chunk.headings,
            "context": chunk.context,
            "text": chunk.text,
            **{name: _stored(chunk.metadata.get(name)) for name in record.keep},
            "space": record.space.id,
        }
        head = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
        lines.append(f'{head[:-1]},"vector":[{numbers}]}}\n'.encode())
    return lines


def blocks(file: IO[bytes], destination: str) -> Iterator[list[bytes]]:
    """Iterate over the lines of a file, some megabytes at a time, without their newlines.

    Raises `SinkError` for a line that is too long.
    """
    rest: list[bytes] = []
    size = number = 0
    while data := file.read(_BLOCK_BYTES):
        cut = data.rfind(b"\n") + 1
        if not cut:
            rest.append(data)
            size += len(data)
            if size > MAX_LINE_BYTES:
                message = f"line {number + 1} has more than {MAX_LINE_BYTES:,} bytes"
                raise SinkError(message, destination=destination)
            continue
        lines = b"".join([*rest, data[: cut - 1]]).split(b"\n")
        rest, size = [data[cut:]], len(data) - cut
        number += len(lines)
        yield lines
    if last := b"".join(rest):
        yield [last]


@dataclass(frozen=True, slots=True)
class Line:
    """A line that is cut: `head` is JSON without the vector, `numbers` the inside of its list.

    `row` is set for a line in another form, with all its values.
    """

    head: bytes
    numbers: bytes
    row: dict[str, Any] | None = None


class LineReader:
    """Conversion of lines of a collection. All methods raise `SinkError` with the number of the line."""

    def __init__(self, record: Record, destination: str) -> None:
        self._record, self._destination = record, destination
        space = json.dumps(record.space.id, ensure_ascii=False).encode()
        self._before = b',"space":' + space + _VECTOR
        self._names = (*HIT_COLUMNS, *CHUNK_COLUMNS, *record.keep)
        self._version = record.format_version
        self._exact = "json" in record.keep.values()

    def cut(self, line: bytes, number: int) -> Line:
        """Return a line in two parts; `number` counts from 1."""
        start = line.rfind(b"[")
        end = start - len(self._before)
        if end > 0 and line[end:start] == self._before and line.endswith(b"]}"):
            return Line(line[:end] + b"}", line[start + 1 : -2])
        row = self._parse(line, number)
        if row.get("space") != self._record.space.id or not isinstance(row.get("vector"), list):
            self._refuse(number)
        return Line(b"", b"", row)

    def fields(self, line: Line, number: int, columns: Sequence[str] | None = None) -> dict[str, Any]:
        """Return the columns of a line, by default all but the vector; a column that it lacks is None."""
        row = self._parse(line.head, number) if line.row is None else line.row
        check_fields(row, number - 1, destination=self._destination, version=self._version)
        found = {name: row.get(name) for name in (self._names if columns is None else columns)}
        if self._version >= FORMAT_VERSION:
            for name, kind in self._record.keep.items():
                if found.get(name) is not None:
                    try:
                        found[name] = coerce(found[name], kind)
                    except (ValueError, OverflowError) as error:
                        message = f"line {number}: the column {name!r} {error}; embed the texts again"
                        raise SinkError(message, destination=self._destination) from None
        return found

    def vectors(
        self, lines: Sequence[Line], first: int, pool: ThreadPoolExecutor | None = None, *, strict: bool = True
    ) -> Vectors:
        """Return the vectors, float32 (n, d), of lines; the first has the number `first`.

        Without `strict`, a vector with a value that is not a finite number is NaN.
        """
        starts = range(0, len(lines), _PART)
        one = lambda start: self._vectors(lines[start : start + _PART], first + start, strict=strict)  # noqa: E731  two calls
        parts = list(map(one, starts) if pool is None else pool.map(one, starts))
        return np.concatenate([np.empty((0, self._record.space.dimensions), np.float32), *parts])

    def _vectors(self, lines: Sequence[Line], first: int, *, strict: bool) -> Vectors:
        import pyarrow as pa  # noqa: PLC0415 - heavy
        import pyarrow.compute as pc  # noqa: PLC0415 - heavy

        dimensions = self._record.space.dimensions
        with suppress(pa.ArrowException, ValueError):
            if all(line.row is None for line in lines):
                lists = pc.split_pattern(pa.array([line.numbers for line in lines], pa.large_string()), ",")
                if set(pc.list_value_length(lists).to_pylist()) == {dimensions}:
                    numbers = pc.cast(lists.flatten(), pa.float32()).to_numpy(zero_copy_only=False)
                    vectors: Vectors = numbers.reshape(len(lines), dimensions)
                    if np.isfinite(vectors).all():
                        return vectors
        # One of the lines is invalid or has another form: parse each one, strictly.
        return np.stack([self._vector(line, number, strict=strict) for number, line in enumerate(lines, first)])

    def _vector(self, line: Line, number: int, *, strict: bool) -> Vectors:
        numbers: Any = None
        if line.row is not None:
            numbers = line.row["vector"]
        else:
            with suppress(ValueError, RecursionError):
                numbers = json.loads(b"[" + line.numbers + b"]")
        if not isinstance(numbers, list) or len(numbers) != self._record.space.dimensions:
            if not strict:
                return self._no_vector()
            self._refuse(number)
        if set(map(type, numbers)) <= {int, float}:
            with suppress(OverflowError), np.errstate(over="ignore"):
                vector: Vectors = np.array(numbers, np.float32)
                if np.isfinite(vector).all():
                    return vector
        if not strict:
            return self._no_vector()
        raise SinkError(
            f"the vector of line {number} has a value that is not a finite number; embed the texts again",
            destination=self._destination,
        )

    def _no_vector(self) -> Vectors:
        return np.full(self._record.space.dimensions, np.nan, np.float32)

    def _parse(self, text: bytes, number: int) -> dict[str, Any]:
        row: Any = None
        with suppress(ValueError, RecursionError):
            # The faster library rounds integers of more than 64 bits.
            row = None if self._exact else orjson.loads(text)
        if row is None:
            # Python's own one reads NaN, so that a row with such a vector can be named and repaired.
            with suppress(ValueError, RecursionError):
                row = json.loads(text)
        if not isinstance(row, dict):
            self._refuse(number)
        return row

    def _refuse(self, number: int) -> NoReturn:
        reason = f"line {number} is not a row of the space {self._record.space.id}"
        raise SinkError(reason, destination=self._destination)


def _stored(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _join_numbers(vectors: Vectors) -> list[str]:
    """Return each vector as the inside of a JSON list, with the fewest digits that restore the same float32."""
    import pyarrow as pa  # noqa: PLC0415 - heavy
    import pyarrow.compute as pc  # noqa: PLC0415 - heavy

    digits = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1)).cast(pa.string())
    offsets = np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1]
    joined: list[str] = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), digits), ",").to_pylist()
    return joined
