"""Kept columns of a job: their types, and values that fit them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from embedway.collections.column_types import coerce, infer_types
from embedway.errors import SourceError
from embedway.remedies import keep_as

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from embedway.collections.chunks import Chunk
    from embedway.collections.values import ColumnType, Value


class KeptColumns:
    """Types of the kept columns of one job: recorded, declared, or inferred from its first batch."""

    def __init__(
        self, names: Iterable[str], declared: Mapping[str, ColumnType], recorded: Mapping[str, ColumnType]
    ) -> None:
        self._names = tuple(names)
        self.types: dict[str, ColumnType] = dict(recorded)
        for name in self._names:
            if name in declared and name not in self.types:
                self.types[name] = declared[name]

    def infer(self, chunks: Iterable[Chunk]) -> None:
        """Infer the types that are still unknown."""
        unknown = [name for name in self._names if name not in self.types]
        if unknown:
            self.types |= infer_types((chunk.metadata for chunk in chunks), unknown)

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


def _has_nul(value: object) -> bool:
    """Return whether a text in a value has a NUL character, which not every store can keep."""
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_nul(part) for pair in value.items() for part in pair)
    return isinstance(value, list) and any(map(_has_nul, value))
