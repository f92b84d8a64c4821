"""Read the changed documents of sources as batches of consecutive chunks; a job embeds each batch with one call."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING

from embedway.collections.cutting import cut_document
from embedway.collections.documents import DocumentKey
from embedway.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from embedway.collections.changes import Changes
    from embedway.collections.chunking import Chunker
    from embedway.collections.chunks import Chunk
    from embedway.collections.documents import ByteCounter, RawDocument
    from embedway.collections.fault_list import FaultList

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
    """Chunks, and the progress of the readers when the last chunk was created.

    `replaced` are documents with chunks in this batch whose rows in the collection are outdated; a document is in the
    `replaced` of each of its batches.
    """

    chunks: tuple[Chunk, ...]
    documents: int
    bytes_read: int
    bytes_total: int | None
    replaced: frozenset[DocumentKey] = field(default=frozenset())


class ChunkReader:
    """Lazy reader that splits changed documents into batches of chunks. Unchanged ones are not even parsed.

    `documents` is an open iterator, whose errors go to `faults` too. For use in one thread, except for
    `stop`.
    """

    def __init__(
        self,
        documents: Generator[RawDocument, None, None],
        chunker: Chunker | None,
        changes: Changes,
        *,
        faults: FaultList,
        counter: ByteCounter,
    ) -> None:
        self._documents = documents
        self._changes = changes
        self._faults = faults
        self._chunker = chunker
        self._counter = counter
        self._document_count = 0
        self._replaced: set[DocumentKey] = set()
        self._chunks = self._cut()
        self._stopped = Event()
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
        here = {key_of(chunk) for chunk in chunks}
        replaced = frozenset(here & self._replaced)
        self._replaced &= {key_of(chunks[-1])}
        return ChunkBatch(tuple(chunks), self._document_count, self._counter.done, self._counter.total, replaced)

    def stop(self) -> None:
        """End with the current batch. Thread-safe."""
        self._stopped.set()

    def close(self) -> None:
        """Close the open files."""
        self._chunks.close()
        self._documents.close()

    def _note(self, raw: RawDocument, fault: SourceError) -> None:
        if self._stopped.is_set():
            raise fault
        self._faults.add(fault)
        self._changes.keep(raw.key)

    def _cut(self) -> Generator[Chunk, None, None]:
        for raw in self._documents:
            for chunk in self._changed(raw):
                if self._stopped.is_set():
                    return
                yield chunk

    def _changed(self, raw: RawDocument) -> list[Chunk]:
        """Return the chunks of a document whose rows are missing or outdated."""
        changes = self._changes
        fingerprint = changes.fingerprint(raw)
        change = changes.decide(raw, fingerprint)
        if change == "unchanged":
            changes.counts[change] += 1
            return []
        try:
            document = raw.parse()
        except SourceError as fault:
            self._note(raw, fault)
            return []
        if self._faults.is_stopping():
            return []
        chunks = list(cut_document(document, self._chunker, fingerprint)) if document is not None else []
        if not chunks:
            changes.forget(raw.key)
            return []
        self._document_count += 1
        changes.counts[change] += 1
        if change == "updated":
            self._replaced.add(raw.key)
        elif change == "resumed":
            present = changes.rows_of(raw.key)
            chunks = [chunk for chunk in chunks if chunk.id not in present]
        return chunks


def key_of(chunk: Chunk) -> DocumentKey:
    """Return the key of a chunk's document."""
    return DocumentKey(chunk.source, chunk.document_id)
