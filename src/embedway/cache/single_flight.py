"""Single flight: what several callers want at once is computed by the first of them."""

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
    """The outcome of a flight: a result, or an error that is the text's own, or neither.

    With neither, whoever computed it was cancelled, or what was computed `failed`: it is another's to compute.
    """

    result: R | None = None
    error: EmbedwayError | None = None
    failed: bool = False


#: A position among the keys that were claimed, and what will become of it.
Flight: TypeAlias = "tuple[int, asyncio.Future[FlightResult[R]]]"


class SingleFlight(Generic[R]):
    """Gives each key to one caller to compute; the others wait for its result. Used from one event loop.

    A caller that `claim`s keys must `resolve`, `fail` or `abandon` each that became its own, whatever happens.
    """

    def __init__(self) -> None:
        #: Grows with each result, and with each write of the cache. Where it has grown since a caller looked something
        #: up, what was missing then may be there now.
        self.resolved = 0
        self._going: dict[bytes, asyncio.Future[FlightResult[R]]] = {}

    def claim(self, keys: Sequence[bytes]) -> tuple[list[Flight[R]], list[Flight[R]]]:
        """Claim the keys that nobody computes; return (position, future) of these, and of those that others compute.

        Where one of the others gives no result and no error, claim again.
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
        """Give a result to all who wait for it."""
        self.resolved += 1
        self._end(key, FlightResult(result))

    def fail(self, key: bytes, error: EmbedwayError) -> None:
        """Give an error to all who wait: nobody could compute this."""
        self._end(key, FlightResult(error=error))

    def abandon(self, key: bytes, mine: asyncio.Future[FlightResult[R]], *, failed: bool = False) -> None:
        """End a flight without a result, so that a waiter claims the key again. Does nothing where it has ended."""
        if self._going.get(key) is mine:
            self._end(key, FlightResult(failed=failed))

    def _end(self, key: bytes, outcome: FlightResult[R]) -> None:
        going = self._going.pop(key, None)
        if going is not None and not going.done():
            going.set_result(outcome)
