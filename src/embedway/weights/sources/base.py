"""The contract of a source of model files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from embedway.weights.blobs import BlobStore
    from embedway.weights.types import ProgressSink


class FetchError(Exception):
    """A source could not give the files; the text says why, without secrets."""


@dataclass(frozen=True, slots=True)
class ExpectedFile:
    """A file to fetch. `sha256` and `size` (bytes) are None where they are not known.

    `from_first_pull` is set where the hash is not the catalog's but that of the first pull of the file.
    """

    path: str
    sha256: str | None = None
    size: int | None = None
    from_first_pull: bool = False


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """The files to fetch from a repository at a revision; None is the current one.

    With `force`, files are fetched although the store has them.
    """

    repository: str
    revision: str | None
    files: tuple[ExpectedFile, ...]
    force: bool = False


@dataclass(frozen=True, slots=True)
class FetchResult:
    """The sha256 of each file by path, all of them in the blob store; `revision` is a commit, None where not known."""

    files: Mapping[str, str]
    revision: str | None
    origin: str


class WeightsSource(Protocol):
    """A source of model files."""

    @property
    def name(self) -> str:
        """The name of the source in errors."""

    def fetch(self, request: FetchRequest, blobs: BlobStore, sink: ProgressSink) -> FetchResult:
        """Put every file of a request into the blob store. Files that are there are skipped unless `force` is set.

        Raises FetchError, or WrongBytesError for a file with other bytes than expected.
        """


def split_present(request: FetchRequest, blobs: BlobStore) -> tuple[dict[str, str], Sequence[ExpectedFile]]:
    """Return the hashes of the files that the blob store has, by path, and the files that it lacks."""
    present = {
        file.path: file.sha256
        for file in request.files
        if not request.force and file.sha256 is not None and blobs.is_intact(file.sha256)
    }
    return present, [file for file in request.files if file.path not in present]


def lock_name(*parts: str) -> str:
    """Return a name for a lock or a temporary file, different for different parts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]
