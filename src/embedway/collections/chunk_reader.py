"""Read sources as batches of consecutive chunks; a job embeds each batch with one call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedway.collections.chunking import whole_document
from embedway.collections.readers import read_files

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from typing import IO

    from embedway.collections.chunking import Chunker
    from embedway.collections.documents import ByteCounter, OnBadRow, ReadOptions
    from embedway.collections.readers import SourceFile
    from embedway.collections.stores.base import Chunk
    from embedway.errors import SourceError

#: Maximum characters of a batch, so that read-ahead stays small even with long chunks or long values to keep.
MAX_BATCH_CHARACTERS = 4 << 20
#: Chunks of the first batch and of the largest ones. A small first batch gives the model work at once. Later batches
#: double: large ones group texts of similar length, and a model that never waits loses no time between them.
FIRST_BATCH_CHUNKS = 256
MAX_BATCH_CHUNKS = 2048


def batch_sizes() -> Iterator[int]:
    """Iterate over the maximum number of chunks of each batch.

    It depends only on the batch's position, not on time, so that a plan knows which texts a run sends together.
    """
    size = FIRST_BATCH_CHUNKS
    while True:
        yield size
        size = min(size * 2, MAX_BATCH_CHUNKS)


def chunk_characters(chunk: Chunk) -> int:
    """Return the characters of a chunk and of everything that is stored with it."""
    kept = sum(len(value) if isinstance(value, str) else len(str(value)) for value in chunk.metadata.values() if value)
    texts = (chunk.context, chunk.text, chunk.id, chunk.document_id, chunk.source, chunk.title or "")
    return sum(map(len, texts)) + kept


@dataclass(frozen=True, slots=True)
class ChunkBatch:
    """Chunks, and the progress of the readers when the last chunk was created."""

    chunks: tuple[Chunk, ...]
    documents: int
    bytes_read: int
    bytes_total: int | None


class ChunkReader:
    """Lazy reader that splits sources into batches of chunks.

    For use in one thread, except for `stop`.
    """

    def __init__(
        self,
        files: Sequence[SourceFile],
        options: ReadOptions,
        chunker: Chunker | None,
        *,
        on_bad_row: OnBadRow,
        counter: ByteCounter,
        standard_input: IO[bytes] | None = None,
    ) -> None:
        self._documents = read_files(
            files, options, on_bad_row=self._note, counter=counter, standard_input=standard_input
        )
        self._on_bad_row = on_bad_row
        self._chunker = chunker
        self._counter = counter
        self._document_count = 0
        self._chunks = self._cut()
        self._stopped = False
        self._count = 0
        #: Number of all chunks; None until all are read.
        self.total: int | None = None

    def next_batch(self, max_chunks: int) -> ChunkBatch | None:
        """Return the next chunks, at most `max_chunks`; None at the end. Raises the errors of the readers."""
        chunks: list[Chunk] = []
        characters = 0
        for chunk in self._chunks:
            chunks.append(chunk)
            characters += chunk_characters(chunk)
            if len(chunks) >= max_chunks or characters >= MAX_BATCH_CHARACTERS:
                break
        else:
            self.total = self._count + len(chunks)
        self._count += len(chunks)
        if not chunks:
            return None
        return ChunkBatch(tuple(chunks), self._document_count, self._counter.done, self._counter.total)

    def stop(self) -> None:
        """End with the current batch. Thread-safe."""
        self._stopped = True

    def close(self) -> None:
        """Close the open files."""
        self._chunks.close()
        self._documents.close()

    def _note(self, fault: SourceError) -> None:
        if self._stopped:
            raise fault
        self._on_bad_row(fault)

    def _cut(self) -> Generator[Chunk, None, None]:
        for document in self._documents:
            self._document_count += 1
            cut = self._chunker.chunks(document) if self._chunker else (whole_document(document),)
            for chunk in cut:
                if self._stopped:
                    return
                yield chunk
