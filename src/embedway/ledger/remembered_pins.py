"""Detection of a pin that is lost or replaced while a process uses it. Vectors of another space are then refused."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from typing_extensions import override

from embedway.errors import LedgerError
from embedway.ledger.pins import Pins
from embedway.ledger.shared_states import SharedState, SharedStates
from embedway.space import comparable
from embedway.text import shown_name

if TYPE_CHECKING:
    from embedway.ledger.pins import Pin
    from embedway.space import Space

#: Maximum pins that are remembered; the most recently used ones.
_MOST_PINS = 10_000


@dataclass(slots=True)
class _ConfirmedSpaces(SharedState):
    """Spaces of the confirmed pins that this process has read at a place, by collection."""

    spaces: OrderedDict[str, Space] = field(default_factory=OrderedDict)


#: A forked process keeps what its parent has read.
_CONFIRMED = SharedStates(_ConfirmedSpaces)


class RememberedPins(Pins):
    """Wrapper of a store of pins. It fails for a collection whose pin this process has read and that was lost since.

    The pins may have been removed, or replaced by an older copy; or another process removed the pin. A removal by this
    process is no loss: all wrappers of a process share what they have read at a place.
    """

    def __init__(self, store: Pins, place: str) -> None:
        self._store = store
        self._place = place
        self._shared = _CONFIRMED.join(place)
        self._seen = self._shared.spaces

    @override
    async def get(self, collection: str) -> Pin | None:
        # Read first: another call may confirm the pin meanwhile.
        seen = self._seen.get(collection)
        pin = await self._store.get(collection)
        if seen is not None and (pin is None or pin.claim or not comparable(pin.space, seen)):
            raise self._lost(collection, seen, pin)
        return pin if pin is None else self._remember(pin)

    @override
    async def claim(self, pin: Pin, lease_s: float) -> Pin:
        seen = self._seen.get(pin.collection)
        if seen is not None and not comparable(pin.space, seen):
            # Another call confirmed its pin after this one found none; without that pin, it was lost.
            found = await self.get(pin.collection)
            if found is None:
                raise self._lost(pin.collection, seen, None)
            return found
        return self._remember(await self._store.claim(pin, lease_s))

    @override
    async def renew(self, pin: Pin, lease_s: float) -> None:
        await self._store.renew(pin, lease_s)

    @override
    async def confirm(self, pin: Pin) -> Pin:
        return self._remember(await self._store.confirm(pin))

    @override
    async def withdraw(self, pin: Pin) -> None:
        await self._store.withdraw(pin)

    @override
    async def learn(self, pin: Pin, known: Space) -> bool:
        return await self._store.learn(pin, known)

    @override
    async def remove(self, collection: str) -> bool:
        removed = await self._store.remove(collection)
        self._seen.pop(collection, None)
        return removed

    @override
    async def all(self) -> list[Pin]:
        return await self._store.all()

    @override
    async def aclose(self) -> None:
        await self._store.aclose()
        self._shared = _CONFIRMED.leave(self._place, self._shared)

    def _remember(self, pin: Pin) -> Pin:
        if not pin.claim:
            self._seen[pin.collection] = pin.space
            self._seen.move_to_end(pin.collection)
            if len(self._seen) > _MOST_PINS:
                self._seen.popitem(last=False)
        return pin

    def _lost(self, collection: str, seen: Space, pin: Pin | None) -> LedgerError:
        happened = "is gone" if pin is None else f"now names the space {pin.space.id}"
        return LedgerError(
            f"collection {shown_name(collection)} was pinned to the space {seen.id}, and its pin {happened}: the pins "
            "were removed or replaced, or another process removed this pin. Nothing is written in another space. "
            "Restore the pins (`embedway state restore`); or restart this process if the pin was removed on purpose "
            "(`embedway budget unpin`)"
        )
