"""Reservation of a request that is made together with the first amount that is sent.

Both are then one transaction. If nothing is sent within `ALONE_AFTER_S`, the reservation is made alone: a call that
waits for long holds its money, has nothing under way, and ends at once if a limit refuses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from embedway.errors import EmbedwayError

#: Maximum time for which a reservation waits for the first amount, in seconds.
ALONE_AFTER_S = 0.01


@dataclass(slots=True)
class Reservation:
    """Reservation that is not yet in the ledger; `needed` is in nano-dollars, None for an unknown price."""

    needed: int | None
    texts: int
    #: Note for the error of a refusal.
    note: str
    #: Context of the call, whose operation is the parent of the reservation's in hooks.
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    #: Why it was not made; None if it was not tried yet.
    error: EmbedwayError | None = None
    _timer: asyncio.TimerHandle | None = None
    _end_wait: Callable[[], None] | None = None

    def start_timer(self, make: Callable[[], object]) -> None:
        """Call `make` after `ALONE_AFTER_S`, unless the timer is stopped."""
        self._timer = asyncio.get_running_loop().call_later(ALONE_AFTER_S, make)

    def stop_timer(self) -> None:
        """Stop the timer, if there is one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def end_wait(self) -> None:
        """End what the call waits for, because the reservation cannot be made."""
        if self._end_wait is not None:
            self._end_wait()

    @contextlib.contextmanager
    def awaited(self, wait: asyncio.Timeout) -> Iterator[None]:
        """Let `end_wait` end this wait, inside the block."""
        self._end_wait = lambda: wait.reschedule(0.0)
        try:
            yield
        finally:
            self._end_wait = None
