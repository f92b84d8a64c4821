"""Pulls: try sources in order until one has the right bytes."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from embedway.errors import (
    EmbedwayError,
    UnsupportedModelError,
    WeightsCorruptError,
    WeightsError,
    WeightsUnavailableError,
)
from embedway.weights.hashes import WrongBytesError
from embedway.weights.layout import choose_files, first_weights, further_weights, is_settings
from embedway.weights.sources.base import ExpectedFile, FetchError, FetchRequest, FetchResult, WeightsSource
from embedway.weights.sources.folder import FolderSource
from embedway.weights.sources.hub import COMMIT, HubSource
from embedway.weights.sources.wheel import WheelSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from embedway.catalog.types import Wheel
    from embedway.weights.blobs import BlobStore
    from embedway.weights.records import ModelDirectory
    from embedway.weights.types import ProgressSink, StoreSettings

_log = logging.getLogger(__name__)

T = TypeVar("T")

NO_WHEEL = "no known package of the package index contains it"


def open_sources(settings: StoreSettings, wheels: Sequence[Wheel]) -> Iterator[WeightsSource]:
    """Iterate over the sources in the order of `settings.places`; each wheel is a separate source."""
    for name in settings.places:
        if name == "folder":
            yield FolderSource(settings)
        elif name == "hub":
            yield HubSource(settings)
        else:
            yield from (WheelSource(settings, wheel) for wheel in wheels)


class SourceAttempts:
    """Sources that one pull tried, with the reason why each failed."""

    def __init__(self, settings: StoreSettings, files: Iterable[ExpectedFile]) -> None:
        self._settings = settings
        self._tried: list[tuple[str, str]] = []
        self._changed: WrongBytesError | None = None
        self.files = tuple(files)

    def attempt(self, source: str, fetch: Callable[[], T]) -> T | None:
        """Return the result of a source, or None if it failed."""
        try:
            return fetch()
        except FetchError as error:
            self.add(source, str(error))
        except WrongBytesError as error:
            self.add(source, str(error))
            if any(file.from_first_pull and file.sha256 == error.expected for file in self.files):
                self._changed = error
        _log.info("%s: %s", *self._tried[-1])
        return None

    def add(self, source: str, reason: str) -> None:
        """Record that a source failed."""
        self._tried.append((source, reason))

    def error(self, repository: str) -> WeightsError:
        """Return the error to raise when all sources failed."""
        if self._changed is not None:
            return WeightsCorruptError(
                f"{repository}/{self._changed.name.removeprefix(f'{repository}/')}",
                expected=self._changed.expected,
                found=self._changed.found,
                advice="A pinned revision never changes, so these are not the bytes of the first pull. If you trust "
                "the new ones, remove the model and pull it again.",
            )
        offline = "Unset weights.offline (HF_HUB_OFFLINE), or put" if self._settings.offline else "Put"
        advice = (
            f"{offline} the files into FOLDER/{repository} and add FOLDER to weights.folders, or set a "
            "mirror of the hub as weights.hub_endpoint (HF_ENDPOINT)."
        )
        return WeightsUnavailableError(repository, tried=self._tried, advice=advice)


def with_first_hashes(
    directory: ModelDirectory, revision: str | None, files: Sequence[ExpectedFile], *, replace_hashes: bool = False
) -> tuple[ExpectedFile, ...]:
    """Return the files; those without a hash get the hash of the first pull of their commit.

    With `replace_hashes`, given hashes are replaced too: a hub must not change what it served before.
    """
    if revision is None or not COMMIT.fullmatch(revision):
        return tuple(files)
    before = {path: sha256 for _, record in directory.complete(revision) for path, sha256 in record.files.items()}
    return tuple(
        replace(file, sha256=before[file.path], from_first_pull=True)
        if file.path in before and (replace_hashes or file.sha256 is None)
        else file
        for file in files
    )


class _RefusedError(Exception):
    """Refusal by the check of a pull: no other source is tried."""

    def __init__(self, error: EmbedwayError) -> None:
        self.error = error
        super().__init__(str(error))


@dataclass(frozen=True, slots=True)
class RepositoryPull:
    """Pull of a repository that may be missing in the catalog: list its files, and fetch those of a model."""

    settings: StoreSettings
    blobs: BlobStore
    sink: ProgressSink
    directory: ModelDirectory
    revision: str | None
    onnx_file: str | None
    force: bool
    #: Fetch settings and tokenizer, without the weights.
    settings_only: bool = False
    #: Called with the settings files by path, before the weights are fetched; raises an error to stop.
    check: Callable[[Mapping[str, Path]], None] | None = None

    def run(self) -> FetchResult:
        """Try each source. Raises the error of `SourceAttempts`, or UnsupportedModelError."""
        attempts = SourceAttempts(self.settings, ())
        for name in self.settings.places:
            if name == "wheel":
                attempts.add(name, NO_WHEEL)
                continue
            fetch = self._from_folder if name == "folder" else self._from_hub
            try:
                result = attempts.attempt(name, partial(fetch, attempts))
            except _RefusedError as refused:
                raise refused.error from None
            if result is not None:
                return result
        raise attempts.error(self.directory.repository)

    def _from_folder(self, attempts: SourceAttempts) -> FetchResult:
        if self.revision is not None:
            raise FetchError("the revision of a folder is unknown")
        source = FolderSource(self.settings)
        folder, files = source.list_files(self.directory.repository)
        try:
            return self._fetch_model(source, None, files, attempts)
        except (UnsupportedModelError, WeightsError) as error:
            raise FetchError(f"{folder}: {error}") from None

    def _from_hub(self, attempts: SourceAttempts) -> FetchResult:
        source = HubSource(self.settings)
        commit, files = source.list_files(self.directory.repository, self.revision)
        files = with_first_hashes(self.directory, commit, files, replace_hashes=True)
        try:
            return self._fetch_model(source, commit, files, attempts)
        except UnsupportedModelError as error:
            raise UnsupportedModelError(f"{self.directory.repository}: {error}") from None

    def _fetch_model(
        self, source: WeightsSource, revision: str | None, files: Sequence[ExpectedFile], attempts: SourceAttempts
    ) -> FetchResult:
        """Fetch the repository's files that make a model, then the files that its weights name."""
        by_path = {file.path: file for file in files}
        attempts.files = tuple(files)
        chosen = choose_files(by_path, self.onnx_file)
        result = self._fetch(source, revision, [by_path[path] for path in chosen if is_settings(path)])
        if self.settings_only:
            return result
        if self.check is not None:
            try:
                self.check({path: self.blobs.path(sha256) for path, sha256 in result.files.items()})
            except EmbedwayError as error:
                raise _RefusedError(error) from error
        rest = self._fetch(source, revision, [by_path[path] for path in chosen if not is_settings(path)])
        result = replace(result, files={**result.files, **rest.files})
        first = str(first_weights(by_path, self.onnx_file))
        further = further_weights(first, self.blobs.path(result.files[first]))
        for path in further:
            if path not in by_path:
                raise FetchError(f"{first} names {path}, which is missing")
        more = self._fetch(source, revision, [by_path[path] for path in further])
        return replace(result, files={**result.files, **more.files})

    def _fetch(self, source: WeightsSource, revision: str | None, files: Iterable[ExpectedFile]) -> FetchResult:
        request = FetchRequest(self.directory.repository, revision, tuple(files), self.force)
        return source.fetch(request, self.blobs, self.sink)
