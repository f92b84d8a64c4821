"""Verify the rows of a collection: recompute a random sample, and check that all documents are complete.

A sample without a wrong row bounds the share of wrong rows: with 95 % confidence it is at most the one-sided upper
bound of Clopper and Pearson (Biometrika 26, 1934). 250 rows prove 1.2 %. The bound needs a sample that is random and
independent of the errors, so rows are drawn with equal probability, by a generator that the system seeds.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np

from embedway.arguments import check_callable, check_flag, check_integer
from embedway.collections.chunks import join_context
from embedway.collections.documents import DocumentKey
from embedway.collections.query_model import prove_query_model
from embedway.collections.stored_chunks import chunk_of_row, key_of_row, place_of
from embedway.collections.stores.base import Rows
from embedway.quality.equivalence import CONFIDENCE, share_at_least
from embedway.vectors import SAME_COSINE, cosines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from embedway._embedder import AsyncEmbedder
    from embedway.collections.chunks import Chunk
    from embedway.collections.stores.base import Store
    from embedway.types import Vectors

#: Rows of a sample by default. Without a wrong one, they prove that at most 1.2 % of all rows are wrong.
DEFAULT_SAMPLE = 250
#: Maximum faults of each kind that a report names.
MAX_NAMED = 1000
#: Maximum rows that one repair replaces, because their vectors are held in memory.
MAX_REPAIRED = 100_000
_BATCH_ROWS = 512

Fault: TypeAlias = Literal["wrong", "missing", "orphaned"]


@dataclass(frozen=True, slots=True)
class RowFault:
    """A fault of a row or of a document's rows; `id` is that of the row, or of the document."""

    kind: Fault
    id: str
    reason: str


@dataclass(slots=True)
class VerifyReport:  # a field for each fact of the report's JSON
    """Result of a verification.

    `wrong` counts rows whose vector is not that of their text, `missing` rows that documents should have, `orphaned`
    rows that belong to no document of a source. `bound` is the largest share of wrong rows that the sample does not
    exclude with `confidence`; if all rows were recomputed, it is the share of wrong ones. All of these describe the
    collection before a repair, and `after` describes it after the repair.
    """

    destination: str
    space_id: str
    rows: int = 0
    documents: int = 0
    sampled: int = 0
    wrong: int = 0
    missing: int = 0
    orphaned: int = 0
    bound: float = 1.0
    confidence: float = CONFIDENCE
    lowest_cosine: float | None = None
    repaired: int = 0
    removed: int = 0
    cost_nanousd: int | None = 0
    seconds: float = 0.0
    #: Faults by name, at most 1,000 of each kind.
    faults: list[RowFault] = field(default_factory=list)
    #: Verification after a repair; None if nothing was repaired.
    after: VerifyReport | None = None

    @property
    def faultless(self) -> bool:
        """Whether no fault is left: none was found, or none after the repair."""
        return self.after.faultless if self.after is not None else not self.faults

    def note(self, kind: Fault, name: str, reason: str) -> None:
        """Add a fault to the named ones, unless there are too many."""
        if sum(one.kind == kind for one in self.faults) < MAX_NAMED:
            self.faults.append(RowFault(kind, name, reason))


async def verify_collection(
    embedder: AsyncEmbedder,
    store: Store,
    *,
    model: str | None = None,
    sample: int = DEFAULT_SAMPLE,
    repair: bool = False,
    rng: random.Random | None = None,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[int, int], object] | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> VerifyReport:
    """Verify an open collection with the model that made it; `model` names it where the collection cannot.

    With `repair`, wrong vectors are replaced, after all rows were recomputed if the sample has a wrong one. Rows of
    incomplete documents and orphaned rows are removed, so that a sync adds the documents again. Then the collection is
    verified again. `progress` is called with the numbers of rows that are compared, and to compare. Raises
    SpaceMismatchError if the model's space is another one, and the errors of the embedder and of the store.
    """
    sample, repair = check_integer(sample, "sample"), check_flag(repair, "repair")
    check_callable(progress, "progress")
    started = clock()
    proved = await prove_query_model(embedder, store, model, note=note)
    work = _Verification(embedder, store, proved.name, rng=rng or random.SystemRandom(), progress=progress)
    report = await work.run(sample, repair=repair)
    report.seconds = clock() - started
    return report


