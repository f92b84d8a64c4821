"""Folders and files: free space, permissions, and the formats of the cache, the ledger, the pins and the trust file.

Nothing is created, except a temporary file that shows whether a folder is writable.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedway import formats
from embedway.cache.sqlite_format import FORMAT as CACHE
from embedway.cli.checks.base import Finding, Findings
from embedway.cli.output import size
from embedway.errors import ConfigError, EmbedwayError, newer_version
from embedway.ledger.sqlite_formats import LEDGER, PINS
from embedway.text import count_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedway.cli.checks.base import Setup, Status
    from embedway.config import Config
    from embedway.sqlite import Format

#: Free space below which a folder may soon be full, in bytes: of weights, and of other folders.
_LITTLE_FOR_WEIGHTS, _LITTLE = 1_000_000_000, 50_000_000
#: Time for the integrity check of a file, in seconds. A large file is checked in part.
_CHECK_S = 2.0
_STEPS = 10_000


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that embedway writes to, or would create."""

    path: str
    exists: bool
    writable: bool
    free_bytes: int | None
    #: Why it is not writable.
    why_not: str = ""


def inspect_folder(path: Path) -> Folder:
    """Inspect a folder, or its nearest existing parent, without leaving files behind."""
    nearest = path
    while nearest != nearest.parent and not _exists(nearest):
        nearest = nearest.parent
    why_not = ""
    try:
        # Permission bits are wrong for root and on a read-only disk, so try to write.
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        why_not = error.strerror or type(error).__name__
    try:
        free = shutil.disk_usage(nearest).free
    except OSError:
        free = None
    return Folder(str(path), exists=_is_folder(path), writable=not why_not, free_bytes=free, why_not=why_not)


def _exists(path: Path) -> bool:
    """Return whether a path exists, also as a broken link; False for a path in a folder that may not be read."""
    try:
        return os.path.lexists(path)
    except (OSError, ValueError):
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


# ---------------------------------------------------------------- checks


def check_home(setup: Setup) -> Findings:
    """Report the home folder and the working directory, at which other paths start."""
    del setup
    return Findings((_check_home(os.path.expanduser("~")), _check_working_directory()))  # noqa: PTH111  also without one


def _check_home(home: str) -> Finding:
    remedy = "set HOME, or set weights.directory, cache.path, ledger.path and pins.path"
    if not os.path.isabs(home):  # noqa: PTH117  a text
        return Finding("home", "warning", "HOME is not set, and this user has no home folder", remedy)
    folder = inspect_folder(Path(home))
    if not folder.exists:
        return Finding("home", "warning", f"{home} does not exist", remedy)
    if not folder.writable:
        return Finding("home", "warning", f"{home} is not writable: {folder.why_not}", remedy)
    return Finding("home", "ok", home)


def _check_working_directory() -> Finding:
    try:
        return Finding("working directory", "ok", str(Path.cwd()))
    except OSError as error:
        detail = f"cannot be used: {error.strerror or type(error).__name__}"
        return Finding("working directory", "warning", detail, "change to a folder that exists")


def check_temporary(setup: Setup) -> Findings:
    """Report the folder of temporary files."""
    del setup
    try:
        return Findings((Finding("temporary files", "ok", tempfile.gettempdir()),))
    except OSError as error:
        detail = f"no folder is writable: {error.strerror or type(error).__name__}"
        return Findings((Finding("temporary files", "warning", detail, "set TMPDIR to a writable folder"),))


def check_weights(setup: Setup) -> Findings:
    """Report the store of weights: whether it is writable, and its free space."""
    folder = inspect_folder(setup.config.weights.directory)
    return Findings((_judge("weights", folder, "weights.directory", _LITTLE_FOR_WEIGHTS),), {"weights": asdict(folder)})


