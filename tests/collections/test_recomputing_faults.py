"""Repairs and removals that are interrupted, limited or repeated."""

import asyncio
import shutil
import threading
from collections import Counter

import pytest

from damaged_collection import damage
from embedway import AsyncEmbedder
from embedway.collections import verification
from embedway.collections.forgetting import forget_documents
from embedway.collections.journal import journal_path, repair_journal_path
from embedway.collections.options import SyncOptions
from embedway.collections.recomputing import Recomputer
from embedway.collections.stores import open_store
from embedway.collections.stores.base import Rows
from embedway.collections.sync import sync_collection
from embedway.collections.verification import plan_verification, verify_collection
from embedway.errors import CollectionLockedError, EmbedwayError, StateError
from embedway.money import to_nanousd
from held_service import PATIENCE_S, config_of, held_service

DOCUMENTS = 128
PRICE = {"models.mine.price_usd_per_million_tokens": "1000"}


def run(service, folder, work, **more):
    async def main():
        config = config_of(service.url, folder, **{"cache.backend": "none", "upstream.max_attempts": 1, **more})
        async with AsyncEmbedder(config=config) as embedder:
            return await work(embedder)

    return asyncio.run(main())


@pytest.fixture(name="destination")
def damaged_collection(tmp_path):
    """Return the path of a collection whose vectors are all wrong."""
    folder, destination = tmp_path / "docs", str(tmp_path / "out.parquet")
    folder.mkdir()
    for number in range(DOCUMENTS):
        (folder / f"{number}.txt").write_text(f"the event loop of {number}")
    with held_service(free=99) as service:
        run(service, tmp_path, lambda embedder: sync_collection(embedder, destination, [str(folder)], SyncOptions()))
    shutil.copy(destination, tmp_path / "right.parquet")
    damage(destination)
    return destination


def repair(destination, **options):
    return lambda embedder: verify_collection(
        embedder, open_store(destination), **{"sample": DOCUMENTS, "repair": True, **options}
    )


def interrupt_repair(destination, folder, requests, **more):
    """Let a repair fail after some requests of 32 texts; return their texts."""
    one_by_one = {"upstream.concurrency": 1}  # the refusal would cancel an answer that is not read yet
    with held_service(free=requests, fault=402) as service, pytest.raises(EmbedwayError):
        run(service, folder, repair(destination), **one_by_one, **more)
    return service.answered


class SlowStep:
    """Function that waits in its thread until a test lets it go on."""

    def __init__(self, function):
        self.function = function
        self.begun, self.going = threading.Event(), threading.Event()

    def __call__(self, *args, **kwargs):
        self.begun.set()
        assert self.going.wait(PATIENCE_S)
        return self.function(*args, **kwargs)


def is_locked(destination):
    try:
        with open_store(destination).lock():
            return False
    except CollectionLockedError:
        return True


@pytest.mark.parametrize("command", ["repair", "forget"])
def test_a_cancelled_command_holds_the_lock_until_its_commit_has_ended(tmp_path, destination, command):
    async def work(embedder):
        store = open_store(destination)
        store.commit = slow = SlowStep(store.commit)
        if command == "repair":
            call = verify_collection(embedder, store, sample=DOCUMENTS, repair=True)
        else:
            call = forget_documents(embedder, store, ["3.txt"], model="acme/m")
        task = asyncio.create_task(call)
        await asyncio.to_thread(slow.begun.wait, PATIENCE_S)
        task.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
        held = is_locked(destination)
        slow.going.set()
        await task
        return held, is_locked(destination)

    with held_service(free=99) as service:
        assert run(service, tmp_path, work) == (True, False)


def test_a_cancelled_verification_raises_the_cancellation(tmp_path, destination):
    async def work(embedder):
        store = open_store(destination)
        read, begun, going = store.read, threading.Event(), threading.Event()

        def slow_read(**options):
            for rows in read(**options):
                if not options.get("vectors", True):  # the rows to choose from, and those to estimate
                    yield rows
                    continue
                begun.set()
                assert going.wait(PATIENCE_S)
                yield rows

        store.read = slow_read
        task = asyncio.create_task(verify_collection(embedder, store))
        await asyncio.to_thread(begun.wait, PATIENCE_S)
        task.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
        going.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    with held_service(free=99) as service:
        run(service, tmp_path, work)


def test_a_limited_repair_keeps_the_vectors_of_the_rows_that_are_left(tmp_path, destination, monkeypatch):
    monkeypatch.setattr(verification, "MAX_REPAIRED", 32)
    with held_service(free=99) as service:
        first = run(service, tmp_path, repair(destination))
    monkeypatch.setattr(verification, "MAX_REPAIRED", DOCUMENTS)
    with held_service(free=99) as again:
        second = run(again, tmp_path, repair(destination))
    assert (first.repaired, first.faultless) == (32, False)
    assert (second.repaired, second.faultless) == (DOCUMENTS - 32, True)
    assert again.answered == []
    assert max(Counter(service.answered).values()) == 1
    assert not repair_journal_path(open_store(destination)).exists()


