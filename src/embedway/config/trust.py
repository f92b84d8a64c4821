"""Trust in settings files that are found in the working directory: by place and content, as direnv does it."""

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

    Standing: TypeAlias = Literal["trusted", "changed", "unknown"]

_FORMAT = "embedway trust"
_VERSION = 1
MOST_TRUST_BYTES = 2**24

_log = logging.getLogger("embedway.config")


@dataclass(frozen=True, slots=True)
class Trust:
    """Which files are trusted: the sha256 of each one's content, 64 hex digits, by its place."""

    files: Mapping[str, str]

    def standing(self, place: str, sha256: str) -> Standing:
        """Whether a file at that place with that content is trusted, or was with another content."""
        known = self.files.get(place)
        return "unknown" if known is None else "trusted" if known == sha256 else "changed"


def trust_path() -> Path:
    """The file that holds what is trusted. It is never below the working directory because of a relative variable."""
    path = platformdirs.user_state_path("embedway", appauthor=False)
    if not path.is_absolute():
        # The XDG specification has relative paths ignored.
        path = Path("~/.local/state/embedway").expanduser()
    return path / "trust.json"


def trust_lock(path: Path) -> Path:
    """The lock file of those who change a trust file."""
    return path.with_name(".trust.lock")


def place_of(path: Path) -> str:
    """A file's place: the real path of its folder, and its name.

    A link is a place of its own, because relative paths in the file start at the link's folder: a link in a foreign
    folder to a file that is trusted elsewhere is not trusted.
    """
    return str(Path(os.path.realpath(path.parent)) / path.name)


def digest_of(data: bytes) -> str:
    """The sha256 of a file's content, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def read_trust() -> Trust:
    """Read which files are trusted; none, with a warning, where the trust file is damaged.

    Raises ConfigError for a file of a later version.
    """
    try:
        return _read()
    except DamagedTrustError as error:
        _log.warning("%s %s, so no settings file is trusted; remove it to begin anew", trust_path(), error)
        return Trust(MappingProxyType({}))


def remember(place: str, sha256: str) -> None:
    """Trust a content at a place, in the place of an earlier one. Raises ConfigError."""
    _change(lambda files: {**files, place: sha256})


def forget(place: str) -> bool:
    """Trust a place no longer; False where it was not trusted. Raises ConfigError."""
    if place not in _strictly().files:
        return False
    _change(lambda files: {name: sha256 for name, sha256 in files.items() if name != place})
    return True


def check_writable_trust() -> None:
    """Raise ConfigError where `remember` would, as far as that is known beforehand."""
    _strictly()


class DamagedTrustError(Exception):
    """The file is none of ours, or only a part of one."""


def _strictly() -> Trust:
    try:
        return _read()
    except DamagedTrustError as error:
        raise ConfigError(f"{error}; remove it to begin anew", where=str(trust_path())) from None


def _read() -> Trust:
    path = trust_path()
    if not path.is_absolute():
        return Trust(MappingProxyType({}))
    try:
        data = read_regular(path, most_bytes=MOST_TRUST_BYTES)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or type(error).__name__}", where=str(path)) from error
    if data is None:
        return Trust(MappingProxyType({}))
    return parse_trust(data, where=str(path))


def parse_trust(data: bytes, *, where: str = "") -> Trust:
    """Read the bytes of a trust file.

    Raises DamagedTrustError for what is none, and ConfigError, with the place `where`, for a later version.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise DamagedTrustError("is damaged") from None
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise DamagedTrustError("is no file of embedway's trust")
    version = document.get("version")
    if type(version) is not int:
        raise DamagedTrustError("is damaged")
    if version > _VERSION:
        raise ConfigError(newer_version(version, _VERSION), where=where)
    files = document.get("files")
    if version != _VERSION or not isinstance(files, dict) or not all(isinstance(one, str) for one in files.values()):
        raise DamagedTrustError("is damaged")
    return Trust(MappingProxyType(files))


def _change(change: Callable[[Mapping[str, str]], Mapping[str, str]]) -> None:
    from filelock import FileLock  # noqa: PLC0415  only who changes trust needs it

    path = trust_path()
    if not path.is_absolute():
        raise ConfigError("is no absolute path; set HOME", where=str(path))
    try:
        make_private_folder(path.parent)
        # Two changes at once must not lose one.
        with FileLock(trust_lock(path), mode=0o600):
            document = {
                "format": _FORMAT,
                "version": _VERSION,
                "files": dict(sorted(change(_strictly().files).items())),
            }
            write_private_whole(path, (json.dumps(document, indent=2) + "\n").encode())
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror or type(error).__name__}", where=str(path)) from error