def check_cache(setup: Setup) -> Findings:
    """Report the cache: its folder and its file."""
    cache = setup.config.cache
    facts: dict[str, Any] = {"backend": cache.backend, "folder": None}
    if cache.backend != "sqlite":
        shown = "in Redis: see below" if cache.backend == "redis" else cache.backend
        return Findings((Finding("cache", "ok", shown),), {"cache": facts})
    folder = inspect_folder(cache.path.parent)
    facts["folder"] = asdict(folder)
    lines = list(_check_database("cache", cache.path, CACHE))
    if not folder.writable and not lines:
        detail = f"{folder.path} is not writable ({folder.why_not}), so no vector is cached"
        lines = [Finding("cache", "warning", detail, "set cache.path, or cache.backend")]
    return Findings(tuple(lines) or (_judge("cache", folder, "cache.path", _LITTLE),), {"cache": facts})


def check_ledger(setup: Setup) -> Findings:
    """Report the ledger: its folder and its file."""
    ledger = setup.config.ledger
    if ledger.backend == "none":
        if setup.config.budgets:
            detail = "none, so the budgets are not enforced"
            return Findings((Finding("ledger", "warning", detail, "set ledger.backend to sqlite or redis"),))
        return Findings((Finding("ledger", "ok", "none"),))
    if ledger.backend == "redis":
        return Findings((Finding("ledger", "ok", "in Redis: see below"),))
    return Findings(_check_state("ledger", ledger.path, LEDGER, status_without_ledger(setup.config)))


def check_pins(setup: Setup) -> Findings:
    """Report the pins of collections: their folder and their file."""
    pins = setup.config.pins
    if pins.backend == "redis":
        return Findings((Finding("pins", "ok", "in Redis: see below"),))
    return Findings(_check_state("pins", pins.path, PINS))


def check_trust_file(setup: Setup) -> Findings:
    """Report the file of trusted settings files: whether it can be read, and who else can."""
    del setup
    from embedway.config.trust import MOST_TRUST_BYTES, DamagedTrustError, parse_trust, trust_path
    from embedway.files import read_regular

    path, name = trust_path(), "trust"
    try:
        data = read_regular(path, most_bytes=MOST_TRUST_BYTES)
        files = parse_trust(data, where=str(path)).files if data is not None else {}
    except DamagedTrustError as error:
        detail = f"{path} {error}, so no settings file is trusted"
        return Findings((Finding(name, "warning", detail, "delete it, and run `embedway trust` again"),))
    except (ConfigError, OSError) as error:
        reason = str(error) if isinstance(error, ConfigError) else f"{path} cannot be read: {error.strerror}"
        return Findings((Finding(name, "warning", reason, "make the file readable, or delete it"),))
    private = tuple(_check_private(name, path))
    detail = f"{count_of(len(files), 'trusted file')} in {path}" if files else "no file is trusted"
    return Findings(private or (Finding(name, "ok", detail),))


def status_without_ledger(config: Config) -> Status:
    """Return the status of an unusable ledger: a problem only if the default model is a service's, which needs it."""
    from embedway.providers.names import service_of

    return "warning" if service_of(config.embedding.default_model, config) is None else "problem"


def _check_state(name: str, path: Path, form: Format, failed: Status = "warning") -> tuple[Finding, ...]:
    """Check a file that must not be lost: money or pins."""
    folder = inspect_folder(path.parent)
    lines = [*_check_database(name, path, form, failed), *_check_private(name, path)]
    if not folder.writable and not lines:
        effect = "calls of services are refused" if name == "ledger" else "collections cannot be written"
        detail = f"{folder.path} is not writable ({folder.why_not}), so {effect}"
        lines = [Finding(name, failed, detail, f"set {name}.path")]
    return tuple(lines) or (_judge(name, folder, f"{name}.path", _LITTLE, path),)


