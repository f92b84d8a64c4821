"""Safetensors files, read without copies.

The safetensors library hands out copies; a model of 2.3 GB would then be held twice while it loads. The
format is a length, a JSON header and raw little-endian numbers
(https://github.com/huggingface/safetensors#format), so tensors here are views of the mapped file: pages come
in when a backend reads them and the kernel may drop them again.
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

# The library's own bound on the header (safetensors/src/tensor.rs, MAX_HEADER_SIZE).
_MAX_HEADER_BYTES = 100_000_000
_NUMPY_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4"}
#: Files over this are read sparingly.
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
    """Tensors of one or several safetensors files, by name. All come out as float32 (or as integers).

    float32 tensors are views of a private map of the held file, which nobody may write to; other float types are
    converted, which copies.
    """

    def __init__(self, files: Sequence[HeldFile | Path]) -> None:
        self._entries: dict[str, _Entry] = {}
        #: The private maps of the files that the tensors are views of.
        self.maps: list[mmap.mmap] = []
        for given in files:
            file = HeldFile(given) if isinstance(given, Path) else given
            entries = _read_header(file)
            if duplicates := self._entries.keys() & entries.keys():
                raise WeightsError(f"{file}: tensor {min(duplicates)} is in another file of the model too")
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
        if entry.start % _ITEM_BYTES[entry.kind]:  # unaligned numbers are slow or refused by backends
            array = np.frombuffer(bytes(buffer), _NUMPY_TYPES[entry.kind]).reshape(entry.shape)
        else:
            array = np.frombuffer(buffer, _NUMPY_TYPES[entry.kind]).reshape(entry.shape)
        return array.astype(np.float32) if entry.kind in {"F16", "F64"} else array

    def get(self, name: str) -> npt.NDArray[Any] | None:
        """Return the tensor, or None."""
        return self[name] if name in self._entries else None

    def _entry(self, name: str) -> _Entry:
        try:
            return self._entries[name]
        except KeyError:
            files = ", ".join(dict.fromkeys(str(entry.file) for entry in self._entries.values()))
            raise UnsupportedModelError(f"{files}: no tensor is called {name}") from None

    @contextmanager
    def sparing(self) -> Iterator[None]:
        """Release the pages that a backend has read from large files, ten times a second.

        It packs weights into memory of its own; without this both copies are resident before it ends. The pages are
        never written to, so that what is read again comes from the file.
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
        """Let the kernel drop what was read; later reads bring it back. Keeps residency near what is used."""
        for mapped in self.maps:
            if hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)


def _read_header(file: HeldFile) -> dict[str, _Entry]:
    size = file.size
    head = file.map()[:8] if size else b""
    length = int.from_bytes(head, "little")
    if len(head) < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
        raise WeightsError(f"{file}: not a safetensors file, or cut short")
    try:
        header = json.loads(file.map()[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{file}: its safetensors header is not JSON") from error
    if not isinstance(header, dict):
        raise WeightsError(f"{file}: its safetensors header is not a JSON object")
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
        raise WeightsError(f"{file}: {size - reached} bytes after the last tensor; it was damaged")
    return entries


def _entry(file: HeldFile, size: int, body: int, name: str, facts: Any) -> _Entry:
    try:
        kind, shape = str(facts["dtype"]), tuple(operator.index(width) for width in facts["shape"])
        start, end = (body + operator.index(offset) for offset in facts["data_offsets"])
    except (KeyError, TypeError, ValueError):
        raise WeightsError(f"{file}: the header's facts of tensor {name} are damaged") from None
    if kind not in _ITEM_BYTES:
        raise UnsupportedModelError(f"{file}: tensor {name} is of type {kind}, which is not supported")
    if start < body or end > size or min(shape, default=0) < 0 or end - start != math.prod(shape) * _ITEM_BYTES[kind]:
        raise WeightsError(f"{file}: tensor {name} does not fit the file; it was cut short or damaged")
    return _Entry(file, kind, shape, start, end)
