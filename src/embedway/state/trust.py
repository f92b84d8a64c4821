"""Trust as a part of a backup: the JSON file that lists trusted settings files."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedway import files
from embedway.config.trust import MOST_TRUST_BYTES, DamagedTrustError, parse_trust, trust_lock
from embedway.errors import ConfigError, StateError
from embedway.state.parts import WAIT_S, BadPartError, FilePart

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from embedway.ledger.base import Restored
    from embedway.state.parts import Transaction


@dataclass(frozen=True, slots=True)
class TrustPart(FilePart):
    """JSON file that lists trusted settings files."""

    @property
    def name(self) -> str:
        return "trust.json"

    @property
    def files(self) -> tuple[Path, ...]:
        return self.path, trust_lock(self.path)

    def snapshot(self, to: Path) -> bool:
        data = self._read()
        if data is not None:
            files.write_private_whole(to, data)
        return data is not None

    def check(self, source: Path) -> None:
        if source.stat().st_size > MOST_TRUST_BYTES:
            raise BadPartError("is too large")
        try:
            parse_trust(source.read_bytes())
        except (DamagedTrustError, ConfigError) as error:
            raise BadPartError(str(error)) from None

    @contextlib.contextmanager
    def begin(self) -> Iterator[Transaction]:
        from filelock import FileLock, Timeout  # noqa: PLC0415  needed only to restore

        path = trust_lock(self.path)
        lock = FileLock(path, timeout=WAIT_S, mode=files.FILE_MODE)
        try:
            files.make_private_folder(self.path.parent)
            lock.acquire()
        except Timeout as error:
            raise StateError("another process is changing it: try again when it is done", file=self.path) from error
        except OSError as error:
            raise StateError(
                f"cannot be locked: {error.strerror or type(error).__name__}; its lock must be a separate file",
                file=path,
            ) from error
        try:
            yield _TrustTransaction(self)
        finally:
            lock.release()

    def _read(self) -> bytes | None:
        """Return the bytes of a regular file without following links; None if it is missing."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"cannot be read: {error.strerror}", file=self.path) from error
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise StateError("is not a regular file", file=self.path)
            with os.fdopen(descriptor, "rb", closefd=False) as handle:
                return handle.read()
        finally:
            os.close(descriptor)


@dataclass(slots=True)
class _TrustTransaction:
    part: TrustPart
    data: bytes | None = None

    def is_empty(self) -> bool:
        return not os.path.lexists(self.part.path)

    def snapshot(self, to: Path) -> bool:
        return self.part.snapshot(to)

    def stage(self, source: Path, mark: Restored) -> None:
        del mark
        self.data = source.read_bytes()

    def commit(self) -> None:
        if self.data is not None:
            files.write_private_whole(self.part.path, self.data)
