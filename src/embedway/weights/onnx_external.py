"""Names of the files that contain an ONNX file's external data.

The names are read from the encoding itself, because the onnx library would also read the weights into memory. Fields
may come in any order, and tensors occur in graphs, in attributes of nodes, and in functions (onnx.proto3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from embedway.errors import WeightsError
from embedway.text import redact

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator

Buffer: TypeAlias = "bytes | mmap.mmap"

#: Message fields whose messages contain tensors, by field number.
_GRAPH, _NODE, _ATTRIBUTE, _TENSOR, _SPARSE, _FUNCTION, _TRAINING, _MODEL = range(8)
_BELOW: dict[int, dict[int, int]] = {
    _MODEL: {7: _GRAPH, 20: _TRAINING, 25: _FUNCTION},
    _TRAINING: {1: _GRAPH, 2: _GRAPH},
    _FUNCTION: {7: _NODE, 11: _ATTRIBUTE},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {},
}
_EXTERNAL_DATA, _DATA_LOCATION, _EXTERNAL = 13, 14, 1
_KEY, _VALUE = 1, 2
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
#: Maximum nesting; no exported model is nested deeper.
_MAX_DEPTH = 64
_MAX_NAME_BYTES = 4096


def external_files(data: Buffer, *, where: str) -> set[str]:
    """Return the names of a serialized ONNX model's external files. Raises WeightsError if it is not such a model.

    `where` names the file in errors. If a tensor names several files, all of them count.
    """
    try:
        return set(_locations(data, 0, len(data), _MODEL, 0))
    except (_MalformedError, UnicodeDecodeError) as error:
        raise WeightsError(f"{where} is not an ONNX model, or is damaged: {redact(str(error))}") from None


class _MalformedError(Exception):
    """The bytes are not a protobuf message."""


def _locations(data: Buffer, start: int, end: int, kind: int, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        raise _MalformedError("its graphs are nested too deeply")
    below = _BELOW[kind]
    named: list[str] = []
    external = False
    for number, wire, value, stop in _fields(data, start, end):
        if kind == _TENSOR and number == _DATA_LOCATION and wire == _VARINT:
            external = value == _EXTERNAL
        elif kind == _TENSOR and number == _EXTERNAL_DATA and wire == _LENGTH:
            named += _location(data, value, stop)
        elif number in below and wire == _LENGTH:
            yield from _locations(data, value, stop, below[number], depth + 1)
    if external:
        yield from named


def _location(data: Buffer, start: int, end: int) -> list[str]:
    """Return the value of a StringStringEntryProto with the key `location`."""
    key, found = "", ""
    for number, wire, value, stop in _fields(data, start, end):
        if wire != _LENGTH or number not in {_KEY, _VALUE}:
            continue
        if stop - value > _MAX_NAME_BYTES:
            raise _MalformedError("a name of external data is too long")
        text = bytes(data[value:stop]).decode()
        if number == _KEY:
            key = text
        else:
            found = text
    return [found] if key == "location" else []


def _fields(data: Buffer, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Iterate over fields: number, wire type, and either a value or the start and end of the bytes."""
    at = start
    while at < end:
        tag, at = _varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(data, at, end)
            yield number, wire, value, at
            continue
        if wire == _LENGTH:
            size, at = _varint(data, at, end)
        else:
            size = {_FIXED64: 8, _FIXED32: 4}.get(wire, -1)
        if size < 0 or at + size > end or not number:
            raise _MalformedError(f"the field at byte {at} is not valid protobuf")
        yield number, wire, at, at + size
        at += size


def _varint(data: Buffer, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= end or shift > 63:
            raise _MalformedError(f"it ends inside a number at byte {at}")
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
