"""Rows, documents and search of one JSON Lines file that holds a collection."""

from __future__ import annotations

import io
import os
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from embedway.collections.search import Hit, TopRows, cosines, vector_norms
from embedway.collections.stores.base import READ_ROWS, Rows
from embedway.collections.stores.jsonl_lines import MAX_LINE_BYTES, Line, LineReader, blocks
from embedway.collections.stores.tally import TALLY_COLUMNS, DocumentTally, StoredDocument
from embedway.collections.stores.temporary import file_state
from embedway.errors import SinkError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt
    from typing_extensions import Buffer

    from embedway.collections.documents import DocumentKey
    from embedway.collections.record import Record
    from embedway.collections.where import Condition
    from embedway.types import Vectors

#: Maximum bytes of the vectors that stay in memory for repeated searches.
MAX_LOADED_BYTES = 2 << 30
_BUFFER_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class _Loaded:
    """Vectors (n, d) in memory, their lengths (n,), and the place of each line in the file."""

    vectors: Vectors
    norms: npt.NDArray[np.float32]
    offsets: npt.NDArray[np.int64]


class JsonlReader:
    """A data file. Errors are OSError, and `SinkError` for lines that are invalid."""

    def __init__(self, path: Path, record: Record, count: int, destination: str) -> None:
        self._destination = destination
        self.record, self._count = record, count
        self._lines = LineReader(record, destination)
        # The file stays open: after it is replaced, an open collection shows the rows that it had.
        self._file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self._file).atexit = False
        self.state = file_state(os.fstat(self._file))
        self._searched = False
        self._loaded: _Loaded | None = None
        self._places: dict[str, int] | None = None

    def parts(self) -> Iterator[tuple[int, list[Line]]]:
        """Iterate over the lines, some megabytes at a time: number of the first row, from 0, and lines."""
        first = 0
        for lines in self._raw():
            yield first, [self._lines.cut(line, number) for number, line in enumerate(lines, first + 1)]
            first += len(lines)

    def lines_and_keys(self) -> Iterator[tuple[list[bytes], list[dict[str, Any]]]]:
        """Iterate over the lines and their `id`, `source` and `document_id`."""
        first = 1
        for lines in self._raw():
            cut = [self._lines.cut(line, number) for number, line in enumerate(lines, first)]
            yield (
                lines,
                [self._lines.fields(line, number, TALLY_COLUMNS) for number, line in enumerate(cut, first)],
            )
            first += len(lines)

    def documents(self) -> Iterator[StoredDocument]:
        """Iterate over the documents. A document with several fingerprints has none."""
        tally = DocumentTally()
        for _, rows in self.lines_and_keys():
            for row in rows:
                tally.add(*(row[name] for name in TALLY_COLUMNS))
        return tally.documents()

    def read(
        self,
        columns: Sequence[str] | None,
        documents: Collection[DocumentKey] | None,
        *,
        vectors: bool,
        strict: bool = True,
    ) -> Iterator[Rows]:
        """Iterate over rows as `Store.read` does."""
        wanted = None if documents is None else frozenset((key[0], key[1]) for key in documents)
        names = None if columns is None else tuple(dict.fromkeys((*columns, "source", "document_id")))
        for first, lines in self.parts():
            for start in range(0, len(lines), READ_ROWS):
                some = lines[start : start + READ_ROWS]
                number = first + start + 1
                fields = [self._lines.fields(line, at, names) for at, line in enumerate(some, number)]
                inside = [wanted is None or (row["source"], row["document_id"]) in wanted for row in fields]
                if not any(inside):
                    continue
                rows = [row for row, stays in zip(fields, inside, strict=True) if stays]
                if columns is not None:
                    rows = [{name: row[name] for name in columns} for row in rows]
                matrix = (
                    self._lines.vectors(some, number, strict=strict)[inside]
                    if vectors
                    else np.empty((len(rows), 0), np.float32)
                )
                yield Rows(rows, matrix)

    def fetch(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return rows by id. The first call reads the file, and notes the place of each line."""
        self._check_unchanged()
        if self._places is None:
            places: dict[str, int] = {}
            offset = 0
            for lines, rows in self.lines_and_keys():
                for line, row in zip(lines, rows, strict=True):
                    places[row["id"]] = offset
                    offset += len(line) + 1
            self._places = places
        known = {one: self._places[one] for one in ids if one in self._places}
        rows = self._at(list(known.values()))
        return dict(zip(known, rows, strict=True))

    def search(self, query: Vectors, top_n: int, where: Condition | None) -> list[Hit]:
        """Return the nearest rows to a query of length 1.

        The first search reads the file and retains only the best rows; the second one keeps the vectors in memory, if
        they fit.
        """
        self._check_unchanged()
        if self._searched and self._loaded is None:
            self._load()
        best = TopRows(top_n)
        if self._loaded is not None:
            return self._search_loaded(self._loaded, best, query, where)
        kept: dict[int, Line] = {}
        with ThreadPoolExecutor(_threads()) as pool:
            for first, lines in self.parts():
                scores = cosines(self._lines.vectors(lines, first + 1, pool), query)
                if where is not None:
                    scores[~self._matching(lines, first, where)] = -np.inf
                best.add(scores, first)
                kept.update((row, lines[row - first]) for row in best.rows.tolist() if row >= first)
                kept = {row: kept[row] for row in best.rows.tolist()}
        self._searched = True
        return self._hits(best, {row: self._lines.fields(line, row + 1) for row, line in kept.items()})

    def _search_loaded(self, loaded: _Loaded, best: TopRows, query: Vectors, where: Condition | None) -> list[Hit]:
        scores = cosines(loaded.vectors, query, loaded.norms)
        if where is not None:
            for first, lines in self.parts():
                part = scores[first : first + len(lines)]
                part[~self._matching(lines, first, where)] = -np.inf
        best.add(scores, 0)
        rows = best.rows.tolist()
        return self._hits(best, dict(zip(rows, self._at(loaded.offsets[rows].tolist()), strict=True)))

    def _hits(self, best: TopRows, rows: dict[int, dict[str, Any]]) -> list[Hit]:
        scored = zip(best.rows.tolist(), best.scores.tolist(), strict=True)
        return [Hit.of(score, rows[row], self.record.keep) for row, score in scored if score > -np.inf]

    def _matching(self, lines: Sequence[Line], first: int, where: Condition) -> npt.NDArray[np.bool_]:
        from embedway.collections.where import matches  # noqa: PLC0415  only for conditions

        found = (matches(where, self._lines.fields(line, row + 1)) for row, line in enumerate(lines, first))
        return np.fromiter(found, bool, len(lines))

    def _load(self) -> None:
        """Keep the vectors in memory, if they fit and the file has the number of rows that its record says."""
        if self._count * self.record.space.dimensions * 4 > MAX_LOADED_BYTES:
            return
        vectors = np.empty((self._count, self.record.space.dimensions), np.float32)
        offsets = np.empty(self._count, np.int64)
        row = offset = 0
        with ThreadPoolExecutor(_threads()) as pool:
            for raw in self._raw():
                if row + len(raw) > self._count:
                    return
                cut = [self._lines.cut(line, number) for number, line in enumerate(raw, row + 1)]
                vectors[row : row + len(raw)] = self._lines.vectors(cut, row + 1, pool)
                for line in raw:
                    offsets[row] = offset
                    offset += len(line) + 1
                    row += 1
        if row == self._count:
            self._loaded = _Loaded(vectors, vector_norms(vectors), offsets)

    def _at(self, offsets: Sequence[int]) -> list[dict[str, Any]]:
        """Return the columns of lines by their places."""
        rows = []
        with self._open() as file:
            for offset in offsets:
                file.seek(offset)
                line = file.readline(MAX_LINE_BYTES).rstrip(b"\n")
                rows.append(self._lines.fields(self._lines.cut(line, 1), 1))
        return rows

    def _raw(self) -> Iterator[list[bytes]]:
        with self._open() as file:
            yield from blocks(file, self._destination)

    def _open(self) -> io.BufferedReader:
        return io.BufferedReader(_Reading(self._file), _BUFFER_BYTES)

    def _check_unchanged(self) -> None:
        """Raise `SinkError` if another program has written into the file since the collection was opened."""
        if file_state(os.fstat(self._file)) != self.state:
            raise SinkError("was changed in place while it was open; open it again", destination=self._destination)


class _Reading(io.RawIOBase):
    """One reading of an open file, with a position of its own."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._at = 0

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + (self._at if whence == os.SEEK_CUR else 0)
        return self._at

    @override
    def readinto(self, buffer: Buffer) -> int:
        with memoryview(buffer) as view:
            os.lseek(self._file, self._at, os.SEEK_SET)
            data = os.read(self._file, view.nbytes)
            view.cast("B")[: len(data)] = data
        self._at += len(data)
        return len(data)


def _threads() -> int:
    return min(os.cpu_count() or 1, 8)
