"""Verify the rows of a collection: recompute a random sample, and check that all documents are complete.

A sample without a wrong row bounds the share of wrong rows: with 95 % confidence it is at most the one-sided upper
bound of Clopper and Pearson (Biometrika 26, 1934). 250 rows prove 1.2 %. The bound needs a sample that is random and
independent of the errors, so rows are drawn with equal probability, by a generator that the system seeds.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from contextlib import aclosing, closing
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from embedway.arguments import check_callable, check_flag, check_integer
from embedway.collections.query_model import prove_query_model
from embedway.collections.recomputing import Recomputer, VerifyPlan
from embedway.collections.store_calls import batches_of, locked, uncancelled
from embedway.collections.stored_chunks import chunk_of_row, key_of_chunk, key_of_row
from embedway.collections.stores.base import Rows
from embedway.collections.verification_documents import check_documents
from embedway.collections.verification_report import VerifyReport
from embedway.money import usd
from embedway.vectors import SAME_COSINE, cosines
from embedway.worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Mapping

    from embedway._embedder import AsyncEmbedder
    from embedway.collections.chunks import Chunk
    from embedway.collections.documents import DocumentKey
    from embedway.collections.stores.base import Store
    from embedway.types import Vectors

#: Rows of a sample by default. Without a wrong one, they prove that at most 1.2 % of all rows are wrong.
DEFAULT_SAMPLE = 250
#: Maximum rows that one repair replaces, because their vectors are held in memory.
MAX_REPAIRED = 100_000
_BATCH_ROWS = 512

#: Rows, by document and id, and how many of them; an id occurs several times only in a damaged document.
_Chosen: TypeAlias = "Counter[tuple[DocumentKey, str]]"


async def plan_verification(
    embedder: AsyncEmbedder,
    store: Store,
    *,
    model: str | None = None,
    sample: int = DEFAULT_SAMPLE,
    rng: random.Random | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> VerifyPlan:
    """Estimate what `verify_collection` computes and costs. Nothing is embedded, if the collection has a full record.

    Raises as `verify_collection` does.
    """
    recomputer = await _recomputer(embedder, store, model, None, note=note)
    with closing(Worker("embedway-store")) as worker:
        work = _Verification(store, recomputer, worker, rng=rng or random.SystemRandom(), note=note)
        return await work.plan(check_integer(sample, "sample"))


async def verify_collection(
    embedder: AsyncEmbedder,
    store: Store,
    *,
    model: str | None = None,
    sample: int = DEFAULT_SAMPLE,
    repair: bool = False,
    most_nanousd: int | None = None,
    rng: random.Random | None = None,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[int, int], object] | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> VerifyReport:
    """Verify an open collection with the model that made it; `model` names it where the collection cannot.

    With `repair`, wrong vectors are replaced, after all rows were recomputed if the sample has a wrong one. Such rows
    lose their fingerprint, so the next sync embeds their documents again: their texts may be what was changed. Rows of
    incomplete or damaged documents and orphaned rows are removed, so that a sync adds the documents again. Then the
    collection is verified again.

    `most_nanousd` is the maximum cost. `progress` is called with the numbers of rows that are compared, and to compare.
    Raises SpaceMismatchError if the model's space is another one, BudgetExceededError, and the errors of the embedder
    and of the store.
    """
    repair = check_flag(repair, "repair")
    check_callable(progress, "progress")
    started = clock()
    sample = check_integer(sample, "sample")
    recomputer = await _recomputer(embedder, store, model, most_nanousd, note=note)
    with closing(Worker("embedway-store")) as worker:
        work = _Verification(store, recomputer, worker, rng=rng or random.SystemRandom(), note=note)
        report = await work.run(sample, repair=repair, progress=progress)
    report.seconds = clock() - started
    return report


async def _recomputer(
    embedder: AsyncEmbedder,
    store: Store,
    model: str | None,
    most_nanousd: int | None,
    *,
    note: Callable[[str], None],
) -> Recomputer:
    proved = await prove_query_model(embedder, store, model, note=note)
    return Recomputer(embedder, store, proved.name, most_nanousd)


class _Verification:
    """One verification of a collection. The worker makes all blocking calls of the store."""

    def __init__(
        self, store: Store, recomputer: Recomputer, worker: Worker, *, rng: random.Random, note: Callable[[str], None]
    ) -> None:
        self._store = store
        self._recomputer = recomputer
        self._worker = worker
        self._rng = rng
        self._note = note
        self._progress: Callable[[int, int], object] | None = None
        self._to_compare = 0
        self.report = VerifyReport(store.destination, store.space.id)
        #: Documents whose rows a repair removes.
        self._broken: set[DocumentKey] = set()
        #: Compared rows by document, and wrong rows with their right vectors.
        self._compared: Counter[DocumentKey] = Counter()
        self._wrong: list[tuple[Chunk, Vectors]] = []
        self._left = 0  # wrong rows over the limit of one repair

    async def plan(self, sample: int) -> VerifyPlan:
        """Return the estimate of a verification."""
        await self._worker.call(check_documents, self._store, self.report)
        return await self._estimate(await self._worker.call(self._choose, sample))

    async def _estimate(self, chosen: _Chosen) -> VerifyPlan:
        """Estimate the cost of the chosen rows; without a price above 0, from the first of them."""
        tokens = rows = resumed = 0
        cost: int | None = 0
        async with self._batches(lambda: self._only(chosen, vectors=False)) as batches:
            async for batch in batches:
                fields = self._recomputer.without_saved([row for row in batch.fields if row["text"].strip()])
                resumed += len(batch.fields) - len(fields)
                if not fields:
                    continue
                some, price = await self._recomputer.estimate(fields)
                tokens, rows = tokens + some, rows + len(fields)
                cost = None if price is None or cost is None else cost + price
                if not cost:
                    break
        sampled, count = chosen.total() - resumed, self.report.rows - resumed
        return VerifyPlan(
            destination=self._store.destination,
            model=self._recomputer.model,
            rows=self.report.rows,
            documents=self.report.documents,
            sampled=chosen.total(),
            tokens=_share(tokens, sampled, rows) or 0,
            cost_nanousd=_share(cost, sampled, rows),
            all_tokens=_share(tokens, count, rows) or 0,
            all_cost_nanousd=_share(cost, count, rows),
        )

    async def run(
        self, sample: int, *, repair: bool, progress: Callable[[int, int], object] | None = None
    ) -> VerifyReport:
        """Verify, and repair if that is asked for."""
        self._progress = progress
        try:
            if repair:
                async with locked(self._store, self._worker):
                    await self._worker.call(self._store.open)
                    await self._check_and_repair(sample)
            else:
                await self._check(sample)
        finally:
            self.report.tokens, self.report.cost_nanousd = self._recomputer.tokens, self._recomputer.cost_nanousd
        return self.report

    async def _check_and_repair(self, sample: int) -> None:
        """Verify and repair. If this is interrupted, the computed vectors are in a journal for the next repair."""
        is_complete = False
        try:
            await self._recomputer.open_journal()
            chosen = await self._check(sample)
            if self.report.faults:
                await self._repair(chosen)
            # Vectors of an interrupted repair stay until a repair has compared all rows and replaced the wrong ones.
            is_all = self.report.sampled >= self.report.rows or not self._recomputer.resumed
            is_complete = is_all and not self._left
        finally:
            await self._recomputer.close_journal(remove=is_complete)

    async def _check(self, sample: int) -> _Chosen:
        """Check the documents, compare a random sample of the rows, and return it."""
        self._broken = await self._worker.call(check_documents, self._store, self.report)
        chosen = await self._worker.call(self._choose, sample)
        self._to_compare = chosen.total()
        plan = await self._estimate(chosen)
        self._recomputer.check(plan)
        if plan.cost_nanousd != 0:
            self._note(plan.sentence)
        await self._compare_all(lambda: self._only(chosen))
        self.report.set_bound()
        return chosen

    def _choose(self, sample: int) -> _Chosen:
        """Return random rows, each with the same probability."""
        chosen: list[tuple[DocumentKey, str]] = []
        count = 0
        for rows in self._store.read(columns=("id", "source", "document_id"), vectors=False):
            for row in rows.fields:
                count += 1
                if len(chosen) < sample:
                    chosen.append((key_of_row(row), row["id"]))
                elif (place := self._rng.randrange(count)) < sample:
                    chosen[place] = key_of_row(row), row["id"]
        self.report.rows = count
        return Counter(chosen)

    def _only(self, chosen: _Chosen, *, vectors: bool = True) -> Iterator[Rows]:
        """Iterate over the chosen rows."""
        if not chosen:
            return
        rest = chosen.copy()
        for rows in self._store.read(vectors=vectors, documents={key for key, _ in chosen}, strict=False):
            inside = [place for place, row in enumerate(rows.fields) if _take(rest, row)]
            if inside:
                yield Rows([rows.fields[place] for place in inside], rows.vectors[inside])

    def _others(self, chosen: _Chosen) -> Iterator[Rows]:
        """Iterate over the rows that were not chosen."""
        rest = chosen.copy()
        for rows in self._store.read(strict=False):
            inside = [place for place, row in enumerate(rows.fields) if not _take(rest, row)]
            if inside:
                yield Rows([rows.fields[place] for place in inside], rows.vectors[inside])

    def _batches(self, iterate: Callable[[], Iterator[Rows]]) -> aclosing[AsyncGenerator[Rows]]:
        return aclosing(batches_of(self._worker, iterate))

    async def _compare_all(self, iterate: Callable[[], Iterator[Rows]]) -> None:
        async with self._batches(iterate) as batches:
            async for rows in batches:
                await self._compare(rows)

    async def _compare(self, rows: Rows) -> None:
        """Recompute rows, and note the wrong ones. A row without text is wrong, and its document damaged."""
        report = self.report
        report.sampled += len(rows.fields)
        self._compared.update(map(key_of_row, rows.fields))
        with_text = [place for place, row in enumerate(rows.fields) if row["text"].strip()]
        for place in set(range(len(rows.fields))).difference(with_text):
            report.wrong += 1
            report.note("wrong", rows.fields[place]["id"], "its text is empty; a repair removes its document's rows")
            self._broken.add(key_of_row(rows.fields[place]))
        if with_text:
            fields = [rows.fields[place] for place in with_text]
            self._judge(fields, rows.vectors[with_text], await self._recomputer.compute(fields))
        if self._progress is not None:
            self._progress(report.sampled, max(self._to_compare, report.sampled))

    def _judge(self, fields: list[dict[str, object]], stored: Vectors, computed: Vectors) -> None:
        """Note the rows whose stored vector is not the computed one."""
        report, record = self.report, self._store.record
        similar = self._similar(stored, computed)
        finite = np.isfinite(similar)
        if finite.any():
            report.note_cosine(float(similar[finite].min()))
        for place in np.flatnonzero(~(similar >= SAME_COSINE)).tolist():
            report.wrong += 1
            reason = f"cosine {similar[place]:.3f} to the vector of its text"
            if not finite[place]:
                reason = "its vector is missing, or has a number that is missing, infinite or not a number"
            report.note("wrong", str(fields[place]["id"]), reason)
            if len(self._wrong) < MAX_REPAIRED:
                self._wrong.append((chunk_of_row(fields[place], record.keep), computed[place]))
            else:
                self._left += 1

    def _similar(self, stored: Vectors, computed: Vectors) -> Vectors:
        """Return the cosines of rows (n,); NaN for a stored vector that is not finite."""
        # Signs are compared with signs: their cosine to the exact vector is about 0.8.
        return cosines(stored, np.sign(computed) if self._store.record.vector_type == "bits" else computed)

    async def _repair(self, chosen: _Chosen) -> None:
        """Replace wrong vectors of all rows, remove the rows of broken documents, and verify again."""
        store, report = self._store, self.report
        all_compared = bool(report.wrong)
        # Rows are read before the change begins, because not every store reads and writes at once.
        if all_compared:
            await self._compare_others(chosen)
        # The fingerprint is dropped because it is unknown whether the vector or the text was changed.
        wrong = [
            (replace(chunk, fingerprint=""), vector)
            for chunk, vector in self._wrong
            if key_of_chunk(chunk) not in self._broken
        ]
        report.removed = await self._worker.call(self._count_broken)
        await uncancelled(self._worker.call(self._write, wrong))
        report.repaired = len(wrong)
        await self._worker.call(store.open)
        report.after = await self._worker.call(self._verify_again, wrong, all_compared=all_compared)

    async def _compare_others(self, chosen: _Chosen) -> None:
        """Compare all rows that are not in the sample, because wrong ones may be among them."""
        report = self.report
        cost = self._recomputer.check_all(report.rows, report.sampled)
        if (others := report.rows - report.sampled) > 0:
            price = f", for about ${usd(cost)}" if cost else ""
            self._note(f"{report.wrong:,} of {report.sampled:,} rows wrong; the other {others:,} are compared{price}")
        self._to_compare = report.rows
        await self._compare_all(lambda: self._others(chosen))
        if self._left:
            reason = f"{self._left:,} more rows are wrong; repair again to replace them"
            report.note("wrong", self._store.destination, reason)
        report.set_bound()

    def _write(self, wrong: list[tuple[Chunk, Vectors]]) -> None:
        store = self._store
        store.begin_update(store.record)
        try:
            if self._broken:
                store.remove(self._broken)
            for first in range(0, len(wrong), _BATCH_ROWS):
                some = wrong[first : first + _BATCH_ROWS]
                store.write([chunk for chunk, _ in some], np.stack([vector for _, vector in some]))
            store.commit()
        except BaseException:
            store.abort()
            raise

    def _verify_again(self, wrong: list[tuple[Chunk, Vectors]], *, all_compared: bool) -> VerifyReport:
        """Check the documents and the rows that were written. What was right before is not computed again."""
        report = VerifyReport(self._store.destination, self._store.space.id, rows=self._store.count)
        check_documents(self._store, report)
        right = {chunk.id: vector for chunk, vector in wrong}
        documents = {key_of_chunk(chunk) for chunk, _ in wrong}
        for rows in self._store.read(documents=documents, strict=False) if documents else ():
            inside = [place for place, row in enumerate(rows.fields) if row["id"] in right]
            if not inside:
                continue
            computed = np.stack([right.pop(rows.fields[place]["id"]) for place in inside])
            similar = self._similar(rows.vectors[inside], computed)
            for place in np.flatnonzero(~(similar >= SAME_COSINE)).tolist():
                report.wrong += 1
                reason = f"cosine {similar[place]:.3f} to the vector that was written"
                report.note("wrong", rows.fields[inside[place]]["id"], reason)
        if right:
            report.missing += len(right)
            report.note("missing", self._store.destination, f"{len(right):,} of the replaced rows")
        if self._left:
            report.wrong += self._left
            report.note("wrong", self._store.destination, f"{self._left:,} rows; repair again to replace them")
        gone = sum(self._compared[key] for key in self._broken)
        report.sampled = report.rows if all_compared else self.report.sampled - gone
        report.set_bound()
        return report

    def _count_broken(self) -> int:
        return sum(found.rows for found in self._store.documents() if found.key in self._broken)


def _share(number: int | None, count: int, of: int) -> int | None:
    """Return a number of `of` rows for `count` rows."""
    return None if number is None else -(-number * count // max(of, 1))


def _take(rest: _Chosen, row: Mapping[str, object]) -> bool:
    """Remove a row from those that are expected; return False if it is not one of them."""
    key = (key_of_row(row), str(row["id"]))
    if not rest[key]:
        return False
    rest[key] -= 1
    return True
