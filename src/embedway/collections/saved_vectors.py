"""Vectors that are saved in a journal while texts are computed, so that a stopped or failed command keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.pipeline.ready_texts import ready_texts_to
from embedway.space import comparable
from embedway.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence
    from typing import TypeVar

    from embedway.collections.journal import Journal
    from embedway.space import Space
    from embedway.types import Vectors

    Result = TypeVar("Result")

#: Number of vectors above which a journal is emptied when all of their rows are written.
_MAX_WRITTEN = 8192


class SavedVectors:
    """Journal whose blocking calls run in a thread of its own: a store that writes does not delay them.

    Vectors are saved as soon as a request is answered or a batch of the model is computed.
    """

    def __init__(self, journal: Journal, space: Space) -> None:
        self._journal = journal
        self._space = space
        self._worker = Worker("embedway-journal")
        #: Hashes of the texts that were found.
        self._found: set[int] = set()
        self._is_closed = False

    @property
    def count(self) -> int:
        """Number of vectors in the journal."""
        return self._journal.count

    async def open(self) -> None:
        """Read the journal. Raises StateError."""
        await self._worker.call(self._journal.read)

    def find(self, texts: Sequence[str]) -> dict[int, Vectors]:
        """Return the vectors of texts that an interrupted command has saved, by position."""
        found = self._journal.find(texts)
        self._found.update(hash(texts[row]) for row in found)
        return found

    async def compute(
        self,
        texts: Sequence[str],
        work: Awaitable[Result],
        vectors_of: Callable[[Result], tuple[Vectors, Collection[int]]],
    ) -> Result:
        """Await a call of the embedder for these texts, and return its result. Its vectors are saved.

        Each text is saved as soon as it is computed. Vectors that depend on their batch, and those from a cache, are
        known at the end: `vectors_of` returns the vectors of a result, float32 (n, d), and the positions that failed.
        """
        saved: set[str] = set()

        def save(ready: Sequence[str], vectors: Vectors, space: Space) -> None:
            if comparable(space, self._space):
                saved.update(ready)
                self.add(ready, vectors)

        with ready_texts_to(save):
            result = await work
        vectors, failed = vectors_of(result)
        rest = [row for row, text in enumerate(texts) if row not in failed and text not in saved]
        if rest:
            self.add([texts[row] for row in rest], vectors[rest])
        return result

    def add(self, texts: Sequence[str], vectors: Vectors) -> None:
        """Save vectors, float32 (n, d). Does not wait."""
        self._worker.call(self._journal.add, texts, vectors)

    @property
    def is_large(self) -> bool:
        """Whether the journal should be emptied when all rows are written. Those that were not found yet stay."""
        return self.count >= _MAX_WRITTEN and len(self._found) >= self._journal.found

    async def clear(self) -> None:
        """Empty the journal, because all rows are written."""
        await self._worker.call(self._journal.clear)

    async def close(self, *, remove: bool = False) -> None:
        """Wait until all vectors are saved; close the journal, or remove it. May be called again."""
        if self._is_closed:
            return
        self._is_closed = True
        ended = self._worker.call(self._journal.remove if remove else self._journal.close)
        # Before the wait, so that the thread ends also if the wait is cancelled.
        self._worker.close()
        await ended
