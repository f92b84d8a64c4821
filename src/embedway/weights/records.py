"""Model folders of the store: links to blobs, and a record, written last, that marks a complete folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from embedway import unfinished
from embedway.errors import WeightsError, newer_version
from embedway.weights.hashes import write_atomically
from embedway.weights.layout import combine_hashes, first_weights

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from embedway.weights.blobs import BlobStore

RECORD = "embedway-origin.json"
_REFS = "refs.json"
#: Records without a version have version 1.
_FORMAT, _VERSION = "embedway weights", 1
_REPOSITORY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?")


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """Record of a model folder of the store.

    `files` maps paths to sha256; `weights` maps the weights file to the hash of all weights.
    """

    repository: str
    revision: str | None
    origin: str
    files: Mapping[str, str]
    weights: Mapping[str, str]

    @classmethod
    def read(cls, folder: Path) -> ModelRecord | None:
        """Read the record of a folder; None if it is missing or unreadable: the folder is then incomplete."""
        try:
            data = json.loads((folder / RECORD).read_text("utf-8"))
            version = data.get("version", 1)
            maps = [{str(k): str(v) for k, v in data[name].items()} for name in ("files", "weights")]
            revision = data["revision"]
            if type(version) is int and version > _VERSION:
                otherwise = "set weights.directory to another folder"
                message = newer_version(version, _VERSION, of="the weights store", otherwise=otherwise)
                raise WeightsError(f"{folder / RECORD} {message}")
            return cls(str(data["repository"]), revision and str(revision), str(data["origin"]), *maps)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def write(self, folder: Path) -> None:
        """Write the record atomically."""
        data = {
            "format": _FORMAT,
            "version": _VERSION,
            "repository": self.repository,
            "revision": self.revision,
            "origin": self.origin,
            "files": dict(sorted(self.files.items())),
            "weights": dict(sorted(self.weights.items())),
        }
        write_atomically(folder / RECORD, json.dumps(data, indent=2) + "\n")


class ModelDirectory:
    """Model folders of one repository."""

    def __init__(self, root: Path, repository: str) -> None:
        if not _REPOSITORY.fullmatch(repository):
            raise WeightsError(f"{repository!r} is not a repository name: it must be OWNER/NAME")
        self.repository = repository
        self.name = repository.replace("/", "--")
        self.path = root / "models" / self.name

    def complete(self, revision: str | None) -> Iterator[tuple[Path, ModelRecord]]:
        """Iterate over folders of a commit, or of the commit of a name's last pull (None: `main`)."""
        ref = self._refs().get(revision or "")
        for folder, record in self.all():
            if folder.name == ref or (revision is not None and record.revision == revision):
                yield folder, record

    def all(self) -> Iterator[tuple[Path, ModelRecord]]:
        """Iterate over all folders with a record."""
        for path in sorted(self.path.glob(f"*/{RECORD}")):
            record = ModelRecord.read(path.parent)
            if record is not None and record.repository == self.repository:
                yield path.parent, record

    def folder_for(self, revision: str | None, files: Mapping[str, str], onnx_file: str | None) -> Path:
        """Return the folder for files.

        Two pulls of one commit share a folder, unless their files together would load other weights than the files of
        one pull.
        """
        content = combine_hashes(files.items())[:8]
        if revision is None:
            return self.path / f"content-{content}"
        folder = self.path / revision
        record = ModelRecord.read(folder)
        if record is None or not _changes_weights(record.files, files, onnx_file):
            return folder
        return self.path / f"{revision}-{content}"

    def publish(self, folder: Path, record: ModelRecord, blobs: BlobStore, *, ref: str | None) -> ModelRecord:
        """Link files to their blobs, then write the record, merged with the folder's earlier record.

        Raises FileNotFoundError if a blob is missing.
        """
        for path, sha256 in record.files.items():
            _link(folder / path, blobs.path(sha256))
        before = ModelRecord.read(folder)
        if before is not None:
            files, weights = {**before.files, **record.files}, {**before.weights, **record.weights}
            origin = before.origin if record.origin == "store" else record.origin
            record = replace(record, origin=origin, files=files, weights=weights)
        record.write(folder)
        refs = self._refs()
        if refs.get(ref or "") != folder.name:
            refs[ref or ""] = folder.name
            write_atomically(self.path / _REFS, json.dumps(refs, indent=2, sort_keys=True) + "\n")
        return record

    def remove(self, folder: Path) -> ModelRecord | None:
        """Delete a model folder, its record first so that no partial folder counts as complete."""
        record = ModelRecord.read(folder)
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
    """Return the hashes of the blobs that model folders of a store use."""
    records = (ModelRecord.read(path.parent) for path in (root / "models").glob(f"*/*/{RECORD}"))
    return {sha256 for record in records if record for sha256 in record.files.values()}


def _changes_weights(present: Collection[str], new: Collection[str], onnx_file: str | None) -> bool:
    both = {*present, *new}
    changed = first_weights(both, onnx_file) != first_weights(new, onnx_file)
    return changed or first_weights(both) != first_weights(present)


def _link(path: Path, blob: Path) -> None:
    """Link a path to a blob by relative symbolic link, or by hard link or copy if links are refused."""
    target = os.path.relpath(blob, start=path.parent)
    if path.is_symlink() and os.readlink(path) == target and blob.exists():  # noqa: PTH115
        return
    blob.stat()  # a symbolic link to a missing file raises no error
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = unfinished.track(path.with_name(f".{uuid.uuid4().hex[:12]}"))
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
        unfinished.remove(temporary)
