"""Values of kept columns."""

import pytest

from embedway.collections.chunks import Chunk
from embedway.collections.kept_columns import KeptColumns


@pytest.mark.parametrize("value", ["a\0b", ["a", "\0"], {"a": {"b": ["\0"]}}, {"a\0": 1}])
def test_nul_character_is_a_fault_of_its_row(value):
    chunks = [
        Chunk(f"d{row}", f"d{row}", "a", 0, 1, row + 1, None, "s", {"x": one}) for row, one in enumerate(["a", value])
    ]
    columns = KeptColumns(("x",), {}, {"x": "text" if isinstance(value, str) else "json"})
    good, bad = columns.fit(chunks)
    assert [chunk.id for chunk in good] == ["d0"]
    ((chunk, fault),) = bad
    assert (chunk.id, fault.key) == ("d1", ("s", "d1"))
    assert "has a NUL character" in str(fault)
