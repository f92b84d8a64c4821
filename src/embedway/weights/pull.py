"""How a pull goes from place to place."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from embedway.errors import (
    UnsupportedModelError,
    WeightsCorruptError,
    WeightsError,
    WeightsUnavailableError,
)
from embedway.weights.files import Blobs, WrongBytesError
from embedway.weights.listed import choose_files, first_weights, further_weights
from embedway.weights.sources.base import Delivery, Order, Place, PlaceError, Wanted
from embedway.weights.sources.hub import COMMIT
from embedway.weights.sources.opening import FolderPlace, HubPlace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from embedway.weights.records import ModelDirectory
    from embedway.weights.types import ProgressSink, StoreSettings

_log = logging.getLogger(__name__)

T = TypeVar("T")

NO_WHEEL = "no package of the index is known to carry it"


class Tried:
    """The places tried for one pull, and why each failed."""

    def __init__(self, settings: StoreSettings, files: Iterable[Wanted]) -> None:
        self._settings = settings
        self._tried: list[tuple[str, str]] = []
        self._changed: WrongBytesError | None = None
        self.files = tuple(files)

    def attempt(self, place: str, fetch: Callable[[], T]) -> T | None:
        """What a place gave; None if it failed."""
        try:
            return fetch()
        except PlaceError as error:
            self.add(place, str(error))
        except WrongBytesError as error:
            self.add(place, str(error))
            if any(file.trusted_before and file.sha256 == error.expected for file in self.files):
                self._changed = error
        _log.info("%s: %s", *self._tried[-1])
        return None

    def add(self, place: str, reason: str) -> None:
        """Note that a place failed."""
        self._tried.append((place, reason))

    def error(self, repository: str) -> WeightsError:
        """What to raise when every place failed."""
        if self._changed is not None:
            return WeightsCorruptError(
                f"{repository}/{self._changed.name.removeprefix(f'{repository}/')}",
                expected=self._changed.expected,
                found=self._changed.found,
                advice="A pinned revision never changes, so these are not the bytes that were pulled first. "
                "If you trust the new ones, remove the model and pull it again.",
            )
        offline = "Unset weights.offline (HF_HUB_OFFLINE), or put" if self._settings.offline else "Put"
        advice = (
            f"{offline} the files into FOLDER/{repository} and name FOLDER in weights.folders; "
            "a mirror of the hub is set as weights.hub_endpoint (HF_ENDPOINT)."
        )
        return WeightsUnavailableError(repository, tried=self._tried, advice=advice)


def trusted(
    shelf: ModelDirectory, revision: str | None, files: Sequence[Wanted], *, over_names: bool = False
) -> tuple[Wanted, ...]:
    """Files with the hashes of the first pull of their pinned revision, where the catalog names none.

    With `over_names` also where `files` name one: a hub's word does not stand above what it said before.
    """
    if revision is None or not COMMIT.fullmatch(revision):
        return tuple(files)
    before = {path: sha256 for _, record in shelf.complete(revision) for path, sha256 in record.files.items()}
    return tuple(
        replace(file, sha256=before[file.path], trusted_before=True)
        if file.path in before and (over_names or file.sha256 is None)
        else file
        for file in files
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """A repository that the catalog need not know, as a caller asks for it."""

    repository: str
    revision: str | None
    onnx_file: str | None
    force: bool


@dataclass(slots=True)
class RepositoryPull:
    """Finds out what files such a repository has, and fetches those that make a model."""

    settings: StoreSettings
    blobs: Blobs
    sink: ProgressSink
    shelf: ModelDirectory
    asked: Asked

    def run(self) -> Delivery:
        """Try each place. Raises what `Tried` makes of their failures, or UnsupportedModelError."""
        tried = Tried(self.settings, ())
        for name in self.settings.places:
            if name == "wheel":
                tried.add(name, NO_WHEEL)
                continue
            fetch = self._from_folder if name == "folder" else self._from_hub
            if (delivery := tried.attempt(name, partial(fetch, tried))) is not None:
                return delivery
        raise tried.error(self.asked.repository)

    def _from_folder(self, tried: Tried) -> Delivery:
        if self.asked.revision is not None:
            raise PlaceError("a folder does not say which revision it holds")
        place = FolderPlace(self.settings)
        folder, files = place.listing(self.asked.repository)
        try:
            return self._chosen(place, None, files, tried)
        except (UnsupportedModelError, WeightsError) as error:
            raise PlaceError(f"{folder}: {error}") from None

    def _from_hub(self, tried: Tried) -> Delivery:
        place = HubPlace(self.settings)
        commit, files = place.listing(self.asked.repository, self.asked.revision)
        files = trusted(self.shelf, commit, files, over_names=True)
        try:
            return self._chosen(place, commit, files, tried)
        except UnsupportedModelError as error:
            raise UnsupportedModelError(f"{self.asked.repository}: {error}") from None

    def _chosen(self, place: Place, revision: str | None, files: Sequence[Wanted], tried: Tried) -> Delivery:
        """Fetch what makes a model out of all files of a repository, and then what its weights name."""
        by_path = {file.path: file for file in files}
        tried.files = tuple(files)
        delivery = self._fetch(place, revision, [by_path[path] for path in choose_files(by_path, self.asked.onnx_file)])
        first = str(first_weights(by_path, self.asked.onnx_file))
        further = further_weights(first, self.blobs.path(delivery.files[first]))
        for path in further:
            if path not in by_path:
                raise PlaceError(f"{first} names {path}, which is not there")
        more = self._fetch(place, revision, [by_path[path] for path in further])
        return replace(delivery, files={**delivery.files, **more.files})

    def _fetch(self, place: Place, revision: str | None, files: Iterable[Wanted]) -> Delivery:
        order = Order(self.asked.repository, revision, tuple(files), self.asked.force)
        return place.fetch(order, self.blobs, self.sink)
