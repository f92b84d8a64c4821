"""A search while another thread changes the collection sees one state of it, and never a part of a change."""

import threading

import numpy as np
import pytest

from embedway.collections.chunks import Chunk
from embedway.collections.documents import DocumentKey
from embedway.collections.record import Record
from embedway.collections.stores import create_store, open_store
from embedway.errors import SinkError
from embedway.space import Space

DOCUMENTS, CHANGES = 30, 12


def chunks(version):
    """Return rows whose number depends on the version: one for each document, and two of every third one."""
    return [
        Chunk(
            id=f"s/d{n}#{part}",
            document_id=f"d{n}",
            text=f"version {version}",
            start_char=0,
            end_char=1,
            start_line=1,
            title=None,
            source="s",
            metadata={"version": version},
            number=part,
            total=1 + (version + n) % 2,
            fingerprint=str(version),
        )
        for n in range(DOCUMENTS)
        for part in range(1 + (version + n) % 2)
    ]


def write(store, version):
    rows = chunks(version)
    store.write(rows, np.random.default_rng(version).standard_normal((len(rows), 4)).astype(np.float32))
    store.commit()


def check(store, versions):
    """Check that each reading of an open store shows one whole version, and the same one."""
    hits = store.search(np.ones(4, np.float32), 1000)
    fetched = store.fetch([f"s/d{n}#0" for n in range(DOCUMENTS)])
    seen = {hit.metadata["version"] for hit in hits} | {row["version"] for row in fetched.values()}
    assert len(seen) == 1
    version = seen.pop()
    assert len(hits) == len(chunks(version)) == store.count
    assert len(fetched) == DOCUMENTS
    versions.add(version)


@pytest.mark.parametrize("form", ["c.parquet", "c.jsonl", "lancedb:db#rows"])
def test_a_search_sees_the_old_or_the_new_state(form, tmp_path):
    scheme, _, rest = form.rpartition(":")
    destination = f"{scheme}:{tmp_path / rest}" if scheme else str(tmp_path / form)
    store = create_store(destination)
    store.begin(Record(Space("tiny", "cd" * 32, 4, "mean", normalized=True), keep={"version": "int"}))
    write(store, 0)
    store.close()
    done, failures = threading.Event(), []

    def change():
        try:
            for version in range(1, CHANGES + 1):
                changed = open_store(destination)
                changed.begin_update(changed.record)
                changed.remove({DocumentKey("s", f"d{n}") for n in range(DOCUMENTS)})
                write(changed, version)
                changed.close()
        except BaseException as error:  # noqa: BLE001  shown by the test
            failures.append(error)
        finally:
            done.set()

    kept = open_store(destination)
    before, seen = set(), set()
    writer = threading.Thread(target=change)
    writer.start()
    while not done.is_set():
        fresh = open_store(destination)
        check(fresh, seen)
        fresh.close()
        check(kept, before)
    writer.join()
    assert failures == []
    assert before == {0}  # an open collection stays as it was opened
    last = open_store(destination)
    check(last, seen)
    last.close()
    kept.close()
    assert CHANGES in seen
    with pytest.raises(SinkError):
        open_store(f"{destination}x.parquet")
