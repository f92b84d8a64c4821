"""Progress of the batches of the inference process, for its heartbeats."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway.local.encoder import Encoder
    from embedway.types import Batch, TokenizedTexts, Vectors

#: Padded tokens that a batch may have in the time `hang_s`; more tokens have more time.
HANG_TOKENS = 2048


class Progress:
    """Running batches and their start. Used from one event loop."""

    def __init__(self, hang_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._hang_s = hang_s
        self._clock = clock
        self._running: dict[object, tuple[float, int]] = {}
        #: Batches that ended.
        self.ended = 0

    @property
    def running(self) -> int:
        """Number of running batches."""
        return len(self._running)

    def is_hanging(self) -> bool:
        """Return whether a batch runs for longer than all running batches may take together."""
        if not self._running:
            return False
        began = min(began for began, _ in self._running.values())
        tokens = sum(tokens for _, tokens in self._running.values())
        return self._clock() - began > self._hang_s * max(1.0, tokens / HANG_TOKENS)

    def begin(self, tokens: int) -> object:
        """Count a batch that starts, and return its token for `end`."""
        batch = object()
        self._running[batch] = self._clock(), tokens
        return batch

    def end(self, batch: object) -> None:
        """Count a batch that ended."""
        del self._running[batch]
        self.ended += 1


class WatchedModel:
    """Encoder whose batches are counted; it has the interface of the encoder to a batch backend."""

    def __init__(self, encoder: Encoder, progress: Progress) -> None:
        self.name = encoder.name
        self.model = encoder.model
        self.streams = encoder.streams
        self.token_budget = encoder.token_budget
        self._encoder = encoder
        self._progress = progress

    async def run(self, tokenized: TokenizedTexts, batch: Batch) -> Vectors:
        """Compute one batch."""
        counted = self._progress.begin(batch.padded_tokens)
        try:
            return await self._encoder.run(tokenized, batch)
        finally:
            self._progress.end(counted)
