"""Backup archive: an uncompressed zip with a manifest and one file per part.

Without compression, the content is never larger than the archive. An archive is untrusted input: names, sizes and
checksums are checked before a part is used.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import stat
import struct
import zipfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from embedway import files, unfinished
from embedway._version import __version__
from embedway.errors import StateError, UsageError, newer_version

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FORMAT, VERSION = "embedway state", 1
_MANIFEST = "manifest.json"
_MOST_MANIFEST_BYTES = 64 * 1024
_CHUNK_BYTES = 1024 * 1024
_ENCRYPTED = 1
#: Errors that `zipfile` raises for bytes that are not a zip, or a damaged one.
_NO_ZIP = (zipfile.BadZipFile, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError, KeyError)


@dataclass(frozen=True, slots=True)
class Manifest:
    """Manifest of an archive: its start in seconds since 1970, and (bytes, sha256) of each part."""

    created: float
    parts: Mapping[str, tuple[int, str]]

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as written."""
        parts = {name: {"bytes": size, "sha256": sha256} for name, (size, sha256) in self.parts.items()}
        created = dt.datetime.fromtimestamp(self.created, dt.UTC).isoformat(timespec="seconds")
        return {"format": FORMAT, "version": VERSION, "created": created, "embedway": __version__, "parts": parts}


def write_archive(file: Path, parts: Mapping[str, Path], *, created: float, overwrite: bool) -> Manifest:
    """Write an archive of files, by name, atomically and with mode 0600.

    Raises UsageError if the file exists and `overwrite` is False, and StateError.
    """
    with _state_errors(file, "cannot be written"):
        files.make_private_folder(file.parent)
        temporary = files.private_temporary(file)
        try:
            sums = {}
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
                for name, path in parts.items():
                    with path.open("rb") as source, archive.open(name, "w", force_zip64=True) as target:
                        sums[name] = _copy(source, target)
                manifest = Manifest(created, sums)
                archive.writestr(_MANIFEST, json.dumps(manifest.to_json(), indent=2) + "\n")
            files.put_in_place(temporary, file, overwrite=overwrite)
        except FileExistsError:
            raise UsageError(f"{file} already exists: choose another file, or use --overwrite") from None
        finally:
            unfinished.remove(temporary)
    return manifest


@contextlib.contextmanager
def open_archive(file: Path) -> Iterator[Archive]:
    """Open an archive and check its manifest. Raises StateError."""
    with contextlib.ExitStack() as stack:
        with _state_errors(file, "cannot be read"):
            if not stat.S_ISREG(file.stat().st_mode):
                raise StateError("is not a regular file", file=file)
            handle = stack.enter_context(file.open("rb"))
        with _state_errors(file, "cannot be read"):
            try:
                archive = stack.enter_context(zipfile.ZipFile(handle))
                members = _members(file, archive)
                manifest = _manifest(file, archive, members)
            except _NO_ZIP:
                raise StateError("is not a backup of embedway's state, or is damaged", file=file) from None
        yield Archive(file, archive, members, manifest)


@dataclass(frozen=True, slots=True)
class Archive:
    """Archive that is open for reading."""

    file: Path
    zip: zipfile.ZipFile
    members: Mapping[str, zipfile.ZipInfo]
    manifest: Manifest

    def extract(self, name: str, to: Path) -> None:
        """Write a part into a new private file. Raises StateError if it does not match the manifest."""
        size, sha256 = self.manifest.parts[name]
        with _state_errors(self.file, f"{name} cannot be read, or written to {to.parent}"):
            files.create_private_file(to)
            try:
                with self.zip.open(self.members[name]) as source, to.open("wb") as target:
                    found = _copy(source, target)
            except _NO_ZIP:
                found = -1, ""
        if found != (size, sha256):
            raise StateError(
                f"{name} is damaged: its size or sha256 does not match the manifest; use another backup", file=self.file
            )


def _members(file: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    found: dict[str, zipfile.ZipInfo] = {}
    most = file.stat().st_size
    for member in archive.infolist():
        plain = member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & _ENCRYPTED
        if not plain or member.file_size != member.compress_size or member.file_size > most:
            raise StateError("contains compressed or encrypted parts; backups have neither", file=file)
        if member.filename in found:
            raise StateError("contains a part twice", file=file)
        found[member.filename] = member
    return found


def _manifest(file: Path, archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo]) -> Manifest:
    member = members.get(_MANIFEST)
    if member is None or member.file_size > _MOST_MANIFEST_BYTES:
        raise StateError("is not a backup of embedway's state: it has no manifest", file=file)
    try:
        facts = json.loads(archive.read(member))
        known = facts["format"] == FORMAT
        version = facts["version"]
    except (RecursionError, TypeError):
        raise StateError("is not a backup of embedway's state: its manifest cannot be read", file=file) from None
    if not known or type(version) is not int or version < 1:
        raise StateError("is not a backup of embedway's state", file=file)
    if version > VERSION:
        raise StateError(newer_version(version, VERSION), file=file)
    try:
        created = dt.datetime.fromisoformat(facts["created"]).astimezone(dt.UTC).timestamp()
        parts = {str(name): (int(one["bytes"]), str(one["sha256"])) for name, one in facts["parts"].items()}
    except (KeyError, TypeError, AttributeError, OverflowError, OSError):
        raise StateError("has a manifest that cannot be read", file=file) from None
    if set(parts) != members.keys() - {_MANIFEST}:
        raise StateError("does not contain the parts that its manifest lists", file=file)
    return Manifest(created, parts)


def _copy(source: IO[bytes], target: IO[bytes]) -> tuple[int, str]:
    """Copy a stream; return the number of bytes and their sha256."""
    size, digest = 0, hashlib.sha256()
    while chunk := source.read(_CHUNK_BYTES):
        target.write(chunk)
        digest.update(chunk)
        size += len(chunk)
    return size, digest.hexdigest()


@contextlib.contextmanager
def _state_errors(file: Path, what: str) -> Iterator[None]:
    """Convert disk errors to StateError, except FileExistsError."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        raise StateError(f"{what}: {error.strerror or type(error).__name__}", file=file) from error
