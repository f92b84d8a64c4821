"""Store of proofs: comparisons and vectors are different kinds, and what cannot be read is no proof."""

import asyncio
import json

import numpy as np
import pytest

from embedway.ledger.records import Record
from embedway.quality.space_proofs import (
    VALID_DAYS,
    Reference,
    RouteIdentity,
    SpaceProof,
    SpaceProofs,
    StoredVectors,
    proof_name,
    reference_name,
)
from memory_records import MemoryRecords

A, B = RouteIdentity("routes.a", "openai", "m"), RouteIdentity("routes.b", "voyage", "m")
NOW = 1_700_000_000.0


def made():
    """Return a store of proofs, with its records."""
    records = MemoryRecords()
    return SpaceProofs(records, clock=lambda: NOW), records


def test_stored_vectors_are_no_comparison():
    proofs, _ = made()
    vectors = np.float32([[1, 2], [np.nan, np.nan]])

    async def main():
        await proofs.keep_reference(A, Reference({"query": vectors}, is_unordered=True), "probes")
        await proofs.keep(SpaceProof(proof_name(A, B), A, B, "different", ("why",), 2, "probes", NOW))
        return await proofs.all(), await proofs.reference(A, "probes", {"query": 2}), await proofs.between(B, A)

    stored, (reference, date), proof = asyncio.run(main())
    (kept,) = (one for one in stored if isinstance(one, StoredVectors))
    assert (kept.route, kept.texts, kept.probes) == (A, 2, "probes")
    found = kept.to_json()
    assert found["type"] == "vectors"
    assert not {"verdict", "a", "b", "is_measured"} & set(found)
    assert (proof.verdict, proof.to_json()["type"], date) == ("different", "proof", "2023-11-14")
    assert reference.is_unordered
    np.testing.assert_array_equal(reference.results["query"], vectors)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"type": "proof"},
        {"type": "other"},
        {"route": None},
        {"made": NOW - (VALID_DAYS + 1) * 86_400},
        {"made": 1e12},
        {"results": {}},
        {"results": {"query": {"shape": [3, 3], "float32": ""}}},
        {"results": {"query": {"shape": [1, 2], "float32": "?"}}},
    ],
)
def test_vectors_that_are_old_or_cannot_be_read_are_not_used(change):
    proofs, records = made()

    async def main():
        await proofs.keep_reference(A, Reference({"query": np.ones((1, 2), np.float32)}), "probes")
        name = reference_name(A)
        record = await records.get("equivalence", name)
        await records.put(Record("equivalence", name, json.dumps({**json.loads(record.document), **change})))
        return await proofs.reference(A, "probes", {"query": 1})

    assert asyncio.run(main()) is None
