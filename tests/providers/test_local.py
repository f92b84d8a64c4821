"""What a model's name stands for."""

from pathlib import Path

import pytest

from embedway.errors import UnknownModelError
from embedway.providers.local import resolve

DEFAULT = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.mark.parametrize("name", ["auto", DEFAULT, "all-MiniLM-L6-v2"])
def test_names_of_the_catalog(name):
    assert resolve(name).key == DEFAULT


@pytest.mark.parametrize(
    ("name", "repository", "revision"),
    [("hf:acme/tiny", "acme/tiny", None), ("hf:acme/tiny@v2", "acme/tiny", "v2")],
)
def test_repositories(name, repository, revision):
    named = resolve(name)
    assert (named.repository, named.revision, named.facts) == (repository, revision, None)


@pytest.mark.parametrize("name", ["./model", "../model", "/model", "~/model", "acme/tiny"])
def test_folders(name, tmp_path, monkeypatch):
    (tmp_path / "acme" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve(name).folder == Path(name).expanduser().resolve()


def test_a_folder_may_have_the_name_of_a_repository_only_if_it_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownModelError, match="hf:OWNER/NAME"):
        resolve("acme/tiny")
