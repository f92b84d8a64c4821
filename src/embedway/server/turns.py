"""Turns of calls in the fair queue, and the calls of one API key."""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self

from embedway.errors import DeadlineError
from embedway.server.caller import HIGHEST_PRIORITY

if TYPE_CHECKING:
    from types import TracebackType

#: Seconds by which a call's turn within its key comes later: for documents, and for each priority below the highest.
_DOCUMENT_SLACK_S, _STEP_S = 5.0, 0.5
#: Levels of urgency within a key: ten priorities of documents, then of queries.
_LEVELS = 2 * (HIGHEST_PRIORITY + 1)


class Slots(Protocol):
    """The part of a queue that its turns use."""

    def enter(self, turn: Turn) -> bool:
        """Start a call, or make it wait. Return whether it waits. Raises OverloadedError."""

    def leave(self, turn: Turn) -> None:
        """End a call: one that runs frees its slot, one that waits leaves the queue."""


@dataclass(slots=True, eq=False)
class KeyCalls:
    """Calls of one API key."""

    name: str
    weight: float = 1.0
    #: Virtual time at which its next call starts.
    time: float = 0.0
    running: int = 0
    waiting: int = 0
    #: Cost of the waiting calls by level of urgency.
    _costs: list[float] = field(default_factory=lambda: [0.0] * _LEVELS)
    #: Waiting calls by urgency; calls that have left are skipped.
    _calls: list[tuple[float, int, Turn]] = field(default_factory=list)

    def add(self, turn: Turn, number: int) -> None:
        """Add a waiting call. `number` orders calls of equal urgency."""
        query, priority = divmod(turn.level, _LEVELS // 2)
        due = turn.arrived + (HIGHEST_PRIORITY - priority) * _STEP_S + (0.0 if query else _DOCUMENT_SLACK_S)
        heapq.heappush(self._calls, (due, number, turn))
        self.waiting += 1
        self._costs[turn.level] += turn.cost

    def remove(self, turn: Turn) -> None:
        """Take a call out of the numbers. Its place in the heap is skipped later."""
        self.waiting -= 1
        if not self.waiting:
            self._costs = [0.0] * _LEVELS  # without the rounding errors of many sums
            self._calls.clear()
            return
        self._costs[turn.level] -= turn.cost
        if len(self._calls) > 2 * self.waiting + 8:
            self._calls = [call for call in self._calls if call[2].is_waiting]
            heapq.heapify(self._calls)

    def pop(self) -> Turn:
        """Return the most urgent waiting call, and take it out of the heap."""
        while True:
            turn = heapq.heappop(self._calls)[2]
            if turn.is_waiting:
                return turn

    def cost_before(self, level: int = 0) -> float:
        """Return the cost of the waiting calls of a level of urgency and those above it."""
        return sum(self._costs[level:])

    def oldest(self) -> float | None:
        """Return the time of arrival of the oldest waiting call; None without one. Takes time for each call."""
        return min((turn.arrived for _, _, turn in self._calls if turn.is_waiting), default=None)


def level_of(priority: int, *, query: bool) -> int:
    """Return the level of urgency of a call within its key."""
    return min(max(priority, 0), HIGHEST_PRIORITY) + (_LEVELS // 2 if query else 0)


class Turn:
    """Turn of one call. Entering waits for a slot; leaving frees it."""

    __slots__ = (
        "_future",
        "_queue",
        "arrived",
        "cost",
        "deadline_s",
        "is_waiting",
        "key",
        "key_name",
        "level",
        "weight",
    )

    def __init__(
        self, queue: Slots, key_name: str, *, cost: float, weight: float, level: int, deadline_s: float | None
    ) -> None:
        self._queue = queue
        self._future: asyncio.Future[None] | None = None
        self.key_name = key_name
        self.cost = cost
        self.weight = weight
        self.level = level
        self.deadline_s = deadline_s
        self.key: KeyCalls | None = None
        self.is_waiting = False
        self.arrived = 0.0

    async def __aenter__(self) -> Self:
        if self._queue.enter(self):
            await self._admission()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.leave(self)

    def admit(self) -> None:
        """Let a waiting call begin."""
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def _admission(self) -> None:
        loop = asyncio.get_running_loop()
        self._future = loop.create_future()
        timer = None if self.deadline_s is None else loop.call_later(self.deadline_s, self._expire)
        try:
            await self._future
        except BaseException:
            # Also if the slot was given at the same moment: it goes to the next call.
            self._queue.leave(self)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _expire(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_exception(
                DeadlineError(
                    f"the turn of this call did not come within its deadline of {self.deadline_s:g} s", attempts=0
                )
            )
