"""Meaning of a model's name."""

from pathlib import Path

import pytest

from embedway.errors import UnknownModelError, UsageError
from embedway.local.loading import ResolvedName, resolve

DEFAULT = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.mark.parametrize("name", ["auto", DEFAULT, "all-MiniLM-L6-v2"])
def test_names_of_the_catalog(name):
    assert resolve(name).key == DEFAULT


@pytest.mark.parametrize(
    ("name", "repository", "revision"),
    [("hf:acme/tiny", "acme/tiny", None), ("hf:acme/tiny@v2", "acme/tiny", "v2"), ("hf:acme/tiny@", "acme/tiny", None)],
)
def test_repositories(name, repository, revision):
    named = resolve(name)
    assert (named.repository, named.revision, named.facts, named.folder) == (repository, revision, None, None)


@pytest.mark.parametrize("name", ["./model", "../model", "/model", "~/model", "acme/tiny"])
def test_folders(name, tmp_path, monkeypatch):
    (tmp_path / "acme" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve(name).folder == Path(name).expanduser().resolve()


def test_a_folder_may_have_the_name_of_a_repository_only_if_it_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownModelError, match="hf:OWNER/NAME"):
        resolve("acme/tiny")


def test_an_alias_in_any_case_is_its_model():
    named = resolve("ALL-MINILM-L6-V2")
    assert named.key == named.facts.name == DEFAULT
    assert (named.repository, named.folder) == (None, None)


@pytest.mark.parametrize("name", [DEFAULT, "BAAI/bge-small-en-v1.5", "BAAI/bge-reranker-v2-m3"])
def test_a_folder_of_the_working_directory_replaces_no_model_of_the_catalog(name, tmp_path, monkeypatch):
    (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert (resolve(name).key, resolve(name).folder) == (name, None)
    assert resolve(f"./{name}") == ResolvedName(str(tmp_path / name), folder=tmp_path / name)


def test_nor_for_a_model_of_a_service(tmp_path, monkeypatch):
    (tmp_path / "openai/text-embedding-3-small").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownModelError):
        resolve("openai/text-embedding-3-small")


def test_a_name_without_a_separator_is_never_a_folder(tmp_path, monkeypatch):
    (tmp_path / "all-MiniLM-L6-v2").mkdir()
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve("all-MiniLM-L6-v2").folder is None
    with pytest.raises(UnknownModelError, match="'mine'"):
        resolve("mine")


def test_a_key_stays_the_same_when_the_working_directory_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    key = resolve("./model").key
    assert Path(key).is_absolute()
    monkeypatch.chdir("/")
    assert resolve(key).key == key


@pytest.mark.parametrize(
    ("name", "nearest"), [("all-MiniLM-L6-v3", "all-MiniLM-L6-v2"), ("HF:acme/tiny", None), ("", None)]
)
def test_an_unknown_name_lists_the_nearest(name, nearest):
    with pytest.raises(UnknownModelError) as caught:
        resolve(name)
    assert repr(name) in str(caught.value)
    assert nearest is None or caught.value.nearest[0] == nearest


@pytest.mark.parametrize("name", ["hf:", "hf:@v2", "~nobody-has-this-name/x", "./\0"])
def test_names_that_mean_nothing_are_wrong_usage(name):
    with pytest.raises(UsageError):
        resolve(name)
