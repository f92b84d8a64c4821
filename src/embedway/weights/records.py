"""Model folders inside the store: links to blobs, and a record that is written last and vouches for them."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from embedway.errors import WeightsError
from embedway.weights.files import write_whole
from embedway.weights.listed import first_weights, lines_hash

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from embedway.weights.files import Blobs

RECORD = "embedway-origin.json"
_REFS = "refs.json"
#: Records without a version are of the first.
_FORMAT, _VERSION = "embedway weights", 1
_REPOSITORY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?")


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a model folder of the store.

    `files` maps paths to sha256; `weights` maps the file that a model is loaded from to the hash of all
    weights.
    """

    repository: str
    revision: str | None
    origin: str
    files: Mapping[str, str]
    weights: Mapping[str, str]

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """The record of a folder; None where there is none, so where the folder is not complete."""
        try:
            data = json.loads((folder / RECORD).read_text("utf-8"))
            version = data.get("version", 1)
            maps = [{str(k): str(v) for k, v in data[name].items()} for name in ("files", "weights")]
            revision = data["revision"]
            if type(version) is int and version > _VERSION:
                raise WeightsError(
                    f"{folder / RECORD} is of version {version} of the weights store, and this embedway reads "
                    f"{_VERSION}; upgrade embedway, or set weights.directory to another folder"
                )
            return cls(str(data["repository"]), revision and str(revision), str(data["origin"]), *maps)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def write(self, folder: Path) -> None:
        """Write the record, whole."""
        data = {
            "format": _FORMAT,
            "version": _VERSION,
            "repository": self.repository,
            "revision": self.revision,
            "origin": self.origin,
            "files": dict(sorted(self.files.items())),
            "weights": dict(sorted(self.weights.items())),
        }
        write_whole(folder / RECORD, json.dumps(data, indent=2) + "\n")


class ModelDirectory:
    """The model folders of one repository."""

    def __init__(self, root: Path, repository: str) -> None:
        if not _REPOSITORY.fullmatch(repository):
            raise WeightsError(f"{repository!r} is not a repository: it must be OWNER/NAME")
        self.repository = repository
        self.name = repository.replace("/", "--")
        self.path = root / "models" / self.name

    def complete(self, revision: str | None) -> Iterator[tuple[Path, Record]]:
        """Folders with a record for a commit, or for what a name (None: `main`) was when last pulled."""
        ref = self._refs().get(revision or "")
        for folder, record in self.all():
            if folder.name == ref or (revision is not None and record.revision == revision):
                yield folder, record

    def all(self) -> Iterator[tuple[Path, Record]]:
        """Every folder with a record."""
        for path in sorted(self.path.glob(f"*/{RECORD}")):
            record = Record.read(path.parent)
            if record is not None and record.repository == self.repository:
                yield path.parent, record

    def folder_for(self, revision: str | None, files: Mapping[str, str], onnx_file: str | None) -> Path:
        """Where files go.

        Two pulls of one commit share a folder, unless the files of both together would be loaded from other
        weights than the files of one.
        """
        content = lines_hash(files.items())[:8]
        if revision is None:
            return self.path / f"content-{content}"
        folder = self.path / revision
        record = Record.read(folder)
        if record is None or not _mixes(record.files, files, onnx_file):
            return folder
        return self.path / f"{revision}-{content}"

    def publish(self, folder: Path, record: Record, blobs: Blobs, *, ref: str | None) -> Record:
        """Link files to their blobs, then write the record, joined with what the folder had before.

        Raises FileNotFoundError if a blob is gone.
        """
        for path, sha256 in record.files.items():
            _link(folder / path, blobs.path(sha256))
        before = Record.read(folder)
        if before is not None:
            files, weights = {**before.files, **record.files}, {**before.weights, **record.weights}
            origin = before.origin if record.origin == "store" else record.origin
            record = replace(record, origin=origin, files=files, weights=weights)
        record.write(folder)
        refs = self._refs()
        if refs.get(ref or "") != folder.name:
            refs[ref or ""] = folder.name
            write_whole(self.path / _REFS, json.dumps(refs, indent=2, sort_keys=True) + "\n")
        return record

    def remove(self, folder: Path) -> Record | None:
        """Delete one model folder, its record first so that no part of it ever passes for whole."""
        record = Record.read(folder)
        (folder / RECORD).unlink(missing_ok=True)
        shutil.rmtree(folder)
        return record

    def _refs(self) -> dict[str, str]:
        try:
            refs = json.loads((self.path / _REFS).read_text("utf-8"))
            return {str(ref): str(name) for ref, name in refs.items()}
        except (OSError, ValueError, AttributeError):
            return {}


def used_blobs(root: Path) -> set[str]:
    """The blobs that any model folder of a store names."""
    records = (Record.read(path.parent) for path in (root / "models").glob(f"*/*/{RECORD}"))
    return {sha256 for record in records if record for sha256 in record.files.values()}


def _mixes(there: Collection[str], new: Collection[str], onnx_file: str | None) -> bool:
    both = {*there, *new}
    return first_weights(both, onnx_file) != first_weights(new, onnx_file) or first_weights(both) != first_weights(
        there
    )


def _link(path: Path, blob: Path) -> None:
    """Make a path show a blob: by relative symbolic link, or where those are refused by hard link or copy."""
    target = os.path.relpath(blob, start=path.parent)
    if path.is_symlink() and os.readlink(path) == target and blob.exists():  # noqa: PTH115
        return
    blob.stat()  # a link to nothing would be made without a word
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex[:12]}")
    try:
        try:
            temporary.symlink_to(target)
        except (OSError, NotImplementedError):
            try:
                os.link(blob, temporary)
            except (OSError, NotImplementedError):
                shutil.copyfile(blob, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
