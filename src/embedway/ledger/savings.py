"""The costs that cache hits avoid: counted by the cache, and booked in the ledger many at once."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from embedway.errors import EmbedwayError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from embedway.ledger.base import Ledger, Purpose

_log = logging.getLogger("embedway.budget")

#: How often hits are booked in the ledger.
_INTERVAL_S = 60.0


class SavedCounts(Protocol):
    """A model's counts in the cache."""

    nanousd_saved: int


@dataclass(slots=True)
class _Pending:
    nanousd: int = 0
    texts: int = 0
    tokens: int = 0


class Savings:
    """Books what hits save, for `cache stats` by model and for the ledger by purpose and day."""

    def __init__(self, ledger: Ledger | None, sleep: Callable[[float], Awaitable[object]]) -> None:
        self._ledger = ledger
        self._sleep = sleep
        self._pending: dict[Purpose, _Pending] = {}
        self._flushing: asyncio.Task[None] | None = None

    def book(self, purpose: Purpose, counts: SavedCounts, nanousd: int, *, texts: int, tokens: int) -> None:
        """Book hits of a model: in the cache's counts of it now, in the ledger within a minute."""
        counts.nanousd_saved += nanousd
        if self._ledger is None or not nanousd:
            return
        pending = self._pending.setdefault(purpose, _Pending())
        pending.nanousd += nanousd
        pending.texts += texts
        pending.tokens += tokens
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush_often(self._ledger))

    async def flush(self) -> None:
        """Book in the ledger what is pending. Raises LedgerError."""
        if self._ledger is not None:
            await self._flush(self._ledger)

    def stop(self) -> None:
        """Book nothing more by itself; `flush` still does."""
        if self._flushing is not None:
            self._flushing.cancel()

    async def _flush(self, ledger: Ledger) -> None:
        pending, self._pending = self._pending, {}
        for purpose, one in pending.items():
            await ledger.book_saved(purpose, one.nanousd, texts=one.texts, tokens=one.tokens)

    async def _flush_often(self, ledger: Ledger) -> None:
        while True:
            await self._sleep(_INTERVAL_S)
            try:
                await self._flush(ledger)
            except EmbedwayError as error:
                _log.warning("savings could not be booked: %s", error)
