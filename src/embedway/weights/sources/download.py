"""Downloads from a hub that resume after an interruption.

huggingface_hub is not used for this. It downloads to a temporary file and deletes it on any failure
(`_download_to_tmp_and_move` in its 2.4), so an interrupted download restarts at the first byte. It reads offline mode,
Xet and timeouts from the environment at import, so they could not be settings.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedway.weights.blobs import CHUNK_BYTES
from embedway.weights.hashes import WrongBytesError, hash_file
from embedway.weights.sources.base import FetchError
from embedway.weights.sources.http import (
    FileMetadata,
    HttpResponse,
    HubClient,
    RangeNotSatisfiableError,
    TransientError,
    count_of,
)

if TYPE_CHECKING:
    from pathlib import Path

    from embedway.weights.types import ProgressSink

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class ResumableDownload:
    """Download of one file to `path`, over as many responses as needed.

    `name` is the file's name in progress and errors. The bytes are checked against `metadata`.
    """

    client: HubClient
    url: str
    path: Path
    metadata: FileMetadata
    sink: ProgressSink
    name: str

    def run(self, *, resume: bool) -> str:
        """Download the file and return its sha256.

        With `resume`, the download continues after the bytes in `path`. Raises FetchError, or WrongBytesError if the
        sha256 does not match `metadata`.
        """
        if not resume:
            self.path.unlink(missing_ok=True)
        resumed = self._size() > 0
        self._fetch_all()
        found = hash_file(self.path)
        if self._is_right(found):
            return found
        self.path.unlink()
        if resumed:
            # The earlier part may be corrupt.
            return self.run(resume=False)
        if self.metadata.sha256 is not None:
            raise WrongBytesError(self.name, expected=self.metadata.sha256, found=found)
        raise FetchError(f"{self.name}: the downloaded bytes do not match the hub's hash")

    def _is_right(self, sha256: str) -> bool:
        if self.metadata.sha256 is not None:
            return sha256 == self.metadata.sha256
        return self.metadata.git_sha1 is None or self.metadata.git_sha1 in git_and_plain_sha1(self.path)

    def _fetch_all(self) -> None:
        """Download until the file is complete. Bytes are written as they arrive, so a killed process loses none."""
        attempt = 0
        while True:
            before = self._size()
            if self.metadata.size is not None and before == self.metadata.size:
                self.path.touch()
                return
            try:
                self._append(before)
            except RangeNotSatisfiableError:
                if not before:
                    raise FetchError(f"{self.name}: the hub returned 416 for a request without a range") from None
                self.path.unlink()
            except TransientError as error:
                attempt = 0 if self._size() > before else attempt + 1
                if attempt >= self.client.settings.attempts:
                    raise FetchError(f"{error} ({self.client.settings.attempts} attempts)") from None
                _log.info("%s: %s; retrying", self.name, error)
                self.client.wait(attempt, error.wait_s)
            else:
                return

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def _append(self, start: int) -> None:
        response = self.client.open(self.url, start=start)
        with response.body:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise FetchError(
                    f"{self.name}: the hub compressed the response, although it was requested uncompressed"
                )
            named = response.metadata.sha256
            if self.metadata.sha256 and named and self.metadata.sha256 != named:
                raise WrongBytesError(self.name, expected=self.metadata.sha256, found=named)
            start = _first_byte(response, start)
            length = count_of(response.headers, "Content-Length")
            total = self.metadata.size if length is None else start + length
            if self.metadata.size is not None and total != self.metadata.size:
                raise FetchError(f"{self.name} is {total} bytes long on the hub, expected {self.metadata.size}")
            self.sink.start(self.name, total)
            try:
                self._copy(response, start, total)
            finally:
                self.sink.done()

    def _copy(self, response: HttpResponse, start: int, total: int | None) -> None:
        with self.path.open("r+b" if start else "wb") as file:
            file.truncate(start)
            file.seek(start)
            size, pace = start, self.client.pace()
            self.sink.advance(size)
            while total is None or size < total:
                try:
                    chunk = response.read(CHUNK_BYTES if total is None else min(CHUNK_BYTES, total - size))
                except (OSError, http.client.HTTPException, ValueError) as error:
                    raise TransientError(f"{self.name}: the connection broke ({type(error).__name__})") from None
                if not chunk:
                    break
                file.write(chunk)
                file.flush()
                size += len(chunk)
                self.sink.advance(len(chunk))
                pace.check(len(chunk), self.name)
        if total is not None and size < total:
            raise TransientError(f"{self.name}: the connection ended at byte {size:,} of {total:,}")


def _first_byte(response: HttpResponse, start: int) -> int:
    """Return the offset of the body: the requested one, or 0 if the server ignores ranges."""
    if response.status != 206:
        return 0
    begins = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    if begins != str(start):
        raise FetchError(f"the server returned another range than the requested one from byte {start}")
    return start


def git_and_plain_sha1(path: Path) -> tuple[str, str]:
    """Return the sha1 of a git blob (the hub's ETag of small files), and the plain sha1 (the ETag of some mirrors)."""
    git = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    plain = hashlib.sha1(usedforsecurity=False)
    with path.open("rb") as handle:
        while chunk := handle.read(CHUNK_BYTES):
            git.update(chunk)
            plain.update(chunk)
    return git.hexdigest(), plain.hexdigest()
