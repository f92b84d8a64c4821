"""Documents as they are counted from rows, in any order."""

import random

import pytest

from embedway.collections.documents import DocumentKey
from embedway.collections.stores.tally import DocumentTally, StoredDocument


def tallied(rows):
    tally = DocumentTally()
    for row in rows:
        tally.add("s", "d", *row)
    return next(tally.documents())


def rows_of(total):
    return [("f", total, number, f"s/d#{number}") for number in range(total)]


@pytest.mark.parametrize("total", [1, 2, 50])
def test_rows_in_any_order_are_complete(total):
    rows = rows_of(total)
    for seed in range(20):
        random.Random(seed).shuffle(rows)
        assert tallied(rows) == StoredDocument(DocumentKey("s", "d"), "f", total, total)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: [*rows, rows[2]],
        lambda rows: [*rows[:2], rows[1], *rows[3:]],
        lambda rows: [*rows[:3], ("f", 5, -1, "s/d#-1"), rows[4]],
        lambda rows: [*rows[:4], ("f", 5, 5, "s/d#5")],
        lambda rows: [*rows[:4], ("f", 5, 4, "s/d#3")],
        lambda rows: [*rows[:4], ("f", 5, 4, None)],
        lambda rows: [*rows[:4], ("f", 5, None, "s/d#4")],
        lambda rows: [*rows[:4], ("f", 6, 4, "s/d#4")],
    ],
)
def test_rows_that_cannot_be_those_of_one_document(change):
    rows = change(rows_of(5))
    for _ in range(2):
        assert tallied(rows).damaged
        rows = rows[::-1]


def test_missing_rows_and_collections_without_numbers():
    partial = tallied([row for row in rows_of(5) if row[2] != 3])
    assert (partial.rows, partial.total, partial.is_partial, partial.is_complete) == (4, 5, True, False)
    old = tallied([(None, None, None, f"d#{number}") for number in range(3)])
    assert (old.rows, old.total, old.is_complete, old.fingerprint) == (3, 3, True, "")
