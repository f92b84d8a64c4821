"""Exact counts, and texts of an exact length, of the tokenizer of a model."""

import pytest

from embedway import Config
from embedway.conformance.reference import find_reference, load_reference
from embedway.errors import UnknownModelError, UsageError


@pytest.fixture
def reference(config):
    return load_reference("all-MiniLM-L6-v2", config)


def test_the_catalog_s_tokenizer_and_limit(reference):
    assert (reference.max_tokens, reference.vocabulary) == (256, 30522)
    assert reference.count("a violin") == len(reference.ids("a violin", special=False)) + 2
    assert (reference.query_prompt, reference.document_prompt) == ("", "")


@pytest.mark.parametrize("tokens", [8, 64, 256, 1000])
def test_a_text_has_exactly_so_many_tokens(reference, tokens):
    assert reference.count(" ".join(reference.words_of(tokens, "9f0b2c"))) == tokens


def test_a_served_name_is_found_in_the_catalog_with_and_without_an_owner(config):
    served = ("sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2", "openai/all-MiniLM-L6-v2")
    assert {find_reference(name, config).name for name in served} == {"sentence-transformers/all-MiniLM-L6-v2"}
    assert find_reference("my-deployment", config) is None


def test_a_folder(tokenizer, tmp_path, config):
    assert load_reference(str(tokenizer.parent), config).max_tokens == 256
    with pytest.raises(UsageError, match=r"has no tokenizer\.json"):
        load_reference(str(tmp_path), config)


def test_a_name_that_is_no_model(config):
    with pytest.raises(UnknownModelError):
        load_reference("no-model", config)


def test_a_catalog_model_whose_tokenizer_is_not_here_is_not_known(tmp_path):
    overrides = {"weights.directory": str(tmp_path), "weights.offline": True}
    assert find_reference("all-MiniLM-L6-v2", Config.load(environ={}, overrides=overrides)) is None
