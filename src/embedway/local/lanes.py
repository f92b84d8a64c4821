"""Lanes of an encoder, each a thread pool with a session: several streams, or all threads for one batch."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedway.local.backend import SessionOptions
    from embedway.local.runtime_choice import RuntimeChoice
    from embedway.types import Batch, TokenizedTexts

#: Maximum padded tokens of a query, and of queries of several callers.
QUERY_TOKENS, _QUERIES_TOKENS = 128, 512


class Lane:
    """Thread pool that computes with one session. Used from one event loop."""

    def __init__(self, options: SessionOptions, name: str, *, nice: int = 0) -> None:
        """Create the lane. Its threads, and those that they start, have a nice value higher by `nice`."""
        self.options = options
        self.threads = ThreadPoolExecutor(
            options.streams, thread_name_prefix=f"embedway-{name}", initializer=_lower_priority, initargs=(nice,)
        )
        #: Batches that run or wait for a thread.
        self.batches = 0
        #: Small request that occupies the lane; None while queries do.
        self.request: TokenizedTexts | None = None

    @contextmanager
    def occupied(self, request: TokenizedTexts | None) -> Iterator[None]:
        """Count a batch while it is computed; `request` is the small request that it belongs to."""
        self.batches += 1
        if request is not None:
            self.request = request
        try:
            yield
        finally:
            self.batches -= 1
            if not self.batches:
                self.request = None


def _lower_priority(nice: int) -> None:
    """Add to the nice value of the calling thread. On Linux it belongs to the thread, elsewhere to the process."""
    if nice and sys.platform == "linux":
        os.nice(nice)


class Lanes:
    """Lane of bulk work, and lane of queries and small requests. Both may use the same session."""

    def __init__(self, choice: RuntimeChoice, *, bulk_nice: int = 0) -> None:
        """Create both lanes. `bulk_nice` is the `nice` of the lane of bulk work if it has its own session."""
        self.bulk = Lane(choice.bulk, "bulk", nice=0 if choice.bulk == choice.single else bulk_nice)
        self.single = Lane(choice.single, "query")
        #: Maximum tokens of a small request: it is not divided among the streams, because it may have all threads.
        self.whole_tokens = choice.token_budget if choice.single.streams == 1 < choice.bulk.streams else 0

    def __iter__(self) -> Iterator[Lane]:
        """Iterate over both lanes."""
        return iter((self.bulk, self.single))

    def choose(self, tokenized: TokenizedTexts, batch: Batch) -> tuple[Lane, bool]:
        """Return the lane for a batch of a request, and whether the request is a small one that has all threads.

        A small request has all threads if nothing else is computed. A query has them too, while other work is computed
        on the streams; it waits for other queries, but for no small request while a stream is free. Queries of several
        callers have all threads if no stream is free.
        """
        bulk, single = self.bulk, self.single
        if len(tokenized.ids) == 1 and batch.padded_tokens <= QUERY_TOKENS:
            waits = single.request is not None and bulk.batches < bulk.options.streams
            return (bulk if waits else single), False
        if batch.query and batch.padded_tokens <= _QUERIES_TOKENS and bulk.batches >= bulk.options.streams:
            return single, False
        whole = len(batch.rows) == len(tokenized.ids) or tokenized.tokens <= self.whole_tokens
        idle = not (bulk.batches or single.batches)
        if self.whole_tokens and whole and not batch.shared and (idle or single.request is tokenized):
            return single, True
        return bulk, False
