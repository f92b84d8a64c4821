"""`verify` on collections in real stores."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from embedway.collections.stored_chunks import chunk_of_row
from embedway.collections.stores import open_store
from six_documents import TEXTS

pytestmark = pytest.mark.usefixtures("with_model")


def change(place, destination, damage, monkeypatch):
    """Replace rows of the collection: `damage` maps ids to functions of vectors."""
    monkeypatch.chdir(place)
    store = open_store(destination)
    rows = [(row, vector) for batch in store.read() for row, vector in zip(batch.fields, batch.vectors, strict=True)]
    store.begin_update(store.record)
    chosen = [(row, vector) for row, vector in rows if row["id"] in damage]
    store.write(
        [chunk_of_row(row, ()) for row, _ in chosen],
        np.stack([damage[row["id"]](vector) for row, vector in chosen]),
    )
    store.commit()
    store.close()


def test_a_right_collection_is_proved(command, collection):
    done = command("verify", collection)
    assert (done.code, done.stdout.splitlines()[-1]) == (0, "all rows were compared: none is wrong"), done.stderr
    done = command("verify", collection, "--sample", "4", "--json")
    assert (done.code, done.json["sampled"], done.json["faultless"], done.json["after"]) == (0, 4, True, None)
    assert done.json["bound"] == pytest.approx(1 - 0.05 ** (1 / 4))
    shown = command("verify", collection, "--sample", "4").stdout.splitlines()[-1]
    # 52.71... %, rounded up
    assert shown == "of 4 random rows, none is wrong: with 95% confidence, at most 52.8% of all rows are wrong"


def test_wrong_rows_are_named_and_repaired(command, collection, place, monkeypatch):
    change(place, collection, {"docs/2.md#0": lambda vector: -vector}, monkeypatch)
    done = command("verify", collection)
    assert done.code == 1
    assert "docs/2.md#0" in done.stdout
    assert "cosine -1.000" in done.stdout
    assert done.stdout.splitlines()[-1] == "all rows were compared: 1 is wrong"
    done = command("verify", collection, "--repair")
    assert done.code == 0, done.stdout + done.stderr
    assert "1 row replaced, 0 removed" in done.stdout
    assert done.stdout.splitlines()[-1] == "after the repair: all rows were compared: none is wrong"
    assert command("verify", collection).code == 0


def test_the_repair_of_an_incomplete_document_names_the_next_step(command, place):
    (place / "docs").mkdir()
    text = "\n\n".join(f"# Part {n}\n\n{' '.join(TEXTS.values())}" for n in range(6))
    (place / "docs" / "long.md").write_text(text)
    (place / "docs" / "short.md").write_text(TEXTS["1.md"])
    assert command("sync", "docs", "--to", "c.parquet").code == 0
    table = pq.read_table(place / "c.parquet")
    pq.write_table(table.slice(1), place / "c.parquet")
    done = command("verify", "c.parquet", "--repair")
    assert "`embedway sync --to c.parquet` adds them again" in done.stderr
    assert command("sync", "--to", "c.parquet", "--json").json["added"] == 1


def test_another_model_is_refused_by_name(command, collection):
    done = command("verify", collection, "--model", "bge-small-en-v1.5")
    assert (done.code, done.stdout) == (1, "")
    assert "bge-small-en-v1.5" in done.stderr
    assert "all-MiniLM-L6-v2" in done.stderr


def test_a_price_is_in_the_plan_and_the_maximum_is_a_number(command, collection):
    done = command("verify", collection, "--sample", "4", "--dry-run", "--json")
    assert (done.code, done.json["sampled"], done.json["rows"], done.json["cost_nanousd"]) == (0, 4, 6, 0), done.stderr
    assert done.json["all_tokens"] > done.json["tokens"] > 0
    assert "recomputes 4 rows (about" in command("verify", collection, "--sample", "4", "--dry-run").stdout
    refused = command("verify", collection, "--max-cost", "much")
    assert (refused.code, "--max-cost is 'much'" in refused.stderr) == (2, True)
