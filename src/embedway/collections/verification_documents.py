"""Verify that the documents of a collection have all of their rows, each once, and no others."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from embedway.collections.chunks import id_start
from embedway.collections.stored_chunks import key_of_row, place_of
from embedway.collections.verification_report import MAX_NAMED

if TYPE_CHECKING:
    from embedway.collections.documents import DocumentKey
    from embedway.collections.stores.base import Store
    from embedway.collections.stores.tally import StoredDocument
    from embedway.collections.verification_report import VerifyReport


def check_documents(store: Store, report: VerifyReport) -> set[DocumentKey]:
    """Note faults of documents, and return the documents that have one. Raises SinkError."""
    sources = {source.name for source in store.record.sources}
    broken: set[DocumentKey] = set()
    to_read: dict[DocumentKey, StoredDocument] = {}
    partial = 0
    for found in store.documents():
        report.documents += 1
        if sources and found.key.source not in sources:
            report.orphaned += found.rows
            report.note("orphaned", place_of(found.key), f"the collection has no source {found.key.source!r}")
        elif found.is_complete:
            continue
        elif found.is_partial and partial >= MAX_NAMED:
            report.missing += found.total - found.rows  # counted, and not named
        else:
            partial += found.is_partial
            to_read[found.key] = found
        broken.add(found.key)
    if to_read:
        _read(store, to_read, report)
    return broken


@dataclass(slots=True)
class _Rows:
    """Numbers of a document's rows, and rows whose id is not that of their number."""

    numbers: Counter[int] = field(default_factory=Counter)
    strange: list[tuple[str, int]] = field(default_factory=list)
    rows: int = 0


def _read(store: Store, documents: dict[DocumentKey, StoredDocument], report: VerifyReport) -> None:
    """Read ids and numbers of documents, and note which are missing, duplicated or orphaned."""
    found = {key: _Rows() for key in documents}
    columns = ("id", "source", "document_id", "number")
    for batch in store.read(columns=columns, vectors=False, documents=set(documents)):
        for row in batch.fields:
            key = key_of_row(row)
            own = found.get(key)
            if own is None:
                continue  # another program has changed the collection meanwhile
            own.rows += 1
            number = -1 if row["number"] is None else int(row["number"])
            if row["id"] == f"{id_start(*key)}{number}":
                own.numbers[number] += 1
            else:
                own.strange.append((row["id"], number))
    for key, own in found.items():
        _note(report, key, documents[key].total, own)


def _note(report: VerifyReport, key: DocumentKey, total: int, own: _Rows) -> None:
    start, faults = id_start(*key), len(report.faults)
    missing = [number for number in range(min(total, own.rows + MAX_NAMED)) if number not in own.numbers]
    report.missing += max(total - sum(0 <= number < total for number in own.numbers), 0)
    for number in missing[:MAX_NAMED]:
        report.note("missing", f"{start}{number}", f"row {number + 1:,} of {total:,}")
    for number, times in sorted(own.numbers.items()):
        if not 0 <= number < total:
            report.orphaned += times
            report.note("orphaned", f"{start}{number}", f"the document has {total:,} rows")
        elif times > 1:
            report.duplicated += times - 1
            report.note("duplicated", f"{start}{number}", f"the row exists {times:,} times")
    report.orphaned += len(own.strange)
    for row_id, number in own.strange[:MAX_NAMED]:
        report.note("orphaned", row_id, f"it is row {number:,} of {place_of(key)}, whose id is {start}{number}")
    if len(report.faults) == faults:
        report.note("orphaned", place_of(key), "its rows have different totals")
