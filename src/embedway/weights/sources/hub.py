"""The Hugging Face hub, or a mirror of it; and what its own library downloaded before."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from embedway.opt_out import opt_out_of_telemetry
from embedway.weights.files import WrongBytesError
from embedway.weights.listed import inside
from embedway.weights.sources.base import Delivery, Order, PlaceError, Wanted, key_of, missing
from embedway.weights.sources.download import Download, sha1s
from embedway.weights.sources.http import Facts, HubClient

if TYPE_CHECKING:
    from embedway.weights.files import Blobs
    from embedway.weights.types import ProgressSink, StoreSettings

COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class HubPlace:
    """Serves files by repository, commit and path."""

    name = "hub"

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self._client = HubClient(settings)

    def listing(self, repository: str, revision: str | None) -> tuple[str, tuple[Wanted, ...]]:
        """The commit that a revision stands for (None: `main`) and every file of it. Raises PlaceError."""
        self._online()
        answer = self._client.api(repository, revision or "main")
        commit, siblings = answer.get("sha"), answer.get("siblings")
        if not isinstance(commit, str) or not COMMIT.fullmatch(commit) or not isinstance(siblings, list):
            raise PlaceError(f"what it says of {repository} names no commit or no files")
        files = []
        for sibling in siblings:
            path = sibling.get("rfilename") if isinstance(sibling, dict) else None
            if not isinstance(path, str) or not inside(path):
                continue  # a name that no file on every system could have is none that is needed
            large = sibling.get("lfs") or {}
            sha256, size = large.get("sha256"), sibling.get("size")
            files.append(
                Wanted(
                    path,
                    sha256 if isinstance(sha256, str) and _SHA256.fullmatch(sha256) else None,
                    size if type(size) is int else None,
                )
            )
        return commit, tuple(files)

    def fetch(self, order: Order, blobs: Blobs, sink: ProgressSink) -> Delivery:
        """Take each file from huggingface_hub's cache, or download it."""
        got, wanted = missing(order, blobs)
        rest = []
        for file in wanted:
            sha256 = None if order.force else self._from_cache(order, file, blobs, sink)
            if sha256 is None:
                rest.append(file)
            else:
                got[file.path] = sha256
        commit = order.revision
        if rest:
            self._online()
            commit = commit or self._client_commit(order)
            blobs.require_space(sum(file.size or 0 for file in rest), order.repository)
        for file in rest:
            got[file.path] = self._download(order.repository, str(commit), file, blobs, sink, force=order.force)
        return Delivery(got, commit, self.name)

    def _online(self) -> None:
        if self._settings.offline:
            raise PlaceError("offline (weights.offline or HF_HUB_OFFLINE is set)")

    def _client_commit(self, order: Order) -> str:
        return self.listing(order.repository, None)[0]

    def _download(
        self, repository: str, commit: str, file: Wanted, blobs: Blobs, sink: ProgressSink, *, force: bool
    ) -> str:
        facts = Facts(file.sha256, None, file.size, None)
        if file.sha256 is None:
            facts = self._client.facts(repository, commit, file.path)
            if facts.commit not in {None, commit}:
                raise PlaceError(f"{file.path} came from commit {facts.commit}, asked for was {commit}")
            if file.size is not None and facts.size not in {None, file.size}:
                raise PlaceError(f"{file.path} is {facts.size} bytes long, expected {file.size}")
        known = facts.sha256 or facts.git_sha1
        key = known or key_of(self.name, self._settings.hub_endpoint, repository, commit, file.path)
        with blobs.lock(key):
            if not force and facts.sha256 is not None and blobs.good(facts.sha256):
                return facts.sha256
            blobs.require_space(facts.size or 0, file.path)
            partial = blobs.partial(f"{key}.part")
            # Only bytes that can be checked at the end are put together from two visits.
            sha256 = Download(
                self._client,
                self._client.file_url(repository, commit, file.path),
                partial,
                facts,
                sink,
                f"{repository}/{file.path}",
            ).run(resume=known is not None)
            with partial.open("rb") as handle:
                os.fsync(handle.fileno())
            blobs.adopt(partial, sha256)
        return sha256

    def _from_cache(self, order: Order, file: Wanted, blobs: Blobs, sink: ProgressSink) -> str | None:
        """A file that huggingface_hub has, if its bytes are right; the place is read, never written to."""
        path = self._cached(order, file.path)
        if path is None:
            return None
        try:
            sha256 = blobs.memory.sha256(path)
            # In that cache a file's name is the hub's hash of it.
            named = path.name if COMMIT.fullmatch(path.name) or _SHA256.fullmatch(path.name) else None
            if (file.sha256 or sha256) != sha256 or (named and named not in {sha256, *_git(path, named)}):
                return None
            with blobs.lock(sha256):
                if not blobs.good(sha256) and not blobs.adopt_link(path, sha256):
                    with path.open("rb") as source:
                        blobs.add(
                            source,
                            key=sha256,
                            name=f"{order.repository}/{file.path}",
                            expected=sha256,
                            size=path.stat().st_size,
                            sink=sink,
                        )
        except (OSError, WrongBytesError):
            return None
        return sha256

    def _cached(self, order: Order, path: str) -> Path | None:
        cache = self._settings.hub_cache
        if cache is None or not cache.is_dir():
            return None
        opt_out_of_telemetry()
        from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415  takes a quarter of a second
        from huggingface_hub.errors import HFValidationError  # noqa: PLC0415

        try:
            found = try_to_load_from_cache(order.repository, path, cache_dir=cache, revision=order.revision)
        except (HFValidationError, OSError):
            return None
        return Path(found).resolve() if isinstance(found, str) else None


def _git(path: Path, named: str) -> tuple[str, ...]:
    return sha1s(path) if len(named) == 40 else ()
