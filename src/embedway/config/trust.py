"""Trust in settings files of working directories, by location and content, as in direnv."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias

import platformdirs

from embedway.errors import ConfigError, newer_version
from embedway.files import make_private_folder, read_regular, write_private_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    TrustState: TypeAlias = Literal["trusted", "changed", "unknown"]

_FORMAT = "embedway trust"
_VERSION = 1
MOST_TRUST_BYTES = 2**24

_log = logging.getLogger("embedway.config")


@dataclass(frozen=True, slots=True)
class TrustedFiles:
    """Trusted files: the SHA-256 of each content (64 hex digits), by location."""

    files: Mapping[str, str]

    def state(self, location: str, sha256: str) -> TrustState:
        """Return whether the content at a location is trusted, changed since it was trusted, or unknown."""
        known = self.files.get(location)
        return "unknown" if known is None else "trusted" if known == sha256 else "changed"


def trust_path() -> Path:
    """Return the path of the trust file; a relative path in a variable is ignored."""
    path = platformdirs.user_state_path("embedway", appauthor=False)
    if not path.is_absolute():
        # The XDG specification requires relative paths to be ignored.
        path = Path("~/.local/state/embedway").expanduser()
    return path / "trust.json"


def trust_lock(path: Path) -> Path:
    """Return the path of the lock file for changes of a trust file."""
    return path.with_name(".trust.lock")


def file_location(path: Path) -> str:
    """Return a file's location: the real path of its folder, and its name.

    A symbolic link has its own location, because relative paths in the file start at the link's folder. So a link in
    another folder to a trusted file is not trusted.
    """
    return str(Path(os.path.realpath(path.parent)) / path.name)


def content_sha256(data: bytes) -> str:
    """Return the SHA-256 of a file's content, as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def read_trust() -> TrustedFiles:
    """Read the trusted files; return none and log a warning if the trust file is damaged.

    Raises ConfigError for a file of a newer version.
    """
    try:
        return _read()
    except DamagedTrustError as error:
        _log.warning("%s %s, so no settings file is trusted; delete it to start over", trust_path(), error)
        return TrustedFiles(MappingProxyType({}))


def add_trust(location: str, sha256: str) -> None:
    """Trust a content at a location; it replaces an earlier one. Raises ConfigError."""
    _change(lambda files: {**files, location: sha256})


def remove_trust(location: str) -> bool:
    """Remove trust in a location; return False if it was not trusted. Raises ConfigError."""
    if location not in _read_strictly().files:
        return False
    _change(lambda files: {name: sha256 for name, sha256 in files.items() if name != location})
    return True


def check_writable_trust() -> None:
    """Raise the ConfigError that `add_trust` would raise for an unreadable or damaged trust file."""
    _read_strictly()


class DamagedTrustError(Exception):
    """The file is not a trust file, or is damaged."""


def _read_strictly() -> TrustedFiles:
    try:
        return _read()
    except DamagedTrustError as error:
        raise ConfigError(f"{error}; delete it to start over", where=str(trust_path())) from None


def _read() -> TrustedFiles:
    path = trust_path()
    if not path.is_absolute():
        return TrustedFiles(MappingProxyType({}))
    try:
        data = read_regular(path, most_bytes=MOST_TRUST_BYTES)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or type(error).__name__}", where=str(path)) from error
    if data is None:
        return TrustedFiles(MappingProxyType({}))
    return parse_trust(data, where=str(path))


def parse_trust(data: bytes, *, where: str = "") -> TrustedFiles:
    """Parse the content of a trust file.

    Raises DamagedTrustError for invalid content, and ConfigError, with the path `where`, for a newer version.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise DamagedTrustError("is damaged") from None
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise DamagedTrustError("is not a file of embedway's trust")
    version = document.get("version")
    if type(version) is not int:
        raise DamagedTrustError("is damaged")
    if version > _VERSION:
        raise ConfigError(newer_version(version, _VERSION), where=where)
    files = document.get("files")
    if version != _VERSION or not isinstance(files, dict) or not all(isinstance(one, str) for one in files.values()):
        raise DamagedTrustError("is damaged")
    return TrustedFiles(MappingProxyType(files))


def _change(change: Callable[[Mapping[str, str]], Mapping[str, str]]) -> None:
    from filelock import FileLock  # noqa: PLC0415  needed only to change trust

    path = trust_path()
    if not path.is_absolute():
        raise ConfigError("is not an absolute path; set HOME", where=str(path))
    try:
        make_private_folder(path.parent)
        # The lock keeps concurrent changes from overwriting each other.
        with FileLock(trust_lock(path), mode=0o600):
            files = dict(sorted(change(_read_strictly().files).items()))
            document = {"format": _FORMAT, "version": _VERSION, "files": files}
            write_private_whole(path, (json.dumps(document, indent=2) + "\n").encode())
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror or type(error).__name__}", where=str(path)) from error
