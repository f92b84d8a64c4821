"""Pins of collections in a call: claim a pin, check vectors against it, and hold it during a write."""

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
from embedway.ledger.reported import ReportedPins
from embedway.space import comparable, explained
from embedway.telemetry.hooks import Hooks
from embedway.text import shown_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from embedway.config import Config
    from embedway.ledger.pins import Pin, Pins
    from embedway.selection.call_options import CallOptions
    from embedway.selection.selector import ModelSelector
    from embedway.types import InputType, Space

#: Lease of a claim, in seconds. A collection whose first writer died is free again after it expires.
CLAIM_S = 60.0

_log = logging.getLogger("embedway.pins")


@dataclass(slots=True)
class CollectionWrite:
    """A running write to a collection. The writer sets `has_vectors` when there are vectors."""

    has_vectors: bool = False


class CollectionPins:
    """Guard that pins each collection to the model and space of its first successful write."""

    def __init__(
        self,
        config: Config,
        selector: ModelSelector,
        *,
        hooks: Hooks | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._config = config
        self._hooks = Hooks() if hooks is None else hooks
        self._selector = selector
        self._sleep = sleep
        self._store: Pins | None = None
        #: Collections with missing facts in their pins that were already logged.
        self._logged: set[str] = set()

    @property
    def store(self) -> Pins:
        """Store of the pins, opened lazily."""
        if self._store is None:
            self._store = ReportedPins(open_pins(self._config), self._hooks)
        return self._store

    async def check_privacy(self, pin: Pin, options: CallOptions, *, named: bool = False) -> None:
        """Raise UsageError if texts must stay on this machine, but the model of their collection sends them elsewhere.

        Raises it too if the criteria of the call name models, but not that of the collection. With `named`, the call
        names its model, so nothing is checked.
        """
        if named:
            return
        criteria = self._selector.criteria(options.criteria)
        own = criteria.models if options.criteria is not None else ()
        if own and not await self._selector.is_named(pin.model, own):
            raise UsageError(
                f"collection {shown_name(pin.collection)} has vectors of {pin.model}, and models allows only "
                f"{', '.join(own)}; a collection keeps its model: leave models out, or use another collection"
            )
        if criteria.require_local:
            reason = await self._selector.leaves_machine(pin.model)
            if reason:
                raise UsageError(
                    f"collection {shown_name(pin.collection)} has vectors of {pin.model}, and {reason}; "
                    "require_local forbids that"
                )

    def check_space(self, pin: Pin, space: Space, input_type: InputType) -> None:
        """Raise SpaceMismatchError unless vectors of a space may be compared with those of a pinned collection.

        Facts that are missing because an older version wrote the pin are accepted, and logged once.
        """
        comparison = comparable(space, pin.space)
        if not comparison:
            raise space_mismatch(pin, space, input_type)
        if comparison.unknown and pin.collection not in self._logged:
            self._logged.add(pin.collection)
            _log.warning(
                "the pin of collection %r was written by an older version and does not name the %s of its vectors; "
                "they are assumed to be those of %s. To verify: `embedway budget pins --prove COLLECTION --by DEST`",
                pin.collection,
                " and ".join(comparison.unknown),
                space.id,
            )

    async def claim(self, collection: str, model: str, space: Space) -> tuple[Pin, bool]:
        """Claim a collection without a pin.

        Return the valid pin, and whether it is this call's own. The call must confirm or withdraw its own pin.
        """
        own = new_pin(collection, model, space, uuid.uuid4().hex)
        pin = await self.store.claim(own, CLAIM_S)
        return pin, pin.claim == own.claim

    @contextlib.asynccontextmanager
    async def hold(self, pin: Pin | None, *, own: bool) -> AsyncIterator[CollectionWrite]:
        """Hold a pin during a write to its collection.

        If there are vectors, the pin is confirmed; otherwise the claim is withdrawn if it is the call's `own`. `pin` is
        None if there is nothing to hold, as for queries. Raises SpaceMismatchError if a write of another space was
        confirmed first: the claim may be withdrawn, or expire, while a write that joined it continues.
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
            # The caller gets the error of its write; the claim expires with its lease.
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
    """Return the error for vectors of another space than the collection's."""
    return SpaceMismatchError(
        collection=f"collection {shown_name(pin.collection)}",
        claimed=bool(pin.claim),
        collection_space=pin.space.id,
        asked_space=explained(space, comparable(space, pin.space), pin.space),
        asked="the query" if input_type == "query" else "these vectors",
    )
