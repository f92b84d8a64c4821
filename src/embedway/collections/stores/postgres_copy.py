"""COPY of rows into a table of PostgreSQL, which may stay open between batches."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from embedway.forks import never_free_in_forked_processes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class RowCopy:
    """An open COPY in binary form. The server stores rows while the next batch is computed.

    Call `end` or `cancel` before another statement on the connection: that would wait for it, in the same thread
    forever. An error of the server may be raised by a later call.
    """

    def __init__(self, link: Any, statement: Any, types: Sequence[str]) -> None:
        self._cursor = link.cursor()
        self._context = self._cursor.copy(statement)
        # Freed while it is open, it cancels the COPY, also that of the parent process, whose connection it has.
        never_free_in_forked_processes(self._context)
        self._copy = self._context.__enter__()
        self._copy.set_types(types)

    def write(self, rows: Iterable[Sequence[Any]]) -> None:
        """Send rows."""
        write_row = self._copy.write_row
        for row in rows:
            write_row(row)

    def end(self) -> None:
        """Wait until the server has all rows."""
        self._context.__exit__(None, None, None)
        self._cursor.close()

    def cancel(self) -> None:
        """End without the rows. Errors are ignored, because the transaction is rolled back, or the connection lost."""
        error = RuntimeError("cancelled")
        with suppress(Exception):
            self._context.__exit__(type(error), error, None)
        self._cursor.close()