class _Verification:
    """One verification of a collection."""

    def __init__(
        self,
        embedder: AsyncEmbedder,
        store: Store,
        model: str,
        *,
        rng: random.Random,
        progress: Callable[[int, int], object] | None = None,
    ) -> None:
        self._embedder = embedder
        self._store = store
        self._model = model
        self._rng = rng
        self._progress = progress
        self._to_compare = 0
        self._left = 0  # wrong rows over the limit of one repair
        self.report = VerifyReport(store.destination, store.space.id)
        self._broken: dict[DocumentKey, int] = {}

    async def run(self, sample: int, *, repair: bool) -> VerifyReport:
        if not repair:
            await self.check(sample)
            return self.report
        with self._store.lock():
            await asyncio.to_thread(self._store.open)
            await self.check(sample)
            if self.report.faults:
                await self._apply(sample)
        return self.report

    async def check(self, sample: int) -> None:
        """Check the documents, and compare a random sample of the rows."""
        report = self.report
        await asyncio.to_thread(self._check_documents)
        chosen = await asyncio.to_thread(self._choose, sample)
        self._to_compare = len(chosen)
        await self._compare_chosen(chosen)
        report.bound = self._bound()

    async def _compare_chosen(self, chosen: Mapping[str, DocumentKey]) -> None:
        async for rows in _in_thread(lambda: self._sampled(chosen)):
            await self._compare(rows)

    def _check_documents(self) -> None:
        """Find documents without all of their rows, and rows that belong to no source."""
        sources = {source.name for source in self._store.record.sources}
        for found in self._store.documents():
            self.report.documents += 1
            name = place_of(found.key)
            if sources and found.key.source not in sources:
                self.report.orphaned += found.rows
                self.report.note("orphaned", name, f"the collection has no source {found.key.source!r}")
                self._broken[found.key] = 0
            elif found.rows < found.total:
                self.report.missing += found.total - found.rows
                self._broken[found.key] = found.total
            elif found.rows > found.total:
                self.report.orphaned += found.rows - found.total
                self._broken[found.key] = found.total
        self._name_rows({key: total for key, total in list(self._broken.items())[:MAX_NAMED] if total})

    def _name_rows(self, incomplete: Mapping[DocumentKey, int]) -> None:
        """Name the rows that are missing in documents, and those that they should not have."""
        if not incomplete:
            return
        numbers: dict[DocumentKey, list[int]] = {key: [] for key in incomplete}
        starts: dict[DocumentKey, str] = {}
        columns = ("id", "source", "document_id", "number")
        for rows in self._store.read(columns=columns, vectors=False, documents=set(incomplete)):
            for fields in rows.fields:
                numbers[key_of_row(fields)].append(int(fields["number"]))
                starts[key_of_row(fields)] = fields["id"].rpartition("#")[0]
        for key, total in incomplete.items():
            found = set(numbers[key])  # at least one: each document has a row
            named = [("missing", n, f"row {n + 1:,} of {total:,}") for n in range(total) if n not in found]
            named += [("orphaned", n, f"the document has {total:,} rows") for n in sorted(found) if n >= total]
            for kind, number, reason in named[:MAX_NAMED]:
                self.report.note(cast("Fault", kind), f"{starts[key]}#{number}", reason)
            if not named:  # a row exists twice
                self.report.note("orphaned", place_of(key), f"it has {len(numbers[key]):,} rows, not {total:,}")

    def _choose(self, sample: int) -> dict[str, DocumentKey]:
        """Return ids of random rows with their documents, each row with the same probability."""
        chosen: list[tuple[str, DocumentKey]] = []
        count = 0
        for rows in self._store.read(columns=("id", "source", "document_id"), vectors=False):
            for fields in rows.fields:
                count += 1
                if len(chosen) < sample:
                    chosen.append((fields["id"], key_of_row(fields)))
                elif (place := self._rng.randrange(count)) < sample:
                    chosen[place] = fields["id"], key_of_row(fields)
        self.report.rows = count
        return dict(chosen)

    def _sampled(self, chosen: Mapping[str, DocumentKey]) -> Iterator[Rows]:
        """Iterate over the chosen rows."""
        if not chosen:
            return
        for rows in self._store.read(documents=set(chosen.values())):
            inside = [number for number, fields in enumerate(rows.fields) if fields["id"] in chosen]
            if inside:
                yield Rows([rows.fields[number] for number in inside], rows.vectors[inside])

    async def _compare(self, rows: Rows) -> tuple[list[int], Vectors]:
        """Recompute rows, note wrong ones, and return their positions, with the computed vectors of all rows."""
        report = self.report
        computed, similar = await self._recompute(rows)
        report.sampled += len(rows.fields)
        lowest = float(similar.min())
        report.lowest_cosine = lowest if report.lowest_cosine is None else min(lowest, report.lowest_cosine)
        wrong = [int(row) for row in np.flatnonzero(~(similar >= SAME_COSINE))]
        report.wrong += len(wrong)
        if self._progress is not None:
            self._progress(report.sampled, max(self._to_compare, report.sampled))
        for row in wrong:
            report.note("wrong", rows.fields[row]["id"], f"cosine {similar[row]:.3f} to the vector of its text")
        return wrong, computed

    async def _recompute(self, rows: Rows) -> tuple[Vectors, Any]:
        """Return computed vectors of rows, and their cosines to the stored ones."""
        texts = [join_context(fields.get("context"), fields["text"]) for fields in rows.fields]
        record = self._store.record
        computed, cost = await self._embedder.cache.recompute(
            texts,
            model=self._model,
            dimensions=record.space.dimensions,
            on_overflow="mean" if record.chunking.on_overflow == "mean" else "truncate",
        )
        report = self.report
        report.cost_nanousd = None if cost is None or report.cost_nanousd is None else report.cost_nanousd + cost
        # Signs are compared with signs: their cosine to the exact vector is about 0.8.
        seen = np.sign(computed) if record.vector_type == "bits" else computed
        return computed, cosines(rows.vectors, seen)

    def _bound(self) -> float:
        report = self.report
        if not report.sampled:
            return 0.0 if not report.rows else 1.0
        if report.sampled >= report.rows:
            return report.wrong / report.rows
        return 1.0 - share_at_least(report.sampled - report.wrong, report.sampled, report.confidence)

    async def _apply(self, sample: int) -> None:
        """Replace wrong vectors of all rows, remove the rows of broken documents, and verify again."""
        store, report = self._store, self.report
        # Rows are read before the change begins, because not every store reads and writes at once.
        chunks, vectors = await self._all_wrong() if report.wrong else ([], [])
        report.removed = await asyncio.to_thread(self._count_broken)
        await asyncio.to_thread(store.begin_update, store.record)
        try:
            if self._broken:
                await asyncio.to_thread(store.remove, set(self._broken))
            for first in range(0, len(chunks), _BATCH_ROWS):
                some = slice(first, first + _BATCH_ROWS)
                await asyncio.to_thread(store.write, chunks[some], np.stack(vectors[some]))
            await asyncio.to_thread(store.commit)
        except BaseException:
            await asyncio.to_thread(store.abort)
            raise
        report.repaired = len(chunks)
        await asyncio.to_thread(store.open)
        again = _Verification(self._embedder, store, self._model, rng=self._rng)
        if report.wrong:
            await again.check_repaired({chunk.id: DocumentKey(chunk.source, chunk.document_id) for chunk in chunks})
            again.report.wrong += self._left
            again.report.bound = again.report.wrong / max(again.report.rows, 1)
        else:
            await again.check(sample)
        report.after = again.report

    async def check_repaired(self, repaired: Mapping[str, DocumentKey]) -> None:
        """Compare the rows that were replaced, after all others were found right."""
        await asyncio.to_thread(self._check_documents)
        await self._compare_chosen(repaired)
        if missing := len(repaired) - self.report.sampled:
            self.report.missing += missing
            self.report.note("missing", self._store.destination, f"{missing:,} of the replaced rows")
        self.report.rows = self.report.sampled = self._store.count

    async def _all_wrong(self) -> tuple[list[Chunk], list[Vectors]]:
        """Recompute all rows, because wrong ones may be outside of the sample; return chunks and vectors of wrong ones.

        Rows of broken documents are left out, because they are removed. At most `MAX_REPAIRED` rows are returned.
        """
        store, report = self._store, self.report
        report.sampled = report.wrong = 0
        report.faults = [fault for fault in report.faults if fault.kind != "wrong"]
        chunks: list[Chunk] = []
        vectors: list[Vectors] = []
        async for rows in _in_thread(store.read):
            wrong, computed = await self._compare(rows)
            for row in wrong:
                if key_of_row(rows.fields[row]) in self._broken:
                    continue
                if len(chunks) >= MAX_REPAIRED:
                    self._left += 1
                else:
                    chunks.append(chunk_of_row(rows.fields[row], store.record.keep))
                    vectors.append(computed[row])
        if self._left:
            reason = f"{self._left:,} more rows are wrong; repair again to replace them"
            report.note("wrong", store.destination, reason)
        report.bound = self._bound()
        return chunks, vectors

    def _count_broken(self) -> int:
        return sum(found.rows for found in self._store.documents() if found.key in self._broken)


async def _in_thread(iterate: Callable[[], Iterator[Rows]]) -> AsyncIterator[Rows]:
    """Iterate over rows in a thread, one batch at a time."""
    rows = iterate()
    try:
        while (batch := await asyncio.to_thread(next, rows, None)) is not None:
            yield batch
    finally:
        close = getattr(rows, "close", None)
        if close is not None:
            await asyncio.to_thread(close)
