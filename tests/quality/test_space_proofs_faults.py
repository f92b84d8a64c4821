"""Stored proofs: records of any content are readable proofs or none, and can be removed."""

import asyncio
import base64
import contextlib
import json
import logging
import sqlite3
from dataclasses import asdict

import numpy as np
import pytest

from embedway.ledger.records import Record
from embedway.ledger.sqlite_records import SqliteRecords
from embedway.quality.space_proofs import Reference, RouteIdentity, SpaceProof, SpaceProofs, proof_name, reference_name
from memory_records import MemoryRecords

A, B = RouteIdentity("routes.a", "openai", "m"), RouteIdentity("routes.b", "tei", "m")
KINDS = {"query": 3, "document": 3}
REMOVED = object()


def proofs_of(records):
    return SpaceProofs(records, clock=lambda: 1e9)


def stored_documents():
    """Return the documents of a good proof and a good reference."""

    async def main():
        records = MemoryRecords()
        proofs = proofs_of(records)
        figures = {"dimensions": [8, 8], "figures": [{"input_type": "query", "texts": 3, "top10_interval": [0.5, 1.0]}]}
        await proofs.keep(
            SpaceProof(
                *(proof_name(A, B), A, B, "same space", ("a reason",), 3, "p", 1e9), is_measured=True, figures=figures
            )
        )
        rows = np.random.default_rng(1).standard_normal((3, 8)).astype(np.float32)
        await proofs.keep_reference(A, Reference({"query": rows, "document": rows}), "p")
        return {one.name: json.loads(one.document) for one in await records.all("equivalence")}

    return asyncio.run(main())


GOOD = stored_documents()


def read(name, document):
    """Store a document in place of a good one; return what is found: the proof, the reference, and the list."""

    async def main():
        records = MemoryRecords()
        for kept, good in GOOD.items():
            text = document if kept == name else json.dumps(good)
            await records.put(Record("equivalence", kept, text))
        proofs = proofs_of(records)
        found = await proofs.between(B, A), await proofs.reference(A, "p", KINDS), await proofs.all()
        again = await proofs.all()
        assert await proofs.remove(name)
        assert name not in [one.name for one in await proofs.all()]
        return *found, again

    return asyncio.run(main())


def paths_of(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        yield from paths_of(one, (*path, key))


def changed(document, path, value):
    copy = json.loads(json.dumps(document))
    if not path:
        return json.dumps(value)
    place = copy
    for key in path[:-1]:
        place = place[key]
    if value is REMOVED:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(copy)


VALUES = (
    None,
    True,
    5,
    -1,
    10**400,
    float("inf"),
    float("nan"),
    "x",
    "\ud800",
    "",
    [],
    ["x"],
    [[1]],
    {},
    {"a": 1},
    REMOVED,
)


@pytest.mark.parametrize("name", GOOD)
def test_every_change_of_a_record_is_read_without_a_foreign_error(name):
    for path in paths_of(GOOD[name]):
        for value in VALUES:
            if path or value is not REMOVED:
                proof, _, listed, _ = read(name, changed(GOOD[name], path, value))
                for one in [*filter(None, [proof]), *listed]:
                    assert one.date
                    json.dumps(asdict(one), allow_nan=False, ensure_ascii=False).encode()


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize(
    "document",
    ["", "[", "[" * 200_000, '{"a":' * 50_000, "5", "null", "9" * 5000, "[1]", "{}"],
    ids=lambda text: text[:6],
)
def test_what_is_no_record_is_no_proof_and_logged_once_by_name(name, document, caplog):
    with caplog.at_level(logging.WARNING):
        proof, reference, listed, again = read(name, document)
    assert (proof if name == proof_name(A, B) else reference) is None
    assert name not in [one.name for one in (*listed, *again)]
    assert len(listed) == 1
    assert [name in line.getMessage() for line in caplog.records] == [True]


def encoded(rows):
    rows = np.asarray(rows, "<f4")
    return {"shape": list(rows.shape), "float32": base64.b64encode(rows.tobytes()).decode()}


@pytest.mark.parametrize(
    "results",
    [
        {},
        {"zzz": encoded(np.ones((1, 1)))},
        {"query": encoded(np.ones((3, 8)))},
        {"query": encoded(np.ones((3, 8))), "document": encoded(np.ones((2, 8)))},
        {
            "query": encoded(np.ones((3, 8))),
            "document": {"shape": [-1, 8], "float32": encoded(np.ones((3, 8)))["float32"]},
        },
        {"query": encoded(np.ones((3, 8))), "document": {"shape": [10**30, 8], "float32": ""}},
        {
            "query": encoded(np.ones((3, 8))),
            "document": {"shape": [3.0, 8], "float32": encoded(np.ones((3, 8)))["float32"]},
        },
    ],
)
def test_a_reference_needs_a_row_for_each_text_of_each_kind(results):
    name = reference_name(A)
    assert read(name, json.dumps(GOOD[name]))[1] is not None
    assert read(name, json.dumps({**GOOD[name], "results": results}))[1] is None


def test_one_record_that_the_store_cannot_unpack_hides_no_other(tmp_path):
    async def main():
        records = SqliteRecords(tmp_path / "ledger.sqlite")
        for name, document in (*GOOD.items(), ("damaged", {})):
            await records.put(Record("equivalence", name, json.dumps(document)))
        with contextlib.closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as connection, connection:
            connection.execute("UPDATE records SET document = x'00' WHERE name = 'damaged'")
        proofs = proofs_of(records)
        assert {one.name for one in await proofs.all()} == set(GOOD)
        assert await proofs.remove("damaged")
        await records.aclose()

    asyncio.run(main())
