"""The Hugging Face hub or a mirror as a source, with the download cache of huggingface_hub."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from embedway.opt_out import opt_out_of_telemetry
from embedway.weights.hashes import WrongBytesError
from embedway.weights.layout import is_safe_path
from embedway.weights.sources.base import ExpectedFile, FetchError, FetchRequest, FetchResult, lock_name, split_present
from embedway.weights.sources.download import ResumableDownload, git_and_plain_sha1
from embedway.weights.sources.http import FileMetadata, HubClient

if TYPE_CHECKING:
    from embedway.weights.blobs import BlobStore
    from embedway.weights.types import ProgressSink, StoreSettings

COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
#: Maximum plausible size of a file, in bytes.
_MOST_BYTES = 10**15


class HubSource:
    """Source of files by repository, commit and path."""

    name = "hub"

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self._client = HubClient(settings)

    def list_files(self, repository: str, revision: str | None) -> tuple[str, tuple[ExpectedFile, ...]]:
        """Return the commit of a revision (None: `main`) and all its files. Raises FetchError."""
        self._check_online()
        info = self._client.model_info(repository, revision or "main")
        commit, siblings = info.get("sha"), info.get("siblings")
        if not isinstance(commit, str) or not COMMIT.fullmatch(commit) or not isinstance(siblings, list):
            raise FetchError(f"the response for {repository} lists no commit or no files")
        files = []
        for sibling in siblings:
            path = sibling.get("rfilename") if isinstance(sibling, dict) else None
            if not isinstance(path, str) or not is_safe_path(path):
                continue  # no model needs a file whose name is invalid on some systems
            large, size = sibling.get("lfs"), sibling.get("size")
            sha256 = large.get("sha256") if isinstance(large, dict) else None
            sha256 = sha256 if isinstance(sha256, str) and _SHA256.fullmatch(sha256) else None
            files.append(ExpectedFile(path, sha256, size if type(size) is int and 0 <= size < _MOST_BYTES else None))
        return commit, tuple(files)

    def fetch(self, request: FetchRequest, blobs: BlobStore, sink: ProgressSink) -> FetchResult:
        """Copy each file from huggingface_hub's cache, or download it."""
        fetched, absent = split_present(request, blobs)
        rest = []
        for file in absent:
            if not request.force and (sha256 := self._copy_cached(request, file, blobs, sink)) is not None:
                fetched[file.path] = sha256
            else:
                rest.append(file)
        commit = request.revision
        if rest:
            self._check_online()
            commit = commit or self.list_files(request.repository, None)[0]
            blobs.require_space(sum(file.size or 0 for file in rest), request.repository)
        for file in rest:
            fetched[file.path] = self._download(request.repository, str(commit), file, blobs, sink, force=request.force)
        return FetchResult(fetched, commit, self.name)

    def _check_online(self) -> None:
        if self._settings.offline:
            raise FetchError("offline (weights.offline or HF_HUB_OFFLINE is set)")

    def _download(
        self, repository: str, commit: str, file: ExpectedFile, blobs: BlobStore, sink: ProgressSink, *, force: bool
    ) -> str:
        metadata = FileMetadata(file.sha256, None, file.size, None)
        if file.sha256 is None:
            metadata = self._client.file_metadata(repository, commit, file.path)
            if metadata.commit not in {None, commit}:
                raise FetchError(f"{file.path} came from another commit than {commit}")
            if file.size is not None and metadata.size not in {None, file.size}:
                raise FetchError(f"{file.path} is {metadata.size} bytes long, expected {file.size}")
        known = metadata.sha256 or metadata.git_sha1
        key = known or lock_name(self.name, self._settings.hub_endpoint, repository, commit, file.path)
        with blobs.lock(key):
            if not force and metadata.sha256 is not None and blobs.is_intact(metadata.sha256):
                return metadata.sha256
            blobs.require_space(metadata.size or 0, file.path)
            partial = blobs.partial_path(f"{key}.part")
            url = self._client.file_url(repository, commit, file.path)
            download = ResumableDownload(self._client, url, partial, metadata, sink, f"{repository}/{file.path}")
            # A partial download is resumed only if the hash of the complete file is known.
            sha256 = download.run(resume=known is not None)
            with partial.open("rb") as handle:
                os.fsync(handle.fileno())
            blobs.adopt(partial, sha256)
        return sha256

    def _copy_cached(
        self, request: FetchRequest, file: ExpectedFile, blobs: BlobStore, sink: ProgressSink
    ) -> str | None:
        """Copy a file from huggingface_hub's cache if its bytes are right. That cache is only read."""
        path = self._cached_path(request, file.path)
        if path is None:
            return None
        try:
            sha256 = blobs.hash_cache.sha256(path)
            # In that cache, the file name is the hash on the hub.
            named = path.name if COMMIT.fullmatch(path.name) or _SHA256.fullmatch(path.name) else None
            sha1s = git_and_plain_sha1(path) if named and len(named) == 40 else ()
            if (file.sha256 or sha256) != sha256 or (named and named not in {sha256, *sha1s}):
                return None
            with blobs.lock(sha256):
                if not blobs.is_intact(sha256) and not blobs.adopt_link(path, sha256):
                    name, size = f"{request.repository}/{file.path}", path.stat().st_size
                    with path.open("rb") as source:
                        blobs.add(source, key=sha256, name=name, expected=sha256, size=size, sink=sink)
        except (OSError, WrongBytesError):
            return None
        return sha256

    def _cached_path(self, request: FetchRequest, path: str) -> Path | None:
        cache = self._settings.hub_cache
        if cache is None or not cache.is_dir():
            return None
        opt_out_of_telemetry()
        from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415  takes a quarter of a second
        from huggingface_hub.errors import HFValidationError  # noqa: PLC0415

        try:
            found = try_to_load_from_cache(request.repository, path, cache_dir=cache, revision=request.revision)
        except (HFValidationError, OSError):
            return None
        return Path(found).resolve() if isinstance(found, str) else None
