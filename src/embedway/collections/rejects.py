"""JSON Lines file of rejected rows, beside the destination and without the rows' texts."""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from typing import IO, TYPE_CHECKING

from embedway import unfinished
from embedway.collections.stores.temporary import refuse_existing, remove_stale, replace_file, temporary_path
from embedway.errors import SinkError
from embedway.files import open_regular

if TYPE_CHECKING:
    from pathlib import Path

    from embedway.errors import SourceError


#: Fields of a row. Files of version 0.1 have the first four.
_FIELDS = ("source", "line", "field", "reason", "id", "error")


class RejectsFile:
    """File of rejected rows, one object per line, with the fields of `_FIELDS`.

    The file is created with the first row and appears on `commit`. `add` may be called from another thread than
    the other methods.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.first: SourceError | None = None
        self._temporary: Path | None = None
        self._file: IO[str] | None = None
        self._closed = False
        self._lock = threading.Lock()

    def add(self, fault: SourceError) -> None:
        """Record a row. Raises `SinkError`."""
        values = fault.path, fault.line, fault.field, fault.reason, fault.id, fault.kind
        row = dict(zip(_FIELDS, values, strict=True))
        with self._lock:
            if self._closed:
                return
            try:
                if self._file is None:
                    remove_stale(self.path)
                    self._temporary = temporary_path(self.path)
                    self._file = self._temporary.open("x", encoding="utf-8")
                self._file.write(json.dumps(row) + "\n")
            except OSError as error:
                raise SinkError(f"cannot be written: {error.strerror}", destination=str(self.path)) from error
            self.count += 1
            self.first = self.first or fault

    def commit(self) -> None:
        """Rename the file to its final path, if it has a row. Raises `SinkError`."""
        with self._lock:
            try:
                if self._file is not None:
                    self._file.close()
                else:
                    remove_stale(self.path)
                if self._temporary is not None:
                    replace_file(self._temporary, self.path)
                    self._temporary = None
            except OSError as error:
                raise SinkError(f"cannot be written: {error.strerror}", destination=str(self.path)) from error

    def refuse_existing(self) -> None:
        """Raise `SinkError` if a file with that name exists and was not written by a job."""
        if not is_rejects_file(self.path):
            refuse_existing(self.path, overwrite=False, destination=str(self.path))

    def remove_outdated(self) -> None:
        """Remove the file of an earlier run if this one rejected nothing."""
        if self.count == 0 and is_rejects_file(self.path):
            self.path.unlink(missing_ok=True)

    def abort(self) -> None:
        """Remove the file; later rows are dropped."""
        with self._lock:
            self._closed = True
            if self._file is not None:
                # Closing writes buffered rows, which fails on a full disk; the file is removed anyway.
                with suppress(OSError):
                    self._file.close()
            if self._temporary is not None:
                unfinished.remove(self._temporary)
                self._temporary = None


def is_rejects_file(path: Path) -> bool:
    """Return whether a file exists that a job wrote: its first line is a reject."""
    try:
        # A pipe would block.
        with os.fdopen(open_regular(path), encoding="utf-8") as file:
            first = json.loads(file.readline(1 << 20))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and tuple(first) in {_FIELDS, _FIELDS[:4]}
