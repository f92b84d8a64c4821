"""Local folders as a source of model files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.weights.hashes import WrongBytesError
from embedway.weights.layout import is_safe_path
from embedway.weights.sources.base import ExpectedFile, FetchError, FetchRequest, FetchResult, lock_name, split_present

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from embedway.weights.blobs import BlobStore
    from embedway.weights.types import ProgressSink, StoreSettings


class FolderSource:
    """Local folders that contain `OWNER/NAME`, `NAME` or `OWNER--NAME`."""

    name = "folder"

    def __init__(self, settings: StoreSettings) -> None:
        self._folders = settings.folders

    def candidates(self, repository: str) -> Iterator[Path]:
        """Iterate over the folders that may contain a repository's files."""
        names = dict.fromkeys((repository, repository.rsplit("/", 1)[-1], repository.replace("/", "--")))
        for folder in self._folders:
            for name in names:
                if (folder / name).is_dir():
                    yield folder / name

    def list_files(self, repository: str) -> tuple[Path, tuple[ExpectedFile, ...]]:
        """Return the first folder of a repository and all its files. Raises FetchError."""
        for folder in self.candidates(repository):
            paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
            names = (path.relative_to(folder).as_posix() for path in paths)
            return folder, tuple(ExpectedFile(name) for name in names if is_safe_path(name))
        raise FetchError(self._explain_absence(repository))

    def fetch(self, request: FetchRequest, blobs: BlobStore, sink: ProgressSink) -> FetchResult:
        """Copy the files. They are never linked, because the user may write to them."""
        reasons: list[str] = []
        for folder in self.candidates(request.repository):
            try:
                return self._copy(folder, request, blobs, sink)
            except FetchError as error:
                reasons.append(str(error))
            except WrongBytesError as error:
                reasons.append(f"{folder}: {error}")
            except OSError as error:
                reasons.append(f"{folder}: {error.strerror or type(error).__name__}")
        raise FetchError("; ".join(reasons) or self._explain_absence(request.repository))

    def _copy(self, folder: Path, request: FetchRequest, blobs: BlobStore, sink: ProgressSink) -> FetchResult:
        fetched, absent = split_present(request, blobs)
        for file in absent:
            if not (folder / file.path).is_file():
                raise FetchError(f"{folder} does not contain {file.path}")
        for file in absent:
            key = file.sha256 or lock_name(self.name, str(folder), file.path)
            name, size = f"{request.repository}/{file.path}", (folder / file.path).stat().st_size
            with blobs.lock(key), (folder / file.path).open("rb") as source:
                fetched[file.path] = blobs.add(source, key=key, name=name, expected=file.sha256, size=size, sink=sink)
        return FetchResult(fetched, request.revision, self.name)

    def _explain_absence(self, repository: str) -> str:
        if not self._folders:
            return "weights.folders lists no folder"
        return f"no {repository} in {', '.join(map(str, self._folders))}"
