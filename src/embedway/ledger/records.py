"""Records that processes share in the ledger's store: baselines, proofs of equivalence, quarantines, and API keys.

A record is a JSON document under a kind and a name. It contains no text of a user, unless the user stores a baseline of
own texts; no key, but the hashes of the gateway's; and at most `LARGEST_DOCUMENT` bytes.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, TypeGuard, get_args

from embedway.errors import LedgerError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

RecordKind: TypeAlias = Literal["baseline", "equivalence", "quarantine", "key"]
RECORD_KINDS: tuple[RecordKind, ...] = get_args(RecordKind)
#: Maximum size of a document, in bytes.
LARGEST_DOCUMENT = 64 * 2**20
#: Maximum size of a packed document: zlib adds at most 5 bytes to a block of 16 KiB, and a header.
LARGEST_PACKED = LARGEST_DOCUMENT + LARGEST_DOCUMENT // 1024 + 64
#: A lease that begins later than this after the present was taken while the clock was ahead, in seconds.
CLOCK_SLACK_S = 5.0
#: Fast: a document of 64 MiB takes about a second.
_LEVEL = 1


class UnreadableRecordError(LedgerError):
    """One record is damaged, or a newer version wrote it. The store works, and other records can be read."""


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
        """Return a record; None if there is none. Raises UnreadableRecordError for a damaged one."""

    async def put(self, record: Record) -> Record:
        """Store a record; it replaces one of the same kind and name. Return it as stored."""

    async def remove(self, kind: RecordKind, name: str) -> bool:
        """Remove a record, also a damaged one. Return False if there is none."""

    async def all(self, kind: RecordKind) -> list[Record]:
        """Return the records of a kind, by name. Raises UnreadableRecordError if one is damaged: see `read_each`."""

    async def names(self, kind: RecordKind) -> list[tuple[str, float]]:
        """Return the names of a kind with the times of their changes, by name, without the documents.

        A damaged time is 0. A name that no version writes is left out.
        """

    async def lease(self, kind: RecordKind, name: str, lease_s: float) -> bool:
        """Take the lease of a name for a time in seconds. Return False if it is taken, also by the caller itself.

        Of several processes with a scheduled task, only the one that takes the lease does it. A lease is independent
        of the record, and ends by the clock of the store.
        """

    async def end_lease(self, kind: RecordKind, name: str) -> None:
        """End the lease of a name that the caller has taken, before its time."""

    async def aclose(self) -> None:
        """Close files and connections."""


async def read_each(records: Records, kind: RecordKind) -> list[tuple[str, Record | UnreadableRecordError]]:
    """Return the names of a kind, each with its record, or with the error of a damaged one. Raises LedgerError."""
    found: list[tuple[str, Record | UnreadableRecordError]] = []
    for name, _ in await records.names(kind):
        try:
            record = await records.get(kind, name)
        except UnreadableRecordError as error:
            found.append((name, error))
        else:
            if record is not None:
                found.append((name, record))
    return found


def pack(record: Record) -> bytes:
    """Compress a document. Raises UsageError if a store cannot contain the record."""
    check_name(record.name)
    try:
        written = record.document.encode()
    except UnicodeEncodeError:
        raise UsageError(f"the document of {_described(record.kind, record.name)} is not Unicode text") from None
    if len(written) > LARGEST_DOCUMENT:
        raise UsageError(
            f"the document of {_described(record.kind, record.name)} has {len(written):,} bytes: store at most "
            f"{LARGEST_DOCUMENT:,}, such as fewer vectors"
        )
    return zlib.compress(written, _LEVEL)


def check_name(name: str) -> None:
    """Raise UsageError for a name that is empty or not Unicode text."""
    try:
        is_text = bool(name.encode())
    except UnicodeEncodeError:
        is_text = False
    if not is_text:
        raise UsageError(f"{name!r} is no name of a record: use Unicode text that is not empty")


def unpack(kind: RecordKind, name: str, packed: object, changed: object, where: str) -> Record:
    """Return the record of stored values, which may be anything. Raises LedgerError, which names it and `where`."""
    if not isinstance(packed, bytes) or len(packed) > LARGEST_PACKED:
        raise damaged(kind, name, where)
    reader = zlib.decompressobj()
    try:
        # One byte more than allowed, so that a small value cannot fill the memory.
        document = reader.decompress(packed, LARGEST_DOCUMENT + 1)
        if len(document) > LARGEST_DOCUMENT or not reader.eof or reader.unused_data:
            raise damaged(kind, name, where)
        return Record(kind, name, document.decode(), read_time(kind, name, changed, where))
    except (zlib.error, UnicodeDecodeError):
        raise damaged(kind, name, where) from None


def read_names(found: Iterable[tuple[bytes, object]]) -> list[tuple[str, float]]:
    """Return stored names and times, which may be anything, as `Records.names` returns them."""
    names = []
    for written, changed in found:
        try:
            name = written.decode()
        except UnicodeDecodeError:
            continue
        if name:
            names.append((name, float(changed) if _is_time(changed) else 0.0))
    return sorted(names)


def _is_time(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0


def read_time(kind: RecordKind, name: str, changed: object, where: str) -> float:
    """Return the stored time of a change. Raises LedgerError for any other value."""
    if _is_time(changed):
        return float(changed)
    raise damaged(kind, name, where)


def damaged(kind: RecordKind, name: str, where: str) -> UnreadableRecordError:
    """Return the error of a record that no version writes."""
    return UnreadableRecordError(
        f"{_described(kind, name)} in {where} is damaged: create it again, or restore a backup (`embedway state "
        "restore`)"
    )


def _described(kind: RecordKind, name: str) -> str:
    return f"the {kind} record {name!r}"
