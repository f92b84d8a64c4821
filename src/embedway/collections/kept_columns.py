"""Kept columns of a job: their types, and values that fit them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from embedway.collections.column_types import coerce, infer_types
from embedway.errors import SourceError
from embedway.remedies import keep_as

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from embedway.collections.chunks import Chunk
    from embedway.collections.values import ColumnType, Value


#: Rows that decide on types, after each column has had a value.
_FURTHER_ROWS = 256


class KeptColumns:
    """Types of the kept columns of one job: recorded, declared, or inferred from its first rows."""

    def __init__(
        self, names: Iterable[str], declared: Mapping[str, ColumnType], recorded: Mapping[str, ColumnType]
    ) -> None:
        self._names = tuple(names)
        self.types: dict[str, ColumnType] = dict(recorded)
        for name in self._names:
            if name in declared and name not in self.types:
                self.types[name] = declared[name]

    def infer(self, chunks: Iterable[Chunk], later: Iterable[Mapping[str, Value]] = ()) -> None:
        """Infer the types that are still unknown; of columns without a value in the chunks, from the later rows."""
        unknown = [name for name in self._names if name not in self.types]
        if not unknown:
            return
        rows = [chunk.metadata for chunk in chunks]
        self.types |= infer_types(rows, unknown)
        absent = [name for name in unknown if all(row.get(name) is None for row in rows)]
        if absent:
            self.types |= infer_types(_first_rows(later, absent), absent)

    def fit(self, chunks: Iterable[Chunk]) -> tuple[list[Chunk], list[tuple[Chunk, SourceError]]]:
        """Return chunks whose values have the types of their columns, and the others, each with the first error."""
        if not self._names:
            return list(chunks), []
        good: list[Chunk] = []
        bad: list[tuple[Chunk, SourceError]] = []
        for chunk in chunks:
            try:
                good.append(replace(chunk, metadata=self._values(chunk)))
            except SourceError as error:
                bad.append((chunk, error))
        return good, bad

    def _values(self, chunk: Chunk) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for name in self._names:
            try:
                value = values[name] = coerce(chunk.metadata.get(name), self.types[name])
                if _has_nul(value):
                    raise self._fault(chunk, name, "has a NUL character")
            except ValueError as error:
                reason = f"{error}; {keep_as(name, 'json')} keeps any value, in a new collection"
                raise self._fault(chunk, name, reason) from None
        return values

    @staticmethod
    def _fault(chunk: Chunk, name: str, reason: str) -> SourceError:
        fault = SourceError(reason, path=chunk.source, line=chunk.start_line, field=name)
        fault.id, fault.key = chunk.document_id, (chunk.source, chunk.document_id)
        return fault


def _first_rows(rows: Iterable[Mapping[str, Value]], names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """Iterate over rows until each column has had a value, and over some more."""
    missing, further = set(names), 0
    for row in rows:
        yield row
        missing -= {name for name in missing if row.get(name) is not None}
        further += not missing
        if further > _FURTHER_ROWS:
            return


def _has_nul(value: object) -> bool:
    """Return whether a text in a value has a NUL character, which not every store can keep."""
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_nul(part) for pair in value.items() for part in pair)
    return isinstance(value, list) and any(map(_has_nul, value))
