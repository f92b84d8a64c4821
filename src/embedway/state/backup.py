"""Backup and restoration of all parts of the state.

Each part is one consistent snapshot, even while other processes work. Snapshots are taken one after another, the ledger
last.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedway import unfinished
from embedway.config.trust import trust_path
from embedway.errors import StateError, UsageError
from embedway.files import is_special
from embedway.ledger.base import Restored
from embedway.ledger.sqlite_formats import LEDGER, PINS
from embedway.state.archive import Archive, Manifest, open_archive, write_archive
from embedway.state.databases import BatchesPart
from embedway.state.parts import BadPartError
from embedway.state.redis import RedisPart
from embedway.state.sqlite import SqlitePart
from embedway.state.trust import TrustPart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from embedway.config import Config
    from embedway.state.parts import Part, Transaction

#: Names of all parts that this version supports, one per part and backend.
_NAMES = ("trust.json", "batches.sqlite", "pins.sqlite", "pins.redis.json", "ledger.sqlite", "ledger.redis.json")


@dataclass(frozen=True, slots=True)
class Backup:
    """Result of a backup: the locations of its parts, by name."""

    file: Path
    manifest: Manifest
    places: dict[str, str]


@dataclass(frozen=True, slots=True)
class Restoration:
    """Result of a restoration: locations by part, the time of the backup, and the backup of the replaced content."""

    created: float
    places: dict[str, str]
    kept: Path | None

    @property
    def to_confirm(self) -> bool:
        """Whether hard budgets refuse every call until the ledger is confirmed."""
        return any(name.startswith("ledger.") for name in self.places)


def parts_of(config: Config, folder: Path | None = None) -> list[Part]:
    """Return the parts in the settings, in the order of their backup. `folder` contains trust.

    Files and batches on the ledger's server are none of them: they may be larger than a script can read.
    """
    folder = folder or state_folder()
    parts: list[Part] = [TrustPart(folder / "trust.json")]
    if config.ledger.backend != "redis":
        parts.append(BatchesPart(config.server.batches_file))
    for what, section, form in (("pins", config.pins, PINS), ("ledger", config.ledger, LEDGER)):
        if section.backend == "sqlite":
            parts.append(SqlitePart(section.path, form))
        elif section.backend == "redis":
            parts.append(RedisPart(what, section.url.get_secret_value(), section.cluster))
    return parts


def state_folder() -> Path:
    """Return the folder of trust."""
    return trust_path().parent


def back_up(
    parts: Sequence[Part], file: Path, *, overwrite: bool = False, clock: Callable[[], float] = time.time
) -> Backup:
    """Write a backup of all existing parts. Blocking.

    Raises UsageError if the file exists and `overwrite` is False, if it is one of the parts, or if there is nothing to
    back up; StateError, LedgerError and ConfigError.
    """
    created = clock()
    with _disk_errors(file), unfinished.temporary_folder() as folder:
        _refuse_own_places(parts, file)
        if is_special(file):
            raise UsageError(f"{file} is a device, a pipe or a socket: choose a file")
        if not overwrite and (file.exists() or file.is_symlink()):
            raise UsageError(f"{file} already exists: choose another file, or use --overwrite")
        snapshots = {part.name: folder / part.name for part in parts if part.snapshot(folder / part.name)}
        if not snapshots:
            raise UsageError("there is nothing to back up: no ledger, pins, trust, files or batches exist yet")
        manifest = write_archive(file, snapshots, created=created, overwrite=overwrite)
    return Backup(file, manifest, {part.name: part.place for part in parts if part.name in snapshots})


def restore(
    parts: Sequence[Part],
    file: Path,
    *,
    overwrite: bool = False,
    clock: Callable[[], float] = time.time,
    on_commit: Callable[[], None] = lambda: None,
) -> Restoration:
    """Replace the parts with those of a backup. Blocking.

    All parts are checked before the first change, and all are replaced under their locks. The replaced content is
    backed up first. A ledger is marked, so that hard budgets refuse to spend until it is confirmed. `on_commit` is
    called when all are replaced; no signal ends the program between the first one and that.

    Raises UsageError if there is existing state and `overwrite` is False, or if the settings name another backend;
    StateError, LedgerError and ConfigError.
    """
    with _disk_errors(file), open_archive(file) as archive, unfinished.temporary_folder() as folder:
        chosen = _choose(parts, archive)
        sources = {part.name: folder / part.name for part in chosen}
        for part in chosen:
            archive.extract(part.name, sources[part.name])
            try:
                part.check(sources[part.name])
            except BadPartError as error:
                raise StateError(f"{part.name} {error}", file=file) from None
        now = clock()
        mark = Restored(archive.manifest.created, now)
        with contextlib.ExitStack() as stack:
            transactions = [(part, stack.enter_context(part.begin())) for part in chosen]
            kept = _back_up_replaced(transactions, now, overwrite=overwrite)
            try:
                for part, transaction in transactions:
                    transaction.stage(sources[part.name], mark)
            except BaseException:
                if kept is not None:
                    unfinished.remove(kept)
                raise
            with unfinished.commit():
                if kept is not None:
                    unfinished.forget(kept)
                _commit(transactions, file)
                on_commit()
        return Restoration(mark.books_of, {part.name: part.place for part in chosen}, kept)


@contextlib.contextmanager
def _disk_errors(file: Path) -> Iterator[None]:
    """Convert disk errors that no part has reported to StateError."""
    try:
        yield
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        message = f"the backup cannot be written or restored: {place}{error.strerror or type(error).__name__}"
        raise StateError(message, file=file) from error


def _choose(parts: Sequence[Part], archive: Archive) -> list[Part]:
    """Return the archive's parts, the ledger first: spending stops once it is restored."""
    by_name = {part.name: part for part in parts}
    for name in archive.manifest.parts:
        if name not in _NAMES:
            raise StateError(
                "contains a part that this embedway does not support: use the newer embedway", file=archive.file
            )
        if name not in by_name:
            what, backend, *_ = name.split(".")
            setting = "ledger" if what == "batches" else what
            raise UsageError(
                f"the backup contains {what} of the backend {backend}, but {setting}.backend is another one: set it "
                f"to {backend} for the restoration"
            )
    if not archive.manifest.parts:
        raise StateError("is empty", file=archive.file)
    return [by_name[name] for name in reversed(_NAMES) if name in archive.manifest.parts]


