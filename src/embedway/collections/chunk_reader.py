"""Sources to batches of consecutive chunks; a job embeds each batch with one call."""

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

#: Texts of one batch, in characters: what is read ahead stays small, however long the chunks are.
MAX_BATCH_CHARACTERS = 4 << 20
#: A job begins with a small batch, so that the model has work at once, and doubles it: in large batches texts of like
#: length meet, and a model that is never waited for loses nothing in between.
FIRST_BATCH_CHUNKS = 256
MAX_BATCH_CHUNKS = 2048


def batch_sizes() -> Iterator[int]:
    """Chunks of each batch at most, from the first one on.

    By their place alone and no clock, so that a plan knows which texts a run will send together.
    """
    size = FIRST_BATCH_CHUNKS
    while True:
        yield size
        size = min(size * 2, MAX_BATCH_CHUNKS)


@dataclass(frozen=True, slots=True)
class ChunkBatch:
    """Chunks, and the progress of the readers when the last of them was cut."""

    chunks: tuple[Chunk, ...]
    documents: int
    bytes_read: int
    bytes_total: int | None


class ChunkReader:
    """Reads and cuts sources, a batch at a time and only when asked.

    Lives in one thread, save for `stop`.
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

    def next_batch(self, max_chunks: int) -> ChunkBatch | None:
        """The next chunks, `max_chunks` at most; None at the end. Raises the errors of the readers."""
        chunks: list[Chunk] = []
        characters = 0
        for chunk in self._chunks:
            chunks.append(chunk)
            characters += len(chunk.text)
            if len(chunks) >= max_chunks or characters >= MAX_BATCH_CHARACTERS:
                break
        if not chunks:
            return None
        return ChunkBatch(tuple(chunks), self._document_count, self._counter.done, self._counter.total)

    def stop(self) -> None:
        """Let the batch that is being cut be the last. For any thread."""
        self._stopped = True

    def close(self) -> None:
        """Close the files that are open."""
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
