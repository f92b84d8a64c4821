"""Which vector space a collection is of: that of its first write, for good.

A first write claims the pin before it computes, so that two at once agree; the pin holds when one of them succeeded.
A claim has a lease, which its write renews: one of a process that died counts for nothing when that has run out.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Protocol

from embedway.errors import LedgerError, newer_version
from embedway.ledger.sqlite_formats import PINS_VERSION
from embedway.space import Space, SpaceVersionError

#: All that a pin tells; `until` is the end of a claim's lease, in SQLite.
_FACTS = {"version", "model", "space", "since", "claim", "until"}
_UNREADABLE = "the pin of collection {!r} cannot be read by this version"


@dataclass(frozen=True, slots=True)
class Pin:
    """A collection with the space of its first write, and the name that its model is opened by."""

    collection: str
    model: str
    space: Space
    #: Seconds since 1970.
    since: float
    #: Whose first write is under way; empty when one has succeeded.
    claim: str = ""

    def written(self) -> str:
        """As it is kept."""
        facts = {"model": self.model, "space": self.space.to_json(), "since": self.since, "claim": self.claim}
        return json.dumps({"version": PINS_VERSION, **facts})


def read_pin(collection: str, written: str) -> Pin:
    """Read what `Pin.written` gave, of this version or an older one. Raises LedgerError for anything else."""
    try:
        facts = json.loads(written)
        version = facts.get("version", 1)
        if type(version) is int and version > PINS_VERSION:
            raise LedgerError(f"the pin of collection {collection!r} {newer_version(version, PINS_VERSION)}")
        if type(version) is not int or version < 1 or not facts.keys() <= _FACTS:
            raise LedgerError(_UNREADABLE.format(collection))
        model, since, claim = facts["model"], facts["since"], facts["claim"]
        if not (isinstance(model, str) and isinstance(claim, str) and type(since) in {int, float}):
            raise LedgerError(_UNREADABLE.format(collection))
        return Pin(collection, model, Space.from_json(facts["space"]), float(since), claim)
    except SpaceVersionError as error:
        raise LedgerError(f"the pin of collection {collection!r} {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise LedgerError(_UNREADABLE.format(collection)) from error


class Pins(Protocol):
    """Keeps pins. A claim whose lease has run out is as if it were not there.

    Every method raises LedgerError where the store fails.
    """

    async def get(self, collection: str) -> Pin | None:
        """The pin of a collection, None where nothing was written to it and no first write is under way."""

    async def claim(self, pin: Pin, lease_s: float) -> Pin:
        """Keep a claim for so long, unless there is a pin or another claim; give the one that holds."""

    async def renew(self, pin: Pin, lease_s: float) -> None:
        """Keep a claim for so much longer from now, while a write of its space is under way."""

    async def confirm(self, pin: Pin) -> Pin:
        """A write succeeded: its pin holds for good, unless another write did before; give the one that holds.

        It need not be there any more: who claimed it may have withdrawn it, or died.
        """

    async def withdraw(self, pin: Pin) -> None:
        """A first write failed: forget its claim, unless another write succeeded."""

    async def learn(self, pin: Pin, known: Space) -> bool:
        """Write the facts that a pin lacks and that were proven; False where the pin is another one by now."""

    async def remove(self, collection: str) -> bool:
        """Forget a collection, whose vectors are gone; False where there is none."""

    async def all(self) -> list[Pin]:
        """All pins and claims, by collection."""

    async def aclose(self) -> None:
        """Give files and connections back."""


def new_pin(collection: str, model: str, space: Space, claim: str) -> Pin:
    """A pin of now."""
    return Pin(collection, model, space, time.time(), claim)
