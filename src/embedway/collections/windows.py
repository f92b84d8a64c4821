"""Windows: runs of consecutive chunks that are embedded with one call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedway.collections.chunking import whole_document
from embedway.collections.readers import read_files

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from typing import IO

    from embedway.collections.chunking import Chunker
    from embedway.collections.documents import BadRow, ByteMeter, ReadOptions
    from embedway.collections.readers import SourceFile
    from embedway.collections.stores.base import Chunk
    from embedway.errors import SourceError

#: Texts of one window, in characters: what is read ahead stays small, however long the chunks are.
WINDOW_CHARACTERS = 4 << 20
#: A job begins with a small window, so that the model has work at once, and doubles it: in large windows texts of like
#: length meet, and a model that is never waited for loses nothing in between.
FIRST_WINDOW_CHUNKS = 256
MAX_WINDOW_CHUNKS = 2048


def window_sizes() -> Iterator[int]:
    """Chunks of each window at most, from the first one on.

    By their place alone and no clock, so that a plan knows which texts a run will send together.
    """
    size = FIRST_WINDOW_CHUNKS
    while True:
        yield size
        size = min(size * 2, MAX_WINDOW_CHUNKS)


@dataclass(frozen=True, slots=True)
class Window:
    """Chunks, and how far the readers had come when the last of them was cut."""

    chunks: tuple[Chunk, ...]
    documents: int
    bytes_read: int
    bytes_total: int | None


class Windows:
    """Reads and cuts sources, a window at a time and only when asked.

    Lives in one thread, save for `stop`.
    """

    def __init__(
        self,
        files: Sequence[SourceFile],
        options: ReadOptions,
        chunker: Chunker | None,
        *,
        bad: BadRow,
        meter: ByteMeter,
        standard_input: IO[bytes] | None = None,
    ) -> None:
        self._documents = read_files(files, options, bad=self._note, meter=meter, standard_input=standard_input)
        self._bad = bad
        self._chunker = chunker
        self._meter = meter
        self._document_count = 0
        self._chunks = self._cut()
        self._stopped = False

    def next_window(self, max_chunks: int) -> Window | None:
        """The next chunks, at most so many; None at the end. Raises what the readers raise."""
        chunks: list[Chunk] = []
        characters = 0
        for chunk in self._chunks:
            chunks.append(chunk)
            characters += len(chunk.text)
            if len(chunks) >= max_chunks or characters >= WINDOW_CHARACTERS:
                break
        if not chunks:
            return None
        return Window(tuple(chunks), self._document_count, self._meter.done, self._meter.total)

    def stop(self) -> None:
        """Let the window that is being cut be the last. For any thread."""
        self._stopped = True

    def close(self) -> None:
        """Close the files that are open."""
        self._chunks.close()
        self._documents.close()

    def _note(self, fault: SourceError) -> None:
        if self._stopped:
            raise fault
        self._bad(fault)

    def _cut(self) -> Generator[Chunk, None, None]:
        for document in self._documents:
            self._document_count += 1
            cut = self._chunker.chunks(document) if self._chunker else (whole_document(document),)
            for chunk in cut:
                if self._stopped:
                    return
                yield chunk