def _back_up_replaced(transactions: Sequence[tuple[Part, Transaction]], now: float, *, overwrite: bool) -> Path | None:
    """Back up the content to be replaced, and return the file; None if there is none."""
    there = [(part, transaction) for part, transaction in transactions if not transaction.is_empty()]
    if not there:
        return None
    if not overwrite:
        places = ", ".join(part.place for part, _ in there)
        raise UsageError(f"state already exists ({places}): use --overwrite to replace it, a backup of it is kept")
    folder = next((part.path.parent for part, _ in there if part.path is not None), None) or state_folder()
    with unfinished.temporary_folder() as temporary:
        snapshots = {part.name: temporary / part.name for part, _ in there}
        for part, transaction in there:
            transaction.snapshot(snapshots[part.name])
        stamp = dt.datetime.fromtimestamp(now, dt.UTC).strftime("%Y%m%dT%H%M%SZ")
        for number in range(1, 1000):
            more = "" if number == 1 else f"-{number}"
            kept = folder / f"state-before-restore-{stamp}{more}.zip"
            with contextlib.suppress(UsageError):  # one of the same second exists
                write_archive(kept, snapshots, created=now, overwrite=False)
                return unfinished.track(kept)  # until it is needed
    raise StateError("no free name for the backup of the replaced content", file=folder)


def _commit(transactions: Sequence[tuple[Part, Transaction]], file: Path) -> None:
    done: list[str] = []
    for part, transaction in transactions:
        try:
            transaction.commit()
        except Exception as error:
            if not done:
                raise
            raise StateError(
                f"only {', '.join(done)} could be restored, and {part.place} is unchanged ({error}): restore "
                "again with --overwrite",
                file=file,
            ) from error
        done.append(part.place)


def _refuse_own_places(parts: Sequence[Part], file: Path) -> None:
    for one in (one for part in parts for one in part.files):
        # The same file may have another name, for example if a file system ignores case.
        if os.path.realpath(one) == os.path.realpath(file) or (one.exists() and file.exists() and one.samefile(file)):
            raise UsageError(f"{file} is a file to be backed up, or belongs to one: choose another file")
