"""Changes of files are grouped into rounds by a clock that the test moves; real folders are watched."""

import asyncio
import shutil
from contextlib import aclosing

import pytest

from embedway.collections import file_changes as module
from embedway.collections.file_changes import MOST_S, QUIET_S, debounced, file_changes, own_files
from embedway.collections.stores import store_for


class Clock:
    """Time that moves only by `pass_time`, and the pauses that wait for it."""

    def __init__(self):
        self.now = 0.0
        self._pauses = []

    def time(self):
        return self.now

    async def sleep(self, seconds):
        end = asyncio.Event()
        self._pauses.append((self.now + seconds, end))
        await end.wait()

    async def pass_time(self, seconds):
        await settle()
        self.now += seconds
        for until, end in self._pauses:
            if until <= self.now:
                end.set()
        await settle()


async def settle():
    """Let all tasks run until they wait."""
    for _ in range(20):
        await asyncio.sleep(0)


class Watch:
    """A debounced watch of changes that the test makes; `rounds` counts the items."""

    def __init__(self):
        self.clock, self.rounds, self._queue = Clock(), 0, asyncio.Queue()

    async def changes(self):
        while (one := await self._queue.get()) is not None:
            yield one

    async def change(self, count=1):
        for number in range(count):
            self._queue.put_nowait(number + 1)
        await settle()

    async def run(self, play):
        async with debounced(self.changes(), clock=self.clock.time, sleep=self.clock.sleep) as groups:
            count = asyncio.ensure_future(self._count(groups))
            await play(self)
            self._queue.put_nowait(None)
            await self.clock.pass_time(MOST_S)
            await count
        return self.rounds

    async def _count(self, groups):
        async for _ in groups:
            self.rounds += 1


def rounds_of(play):
    async def run():
        return await Watch().run(play)

    return asyncio.run(run())


def test_a_burst_of_changes_is_one_round():
    async def play(watch):
        for _ in range(5):
            await watch.change(count=3)
            await watch.clock.pass_time(QUIET_S * 0.9)
        assert watch.rounds == 0
        await watch.clock.pass_time(QUIET_S)
        assert watch.rounds == 1

    assert rounds_of(play) == 1


def test_changes_with_a_pause_between_are_two_rounds():
    async def play(watch):
        for _ in range(2):
            await watch.change()
            await watch.clock.pass_time(QUIET_S)

    assert rounds_of(play) == 2


def test_a_file_that_is_always_written_delays_a_round_for_a_limited_time():
    async def play(watch):
        for _ in range(int(2 * MOST_S / QUIET_S)):
            await watch.change()
            await watch.clock.pass_time(QUIET_S / 2)
        assert watch.rounds >= 1

    assert rounds_of(play) >= 1


def test_nothing_changed_is_no_round():
    async def play(watch):
        await watch.clock.pass_time(10 * MOST_S)

    assert rounds_of(play) == 0


def test_the_error_of_a_watch_arrives_and_its_generator_is_closed():
    closed = []

    async def broken():
        try:
            yield 1
            raise RuntimeError("gone")
        finally:
            closed.append(True)

    async def run():
        async with debounced(broken()) as groups:
            async for _ in groups:
                pass

    with pytest.raises(RuntimeError, match="gone"):
        asyncio.run(run())
    assert closed == [True]


@pytest.fixture
def docs(tmp_path, monkeypatch):
    pytest.importorskip("watchfiles")
    monkeypatch.setattr(module, "CHECK_MS", 50)
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.md").write_text("a text")
    return folder


def changes_seen(paths, destination, steps):
    """Watch, take each step, and wait for an item after each."""

    async def run():
        async with aclosing(file_changes([str(path) for path in paths], store_for(str(destination)))) as changes:
            for step in steps:
                waiting = asyncio.ensure_future(anext(changes))
                await asyncio.sleep(0)
                step()
                await asyncio.wait_for(waiting, 60)
        return True

    return asyncio.run(run())


def test_a_folder_that_is_removed_and_made_again_is_watched_again(docs, tmp_path):
    def remove():
        shutil.rmtree(docs)

    def make():
        docs.mkdir()

    def write():
        (docs / "b.md").write_text("another text")

    assert changes_seen([docs], tmp_path / "out.parquet", [remove, make, write])


def test_a_replaced_file_is_watched_on(docs, tmp_path):
    def replace():
        (tmp_path / "new").write_text("a new text")
        (tmp_path / "new").rename(docs / "a.md")

    assert changes_seen([docs / "a.md"], tmp_path / "out.parquet", [replace, replace])


@pytest.mark.parametrize(
    ("destination", "own", "others"),
    [
        ("{}/c.parquet", ["c.parquet", "c.parquet.rejects.jsonl", ".c.parquet.embedway-lock"], ["c.parquet2", "c.md"]),
        ("{}/c.jsonl", ["c.jsonl", "c.jsonl.embedway.json"], ["c.jsonld", ".c.md"]),
        ("lancedb:{}#c", ["c.lance", "c.lance/data/1", ".c.lance.x.tmp", "c.rejects.jsonl"], ["c", "c.md", "d.lance"]),
        ("chroma:{}/base#rows", ["base/chroma.sqlite3", "base", "base.rows.rejects.jsonl"], ["base2", "c"]),
        ("chroma:http://host:8000#rows", [], ["c"]),
        ("postgresql://me@host/base#c", [], ["c"]),
    ],
)
def test_the_collections_own_files_are_no_changes(tmp_path, destination, own, others):
    is_own = own_files(store_for(destination.format(tmp_path)))
    assert [name for name in (*own, *others) if is_own(str(tmp_path / name))] == own
