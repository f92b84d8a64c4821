"""Safetensors files, read without copies.

The safetensors library returns copies, so a model of 2.3 GB would be in memory twice while it loads. The format is a
length, a JSON header and raw little-endian numbers (https://github.com/huggingface/safetensors#format). So tensors here
are views of the mapped file: the kernel loads pages when a backend reads them and may drop them again.
"""

from __future__ import annotations

import json
import math
import mmap
import operator
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.errors import UnsupportedModelError, WeightsError
from embedway.weights.held_file import HeldFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

# The library's own limit of the header (safetensors/src/tensor.rs, MAX_HEADER_SIZE).
_MAX_HEADER_BYTES = 100_000_000
_NUMPY_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4"}
#: Pages of larger files are released during loading. In bytes.
_LARGE_BYTES = 400_000_000
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4}


@dataclass(frozen=True, slots=True)
class _Entry:
    file: HeldFile
    kind: str
    shape: tuple[int, ...]
    start: int
    end: int


class Tensors:
    """Tensors of one or more safetensors files, by name, as float32 or integers.

    float32 tensors are views of a private map of the open file and must not be written to. Other float types are
    converted, which copies them.
    """

    def __init__(self, files: Sequence[HeldFile | Path]) -> None:
        self._entries: dict[str, _Entry] = {}
        #: Private maps of the files that tensors are views of.
        self.maps: list[mmap.mmap] = []
        for given in files:
            file = HeldFile(given) if isinstance(given, Path) else given
            entries = _read_header(file)
            if duplicates := self._entries.keys() & entries.keys():
                raise WeightsError(f"{file}: tensor {min(duplicates)} is also in another file of the model")
            self._entries |= entries
            self.maps.append(file.map())

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading it."""
        return self._entry(name).shape

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        entry = self._entry(name)
        buffer = memoryview(entry.file.map())[entry.start : entry.end]
        if entry.kind == "BF16":
            # bfloat16 is the upper half of a float32.
            wide = np.frombuffer(buffer, "<u2").astype(np.uint32) << 16
            return wide.view(np.float32).reshape(entry.shape)
        if entry.start % _ITEM_BYTES[entry.kind]:  # backends reject or slow down on unaligned numbers
            array = np.frombuffer(bytes(buffer), _NUMPY_TYPES[entry.kind]).reshape(entry.shape)
        else:
            array = np.frombuffer(buffer, _NUMPY_TYPES[entry.kind]).reshape(entry.shape)
        return array.astype(np.float32) if entry.kind in {"F16", "F64"} else array

    def get(self, name: str) -> npt.NDArray[Any] | None:
        """Return the tensor, or None if it is missing."""
        return self[name] if name in self._entries else None

    def _entry(self, name: str) -> _Entry:
        try:
            return self._entries[name]
        except KeyError:
            files = ", ".join(dict.fromkeys(str(entry.file) for entry in self._entries.values()))
            raise UnsupportedModelError(f"{files}: the tensor {name} is missing") from None

    @contextmanager
    def sparing(self) -> Iterator[None]:
        """Release pages of large files that a backend has read, ten times per second.

        The backend packs weights into its own memory; without this, both copies stay resident until it is done. The
        pages are never written to, so a later read loads them from the file.
        """
        done = threading.Event()

        def release() -> None:
            while not done.wait(0.1):
                self.release_pages()

        large = sum(map(len, self.maps)) > _LARGE_BYTES
        thread = threading.Thread(target=release, name="embedway-spare", daemon=True)
        if large:
            thread.start()
        try:
            yield
        finally:
            done.set()
            if large:
                thread.join()

    def release_pages(self) -> None:
        """Let the kernel drop pages that were read; later reads load them again. This limits resident memory."""
        for mapped in self.maps:
            if hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)


def _read_header(file: HeldFile) -> dict[str, _Entry]:
    size = file.size
    head = file.map()[:8] if size else b""
    length = int.from_bytes(head, "little")
    if len(head) < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
        raise WeightsError(f"{file} is not a safetensors file, or is truncated")
    try:
        header = json.loads(file.map()[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{file}: the safetensors header is not JSON") from error
    if not isinstance(header, dict):
        raise WeightsError(f"{file}: the safetensors header is not a JSON object")
    entries = {
        name: _entry(file, size, 8 + length, name, facts) for name, facts in header.items() if name != "__metadata__"
    }
    # The format's own rule (safetensors/src/tensor.rs, Metadata::validate): no gaps and no overlaps.
    reached = 8 + length
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != reached:
            raise WeightsError(f"{file}: tensor {name} overlaps another or leaves a gap; the header is damaged")
        reached = entry.end
    if reached != size:
        raise WeightsError(f"{file}: {size - reached} bytes follow the last tensor; the file is damaged")
    return entries


def _entry(file: HeldFile, size: int, body: int, name: str, facts: Any) -> _Entry:
    try:
        kind, shape = str(facts["dtype"]), tuple(operator.index(width) for width in facts["shape"])
        start, end = (body + operator.index(offset) for offset in facts["data_offsets"])
    except (KeyError, TypeError, ValueError):
        raise WeightsError(f"{file}: the header's entry of tensor {name} is damaged") from None
    if kind not in _ITEM_BYTES:
        raise UnsupportedModelError(f"{file}: tensor {name} has the unsupported type {kind}")
    if start < body or end > size or min(shape, default=0) < 0 or end - start != math.prod(shape) * _ITEM_BYTES[kind]:
        raise WeightsError(f"{file}: tensor {name} does not fit the file; the file is truncated or damaged")
    return _Entry(file, kind, shape, start, end)
