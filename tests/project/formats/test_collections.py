"""Collections of version 1: read, searched, their missing facts verified and written back; newer ones are refused."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import lancedb
import numpy as np
import pyarrow.parquet as pq
import pytest

from embedway._embedder import AsyncEmbedder
from embedway.collections import verify
from embedway.collections.chunks import Chunk
from embedway.collections.record import Record
from embedway.collections.stores import create_store, open_store
from embedway.collections.stores.records import FORMAT_KEY, FORMAT_VERSION, SPACE_KEY, sidecar_path
from embedway.collections.verify import choose_rows, verify_space
from embedway.errors import SinkError, SpaceMismatchError
from embedway.space import VERSION, comparable

HERE = Path(__file__).parent
DOCUMENTS = json.loads((HERE / "expected-v1.json").read_text())["documents"]


@pytest.fixture(params=["parquet", "jsonl", "lancedb"])
def old(request, tmp_path):
    """Return a copy of a collection of version 1: its destination, and the file that receives verified facts."""
    if request.param == "lancedb":
        shutil.copytree(HERE / "collection-v1-lancedb", tmp_path / "db")
        return f"lancedb:{tmp_path / 'db'}#rows", tmp_path / "db" / "rows.embedway.json"
    path = tmp_path / f"old.{request.param}"
    shutil.copy(HERE / f"collection-v1.{request.param}", path)
    if request.param == "jsonl":
        shutil.copy(HERE / "collection-v1.jsonl.embedway.json", sidecar_path(path))
    return str(path), sidecar_path(path)


@pytest.fixture
def described(config):
    async def describe():
        async with AsyncEmbedder(config=config) as embedder:
            return (await embedder.models.describe()).space

    return asyncio.run(describe())


def proven(config, destination):
    """Search a collection whose record lacks facts."""

    async def once():
        async with AsyncEmbedder(config=config) as embedder:
            collection = open_store(destination)
            space = (await embedder.models.describe()).space
            unknown = collection.check_space(space).unknown
            return unknown and await verify_space(embedder, collection, space, unknown, model="auto")

    return asyncio.run(once())


def test_its_space_lacks_what_version_1_did_not_know(old, described):
    collection = open_store(old[0])
    assert (collection.count, collection.space.id) == (5, "all-MiniLM-L6-v2@53aa5117/384")
    assert (collection.space.tokenizer, collection.space.config) == (None, None)
    assert collection.check_space(described).unknown == ("tokenizer", "config")


def test_proven_facts_are_written_back(old, config, described):
    destination, record = old
    said = proven(config, destination)
    assert "did not record the tokenizer and config of its vectors; 4 recomputed rows are the same" in said
    assert "the record is updated" in said
    assert record.exists()
    collection = open_store(destination)
    assert comparable(described, collection.space).unknown == ()
    assert collection.space.id == "all-MiniLM-L6-v2@53aa5117/384"
    assert proven(config, destination) == ()
    found = collection.search(run_query(config), 1)
    assert found[0].text == DOCUMENTS[3]


def run_query(config):
    async def query():
        async with AsyncEmbedder(config=config) as embedder:
            return (await embedder.embed(["how is bread made"], input_type="query")).vectors[0]

    return asyncio.run(query())


def test_vectors_of_another_tokenizer_are_refused(old, config, described, monkeypatch):
    destination, record = old
    before = record.read_bytes() if record.exists() else None
    collection = open_store(destination)
    turned = [(text, np.roll(vector, 1)) for text, vector in verify.sample_rows(collection)]
    monkeypatch.setattr(verify, "sample_rows", lambda store: turned)
    with pytest.raises(
        SpaceMismatchError, match=r"a recomputed row has cosine .* so the tokenizer or config is different"
    ):
        proven(config, destination)
    assert (record.read_bytes() if record.exists() else None) == before


def test_a_disk_that_refuses_writes_is_reported(old, config, monkeypatch):
    from embedway.collections.stores import temporary

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(temporary, "replace_file", refuse)
    assert "the record could not be updated" in proven(config, old[0])
    assert not list(Path(old[1]).parent.glob("*.tmp"))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"format": "another"}'])
def test_a_proof_that_cannot_be_read_counts_for_nothing(tmp_path, content):
    path = tmp_path / "old.parquet"
    shutil.copy(HERE / "collection-v1.parquet", path)
    sidecar_path(path).write_bytes(content)
    assert open_store(str(path)).space.tokenizer is None


def test_a_proof_of_another_collection_counts_for_nothing(tmp_path, config):
    path = tmp_path / "old.parquet"
    shutil.copy(HERE / "collection-v1.parquet", path)
    proven(config, str(path))
    assert open_store(str(path)).space.tokenizer
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 4), path)
    assert open_store(str(path)).space.tokenizer is None


def test_the_command_searches_it_and_says_so(old, default_model_directory, tmp_path):
    destination, _ = old
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EMBEDWAY_", "HF_", "XDG_"))}
    environment = {
        **kept,
        "HOME": str(tmp_path),
        "EMBEDWAY_WEIGHTS__DIRECTORY": str(default_model_directory),
        "EMBEDWAY_WEIGHTS__OFFLINE": "1",
    }
    for told in (True, False):
        done = subprocess.run(
            [sys.executable, "-m", "embedway", "search", destination, "how is bread made", "--top", "1", "--json"],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["hits"][0]["text"] == DOCUMENTS[3]
        assert ("did not record the tokenizer and config" in done.stderr) == told


# ------------------------------------------------------------ current format


def chunk(text):
    return Chunk("a#0", "a", text, 0, len(text), 1, None, "a.md", {})


def written(path, space):
    store = create_store(str(path))
    store.begin(Record(space))
    store.write([chunk("text")], np.eye(1, space.dimensions, dtype=np.float32))
    store.commit()


def test_a_new_collection_names_its_format_and_all_facts(tmp_path, described):
    path = tmp_path / "new.jsonl"
    written(path, described)
    content = json.loads(sidecar_path(path).read_text())
    assert (content["format"], content["version"]) == ("embedway collection", FORMAT_VERSION)
    assert open_store(str(path)).space == described


def newer_parquet(path, **metadata):
    shutil.copy(HERE / "collection-v1.parquet", path)
    table = pq.read_table(path)
    changed = {key.encode(): value.encode() for key, value in metadata.items()}
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, **changed}), path)
    return str(path)


def test_a_newer_format_is_named(tmp_path, described):
    newer = str(FORMAT_VERSION + 1)
    with pytest.raises(SinkError, match=f"version {newer} of collections, .* up to {FORMAT_VERSION}:"):
        open_store(newer_parquet(tmp_path / "a.parquet", **{FORMAT_KEY: newer}))
    facts = json.dumps({**described.to_json(), "version": VERSION + 1, "colour": "blue"})
    with pytest.raises(SinkError, match=f"its vector space has version {VERSION + 1}"):
        open_store(newer_parquet(tmp_path / "b.parquet", **{SPACE_KEY: facts}))
    written(tmp_path / "c.jsonl", described)
    sidecar = sidecar_path(tmp_path / "c.jsonl")
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "version": FORMAT_VERSION + 1}))
    with pytest.raises(SinkError, match=f"version {newer} of collections"):
        open_store(str(tmp_path / "c.jsonl"))
    for value in ("", "two", "0", "-1", "9" * 5000):
        with pytest.raises(SinkError, match="version"):
            open_store(newer_parquet(tmp_path / "d.parquet", **{FORMAT_KEY: value}))


def test_a_newer_table_of_lancedb_is_named(tmp_path):
    shutil.copytree(HERE / "collection-v1-lancedb", tmp_path / "db")
    database = lancedb.connect(str(tmp_path / "db"))
    table = database.open_table("rows").to_arrow()
    metadata = {**table.schema.metadata, FORMAT_KEY.encode(): str(FORMAT_VERSION + 1).encode()}
    database.create_table("newer", table.replace_schema_metadata(metadata))
    with pytest.raises(SinkError, match=f"version {FORMAT_VERSION + 1} of collections"):
        open_store(f"lancedb:{tmp_path / 'db'}#newer")


# ------------------------------------------------------------ weights store


def test_records_of_the_weights_store(tmp_path):
    from embedway.errors import WeightsError
    from embedway.weights.records import RECORD, ModelRecord

    shutil.copy(HERE / "weights-origin-v1.json", tmp_path / RECORD)
    record = ModelRecord.read(tmp_path)
    assert record.files["model.safetensors"].startswith("53aa5117")
    record.write(tmp_path)
    content = json.loads((tmp_path / RECORD).read_text())
    assert (content["format"], content["version"]) == ("embedway weights", 1)
    assert ModelRecord.read(tmp_path) == record
    (tmp_path / RECORD).write_text(json.dumps({**content, "version": 2}))
    with pytest.raises(
        WeightsError, match="has version 2 of the weights store, and this embedway supports versions up to 1"
    ):
        ModelRecord.read(tmp_path)


def test_choices_of_version_1_are_read(tmp_path):
    from embedway.local.runtime_choice import choice_path, read_choice

    stored = json.loads((HERE / "choice-v1.json").read_text())
    path = choice_path(tmp_path, stored["weights"])
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(stored))
    choice = read_choice(tmp_path, stored["weights"])
    assert (choice.bulk.backend, choice.token_budget) == (stored["bulk"]["backend"], stored["token_budget"])


def test_rows_that_distinguish_tokenizers_are_computed_again():
    texts = ["a b", "", "b c", "c d", "d e", "UPPER Case", "LOUDER STILL", "in 1999", "déjà vu", "X" * 501, "Y 2024 é"]
    assert choose_rows(texts) == [0, 2, 3, 6, 7, 8]
    assert choose_rows(["same words"] * 9) == [0, 1, 2]
    assert choose_rows([" ", ""]) == []