def _judge(name: str, folder: Folder, setting: str, little: int, path: Path | None = None) -> Finding:
    shown = str(path) if path is not None and _exists(path) else folder.path
    detail = shown if folder.exists else f"{shown}, which is created when it is needed"
    if not folder.writable:
        remedy = f"set {setting} to a writable folder"
        return Finding(name, "warning", f"{shown} is not writable: {folder.why_not}", remedy)
    if folder.free_bytes is None:
        return Finding(name, "ok", detail)
    detail += f", {size(folder.free_bytes)} free"
    if folder.free_bytes < little:
        return Finding(name, "warning", f"{detail}: the disk is almost full", f"free some space, or set {setting}")
    return Finding(name, "ok", detail)


def _check_private(name: str, path: Path) -> Iterator[Finding]:
    """Check that other users can neither read nor change a file of the user's state."""
    try:
        state = path.stat()
    except (OSError, ValueError):
        return
    if hasattr(os, "geteuid") and state.st_uid != os.geteuid() and os.geteuid() != 0:
        yield Finding(name, "warning", f"{path} belongs to another user", f"chown it, or set {name}.path")
    if os.name == "posix" and state.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        who = "all users" if state.st_mode & stat.S_IRWXO else "its group"
        mode = stat.S_IMODE(state.st_mode)
        yield Finding(name, "warning", f"{path} can be used by {who} (mode {mode:o})", f"chmod 600 {path}")


def _check_database(name: str, path: Path, form: Format, failed: Status = "warning") -> Iterator[Finding]:
    """Check the kind, the version and the integrity of a SQLite file, if it exists. Nothing is changed.

    `failed` is the status of a file that cannot be read or written.
    """
    try:
        if not formats.check(path, form.kind):
            return
        newer = _newer(path, form)
        damage = "" if newer else _find_damage(path)
    except EmbedwayError as error:
        yield Finding(name, "problem", str(error), f"set {name}.path to another file")
        return
    except (FileNotFoundError, NotADirectoryError):
        return  # the finding for the folder says why
    except OSError as error:
        reason = error.strerror or type(error).__name__
        yield Finding(name, failed, f"{path} cannot be read: {reason}", f"make it readable, or set {name}.path")
        return
    if newer:
        yield Finding(name, "problem", f"{path} {newer}", f"set {name}.path to another file")
    elif damage:
        remedy = "delete the file" if name == "cache" else "`embedway state restore` restores a backup"
        yield Finding(name, "warning" if name == "cache" else "problem", f"{path} is damaged: {damage}", remedy)
    elif not os.access(path, os.W_OK):
        yield Finding(name, failed, f"{path} is not writable", f"change its permissions, or set {name}.path")


def _newer(path: Path, form: Format) -> str:
    """Return the reason if a newer version wrote the file; the version is in its header."""
    with path.open("rb") as handle:
        version = int.from_bytes(handle.read(64)[60:64], "big")
    return newer_version(version, form.version, of=f"embedway's {form.kind.name}") if version > form.version else ""


def _find_damage(path: Path) -> str:
    """Return the damage that SQLite finds in a file within a time limit; empty if none.

    A file with a write-ahead log or a journal is not checked, because SQLite would create or change files beside it.
    """
    real = path.resolve()
    before = _states(real)
    if any(number for _, number in before[1:]):
        return ""
    found = _quick_check(real)
    # Another process may have changed the file meanwhile.
    return found if _states(real) == before else ""


def _states(path: Path) -> list[tuple[int, int]]:
    """Return the time of change and the size of a file, its log and its journal; zeros for missing ones."""
    found = []
    for file in (path, formats.beside(path, "-wal"), formats.beside(path, "-journal")):
        state = file.stat() if file.exists() else None
        found.append((state.st_mtime_ns, state.st_size) if state is not None else (0, 0))
    return found


def _quick_check(real: Path) -> str:
    until = time.monotonic() + _CHECK_S
    try:
        with contextlib.closing(sqlite3.connect(formats.uri(real, "mode=ro&immutable=1"), uri=True)) as connection:
            connection.set_progress_handler(lambda: time.monotonic() > until, _STEPS)
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        return "" if "interrupted" in str(error) else str(error)
    except sqlite3.Error as error:
        return str(error)
    return "" if found == "ok" else " ".join(str(found).split())
