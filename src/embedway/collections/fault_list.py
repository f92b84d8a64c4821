"""Errors of rows and files: passed to a handler, and collected after it raises one, so that all are named at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.errors import SourceError
from embedway.remedies import by_place, option

if TYPE_CHECKING:
    from embedway.collections.documents import OnBadRow

#: Maximum number of unusable files and rows that one error names, and of rows that are read to find them.
_MAX_FAULTS = 20
_MAX_READ_AFTER_FAULT = 100_000


class FaultList:
    """Errors of rows and files. After the handler raises one, the others are collected."""

    def __init__(self, on_bad_row: OnBadRow) -> None:
        self._on_bad_row = on_bad_row
        self._found: list[SourceError] = []
        self._read = 0

    def is_stopping(self) -> bool:
        """Whether the handler has raised an error."""
        return bool(self._found)

    def is_enough(self, weight: int = 1) -> bool:
        """Whether enough errors are known, or enough was read to find them. Called for each document.

        `weight` is the time to read the document, as a number of rows.
        """
        self._read += weight * self.is_stopping()
        return len(self._found) > _MAX_FAULTS or self._read > _MAX_READ_AFTER_FAULT

    def add(self, fault: SourceError) -> None:
        """Pass an error to the handler, or collect it."""
        if self._found:
            if len(self._found) <= _MAX_FAULTS:
                self._found.append(fault)
            return
        try:
            self._on_bad_row(fault)
        except SourceError as error:
            if error is not fault:
                raise
            self._found.append(fault)

    def raise_first(self) -> None:
        """Raise the first error, if the handler raised it, with notes on the others and the remedy."""
        if not self._found:
            return
        first, *others = self._found
        for other in others[: _MAX_FAULTS - 1]:
            first.add_note(f"also {other}")
        if len(others) >= _MAX_FAULTS:
            first.add_note("and more")
        skip, exclude = option("on_error", "skip"), by_place(command="--exclude GLOB", python="exclude=[GLOB]")
        first.add_note(f"{skip} rejects what cannot be read and goes on; {exclude} leaves out files of folders")
        raise first
