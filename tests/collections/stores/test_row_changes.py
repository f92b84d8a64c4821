"""Rows that a change replaces and removes, beside a plain model of the same rules."""

from hypothesis import given
from hypothesis import strategies as st

from embedway.collections.chunks import Chunk
from embedway.collections.documents import DocumentKey
from embedway.collections.stores.row_changes import RowChanges

NAMES = st.integers(0, 5).map(lambda n: f"d{n}")
IDS = st.tuples(NAMES, st.integers(0, 2))
STEPS = st.lists(st.one_of(st.lists(IDS, max_size=5), NAMES), max_size=8)


def chunk(document, number):
    return Chunk(f"{document}#{number}", document, "text", 0, 4, 1, None, "docs", {}, number, 3)


@given(STEPS)
def test_rows_stay_unless_they_are_written_again_or_removed_later(steps):
    changes, rows, removed = RowChanges(), [], set()
    for step in steps:
        if isinstance(step, str):
            changes.remove([DocumentKey("docs", step)])
            removed.add(step)
            rows = [(key, alive and key[0] != step) for key, alive in rows]
            continue
        changes.write([chunk(*key) for key in step])
        for key in step:
            rows = [(old, alive and old != key) for old, alive in rows]
            rows.append((key, True))
    stays = []
    for first in range(0, len(rows), 3):
        keys = [key for key, _ in rows[first : first + 3]]
        names = [name for name, _ in keys]
        stays += changes.keeps_own([f"{name}#{n}" for name, n in keys], ["docs"] * len(keys), names, first=first)
    assert stays == [alive for _, alive in rows]
    assert changes.rows == len(rows)
    assert changes.replaces_own or all(stays)
    old = [(f"d{n}", number) for n in range(6) for number in range(3)]
    written = {key for key, _ in rows}
    found = changes.keeps([f"{name}#{n}" for name, n in old], ["docs"] * len(old), [name for name, _ in old], first=0)
    assert found == [key not in written and key[0] not in removed for key in old]