def test_a_repair_whose_sample_has_no_fault_keeps_the_journal_of_an_interrupted_one(tmp_path, destination):
    interrupt_repair(destination, tmp_path, 1)
    shutil.copy(tmp_path / "right.parquet", destination)
    with held_service(free=99) as service:
        report = run(service, tmp_path, repair(destination, sample=8))
    assert (report.sampled, report.wrong) == (8, 0)
    assert repair_journal_path(open_store(destination)).exists()


def test_a_repair_saves_vectors_that_depend_on_their_batch(tmp_path, destination):
    def fail():
        raise OSError("no space left")

    async def failing(embedder):
        store = open_store(destination)
        store.commit = fail
        with pytest.raises(OSError, match="no space left"):
            await verify_collection(embedder, store, sample=DOCUMENTS, repair=True)

    dependent = {"routes.r.options": {"batch_dependent": True}}
    with held_service(free=99) as service:
        run(service, tmp_path, failing, **dependent)
    assert len(service.answered) == DOCUMENTS
    with held_service(free=99) as again:
        report = run(again, tmp_path, repair(destination), **dependent)
    assert again.answered == []
    assert report.faultless


def test_a_repeated_repair_needs_only_the_money_for_what_is_left(tmp_path, destination):
    with held_service(free=99) as service:
        plan = run(
            service,
            tmp_path,
            lambda embedder: plan_verification(embedder, open_store(destination), sample=DOCUMENTS),
            **PRICE,
        )
    assert plan.cost_nanousd > 0
    interrupt_repair(destination, tmp_path, 3, **PRICE)
    with held_service(free=99) as again:
        report = run(again, tmp_path, repair(destination, most_nanousd=plan.cost_nanousd // 2), **PRICE)
    assert report.faultless
    assert len(again.answered) == DOCUMENTS - 3 * 32


def test_saved_vectors_of_the_sample_do_not_lower_the_estimate_of_the_other_rows(tmp_path, destination):
    async def work(embedder):
        store = open_store(destination)
        recomputer = Recomputer(embedder, store, "acme/m", to_nanousd("1000", name="x"))
        await recomputer.open_journal()
        rows = [row for batch in store.read() for row in batch.fields]
        sample = sorted(rows, key=lambda row: row["text"] not in saved)[:64]
        await recomputer.compute(sample)
        cost = recomputer.cost_nanousd
        await recomputer.close_journal(remove=True)
        return cost, recomputer.check_all(DOCUMENTS, 64)

    saved = set(interrupt_repair(destination, tmp_path, 1, **PRICE))
    with held_service(free=99) as service:
        cost, rest = run(service, tmp_path, work, **PRICE)
    assert len(service.answered) == 32
    assert rest == 2 * cost  # 64 rows are left, and 32 were computed


def test_forget_removes_the_journals_of_the_collection(tmp_path, destination):
    interrupt_repair(destination, tmp_path, 1)
    store = open_store(destination)
    journal_path(store).write_bytes(b"of an interrupted sync")
    with held_service(free=99) as service:
        report = run(service, tmp_path, lambda embedder: forget_documents(embedder, store, ["3.txt"], model="acme/m"))
    assert report.rows == 1
    assert not journal_path(store).exists()
    assert not repair_journal_path(store).exists()


def test_a_journal_that_forget_cannot_remove_is_named(tmp_path, destination):
    store = open_store(destination)
    path = journal_path(store)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir()
    with held_service(free=99) as service:
        report = run(service, tmp_path, lambda embedder: forget_documents(embedder, store, ["3.txt"], model="acme/m"))
    assert any(str(path) in left for left in report.left)


def test_a_repair_with_an_unreadable_journal_leaves_no_thread(tmp_path, destination):
    path = repair_journal_path(open_store(destination))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir()
    before = set(threading.enumerate())

    async def work(embedder):
        with pytest.raises(StateError):
            await repair(destination)(embedder)
        for thread in set(threading.enumerate()) - before:
            if thread.name == "embedway-journal":
                await asyncio.to_thread(thread.join, PATIENCE_S)
                assert not thread.is_alive()

    with held_service(free=99) as service:
        run(service, tmp_path, work)


def test_one_thread_uses_the_store_at_a_time(tmp_path, destination):
    users, overlaps = [], []

    class InUse:
        def __enter__(self):
            overlaps.extend(users)
            users.append(threading.current_thread().name)

        def __exit__(self, *_):
            users.pop()

    async def work(embedder):
        store = open_store(destination)
        read = store.read
        threads = set()

        def small_batches(**options):
            try:
                for rows in read(**options):
                    for first in range(0, len(rows.fields), 16):
                        with InUse():
                            threads.add(threading.current_thread())
                        vectors = rows.vectors[first : first + 16] if len(rows.vectors) else rows.vectors
                        yield Rows(rows.fields[first : first + 16], vectors)
            finally:
                threads.add(threading.current_thread())

        store.read = small_batches
        report = await verify_collection(embedder, store, sample=DOCUMENTS)
        return report, threads

    with held_service(free=99) as service:
        report, threads = run(service, tmp_path, work)
    assert report.sampled == DOCUMENTS
    assert len(threads) == 1
