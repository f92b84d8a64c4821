"""Contents of stored files: written and read in chunks."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

from embedway.errors import StateError
from embedway.server.batches.base import CHUNK_BYTES, Chunk, Segment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from embedway.server.batches.base import BatchStore, Content

#: Name of the only segment of an upload.
UPLOAD = "0"
#: Chunks that are stored in one call.
_AT_ONCE = 8
#: Chunks of input files that a process keeps.
_CACHED = 16


class ContentWriter:
    """Writes a segment of a file as its bytes arrive. In memory are at most some chunks."""

    def __init__(self, store: BatchStore, content: Content, name: str, most: int | None) -> None:
        self._store = store
        self._content = content
        self._name = name
        self._most = most
        self._buffer = bytearray()
        self._written = 0

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._written * CHUNK_BYTES + len(self._buffer)

    async def write(self, data: bytes) -> bool:
        """Append bytes; False if the tenant's files would exceed their maximum."""
        self._buffer += data
        return len(self._buffer) < CHUNK_BYTES or await self._store_chunks(whole=True)

    async def finish(self, position: int) -> Segment | None:
        """Store the rest and return the segment; None if the tenant's files would exceed their maximum."""
        size = self.size
        if not await self._store_chunks(whole=False):
            return None
        return Segment(self._content.file_id, position, self._name, size)

    async def _store_chunks(self, *, whole: bool) -> bool:
        while len(self._buffer) >= (CHUNK_BYTES if whole else 1):
            chunks: list[Chunk] = []
            end = 0
            while len(chunks) < _AT_ONCE and len(self._buffer) - end >= (CHUNK_BYTES if whole else 1):
                data = bytes(self._buffer[end : end + CHUNK_BYTES])
                chunks.append(Chunk(self._name, self._written + len(chunks), data))
                end += len(data)
            if not await self._store.put_chunks(self._content, chunks, self._most):
                return False
            self._written += sum(len(one.data) == CHUNK_BYTES for one in chunks)
            del self._buffer[:end]
        return True


async def read_content(store: BatchStore, segments: Sequence[Segment]) -> AsyncIterator[bytes]:
    """Yield the bytes of segments. Raises StateError for chunks of another size."""
    for segment in segments:
        left = segment.size
        for number in range(segment.chunks):
            data = await store.get_chunk(segment.file_id, segment.name, number)
            _check_chunk(data, min(left, CHUNK_BYTES), segment.file_id)
            left -= len(data)
            yield data


def _check_chunk(data: bytes, size: int, file_id: str) -> None:
    """Raise StateError unless a chunk has a size."""
    if len(data) != size:
        raise StateError("a chunk has another size than it was stored with; upload the file again", file=file_id)


class InputReader:
    """Reads parts of uploads. Parts of one chunk follow each other, so the latest chunks are kept."""

    def __init__(self, store: BatchStore) -> None:
        self._store = store
        self._chunks: collections.OrderedDict[tuple[str, int], bytes] = collections.OrderedDict()

    async def read(self, file_id: str, file_size: int, offset: int, size: int) -> bytes:
        """Return up to `size` bytes of an upload from an offset. Raises StateError."""
        end = min(offset + size, file_size)
        parts = []
        for number in range(offset // CHUNK_BYTES, -(-end // CHUNK_BYTES)):
            start = number * CHUNK_BYTES
            chunk = await self._chunk(file_id, number, min(CHUNK_BYTES, file_size - start))
            parts.append(chunk[max(offset - start, 0) : end - start])
        return b"".join(parts)

    async def _chunk(self, file_id: str, number: int, size: int) -> bytes:
        key = (file_id, number)
        found = self._chunks.pop(key, None)
        if found is None:
            found = await self._store.get_chunk(file_id, UPLOAD, number)
            _check_chunk(found, size, file_id)
        self._chunks[key] = found
        if len(self._chunks) > _CACHED:
            self._chunks.popitem(last=False)
        return found
