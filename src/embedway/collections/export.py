"""Export of a collection into any store, without embedding anything."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, get_args

from embedway.arguments import check_choice, check_flag
from embedway.collections.record import FORMAT_VERSION
from embedway.collections.stored_chunks import chunk_of_row, key_of_row
from embedway.collections.stores import open_store, shown, store_for
from embedway.collections.values import VectorType
from embedway.errors import SinkError, UsageError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from embedway.collections.documents import DocumentKey
    from embedway.collections.record import Record
    from embedway.collections.stores.base import Store


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """Result of an export: rows and documents that were written."""

    source: str
    destination: str
    space_id: str
    vector_type: VectorType
    rows: int
    documents: int
    seconds: float


async def export_stored(
    source: str, destination: str | os.PathLike[str], *, overwrite: bool = False, vector_type: VectorType | None = None
) -> ExportSummary:
    """Export the collection at a destination, in a thread; a cancelled export stops after the present batch of rows."""
    stop = threading.Event()

    def run() -> ExportSummary:
        store = open_store(source)
        try:
            return export_collection(
                store, destination, overwrite=overwrite, vector_type=vector_type, is_stopped=stop.is_set
            )
        finally:
            store.close()

    try:
        return await asyncio.to_thread(run)
    except asyncio.CancelledError:
        stop.set()
        raise


def export_collection(
    store: Store,
    destination: str | os.PathLike[str] | Store,
    *,
    overwrite: bool = False,
    vector_type: VectorType | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.perf_counter,
) -> ExportSummary:
    """Write all rows of an open collection, of any version, into a new one. Memory is that of one batch of rows.

    `vector_type` is that of the collection by default, or float32 if the new store has no such type. Raises
    `UsageError` and `SinkError`; what was written is removed then.
    """
    started = clock()
    overwrite = check_flag(overwrite, "overwrite")
    if vector_type is not None:
        check_choice(vector_type, get_args(VectorType), "vector_type")
    target = store_for(destination)
    if store.destination == target.destination or store.identity == target.identity:
        raise UsageError(f"{store.destination} cannot be exported into itself; name another destination")
    kind = _vector_type(store, target, vector_type)
    totals = _totals(store) if store.record.format_version < FORMAT_VERSION else None
    record = replace(store.record, vector_type=kind, format_version=FORMAT_VERSION)
    try:
        with target.lock():
            target.prepare(overwrite=overwrite)
            rows, documents = _copy(store, target, record, totals, is_stopped)
    finally:
        target.close()
    return ExportSummary(
        source=shown(store.destination),
        destination=shown(target.destination),
        space_id=record.space.id,
        vector_type=kind,
        rows=rows,
        documents=documents,
        seconds=clock() - started,
    )


def _vector_type(store: Store, target: Store, asked: VectorType | None) -> VectorType:
    own = store.record.vector_type
    kind = asked or (own if own in target.vector_types else "float32")
    if kind not in target.vector_types:
        known = ", ".join(sorted(target.vector_types))
        raise UsageError(f"{target.destination} cannot store vectors as {kind}; it can as {known}")
    if own == "bits" and kind != "bits":
        reason = "has only the signs of its vectors"
        raise UsageError(f"{store.destination} {reason}; export it into a store that keeps bits, or embed again")
    return kind


def _copy(
    store: Store,
    target: Store,
    record: Record,
    totals: dict[DocumentKey, int] | None,
    is_stopped: Callable[[], bool],
) -> tuple[int, int]:
    """Copy all rows, and return how many rows and documents there were."""
    rows = 0
    numbers: dict[DocumentKey, int] = {}
    try:
        target.begin(record)
        for part in store.read():
            chunks = [chunk_of_row(fields, record.keep) for fields in part.fields]
            for place, (chunk, fields) in enumerate(zip(chunks, part.fields, strict=True)):
                key = key_of_row(fields)
                number = numbers.get(key, 0)
                numbers[key] = number + 1
                if totals is not None:
                    chunks[place] = replace(chunk, number=number, total=totals.get(key, 1))
            _refuse_stopped(target, is_stopped)
            target.write(chunks, part.vectors)
            rows += len(chunks)
        _check_count(store, rows)
        target.commit()
    except BaseException:
        target.abort()
        raise
    return rows, len(numbers)


def _refuse_stopped(target: Store, is_stopped: Callable[[], bool]) -> None:
    if is_stopped():
        raise SinkError("the export was cancelled", destination=target.destination)


def _check_count(store: Store, rows: int) -> None:
    if rows != store.count:
        reason = f"{rows:,} rows were read, and it has {store.count:,}; the collection changed during the export"
        raise SinkError(f"{reason}, so run it again", destination=store.destination)


def _totals(store: Store) -> dict[DocumentKey, int]:
    """Return the number of rows of each document; collections before version 3 do not store it."""
    totals: dict[DocumentKey, int] = {}
    for part in store.read(columns=("source", "document_id"), vectors=False):
        for fields in part.fields:
            key = key_of_row(fields)
            totals[key] = totals.get(key, 0) + 1
    return totals
