"""Pins: the vector space of each collection, set by its first write.

A first write claims the pin before it computes, so that concurrent first writes agree on a space. The pin is confirmed
when one of them succeeds. A claim has a lease, which its write renews: the claim of a dead process expires with its
lease.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Protocol

from embedway._public import public
from embedway.errors import LedgerError, newer_version
from embedway.ledger.sqlite_formats import PINS_VERSION
from embedway.space import Space, SpaceVersionError
from embedway.text import shown_name

#: Maximum lease of a claim, in seconds. A stored claim that ends later was written while the clock was ahead, and
#: counts as expired.
LONGEST_CLAIM_S = 86_400.0
#: Fields of a stored pin; `until` is the end of a claim's lease, in SQLite.
_FACTS = {"version", "model", "space", "since", "claim", "until"}
#: Maximum time that a lease may end, in seconds since 1970; a larger number is invalid.
_LATEST = 1e12
_UNREADABLE = "the pin of collection {!r} cannot be read by this version"


@public
@dataclass(frozen=True, slots=True)
class Pin:
    """Space of a collection, and the name of the model that is opened for it."""

    collection: str
    model: str
    space: Space
    #: Seconds since 1970.
    since: float
    #: ID of the first write under way; empty after a write has succeeded.
    claim: str = ""

    def written(self) -> str:
        """Return the stored form, JSON."""
        facts = {"model": self.model, "space": self.space.to_json(), "since": self.since, "claim": self.claim}
        return json.dumps({"version": PINS_VERSION, **facts})


def read_pin(collection: str, written: str) -> Pin:
    """Read the stored form of a pin, of this version or an older one. Raises LedgerError for anything else."""
    try:
        facts = json.loads(written)
        version = facts.get("version", 1)
        if type(version) is int and version > PINS_VERSION:
            raise LedgerError(f"the pin of collection {shown_name(collection)} {newer_version(version, PINS_VERSION)}")
        if type(version) is not int or version < 1 or not facts.keys() <= _FACTS:
            raise LedgerError(_UNREADABLE.format(collection))
        model, since, claim = facts["model"], facts["since"], facts["claim"]
        if not (isinstance(model, str) and isinstance(claim, str) and type(since) in {int, float}):
            raise LedgerError(_UNREADABLE.format(collection))
        return Pin(collection, model, Space.from_json(facts["space"]), float(since), claim)
    except SpaceVersionError as error:
        raise LedgerError(f"the pin of collection {shown_name(collection)} {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise LedgerError(_UNREADABLE.format(collection)) from error


def until_of(written: str) -> float:
    """Return the end of a claim's lease; 0 if there is none, or it is not a number."""
    until = json.loads(written).get("until", 0)
    return float(until) if type(until) in {int, float} and abs(until) < _LATEST else 0.0


class Pins(Protocol):
    """Store of pins. An expired claim counts as missing.

    Every method raises LedgerError if the store fails.
    """

    async def get(self, collection: str) -> Pin | None:
        """Return the pin or claim of a collection; None if there is neither."""

    async def claim(self, pin: Pin, lease_s: float) -> Pin:
        """Store a claim for `lease_s`, unless there is a pin or another claim. Return the one that applies."""

    async def renew(self, pin: Pin, lease_s: float) -> None:
        """Extend the lease of a claim to `lease_s` from now."""

    async def confirm(self, pin: Pin) -> Pin:
        """Turn a claim into a pin after a write succeeded, unless another write did so first.

        Return the one that applies. The claim need not exist any more: its owner may have withdrawn it, or died.
        """

    async def withdraw(self, pin: Pin) -> None:
        """Remove a claim after its first write failed, unless another write succeeded."""

    async def learn(self, pin: Pin, known: Space) -> bool:
        """Add proven facts that a pin lacks. Return False if the stored pin has changed."""

    async def remove(self, collection: str) -> bool:
        """Remove the pin or claim of a collection. Return False if there is none."""

    async def all(self) -> list[Pin]:
        """Return all pins and claims, by collection."""

    async def aclose(self) -> None:
        """Close files and connections."""


def new_pin(collection: str, model: str, space: Space, claim: str) -> Pin:
    """Return a pin whose first write starts now."""
    return Pin(collection, model, space, time.time(), claim)
