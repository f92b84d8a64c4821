"""A pin of version 1 lacks the tokenizer and the configuration: accepted, logged once, and verified by stored rows."""

import asyncio
import contextlib
import json
import logging
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from embedway import AsyncEmbedder, Config, Embedder
from embedway.errors import SpaceMismatchError, UsageError
from embedway.space import comparable

HERE = Path(__file__).parent
DOCUMENTS = json.loads((HERE / "expected-v1.json").read_text())["documents"]


@pytest.fixture
def old(default_model_directory, tmp_path):
    shutil.copy(HERE / "pins-v1.sqlite", tmp_path / "pins.sqlite")
    overrides = {
        "weights.directory": str(default_model_directory),
        "weights.offline": True,
        "pins.path": str(tmp_path / "pins.sqlite"),
    }
    return Config.load(environ={}, overrides=overrides)


def pin(config):
    async def get():
        async with AsyncEmbedder(config=config) as embedder:
            return next(pin for pin in await embedder.pins.list() if pin.collection == "articles")

    return asyncio.run(get())


def test_it_is_accepted_and_logged_once(old, caplog):
    with caplog.at_level(logging.WARNING, "embedway.pins"), Embedder(config=old) as embedder:
        for _ in range(2):
            result = embedder.embed(DOCUMENTS[:1], collection="articles")
            embedder.embed("a question", input_type="query", collection="articles")
    assert result.space.id == "all-MiniLM-L6-v2@53aa5117/384"
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1
    assert "pin of collection 'articles' was written by an older version" in told[0]
    assert "does not name the tokenizer and config" in told[0]
    assert pin(old).space.tokenizer is None


def test_stored_rows_prove_it(old, caplog):
    with Embedder(config=old) as embedder:
        stored = embedder.embed(DOCUMENTS).vectors
        with pytest.raises(SpaceMismatchError, match="a recomputed row has cosine"):
            embedder.pins.prove("articles", DOCUMENTS, stored[::-1])
        assert pin(old).space.tokenizer is None
        assert embedder.pins.prove("articles", DOCUMENTS, stored) > 0.999
        known = embedder.models.describe().space
    assert comparable(known, pin(old).space).unknown == ()
    caplog.clear()
    with caplog.at_level(logging.WARNING, "embedway.pins"), Embedder(config=old) as embedder:
        embedder.embed("a text", collection="articles")
        assert embedder.pins.prove("articles", DOCUMENTS, stored) > 0.999
    assert not caplog.records


def test_what_proves_nothing_is_refused(old):
    with Embedder(config=old) as embedder:
        for texts, vectors in (([], np.zeros((0, 384))), (["a"], np.zeros((1, 3))), (["a", "b"], np.zeros((1, 384)))):
            with pytest.raises(UsageError, match="texts came with vectors of shape"):
                embedder.pins.prove("articles", texts, vectors)
        for collection in ("unknown", "claimed"):
            with pytest.raises(UsageError, match="no pin to prove"):
                embedder.pins.prove(collection, ["a"], np.zeros((1, 384)))


def test_once_proven_another_tokenizer_is_refused(old, default_model_directory, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(next(default_model_directory.glob("models/*MiniLM*/*/tokenizer.json")).parent, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with Embedder(config=old) as embedder:
        embedder.pins.prove("articles", DOCUMENTS, embedder.embed(DOCUMENTS).vectors)
        with pytest.raises(SpaceMismatchError, match="articles"):
            embedder.embed("Text", model=str(folder), collection="articles")


def test_the_command_proves_it_by_a_collection(old, monkeypatch, capsys, default_model_directory, tmp_path):
    from embedway.cli import main

    monkeypatch.setenv("EMBEDWAY_WEIGHTS__DIRECTORY", str(default_model_directory))
    monkeypatch.setenv("EMBEDWAY_PINS__PATH", str(tmp_path / "pins.sqlite"))
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # the command sets it, and only an existing value is restored
    monkeypatch.chdir(tmp_path)
    shutil.copy(HERE / "collection-v1.parquet", tmp_path / "docs.parquet")
    for arguments, code in (
        (["budget", "pins", "--prove", "articles"], 2),
        (["budget", "pins", "--prove", "articles", "--by", "docs.parquet"], 0),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == code
    assert "4 rows of docs.parquet were recomputed and are the same" in capsys.readouterr().err
    with contextlib.closing(sqlite3.connect(tmp_path / "pins.sqlite")) as connection:
        (written,) = connection.execute("SELECT pin FROM pins WHERE collection = 'articles'").fetchone()
    assert json.loads(written)["space"]["tokenizer"]
