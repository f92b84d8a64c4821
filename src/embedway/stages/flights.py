"""Single flight: what several callers want at once is computed by the first of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

R = TypeVar("R")


class Flights(Generic[R]):
    """Who computes what. Used from one event loop.

    A caller that `claim`s keys must `land` or `abandon` each that became its own, whatever happens.
    """

    def __init__(self) -> None:
        #: How many results have landed. Where it has grown since a caller looked something up, what was missing then
        #: may be there now.
        self.landed = 0
        self._going: dict[bytes, asyncio.Future[R | None]] = {}

    def claim(self, keys: Sequence[bytes]) -> tuple[list[int], list[tuple[int, asyncio.Future[R | None]]]]:
        """Positions of the keys that are the caller's to compute, and what others are computing already.

        Such a future gives the result, or None when whoever computed it failed or was cancelled: claim again.
        """
        own: list[int] = []
        others: list[tuple[int, asyncio.Future[R | None]]] = []
        loop = asyncio.get_running_loop()
        for position, key in enumerate(keys):
            going = self._going.get(key)
            if going is None:
                self._going[key] = loop.create_future()
                own.append(position)
            else:
                others.append((position, going))
        return own, others

    def land(self, key: bytes, result: R) -> None:
        """Give a result to all who wait for it."""
        self.landed += 1
        self._end(key, result)

    def abandon(self, key: bytes) -> None:
        """Pass the work on to those who wait; nothing for what has landed."""
        self._end(key, None)

    def _end(self, key: bytes, result: R | None) -> None:
        going = self._going.pop(key, None)
        if going is not None and not going.done():
            going.set_result(result)
