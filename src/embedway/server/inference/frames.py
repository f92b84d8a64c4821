"""Frames of the protocol between the inference process and its clients, over a Unix socket.

A frame is a header of 16 bytes (magic, kind, length of its body, number of its call) and its body. All numbers are
little-endian. Token ids are int32 and vectors float32, without encoding. Lengths are checked before memory is taken.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.types import Batch, TokenizedTexts
from embedway.urgency import Urgency

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from embedway.types import Vectors

#: Maximum size of a body. A batch is far smaller: 16 million token ids, or 16,384 vectors of 1,024 numbers.
MOST_BYTES = 64 << 20
#: Maximum size of a body that is JSON.
_MOST_JSON_BYTES = 1 << 20
#: Changes with the protocol, so that processes of two versions never misread each other.
_MAGIC = b"EW1"
_HEADER = struct.Struct("<3sBIQ")
#: Model, flags, priority, delay in seconds, texts.
_JOB = struct.Struct("<IBxhfI")
_QUERY, _TYPES, _PART = 1, 2, 4
_ROWS = struct.Struct("<II")


class FrameError(Exception):
    """A frame does not follow the protocol."""


class Kind(IntEnum):
    """Kind of a frame."""

    # from clients
    OPEN = 1  # JSON of a ModelSpec; the number names the model in later frames of the connection
    JOB = 2
    CANCEL = 3  # the number is that of the call
    WARM = 4  # the number of the model, as JSON
    STATE = 5
    PING = 6
    KEEP = 7  # a model's name and the seconds to keep it, as JSON
    # from the process
    ROWS = 16
    ERROR = 17
    VALUE = 18  # JSON


@dataclass(frozen=True, slots=True)
class Job:
    """A batch of one client, for a model that it has opened."""

    model: int
    tokenized: TokenizedTexts
    batch: Batch
    urgency: Urgency
    behind_s: float


def pack(kind: Kind, number: int, *parts: bytes | memoryview) -> list[bytes | memoryview]:
    """Return the parts of a frame. Raises FrameError for a body that no frame can have."""
    size = sum(part.nbytes if isinstance(part, memoryview) else len(part) for part in parts)
    if size > MOST_BYTES:
        raise FrameError(f"a body of {size:,} bytes is larger than {MOST_BYTES:,}")
    return [_HEADER.pack(_MAGIC, kind, size, number), *parts]


def pack_json(kind: Kind, number: int, values: Any) -> list[bytes | memoryview]:
    """Return the parts of a frame with a JSON body."""
    return pack(kind, number, json.dumps(values).encode())


def unpack_json(body: bytes) -> Any:
    """Return the values of a JSON body. Raises FrameError."""
    if len(body) > _MOST_JSON_BYTES:
        raise FrameError(f"a JSON body has more than {_MOST_JSON_BYTES:,} bytes")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise FrameError("a body is not JSON") from error


def pack_job(number: int, job: Job) -> list[bytes | memoryview]:
    """Return the parts of a frame with a job: lengths, token ids and token types of the batch's texts."""
    rows = job.batch.rows.tolist()
    tokenized, types = job.tokenized, b""
    if len(rows) == 1:
        ids = tokenized.ids[rows[0]].tobytes()
    else:
        ids = np.concatenate([tokenized.ids[row] for row in rows]).tobytes()
    flags = (_QUERY if job.urgency.query else 0) | (_PART if job.batch.shared else 0)
    if tokenized.types:
        types = np.concatenate([tokenized.types[row] for row in rows]).tobytes()
        flags |= _TYPES
    head = _JOB.pack(job.model, flags, job.urgency.priority, job.behind_s, len(rows))
    return pack(Kind.JOB, number, head, tokenized.lengths[job.batch.rows].astype("<i4").tobytes(), ids, types)


def unpack_job(body: bytes) -> Job:
    """Return the job of a body. Raises FrameError unless the lengths of its texts add up."""
    if len(body) < _JOB.size:
        raise FrameError("a job is too short")
    model, flags, priority, behind_s, texts = _JOB.unpack_from(body)
    rest = len(body) - _JOB.size
    if rest % 4 or not 0 < texts <= rest // 4:
        raise FrameError("a job has a wrong number of texts")
    numbers = np.frombuffer(body, "<i4", offset=_JOB.size)
    lengths = numbers[:texts]
    tokens = int(lengths.sum(dtype=np.int64))
    expected = tokens * (2 if flags & _TYPES else 1)
    if int(lengths.min()) < 1 or len(numbers) - texts != expected:
        raise FrameError("the lengths of a job's texts do not add up")
    if not 0.0 <= behind_s < float("inf"):
        raise FrameError("the delay of a job is no number of seconds")
    ids = _split(numbers[texts : texts + tokens], lengths)
    types = _split(numbers[texts + tokens :], lengths) if flags & _TYPES else ()
    batch = Batch(np.arange(texts, dtype=np.int64), int(lengths.max()), shared=bool(flags & _PART))
    urgency = Urgency(priority, query=bool(flags & _QUERY))
    return Job(model, TokenizedTexts(ids, lengths, types=types), batch, urgency, behind_s)


def _split(numbers: npt.NDArray[np.int32], lengths: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int32], ...]:
    if len(lengths) == 1:  # a query
        return (numbers,)
    return tuple(np.split(numbers, np.cumsum(lengths, dtype=np.int64)[:-1]))


def pack_rows(number: int, vectors: Vectors) -> list[bytes | memoryview]:
    """Return the parts of a frame with vectors, float32 (b, d)."""
    rows = np.ascontiguousarray(vectors, "<f4")
    return pack(Kind.ROWS, number, _ROWS.pack(*rows.shape), rows.tobytes())


def unpack_rows(body: bytes) -> Vectors:
    """Return the vectors of a body, float32 (b, d). Raises FrameError."""
    if len(body) < _ROWS.size:
        raise FrameError("vectors are too short")
    rows, width = _ROWS.unpack_from(body)
    if len(body) - _ROWS.size != rows * width * 4:
        raise FrameError("vectors have a wrong size")
    # A copy: the caller owns its rows, and may write to them.
    return np.frombuffer(body, "<f4", offset=_ROWS.size).reshape(rows, width).astype(np.float32, copy=True)


class FrameReader:
    """Splits a stream of bytes into frames."""

    def __init__(self, *, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Add bytes, and return an iterator over complete frames: kind, number, body. Raises FrameError."""
        self._data += data
        start, held = 0, self._data
        while len(held) - start >= _HEADER.size:
            magic, kind, size, number = _HEADER.unpack_from(held, start)
            if magic != _MAGIC:
                raise FrameError("the data does not begin with a frame of this version")
            if size > self._most_bytes:
                raise FrameError(f"a frame of {size:,} bytes is larger than {self._most_bytes:,}")
            end = start + _HEADER.size + size
            if len(held) < end:
                break
            yield kind, number, bytes(held[start + _HEADER.size : end])
            start = end
        del held[:start]
