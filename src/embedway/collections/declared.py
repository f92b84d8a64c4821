"""Collection files that lost their record: a space is declared, checked, and proven by a sample of rows."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import tempfile
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.collections.chunks import join_context
from embedway.collections.column_types import infer_types
from embedway.collections.columns import COLUMNS, RESERVED_COLUMNS
from embedway.collections.declared_columns import column_type_of, convert
from embedway.collections.record import Record
from embedway.collections.stores import store_for
from embedway.collections.stores.arrow import column_kind
from embedway.collections.stores.library_errors import LIBRARY_ERRORS
from embedway.collections.stores.records import record_metadata
from embedway.errors import SinkError, UsageError
from embedway.pipeline.proof import check_same

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from embedway._embedder import AsyncEmbedder
    from embedway.collections.stores.base import Store
    from embedway.collections.values import ColumnType
    from embedway.space import Space
    from embedway.types import Vectors

#: Random rows that are recomputed.
SAMPLE_ROWS = 64
_TYPE_ROWS = 1_000
#: Deviation of a length from 1 that numbers of 16 bits explain.
_LENGTH_TOLERANCE = 2e-3
_MAX_LINE_BYTES = 64 << 20


@asynccontextmanager
async def open_declared(
    embedder: AsyncEmbedder, source: str, model: str, *, rng: random.Random | None = None
) -> AsyncIterator[Store]:
    """Open a Parquet or JSON Lines file of version 3 without record as a collection of the model's space.

    The file is not changed; the record is added to a temporary copy. Raises SinkError if columns are missing, and
    SpaceMismatchError if a recomputed row differs from the stored one.
    """
    path = Path(source)
    folder = await asyncio.to_thread(tempfile.mkdtemp, prefix="embedway-")
    try:
        dimensions, keep = await asyncio.to_thread(_inspect, path)
        described = await embedder.models.describe(model, dimensions, load=True)
        copy = Path(folder) / path.name
        await asyncio.to_thread(_add_record, path, copy, Record(described.space, keep=keep))
        store = store_for(str(copy))
        store.destination = source  # errors name the user's file
        try:
            await asyncio.to_thread(store.open)
            await _prove(embedder, store, model, described.space, rng or random.SystemRandom())
            yield store
        finally:
            await asyncio.to_thread(store.close)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def _prove(embedder: AsyncEmbedder, store: Store, model: str, space: Space, rng: random.Random) -> None:
    chosen = await asyncio.to_thread(_sample, store, rng)
    if not chosen:
        raise SinkError(
            "has no rows, so its space cannot be proven; embed its sources again", destination=store.destination
        )
    texts = [text for text, _ in chosen]
    stored = np.array([vector for _, vector in chosen], np.float32)
    computed, _ = await embedder.cache.recompute(
        texts, model=model, dimensions=space.dimensions, on_overflow="truncate"
    )
    check_same(stored, computed, name=store.destination, recorded=space, asked=space, facts=("declared model",))


def _sample(store: Store, rng: random.Random) -> list[tuple[str, Any]]:
    """Return texts for the model and vectors of random rows, each row with the same probability."""
    chosen: list[tuple[str, Any]] = []
    count = 0
    for rows in store.read():
        if store.space.normalized:
            _check_lengths(rows.vectors, count, store.destination)
        for fields, vector in zip(rows.fields, rows.vectors, strict=True):
            count += 1
            place = len(chosen) if len(chosen) < SAMPLE_ROWS else rng.randrange(count)
            if place < SAMPLE_ROWS:
                row = join_context(fields["context"], fields["text"]), vector.copy()
                chosen[place : place + 1] = [row]
    return chosen


def _check_lengths(vectors: Vectors, first_row: int, destination: str) -> None:
    """Raise `SinkError` if a vector of a normalized space does not have the length 1."""
    lengths = np.linalg.norm(vectors, axis=1)
    bad = np.flatnonzero(~(np.abs(lengths - 1) <= _LENGTH_TOLERANCE))
    if bad.size:
        raise SinkError(
            f"the vector of row {first_row + int(bad[0]) + 1:,} has the length {lengths[bad[0]]:.4g}, and this model "
            "gives vectors of length 1; name another model, or embed the sources again",
            destination=destination,
        )


def _inspect(path: Path) -> tuple[int, dict[str, ColumnType]]:
    """Return the dimensions and the kept columns of a file. Raises SinkError and UsageError."""
    if path.suffix.lower() not in {".parquet", ".jsonl"}:
        raise UsageError(
            f"only a file X.parquet or X.jsonl can be declared, not {path}; other stores keep their record inside"
        )
    try:
        return _inspect_parquet(path) if path.suffix.lower() == ".parquet" else _inspect_lines(path)
    except SinkError:
        raise
    except LIBRARY_ERRORS as error:
        reason = f"cannot be read as a collection ({type(error).__name__}); embed its sources again"
    raise SinkError(reason, destination=str(path))


def _inspect_parquet(path: Path) -> tuple[int, dict[str, ColumnType]]:
    import pyarrow.parquet as pq  # noqa: PLC0415 - heavy

    file = pq.ParquetFile(path.absolute())  # Arrow takes a relative a:b.parquet for a URI
    schema = file.schema_arrow
    _check_columns(dict.fromkeys(schema.names), path)
    # A row without vector is named when it is read.
    batches = file.iter_batches(columns=["vector"])
    first = next((batch for batch in (batch.filter(_has_vector(batch)) for batch in batches) if batch.num_rows), None)
    if first is None:
        raise SinkError("has no vectors, so its space cannot be proven; embed its sources again", destination=str(path))
    kind = schema.field("vector").type
    if str(getattr(kind, "value_type", "")) != "float":
        raise SinkError(
            "has vectors that are not float32, so it is not a collection that lost its record; embed its sources again",
            destination=str(path),
        )
    kinds = {
        name: column_type_of(schema.field(name).type, name, destination=str(path))
        for name in schema.names
        if name not in RESERVED_COLUMNS
    }
    return len(first.column(0)[0]), kinds


def _has_vector(batch: Any) -> Any:
    return batch.column(0).is_valid()


def _inspect_lines(path: Path) -> tuple[int, dict[str, ColumnType]]:
    rows: list[dict[str, Any]] = []
    with path.open("rb") as file:
        while len(rows) < _TYPE_ROWS and (line := file.readline(_MAX_LINE_BYTES)):
            rows.append(json.loads(line))
    if not rows:
        raise SinkError("has no rows, so its space cannot be proven; embed its sources again", destination=str(path))
    _check_columns(rows[0], path)
    names = [name for name in rows[0] if name not in RESERVED_COLUMNS]
    vector: list[Any] = next((row["vector"] for row in rows if isinstance(row.get("vector"), list)), [])
    return len(vector), infer_types(rows, names)


def _check_columns(found: Mapping[str, Any], path: Path) -> None:
    missing = [name for name in (*COLUMNS, "vector") if name not in found]
    if missing:
        reason = f"lacks the columns {', '.join(missing)}, so it is not a collection of version 3"
        raise SinkError(f"{reason}; embed its sources again", destination=str(path))


def _add_record(path: Path, copy: Path, record: Record) -> None:
    record = replace(record, revision="declared")
    try:
        if path.suffix.lower() == ".parquet":
            _copy_parquet(path, copy, record)
        else:
            _copy_lines(path, copy, record)
    except SinkError:
        raise
    except LIBRARY_ERRORS as error:
        reason = f"cannot be copied ({type(error).__name__})"
    else:
        return
    raise SinkError(reason, destination=str(path))


def _copy_parquet(path: Path, copy: Path, record: Record) -> None:
    import pyarrow.parquet as pq  # noqa: PLC0415 - heavy

    file = pq.ParquetFile(path.absolute())  # Arrow takes a relative a:b.parquet for a URI
    schema = file.schema_arrow.with_metadata(record_metadata(record))
    for name, kind in record.keep.items():
        place = schema.get_field_index(name)
        schema = schema.set(place, schema.field(place).with_type(column_kind(kind)).with_nullable(True))
    with pq.ParquetWriter(copy.absolute(), schema) as writer:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            for name, kind in record.keep.items():
                place = schema.get_field_index(name)
                table = table.set_column(
                    place, schema.field(place), convert(table.column(place), kind, name, destination=str(path))
                )
            writer.write_table(table.replace_schema_metadata(schema.metadata))


def _copy_lines(path: Path, copy: Path, record: Record) -> None:
    from embedway.collections.stores.jsonl_sidecar import JsonlSidecar  # noqa: PLC0415 - only here

    try:
        os.link(path.resolve(), copy)  # a link to a relative link would point to nothing
    except OSError:
        shutil.copyfile(path, copy)
    rows, last = 0, b"\n"
    with copy.open("rb") as file:
        while block := file.read(1 << 20):
            rows, last = rows + block.count(b"\n"), block[-1:]
    rows += last != b"\n"
    sidecar = JsonlSidecar(copy, str(copy))
    sidecar.finish(sidecar.begin(record, rows, copy.stat().st_size))
