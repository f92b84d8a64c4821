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
from embedway.collections.export import export_collection
from embedway.collections.options import SyncOptions
from embedway.collections.stores import open_store, store_for
from embedway.collections.stores.qdrant import QdrantStore
from embedway.collections.sync import sync_collection
from embedway.errors import EmbedwayError
from row_hashes import row_hashes

SUPPORT = Path(__file__).parents[2] / "support"
SCRIPT, EXPORT_SCRIPT = SUPPORT / "killed_sync.py", SUPPORT / "killed_export.py"
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


def run_script(*arguments, script=SCRIPT):
    """Return whether the process was killed."""
    done = subprocess.run([sys.executable, script, *map(str, arguments)], capture_output=True, check=False, timeout=120)
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
    """Failure of one call among all calls of some methods, before the call or after it, when the answer is lost.

    With `lasts`, all later calls fail too: for a server, that is as if the process was killed.
    """

    def __init__(self):
        self.at, self.after, self.lasts = 0, False, False
        self._calls = itertools.count(1)

    def arm(self, at, *, after, lasts=False):
        self.at, self.after, self.lasts, self._calls = at, after, lasts, itertools.count(1)

    def disarm(self):
        """Return whether the call was made."""
        fired, self.at = next(self._calls) > self.at, 0
        return fired

    def around(self, method, fail):
        @functools.wraps(method)
        def call(owner, *args, **options):
            number = next(self._calls)
            fails = number == self.at or (self.lasts and 0 < self.at < number)
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
    prefix = uuid.uuid4().hex[:8]
    if request.param == "qdrant":
        warnings.filterwarnings("ignore", message="Payload indexes have no effect")
        client = Flaky(QdrantClient(":memory:"), fault)
        form = f"qdrant:http://localhost:6333#{prefix}-{{}}"  # the lock of a name excludes other processes of the tests
        return fault, lambda name: QdrantStore(form.format(name), client=client)
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
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


@pytest.fixture
def versions(sync, tmp_path):
    """Return the paths of two collections with different rows."""
    paths = [str(tmp_path / f"{name}.parquet") for name in ("old", "new")]
    write_documents(tmp_path / "docs", 5)
    sync(store_for(paths[0]))
    change_documents(tmp_path / "docs")
    sync(store_for(paths[1]))
    return paths


def replace_with(path, destination):
    with contextlib.closing(open_store(path)) as source:
        export_collection(source, destination, overwrite=True)


def hashes_of(path, destination):
    """Return the hashes of the rows of a file in another store, which may round vectors."""
    replace_with(path, destination)
    return row_hashes(store_for(destination))


def name_of(store):
    """Return the name of a collection of Qdrant or Chroma."""
    return store._place.name  # noqa: SLF001  other programs have it from the destination


def take_the_plain_name(store):
    """Give a collection of Qdrant the name itself, as a restored snapshot has it, in place of an alias."""
    local = store._client._own._client  # noqa: SLF001  in memory, the client has no method for it
    local.collections[name_of(store)] = local.collections.pop(local.aliases.pop(name_of(store)))


def names_beside(store):
    """Return the names of collections that were staged for this one and are not it."""
    client = getattr(store, "_client", None)
    if isinstance(store, QdrantStore):
        used = {one.collection_name for one in client.get_aliases().aliases}
        return [
            one.name
            for one in client.get_collections().collections
            if one.name.startswith(f"{name_of(store)}.") and one.name not in used
        ]
    names = [one.name for one in client.list_collections()] if store.destination.startswith("chroma:") else []
    return [one for one in names if one.startswith(f"{name_of(store)}.")]


FAULTS = {
    "request lost": {"after": False},
    "answer lost": {"after": True},
    "killed before": {"after": False, "lasts": True},
    "killed after": {"after": True, "lasts": True},
}


@pytest.mark.parametrize("fault_options", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize(
    ("faulty", "is_plain"), [("qdrant", False), ("qdrant", True), ("chroma", False)], indirect=["faulty"]
)
def test_a_fault_at_any_call_of_an_overwrite_keeps_a_complete_collection(faulty, versions, fault_options, is_plain):
    fault, new_store = faulty
    old, new = (hashes_of(path, new_store(f"undisturbed-{at}")) for at, path in enumerate(versions))
    for at in itertools.count(1):
        name = f"replaced-{at}"
        replace_with(versions[0], new_store(name))
        if is_plain:
            take_the_plain_name(new_store(name))
        fault.arm(at, **fault_options)
        with contextlib.suppress(EmbedwayError):  # no other errors may leave an export
            replace_with(versions[1], new_store(name))
        fired = fault.disarm()
        with contextlib.closing(new_store(name)) as store:
            assert store.exists()
        found = row_hashes(new_store(name))
        assert found in (old, new)
        if not fired:
            assert found == new
            break
        replace_with(versions[1], new_store(name))
        assert row_hashes(new_store(name)) == new
        with contextlib.closing(new_store(name)) as store:
            store.open()
            assert names_beside(store) == []
    assert at > 10


def test_kill_9_at_each_call_of_a_commit_keeps_a_complete_collection(versions, tmp_path):
    destination = f"chroma:{tmp_path / 'chroma'}#rows"
    old, new = (hashes_of(path, destination) for path in versions)
    results = []
    for at in itertools.count(1):
        replace_with(versions[0], destination)
        killed = run_script(versions[1], destination, at, script=EXPORT_SCRIPT)
        results.append(row_hashes(store_for(destination)))
        if not killed:
            break
    # Before each of: look, rename the old one, rename the new one, remove the old one, count; then it is not killed.
    assert results == [old, old, old, new, new, new]
    with contextlib.closing(store_for(destination)) as store:
        store.open()
        assert names_beside(store) == []
