"""Single flight: the first of several concurrent callers computes a key for all of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.errors import EmbedwayError

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class FlightResult(Generic[R]):
    """Outcome of a flight: a result, an error caused by the text itself, or neither.

    With neither, the computing caller was cancelled or the computation `failed`: another caller must compute the key.
    """

    result: R | None = None
    error: EmbedwayError | None = None
    failed: bool = False


#: Position among the claimed keys, and the future with its outcome.
Flight: TypeAlias = "tuple[int, asyncio.Future[FlightResult[R]]]"


class SingleFlight(Generic[R]):
    """Assigns each key to one caller to compute; the others wait for its result. Used from one event loop.

    A caller that `claim`s keys must `resolve`, `fail` or `abandon` each key assigned to it, whatever happens.
    """

    def __init__(self) -> None:
        #: Grows with each result and each write of the cache. If it has grown since a lookup, missing keys may be
        #: available now.
        self.resolved = 0
        self._going: dict[bytes, asyncio.Future[FlightResult[R]]] = {}

    def claim(self, keys: Sequence[bytes]) -> tuple[list[Flight[R]], list[Flight[R]]]:
        """Claim the unclaimed keys; return (position, future) of these, and of those that other callers compute.

        If one of the others ends without a result or an error, claim again.
        """
        own: list[Flight[R]] = []
        others: list[Flight[R]] = []
        loop = asyncio.get_running_loop()
        for position, key in enumerate(keys):
            going = self._going.get(key)
            if going is None:
                mine = self._going[key] = loop.create_future()
                own.append((position, mine))
            else:
                others.append((position, going))
        return own, others

    def resolve(self, key: bytes, result: R) -> None:
        """Pass a result to all callers that wait for it."""
        self.resolved += 1
        self._end(key, FlightResult(result))

    def fail(self, key: bytes, error: EmbedwayError) -> None:
        """Pass an error to all callers that wait; none of them could compute this key."""
        self._end(key, FlightResult(error=error))

    def abandon(self, key: bytes, mine: asyncio.Future[FlightResult[R]], *, failed: bool = False) -> None:
        """End a flight without a result, so that a waiting caller claims the key again. No effect if it has ended."""
        if self._going.get(key) is mine:
            self._end(key, FlightResult(failed=failed))

    def _end(self, key: bytes, outcome: FlightResult[R]) -> None:
        going = self._going.pop(key, None)
        if going is not None and not going.done():
            going.set_result(outcome)
