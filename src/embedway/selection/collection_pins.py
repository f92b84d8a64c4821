"""The pins of collections, as a call uses them: it claims one, checks its vectors against it, and holds it to write."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedway.errors import LedgerError, SpaceMismatchError, UsageError
from embedway.ledger.opening import open_pins
from embedway.ledger.pins import new_pin
from embedway.space import comparable, explained

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from embedway.config import Config
    from embedway.ledger.pins import Pin, Pins
    from embedway.selection.call_options import CallOptions
    from embedway.selection.selector import ModelSelector
    from embedway.types import InputType, Space

#: The lease of a claim: a collection whose first writer died is free again after it.
CLAIM_S = 60.0

_log = logging.getLogger("embedway.pins")


@dataclass(slots=True)
class CollectionWrite:
    """A write to a collection that is under way. The writer sets `has_vectors` once there are vectors."""

    has_vectors: bool = False


class CollectionPins:
    """Keeps each collection to the model and space of its first successful write."""

    def __init__(
        self, config: Config, selector: ModelSelector, *, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    ) -> None:
        self._config = config
        self._selector = selector
        self._sleep = sleep
        self._store: Pins | None = None
        #: Collections whose pins lack facts, and which the log has named.
        self._logged: set[str] = set()

    @property
    def store(self) -> Pins:
        """The store of the pins; opened at its first use."""
        if self._store is None:
            self._store = open_pins(self._config)
        return self._store

    async def check_privacy(self, pin: Pin, options: CallOptions, *, named: bool = False) -> None:
        """Raise UsageError where texts are to stay on this machine, and the model of their collection lets them leave.

        With `named`, the call names its model, and nothing is checked.
        """
        if not named and self._selector.criteria(options.criteria).require_local:
            reason = await self._selector.leaves_machine(pin.model)
            if reason:
                raise UsageError(
                    f"collection {pin.collection!r} has vectors of {pin.model}, and {reason}; "
                    "require_local forbids that"
                )

    def check_space(self, pin: Pin, space: Space, input_type: InputType) -> None:
        """Raise SpaceMismatchError unless vectors of a space may be compared with those of a pinned collection.

        Facts that an older version did not write into the pin are accepted, and logged once.
        """
        comparison = comparable(space, pin.space)
        if not comparison:
            raise space_mismatch(pin, space, input_type)
        if comparison.unknown and pin.collection not in self._logged:
            self._logged.add(pin.collection)
            _log.warning(
                "the pin of collection %r was written by an older version and does not name the %s of its vectors; "
                "they are taken for those of %s. `embedway budget pins --prove COLLECTION --by DEST` proves it",
                pin.collection,
                " and ".join(comparison.unknown),
                space.id,
            )

    async def claim(self, collection: str, model: str, space: Space) -> tuple[Pin, bool]:
        """Claim a collection that has no pin.

        Returns the pin that holds, and whether it is this call's own, to be confirmed or withdrawn by it.
        """
        own = new_pin(collection, model, space, uuid.uuid4().hex)
        pin = await self.store.claim(own, CLAIM_S)
        return pin, pin.claim == own.claim

    @contextlib.asynccontextmanager
    async def hold(self, pin: Pin | None, *, own: bool) -> AsyncIterator[CollectionWrite]:
        """Hold a pin while vectors are made for its collection.

        The pin is confirmed if there are any; else the claim is withdrawn if it is the call's `own`. `pin` is None
        where none is to be held, as for queries. Raises SpaceMismatchError where a write of another space was confirmed
        first: the claim may be withdrawn, or run out, while a write that joined it goes on.
        """
        write = CollectionWrite()
        if pin is None or not pin.claim:
            yield write
            return
        renewal = asyncio.create_task(self._renew(pin))
        try:
            yield write
        finally:
            renewal.cancel()
            if own and not write.has_vectors:
                await asyncio.shield(self._withdraw(pin))
        if write.has_vectors:
            confirmed = await self.store.confirm(pin)
            if not comparable(pin.space, confirmed.space):
                raise space_mismatch(confirmed, pin.space, "document")

    async def _withdraw(self, pin: Pin) -> None:
        try:
            await self.store.withdraw(pin)
        except LedgerError as error:
            # The caller gets the error of its write; the claim ends with its lease.
            _log.warning("the claim on a collection could not be withdrawn: %s", error)

    async def _renew(self, pin: Pin) -> None:
        while True:
            await self._sleep(CLAIM_S / 3)
            try:
                await self.store.renew(pin, CLAIM_S)
            except LedgerError as error:
                _log.warning("the claim on a collection could not be renewed: %s", error)

    async def aclose(self) -> None:
        """Close the store."""
        if self._store is not None:
            await self._store.aclose()


def space_mismatch(pin: Pin, space: Space, input_type: InputType) -> SpaceMismatchError:
    """The error for vectors that do not belong into a collection."""
    return SpaceMismatchError(
        collection=f"collection {pin.collection!r}",
        claimed=bool(pin.claim),
        collection_space=pin.space.id,
        asked_space=explained(space, comparable(space, pin.space), pin.space),
        asked="the query" if input_type == "query" else "these vectors",
    )
