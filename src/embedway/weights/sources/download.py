"""Files from a hub, in pieces that survive an interruption.

huggingface_hub is not used for this. It downloads to a name made for the occasion and deletes that on any
failure (`_download_to_tmp_and_move` in its 2.4), so an interrupted file starts anew; and it reads offline
mode, Xet and timeouts from the environment when it is imported, so they could not be settings.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from embedway.weights.files import CHUNK_BYTES, WrongBytesError, hash_file
from embedway.weights.sources.base import PlaceError
from embedway.weights.sources.http import ATTEMPTS, Facts, HttpResponse, HubClient, PassingError, StaleRangeError

if TYPE_CHECKING:
    from pathlib import Path

    from embedway.weights.types import ProgressSink

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Download:
    """One file on its way, over as many answers as it takes.

    `name` is what progress and errors call it, `facts` what its bytes are checked against.
    """

    client: HubClient
    url: str
    into: Path
    facts: Facts
    sink: ProgressSink
    name: str

    def run(self, *, resume: bool) -> str:
        """Bring the file; returns its sha256.

        With `resume`, what `into` holds already is kept and continued; it must be of the same bytes. Raises
        PlaceError, or WrongBytesError where the sha256 is not the one in `facts`.
        """
        if not resume:
            self.into.unlink(missing_ok=True)
        had_old = self._have() > 0
        self._bring()
        found = hash_file(self.into)
        if self._is_right(found):
            return found
        self.into.unlink()
        if had_old:
            # The old part may be what was wrong.
            return self.run(resume=False)
        if self.facts.sha256 is not None:
            raise WrongBytesError(self.name, expected=self.facts.sha256, found=found)
        raise PlaceError(f"{self.name}: the bytes that came are not those whose hash the hub names")

    def _is_right(self, sha256: str) -> bool:
        if self.facts.sha256 is not None:
            return sha256 == self.facts.sha256
        return self.facts.git_sha1 is None or self.facts.git_sha1 in sha1s(self.into)

    def _bring(self) -> None:
        """Every byte is written as it comes, so that a killed process keeps what it had."""
        attempt = 0
        while True:
            before = self._have()
            if self.facts.size is not None and before == self.facts.size:
                self.into.touch()
                return
            try:
                self._continue(before)
            except StaleRangeError:
                if not before:
                    raise PlaceError(f"{self.name}: the hub answered 416 to a request without a range") from None
                self.into.unlink()
            except PassingError as error:
                attempt = 0 if self._have() > before else attempt + 1
                if attempt >= ATTEMPTS:
                    raise PlaceError(f"{error} ({ATTEMPTS} attempts)") from None
                _log.info("%s: %s; trying again", self.name, error)
                self.client.wait(attempt, error.wait_s)
            else:
                return

    def _have(self) -> int:
        return self.into.stat().st_size if self.into.exists() else 0

    def _continue(self, start: int) -> None:
        answer = self.client.open(self.url, start=start)
        with answer.body:
            if answer.headers.get("Content-Encoding", "identity") != "identity":
                raise PlaceError(f"{self.name}: the hub compresses what should come as it is")
            self._compare(answer.facts)
            start = _start(answer, start)
            length = answer.headers.get("Content-Length")
            total = start + int(length) if length and length.isdecimal() else self.facts.size
            if self.facts.size is not None and total != self.facts.size:
                raise PlaceError(f"{self.name} is {total} bytes long at the hub, expected {self.facts.size}")
            self.sink.start(self.name, total)
            try:
                self._copy(answer.body, start, total)
            finally:
                self.sink.done()

    def _compare(self, now: Facts) -> None:
        """Before anything is read: a hub that names another hash has another file."""
        if self.facts.sha256 and now.sha256 and self.facts.sha256 != now.sha256:
            raise WrongBytesError(self.name, expected=self.facts.sha256, found=now.sha256)

    def _copy(self, body: IO[bytes], start: int, total: int | None) -> None:
        with self.into.open("r+b" if start else "wb") as file:
            file.truncate(start)
            file.seek(start)
            have = start
            self.sink.advance(have)
            while total is None or have < total:
                try:
                    chunk = body.read(CHUNK_BYTES if total is None else min(CHUNK_BYTES, total - have))
                except (OSError, http.client.HTTPException) as error:
                    raise PassingError(f"{self.name}: the connection broke ({type(error).__name__})") from None
                if not chunk:
                    break
                file.write(chunk)
                file.flush()
                have += len(chunk)
                self.sink.advance(len(chunk))
        if total is not None and have < total:
            raise PassingError(f"{self.name}: the connection ended at byte {have:,} of {total:,}")


def _start(answer: HttpResponse, asked: int) -> int:
    """Where the body begins: at the byte asked for, or at the first if the server does not do ranges."""
    if answer.status != 206:
        return 0
    begins = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    if begins != str(asked):
        raise PlaceError(f"a range from byte {asked} was asked for, and another came")
    return asked


def sha1s(path: Path) -> tuple[str, str]:
    """A file's sha1 as git makes it (the hub's ETag of small files), and the plain one (some mirrors')."""
    git = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    plain = hashlib.sha1(usedforsecurity=False)
    with path.open("rb") as handle:
        while chunk := handle.read(CHUNK_BYTES):
            git.update(chunk)
            plain.update(chunk)
    return git.hexdigest(), plain.hexdigest()
