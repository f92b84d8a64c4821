"""Records that processes share in the ledger's store: baselines, proofs of equivalence, and quarantines.

A record is a JSON document under a kind and a name. It contains no text of a user, unless the user stores a baseline of
own texts; no key; and at most `LARGEST_DOCUMENT` bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, get_args

RecordKind: TypeAlias = Literal["baseline", "equivalence", "quarantine"]
RECORD_KINDS: tuple[RecordKind, ...] = get_args(RecordKind)
#: Maximum size of a document, in bytes.
LARGEST_DOCUMENT = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Record:
    """A document under a kind and a name."""

    kind: RecordKind
    name: str
    #: JSON.
    document: str
    #: Seconds since 1970; set by the store.
    changed: float = 0.0


class Records(Protocol):
    """Store of records. Every method raises LedgerError if the store fails."""

    async def get(self, kind: RecordKind, name: str) -> Record | None:
        """Return a record; None if there is none."""

    async def put(self, record: Record) -> Record:
        """Store a record; it replaces one of the same kind and name. Return it as stored."""

    async def remove(self, kind: RecordKind, name: str) -> bool:
        """Remove a record. Return False if there is none."""

    async def all(self, kind: RecordKind) -> list[Record]:
        """Return the records of a kind, by name."""

    async def names(self, kind: RecordKind) -> list[tuple[str, float]]:
        """Return the names of a kind with the times of their changes, by name, without the documents."""

    async def aclose(self) -> None:
        """Close files and connections."""
