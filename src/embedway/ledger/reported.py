"""Failures of the ledger and the pins, reported to hooks."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Literal, TypeVar

from typing_extensions import override

from embedway.errors import EmbedwayError
from embedway.ledger.pins import Pins
from embedway.telemetry.operations import StoreErrorDetails

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from embedway.ledger.pins import Pin
    from embedway.space import Space
    from embedway.telemetry.hooks import Hooks

R = TypeVar("R")


@contextlib.contextmanager
def reported(hooks: Hooks, store: Literal["ledger", "pins"], action: str) -> Iterator[None]:
    """Report the error of an action on a store, and raise it again."""
    try:
        yield
    except EmbedwayError as error:
        hooks.event(StoreErrorDetails, store, action, type(error).__name__)
        raise


class ReportedPins(Pins):
    """Wrapper of a store of pins that reports each failure."""

    def __init__(self, store: Pins, hooks: Hooks) -> None:
        self._store = store
        self._hooks = hooks

    async def _report(self, action: str, work: Awaitable[R]) -> R:
        with reported(self._hooks, "pins", action):
            return await work

    @override
    async def get(self, collection: str) -> Pin | None:
        return await self._report("get", self._store.get(collection))

    @override
    async def claim(self, pin: Pin, lease_s: float) -> Pin:
        return await self._report("claim", self._store.claim(pin, lease_s))

    @override
    async def renew(self, pin: Pin, lease_s: float) -> None:
        await self._report("renew", self._store.renew(pin, lease_s))

    @override
    async def confirm(self, pin: Pin) -> Pin:
        return await self._report("confirm", self._store.confirm(pin))

    @override
    async def withdraw(self, pin: Pin) -> None:
        await self._report("withdraw", self._store.withdraw(pin))

    @override
    async def learn(self, pin: Pin, known: Space) -> bool:
        return await self._report("learn", self._store.learn(pin, known))

    @override
    async def remove(self, collection: str) -> bool:
        return await self._report("remove", self._store.remove(collection))

    @override
    async def all(self) -> list[Pin]:
        return await self._report("all", self._store.all())

    @override
    async def aclose(self) -> None:
        await self._store.aclose()
