"""`embedway export` on the command line. No model is there, so that nothing can be embedded."""

import numpy as np
import pytest

from embedway.collections.chunks import Chunk
from embedway.collections.record import Record
from embedway.collections.stores import create_store, open_store
from embedway.space import Space

SPACE = Space("tiny", "cd" * 32, 4, "mean", normalized=True)
VECTORS = np.eye(4, dtype=np.float32)


@pytest.fixture
def collection(place):
    """Return the name of a collection of four rows of two documents."""
    store = create_store(str(place / "c.parquet"))
    store.begin(Record(SPACE, keep={"n": "int"}))
    chunks = [
        Chunk(f"d{n // 2}#{n % 2}", f"d{n // 2}", f"text {n}", 0, 6, 1, None, "docs", {"n": n}, n % 2, 2)
        for n in range(4)
    ]
    store.write(chunks, VECTORS)
    store.commit()
    return "c.parquet"


def rows_of(destination):
    store = open_store(str(destination))
    (rows,) = store.read()
    store.close()
    return rows


def test_it_converts_and_says_what_it_wrote(command, place, collection):
    done = command("export", collection, "--to", "c.jsonl")
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout.startswith("c.jsonl: 4 rows of 2 documents as float32, in ")
    own, found = rows_of(place / "c.parquet"), rows_of(place / "c.jsonl")
    assert own.fields == found.fields
    assert (own.vectors == found.vectors).all()


def test_json_has_all_facts(command, collection):
    facts = command("export", collection, "--to", "half.parquet", "--vectors", "float16", "--json").json
    assert facts.pop("seconds") >= 0
    assert facts == {
        "source": collection,
        "destination": "half.parquet",
        "space_id": SPACE.id,
        "vector_type": "float16",
        "rows": 4,
        "documents": 2,
    }


def test_an_existing_destination_is_replaced_only_on_request(command, place, collection):
    (place / "c.jsonl").write_text("mine\n")
    done = command("export", collection, "--to", "c.jsonl")
    assert done.code != 0
    assert "already exists" in done.stderr
    assert (place / "c.jsonl").read_text() == "mine\n"
    assert command("export", collection, "--to", "c.jsonl", "--overwrite").code == 0
    assert len(rows_of(place / "c.jsonl").fields) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing.parquet", "--to", "c.jsonl"), "there is no such file"),
        (("c.parquet", "--to", "c.parquet"), "cannot be exported into itself"),
        (("c.parquet", "--to", "c.jsonl", "--vectors", "int4"), "is not one of 'float32', 'float16'"),
        (("c.parquet", "--to", "c.jsonl", "--vectors", "int8"), "cannot store vectors as int8; it can as float32"),
        (("c.parquet", "--to", "c.docx"), "is not the name of a collection"),
    ],
)
def test_what_cannot_be_exported_is_named_and_nothing_is_written(command, place, collection, arguments, message):
    before = sorted(place.iterdir())
    done = command("export", *arguments)
    assert done.code != 0
    assert message in done.stderr.replace("\n", " ")
    assert sorted(place.iterdir()) == before
