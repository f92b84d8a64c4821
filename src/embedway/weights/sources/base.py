"""Protocol of a source of model files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from embedway.weights.blobs import BlobStore
    from embedway.weights.types import ProgressSink


class FetchError(Exception):
    """A source could not provide the files; the message gives the reason, without secrets."""


@dataclass(frozen=True, slots=True)
class ExpectedFile:
    """File to fetch. `sha256` and `size` (bytes) are None if unknown.

    `from_first_pull` is set if the hash comes from the file's first pull and not from the catalog.
    """

    path: str
    sha256: str | None = None
    size: int | None = None
    from_first_pull: bool = False


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """Files to fetch from a repository at a revision; None is the current revision.

    With `force`, files are fetched even if the store has them.
    """

    repository: str
    revision: str | None
    files: tuple[ExpectedFile, ...]
    force: bool = False


@dataclass(frozen=True, slots=True)
class FetchResult:
    """sha256 of each file by path, all in the blob store; `revision` is a commit, None if unknown."""

    files: Mapping[str, str]
    revision: str | None
    origin: str


class WeightsSource(Protocol):
    """Source of model files."""

    @property
    def name(self) -> str:
        """Name of the source in errors."""

    def fetch(self, request: FetchRequest, blobs: BlobStore, sink: ProgressSink) -> FetchResult:
        """Put all files of a request into the blob store. Skip existing files unless `force` is set.

        Raises FetchError, or WrongBytesError for a file with unexpected bytes.
        """


def split_present(request: FetchRequest, blobs: BlobStore) -> tuple[dict[str, str], Sequence[ExpectedFile]]:
    """Return the hashes of files in the blob store, by path, and the missing files."""
    present = {
        file.path: file.sha256
        for file in request.files
        if not request.force and file.sha256 is not None and blobs.is_intact(file.sha256)
    }
    return present, [file for file in request.files if file.path not in present]


def lock_name(*parts: str) -> str:
    """Return a name for a lock or a temporary file, unique for its parts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]
