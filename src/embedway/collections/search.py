"""Looking things up in a collection: exact cosine similarity, in bounded memory.

Parquet and JSON Lines files are read in batches and only the best rows so far are kept; LanceDB searches
itself.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from embedway.collections.stores.base import SPACE_KEY, sink_errors, space_from_json, space_from_metadata
from embedway.collections.stores.jsonl import read_sidecar, sidecar_path, write_facts
from embedway.collections.stores.lancedb import lancedb_errors, parse_lancedb, require_lancedb, table_path
from embedway.collections.verify import SAMPLED_ROWS, choose_rows, with_verified_facts, write_verified_facts
from embedway.errors import SinkError, SpaceMismatchError, UsageError
from embedway.opt_out import opt_out_of_telemetry
from embedway.space import Comparison, comparable, explained

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy.typing as npt

    from embedway.types import Space, Vectors

_COLUMNS = ("id", "document_id", "source", "start_line", "title", "text")
_JSONL_BATCH_ROWS = 512


@dataclass(frozen=True, slots=True)
class Hit:
    """A row that was found. `score` is the cosine similarity, from -1 to 1."""

    score: float
    id: str
    document_id: str
    source: str
    start_line: int
    title: str | None
    text: str = field(repr=False)


class Collection(Protocol):
    """A set of vectors of one space. Methods block: call them from a thread where there is an event loop."""

    destination: str
    space: Space
    count: int

    def search(self, query_vector: Vectors, top_n: int) -> list[Hit]:
        """The `top_n` rows nearest to a query, float32 (d,), best first; equal scores in row order."""

    def check_space(self, asked: Space) -> Comparison:
        """Raise `SpaceMismatchError` unless every fact of the asked space is the collection's, or not in its record.

        The comparison's `unknown` names the facts that the record lacks.
        """

    def sample(self) -> list[tuple[str, Vectors]]:
        """Some texts with their vectors, float32 (d,), to prove facts of the space by computing them anew."""

    def write_facts(self, proven: Space) -> bool:
        """Write proven facts of the space back; False where the disk refuses that."""


class _Collection:
    """What all collections share."""

    def __init__(self, destination: str, space: Space, count: int) -> None:
        self.destination = destination
        self.space = space
        self.count = count

    def check_space(self, asked: Space) -> Comparison:
        """See `Collection.check_space`."""
        comparison = comparable(asked, self.space)
        if comparison:
            return comparison
        asked_id = explained(asked, comparison, self.space)
        raise SpaceMismatchError(collection=self.destination, collection_space=self.space.id, asked_space=asked_id)

    def write_facts(self, proven: Space) -> bool:
        """See `Collection.write_facts`."""
        self.space = self.space.with_facts(proven)
        try:
            self._write_facts(self.space)
        except (OSError, SinkError):
            return False
        return True

    def _write_facts(self, space: Space) -> None:
        raise NotImplementedError

    def _unit_query(self, query_vector: Vectors, top_n: int) -> Vectors:
        query = np.asarray(query_vector, dtype=np.float32)
        if query.shape != (self.space.dimensions,):
            raise UsageError(
                f"the query vector has the shape {query.shape}; {self.destination} takes ({self.space.dimensions},)"
            )
        if top_n < 1:
            raise UsageError(f"cannot find {top_n} rows; ask for 1 or more")
        unit: Vectors = query / _nonzero(np.linalg.norm(query))
        return unit


class _Best:
    """The best rows so far: scores and row numbers, best first."""

    def __init__(self, top_n: int) -> None:
        self._top_n = top_n
        self.scores: npt.NDArray[np.float32] = np.empty(0, np.float32)
        self.rows: npt.NDArray[np.int64] = np.empty(0, np.int64)

    def offer(self, scores: npt.NDArray[np.float32], first_row: int) -> None:
        """Merge the scores of consecutive rows."""
        if len(scores) > self._top_n:
            # The threshold keeps ties, so that the sort below, and not the partition, decides among them.
            threshold = np.partition(scores, -self._top_n)[-self._top_n]
            inside = np.flatnonzero(scores >= threshold)
        else:
            inside = np.arange(len(scores))
        all_scores = np.concatenate([self.scores, scores[inside]])
        all_rows = np.concatenate([self.rows, inside + first_row])
        order = np.lexsort((all_rows, -all_scores))[: self._top_n]
        self.scores, self.rows = all_scores[order], all_rows[order]


class ParquetCollection(_Collection):
    """A Parquet file that `run` wrote."""

    def __init__(self, destination: str) -> None:
        import pyarrow.parquet as pq  # noqa: PLC0415 - heavy

        self._path = _existing_file(destination)
        with sink_errors(destination, "reading"):
            schema = pq.read_schema(self._path)
            count = pq.read_metadata(self._path).num_rows
        space = space_from_metadata(schema.metadata, destination=destination)
        self._recorded = schema.metadata[SPACE_KEY.encode()]
        super().__init__(
            destination, with_verified_facts(space, sidecar_path(self._path), self._recorded, count), count
        )

    def search(self, query_vector: Vectors, top_n: int) -> list[Hit]:
        """Read all vectors once, group by group; then the texts of the best rows only."""
        import pyarrow.parquet as pq  # noqa: PLC0415 - heavy

        query = self._unit_query(query_vector, top_n)
        best = _Best(top_n)
        with sink_errors(self.destination, "reading"), pq.ParquetFile(self._path) as file:
            first_row = 0
            # Not `iter_batches`, which reads ahead without a bound.
            for group in range(file.num_row_groups):
                for lists in file.read_row_group(group, columns=["vector"]).column(0).chunks:
                    flat = lists.flatten().to_numpy(zero_copy_only=False)
                    best.offer(_cosines(flat.reshape(-1, self.space.dimensions), query), first_row)
                    first_row += len(lists)
            rows = self._rows(file, sorted(best.rows.tolist()))
        return [_hit(score, rows[row]) for score, row in zip(best.scores.tolist(), best.rows.tolist(), strict=True)]

    def sample(self) -> list[tuple[str, Vectors]]:
        """See `Collection.sample`."""
        import pyarrow.parquet as pq  # noqa: PLC0415 - heavy

        with sink_errors(self.destination, "reading"), pq.ParquetFile(self._path) as file:
            batches = file.iter_batches(SAMPLED_ROWS, row_groups=[0], columns=["text", "vector"]) if self.count else ()
            return _sampled(next(iter(batches), None))

    def _write_facts(self, space: Space) -> None:
        write_verified_facts(space, sidecar_path(self._path), self._recorded, self.count)

    @staticmethod
    def _rows(file: Any, wanted: list[int]) -> dict[int, dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        first_row = 0
        for group in range(file.num_row_groups):
            after = first_row + file.metadata.row_group(group).num_rows
            inside = [row for row in wanted if first_row <= row < after]
            if inside:
                table = file.read_row_group(group, columns=list(_COLUMNS))
                taken = table.take([row - first_row for row in inside]).to_pylist()
                found.update(zip(inside, taken, strict=True))
            first_row = after
        return found


class JsonlCollection(_Collection):
    """A JSON Lines file that `run` wrote, with its sidecar."""

    def __init__(self, destination: str) -> None:
        self._path = _existing_file(destination)
        entry = read_sidecar(self._path)
        count = entry.get("rows")
        if not isinstance(count, int):
            raise SinkError("its sidecar cannot be read; embed the file anew", destination=destination)
        super().__init__(destination, space_from_json(entry.get("space"), destination=destination), count)

    def search(self, query_vector: Vectors, top_n: int) -> list[Hit]:
        """Read the file once, keeping the rows that are among the best so far."""
        query = self._unit_query(query_vector, top_n)
        best = _Best(top_n)
        kept: dict[int, dict[str, Any]] = {}
        first_row = 0
        for batch in self._batches():
            vectors = np.array([row.pop("vector") for row in batch], dtype=np.float32)
            best.offer(_cosines(vectors, query), first_row)
            kept.update(enumerate(batch, first_row))
            kept = {row: kept[row] for row in best.rows.tolist()}
            first_row += len(batch)
        return [_hit(score, kept[row]) for score, row in zip(best.scores.tolist(), best.rows.tolist(), strict=True)]

    def sample(self) -> list[tuple[str, Vectors]]:
        """See `Collection.sample`."""
        rows = next(self._batches(), [])[:SAMPLED_ROWS]
        chosen = choose_rows([str(row["text"]) for row in rows])
        return [(rows[row]["text"], np.array(rows[row]["vector"], np.float32)) for row in chosen]

    def _write_facts(self, space: Space) -> None:
        write_facts(self._path, space)

    def _batches(self) -> Iterator[list[dict[str, Any]]]:
        batch: list[dict[str, Any]] = []
        with sink_errors(self.destination, "reading"), self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                batch.append(self._row(line, number))
                if len(batch) == _JSONL_BATCH_ROWS:
                    yield batch
                    batch = []
        if batch:
            yield batch

    def _row(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            row: dict[str, Any] = json.loads(line)
            if row["space"] == self.space.id and len(row["vector"]) == self.space.dimensions:
                return row
        except (ValueError, TypeError, KeyError):
            pass
        raise SinkError(f"line {number} is no row of the space {self.space.id}", destination=self.destination)


class LanceDBCollection(_Collection):
    """A LanceDB table that `run` wrote."""

    def __init__(self, destination: str) -> None:
        folder, name = parse_lancedb(destination)
        require_lancedb()
        if not table_path(folder, name).is_dir():
            raise SinkError("there is no such table", destination=destination)
        with lancedb_errors(destination, "reading"):
            opt_out_of_telemetry()
            import lancedb  # noqa: PLC0415 - heavy, and an extra

            # Its type says less than the object can do.
            self._table: Any = lancedb.connect(str(folder)).open_table(name)
            metadata = self._table.schema.metadata
            count = self._table.count_rows()
        space = space_from_metadata(metadata, destination=destination)
        self._proof = sidecar_path(folder / name)
        self._recorded = metadata[SPACE_KEY.encode()]
        super().__init__(destination, with_verified_facts(space, self._proof, self._recorded, count), count)

    def search(self, query_vector: Vectors, top_n: int) -> list[Hit]:
        """LanceDB's own search by cosine distance, which is exact where the table has no index."""
        query = self._unit_query(query_vector, top_n)
        with lancedb_errors(self.destination, "searching"):
            found = self._table.search(query, vector_column_name="vector").distance_type("cosine").limit(top_n)
            rows = found.select([*_COLUMNS, "_distance"]).to_list()
        return [_hit(1.0 - row["_distance"], row) for row in rows]

    def sample(self) -> list[tuple[str, Vectors]]:
        """See `Collection.sample`."""
        with lancedb_errors(self.destination, "reading"):
            table = self._table.search().select(["text", "vector"]).limit(SAMPLED_ROWS).to_arrow()
        return _sampled(table)

    def _write_facts(self, space: Space) -> None:
        write_verified_facts(space, self._proof, self._recorded, self.count)


def _sampled(table: Any) -> list[tuple[str, Vectors]]:
    """The rows of an Arrow table or batch that are computed anew."""
    if table is None or not table.num_rows:
        return []
    texts: list[str] = table.column("text").to_pylist()
    vectors = table.column("vector")
    return [(texts[row], np.array(vectors[row].as_py(), np.float32)) for row in choose_rows(texts)]


def _existing_file(destination: str) -> Path:
    path = Path(destination)
    if not path.is_file():
        raise SinkError("there is no such file", destination=destination)
    return path


def _cosines(vectors: Vectors, unit_query: Vectors) -> npt.NDArray[np.float32]:
    """Cosine similarities (n,) of vectors (n, d) with a query of length 1; 0 for a vector of length 0."""
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    scores: npt.NDArray[np.float32] = (vectors @ unit_query) / _nonzero(norms)
    return scores


def _nonzero(norms: Any) -> Any:
    return np.where(norms == 0, 1, norms)


def _hit(score: float, row: Mapping[str, Any]) -> Hit:
    return Hit(score=float(score), **{name: row[name] for name in _COLUMNS})
