"""Content of files that are one document, with limits of their size and of what they unpack to."""

from __future__ import annotations

import gzip
from typing import IO, TYPE_CHECKING

from embedway.collections.documents import MAX_FILE_BYTES, MAX_RATIO, RATIO_FAULT
from embedway.errors import SourceError

if TYPE_CHECKING:
    import io

#: Unpacked bytes of a document below which the ratio to its packed bytes is not checked.
UNCHECKED_BYTES = 1 << 24


def read_whole(opened: IO[bytes] | io.BufferedReader, name: str, *, size_bytes: int, gzipped: bool = False) -> bytes:
    """Return the content of an open file; `size_bytes` is its probable size.

    Raises SourceError if it is too large, or unpacks to far more than text does, and the errors of gzip.
    """
    stream: IO[bytes] | gzip.GzipFile = opened
    limit = MAX_FILE_BYTES
    if gzipped:
        stream, limit = gzip.GzipFile(fileobj=opened), max(UNCHECKED_BYTES, MAX_RATIO * size_bytes)
    data = _read_at_most(stream, min(limit, MAX_FILE_BYTES) + 1, about=size_bytes)
    check_size(data, name)
    if len(data) > limit:
        raise SourceError(RATIO_FAULT, path=name)
    return data


def check_size(data: bytes, name: str) -> None:
    """Raise SourceError for a document that is too large."""
    if len(data) > MAX_FILE_BYTES:
        raise SourceError(
            f"has more than {MAX_FILE_BYTES:,} bytes, the limit for one document; split it, or pass it to standard "
            "input, where each line is a document",
            path=name,
        )


def _read_at_most(stream: IO[bytes] | gzip.GzipFile, limit: int, *, about: int) -> bytes:
    """Return the content of a stream, at most `limit` bytes; `about` is its probable size.

    The size of a read doubles, because a buffered stream allocates the bytes that are asked for.
    """
    parts, size = [], 0
    while size < limit and (part := stream.read(min(limit - size, max(about + 1 - size, size, 1 << 16)))):
        parts.append(part)
        size += len(part)
    return b"".join(parts)
