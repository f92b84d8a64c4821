"""Syncs that are killed, or lose their server, at each step: the next one makes the same rows as an undisturbed one."""

import asyncio
import contextlib
import functools
import itertools
import signal
import subprocess
import sys
import uuid
import warnings
from pathlib import Path

import psycopg
import pytest
from chromadb.api.client import Client
from chromadb.api.models.Collection import Collection
from qdrant_client import QdrantClient

from embedway.collections import chunk_reader
from embedway.collections.options import SyncOptions
from embedway.collections.stores import store_for
from embedway.collections.stores.qdrant import QdrantStore
from embedway.collections.sync import sync_collection
from embedway.errors import EmbedwayError
from row_hashes import row_hashes

SCRIPT = Path(__file__).parents[2] / "support" / "killed_sync.py"
#: Batch of the script.
BATCH = 8
#: Events at which a creation and a change are killed, one after another: at the start, between writes, at the end.
CREATION, CHANGE = (2, 5, 8), (2, 5)
STATEMENTS = ((psycopg.Cursor, ("execute", "copy")),)
CALLS = (
    (Client, ("create_collection", "get_collection", "list_collections", "delete_collection", "get_max_batch_size")),
    (Collection, ("upsert", "get", "delete", "modify", "count")),
)


def write_documents(folder, count):
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.md").write_text(f"# Title {number}\n\nthe event loop of {number}\n")


def change_documents(folder):
    """Change a third of the documents, remove a third, and add some."""
    for path in sorted(folder.iterdir())[::3]:
        path.write_text(path.read_text() + "another sentence\n")
    for path in sorted(folder.iterdir())[1::3]:
        path.unlink()
    for number in range(3):
        (folder / f"new {number}.md").write_text(f"# New {number}\n\nthe thread of {number}\n")


@pytest.fixture
def sync(fake_embedder, tmp_path):
    def run(store):
        return asyncio.run(sync_collection(fake_embedder(), store, [str(tmp_path / "docs")], SyncOptions(wait=True)))

    return run


@pytest.fixture(params=["lancedb", "chroma", "postgres"])
def new_destination(request, tmp_path):
    """Return a function that returns a destination that does not exist."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    forms = {"lancedb": "lancedb:{0}#rows", "chroma": "chroma:{0}#rows", "postgres": f"{url}#{{1}}"}
    return lambda: forms[request.param].format(tmp_path / uuid.uuid4().hex[:8], f"rows {uuid.uuid4().hex[:12]}")


def run_script(*arguments):
    """Return whether the process was killed."""
    done = subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, check=False, timeout=120)
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr.decode()
    return done.returncode != 0


def test_kill_9_at_each_step_and_repeated_equals_an_undisturbed_sync(new_destination, sync, tmp_path):
    docs, counts, destination = tmp_path / "docs", tmp_path / "counts", new_destination()
    write_documents(docs, 24)
    killed = [run_script(docs, destination, counts, 0, event) for event in CREATION]
    run_script(docs, destination, counts, 0)
    assert sum(killed) >= 2
    undisturbed = store_for(new_destination())
    written = sync(undisturbed).chunks_written
    assert row_hashes(store_for(destination)) == row_hashes(undisturbed)
    # A killed process may lose the batch in flight, and one more that was not kept yet.
    assert sum(map(int, counts.read_text().split())) <= written + 2 * BATCH * sum(killed)

    change_documents(docs)
    killed = [run_script(docs, destination, counts, 0, event) for event in CHANGE]
    run_script(docs, destination, counts, 0)
    assert sum(killed) >= 2
    sync(undisturbed)
    assert row_hashes(store_for(destination)) == row_hashes(undisturbed)


class Fault:
    """Failure of one call among all calls of some methods, before the call or after it, when the answer is lost."""

    def __init__(self):
        self.at, self.after = 0, False
        self._calls = itertools.count(1)

    def arm(self, at, *, after):
        self.at, self.after, self._calls = at, after, itertools.count(1)

    def disarm(self):
        """Return whether the call was made."""
        fired, self.at = next(self._calls) > self.at, 0
        return fired

    def around(self, method, fail):
        @functools.wraps(method)
        def call(owner, *args, **options):
            fails = next(self._calls) == self.at
            if fails and not self.after:
                fail(owner)
            result = method(owner, *args, **options)
            if fails and self.after:
                fail(owner)
            return result

        return call


def lose_connection(cursor):
    cursor.connection.close()
    raise psycopg.OperationalError("the connection was lost")


def refuse(_):
    raise ConnectionError("the connection was lost")


class Flaky:
    """Client whose methods fail as the fault says."""

    def __init__(self, client, fault):
        self._own, self._fault = client, fault

    def __getattr__(self, name):
        method = getattr(self._own, name)
        return functools.partial(self._fault.around(lambda _, *args, **options: method(*args, **options), refuse), self)


@pytest.fixture(params=["qdrant", "postgres", "chroma"])
def faulty(request, tmp_path, monkeypatch):
    """Return a fault of the calls of one kind of store, and a function that returns a new store."""
    fault = Fault()
    monkeypatch.setattr(chunk_reader, "FIRST_BATCH_CHUNKS", 4)
    monkeypatch.setattr(chunk_reader, "MAX_BATCH_CHUNKS", 4)
    if request.param == "qdrant":
        warnings.filterwarnings("ignore", message="Payload indexes have no effect")
        client = Flaky(QdrantClient(":memory:"), fault)
        return fault, lambda name: QdrantStore(f"qdrant:http://localhost:6333#{name}", client=client)
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
        prefix = uuid.uuid4().hex[:8]
        classes, fail, form = STATEMENTS, lose_connection, f"{url}#{prefix} {{}}"
    else:
        classes, fail, form = CALLS, refuse, f"chroma:{tmp_path / 'chroma'}#{{}}"
    for kind, names in classes:
        for name in names:
            monkeypatch.setattr(kind, name, fault.around(getattr(kind, name), fail))
    return fault, lambda name: store_for(form.format(name))


@pytest.mark.parametrize("after", [False, True], ids=["request lost", "answer lost"])
def test_a_fault_at_any_call_and_repeated_equals_an_undisturbed_sync(faulty, sync, tmp_path, after):
    fault, new_store = faulty
    docs = tmp_path / "docs"
    write_documents(docs, 9)
    sync(new_store("undisturbed"))
    first = row_hashes(new_store("undisturbed"))
    change_documents(docs)
    sync(new_store("undisturbed"))
    second = row_hashes(new_store("undisturbed"))
    for at in itertools.count(1):
        fired = []
        for expected in (first, second):
            if expected is first:
                for path in docs.iterdir():
                    path.unlink()
                docs.rmdir()
                write_documents(docs, 9)
            else:
                change_documents(docs)
            fault.arm(at, after=after)
            with contextlib.suppress(EmbedwayError):  # no other errors may leave a sync
                sync(new_store(f"disturbed-{at}"))
            fired.append(fault.disarm())
            sync(new_store(f"disturbed-{at}"))
            assert row_hashes(new_store(f"disturbed-{at}")) == expected
        if not any(fired):
            break
    assert at > 10
