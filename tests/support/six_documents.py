"""A collection of six documents that `embedway sync` made, in each kind of local store."""

import pytest

TEXTS = {f"{n}.md": f"Section {n} explains how engine {n * 7 % 11} of the ship is started." for n in range(6)}


@pytest.fixture(params=["c.parquet", "c.jsonl", "lancedb:db#rows"])
def collection(request, command, place):
    (place / "docs").mkdir()
    for name, text in TEXTS.items():
        (place / "docs" / name).write_text(text)
    done = command("sync", "docs", "--to", request.param)
    assert done.code == 0, done.stderr
    return request.param
