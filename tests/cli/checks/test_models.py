"""The default model of any kind, the default reranker, and the weights that are here."""

import json
import shutil

import pytest

from embedway.cli.checks import models
from embedway.cli.checks.base import Setup
from embedway.config import Config

OWN = {"models.m.name": "acme/m", "models.m.dimensions": 8, "models.m.max_tokens": 512}


@pytest.fixture
def setup(tmp_path):
    def make(environ=None, **overrides):
        paths = {"weights.directory": str(tmp_path / "weights"), "weights.hub_cache": str(tmp_path / "hub")}
        given = {key.replace("__", "."): value for key, value in overrides.items()}
        return Setup(Config.load(environ=environ or {}, overrides={**paths, **given}), is_loaded=True)

    return make


def default(setup, name, environ=None, **overrides):
    findings = models.check_default_model(setup(environ, embedding__default_model=name, **overrides))
    return findings.lines[0], findings.facts["default_model"]


def test_weights_that_are_here(setup, default_model_directory):
    line, fact = default(setup, "auto", weights__directory=str(default_model_directory))
    assert (line.status, fact["here"], fact["problem"]) == ("ok", True, None)


def test_no_hash_is_stored(setup, default_model_directory, tmp_path):
    """The files of a copied store have no stored hash, so they are hashed."""
    copy = tmp_path / "copy"
    shutil.copytree(default_model_directory, copy, symlinks=True, ignore=shutil.ignore_patterns("hashes"))
    before = sorted(copy.rglob("*"))
    given = setup(weights__directory=str(copy))
    assert models.check_default_model(given).lines[0].status == "ok"
    assert models.check_local_models(given).lines[0].status == "ok"
    assert sorted(copy.rglob("*")) == before


def test_weights_that_must_be_downloaded(setup, tmp_path):
    line, fact = default(setup, "all-MiniLM-L6-v2")
    assert (line.status, fact["here"]) == ("warning", False)
    assert "embedway models pull sentence-transformers/all-MiniLM-L6-v2" in line.remedy
    assert not (tmp_path / "weights").exists()


def test_weights_that_cannot_be_downloaded(setup, tmp_path):
    line, _ = default(setup, "all-MiniLM-L6-v2", weights__offline=True)
    assert line.status == "problem"
    assert "weights.offline = false" in line.remedy
    (tmp_path / "file").write_text("no folder")
    line, _ = default(setup, "all-MiniLM-L6-v2", weights__directory=str(tmp_path / "file" / "weights"))
    assert line.status == "problem"
    assert line.remedy == "set weights.directory to a writable folder"
    line, _ = default(setup, "all-MiniLM-L6-v2", weights__offline=True, weights__folders=[str(tmp_path)])
    assert (line.status, "copied from a folder" in line.detail) == ("ok", True)


def test_a_service_needs_a_key(setup):
    line, fact = default(setup, "text-embedding-3-small")
    assert line.status == "problem"
    assert "no key: set OPENAI_API_KEY" in line.detail
    assert fact["problem"]
    line, fact = default(setup, "text-embedding-3-small", {"OPENAI_API_KEY": "sk-12345678"})
    assert (line.status, fact["here"]) == ("ok", True)
    assert "by openai:text-embedding-3-small" in line.detail


def test_a_model_of_the_settings_needs_a_route(setup):
    line, _ = default(setup, "acme/m", **OWN)
    assert line.status == "problem"
    assert "no route is set up" in line.detail
    line, _ = default(setup, "acme/m", **OWN, **{"routes.r.model": "acme/m", "routes.r.provider": "fake"})
    assert (line.status, line.detail) == ("ok", "acme/m, by routes.r")


def test_a_mistake_in_one_of_two_routes_blocks_the_model(setup):
    good = {"routes.r.model": "acme/m", "routes.r.provider": "fake"}
    bad = {"routes.s.model": "acme/m", "routes.s.provider": "openai-compatible", "routes.s.base_url": "http://h/v1"}
    line, _ = default(setup, "acme/m", **OWN, **good, **bad)
    assert line.status == "problem"
    assert "routes.s: base_url: " in line.detail


def test_a_library_must_be_installed(setup, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    line, _ = default(setup, "fastembed:BAAI/bge-small-en-v1.5")
    assert line.status == "problem"
    assert "pip install 'embedway[fastembed]'" in line.detail
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    assert default(setup, "fastembed:BAAI/bge-small-en-v1.5")[0].status == "ok"


@pytest.mark.parametrize("name", ["no-such-model", "./no-such-folder", "hf:", "x" * 5000, "\x1b[31m", "a/b/c"])
def test_a_model_that_does_not_exist(setup, name):
    line, fact = default(setup, name)
    assert line.status == "problem"
    assert line.remedy == "correct embedding.default_model"
    assert fact["problem"]


def test_a_repository_that_is_not_here(setup):
    assert default(setup, "hf:acme/model")[0].status == "warning"


def test_the_default_reranker_is_never_a_problem(setup):
    line = models.check_reranker(setup()).lines[0]
    assert (line.name, line.status) == ("default reranker", "skipped")
    line = models.check_reranker(setup(rerank__default_model="no-such-model")).lines[0]
    assert (line.status, line.remedy) == ("warning", "correct rerank.default_model")
    assert models.check_reranker(setup(rerank__default_model="rerank-v3.5")).lines[0].status == "warning"


def test_models_that_are_here_are_listed(setup, default_model_directory):
    detail = models.check_local_models(setup(weights__directory=str(default_model_directory))).lines[0].detail
    assert "sentence-transformers/all-MiniLM-L6-v2" in detail
    assert models.check_local_models(setup()).lines[0].detail.startswith("0 of ")


def test_unreadable_choices_are_ignored(setup, tmp_path):
    from embedway.local.runtime_choice import choice_path

    path = choice_path(tmp_path, "x")
    path.parent.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(("", "[]", "{}", json.dumps({"weights": 5, "model": "m"}), "[" * 100_000)):
        path.with_name(f"{number}.json").write_text(text)
    assert models.check_tuned(setup(tune__directory=str(tmp_path))).lines == ()
