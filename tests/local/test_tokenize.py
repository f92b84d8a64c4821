import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from embedway.errors import InputError, WeightsError
from embedway.local.tokenize import TextTokenizer


@pytest.fixture(scope="module")
def path(default_model_directory):
    return next(default_model_directory.glob("models/*/*/tokenizer.json"))


def exact(path, text, limit):
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(limit)
    return tokenizer.encode(text).ids


@pytest.mark.parametrize(
    "text",
    ["word " * 4000, " " * 50_000 + "word " * 300, "x" * 30_000, "漢字" * 5000, "a b", "1,2;3." * 3000],
    ids=["words", "blank start", "one word", "cjk", "short", "signs"],
)
def test_cutting_by_characters_first_changes_no_token(path, text):
    tokenizer = TextTokenizer(path, max_tokens=64)
    assert tokenizer.encode([text], prompt="").ids[0].tolist() == exact(path, text, 64)


@settings(max_examples=60, deadline=None)
@given(text=st.text(min_size=1, max_size=3000), limit=st.integers(4, 40))
def test_ids_are_those_of_the_whole_text(path, text, limit):
    tokenizer = TextTokenizer(path, max_tokens=limit)
    result = tokenizer.encode([text, "other"], prompt="")
    assert result.ids[0].tolist() == exact(path, text, limit)
    assert result.lengths.tolist() == [len(result.ids[0]), len(result.ids[1])]


def test_a_cut_is_reported_exactly(path):
    tokenizer = TextTokenizer(path, max_tokens=6)
    result = tokenizer.encode(["alpha beta", "one two three four five six"], prompt="say: ")
    (cut,) = result.truncations
    # [CLS] say : one two [SEP]
    assert (cut.row, cut.kept_tokens, cut.kept_characters, cut.lost_tokens) == (1, 6, len("one two"), 4)
    assert cut.lost_characters == len(" three four five six")
    assert isinstance(result.ids[1], np.ndarray)


def test_the_end_of_a_huge_text_is_not_counted_but_said_to_be_unknown(path):
    (cut,) = TextTokenizer(path, max_tokens=8).encode(["word " * 100_000], prompt="").truncations
    assert cut.lost_tokens is None
    assert cut.kept_characters + cut.lost_characters == 500_000


def test_a_broken_tokenizer_is_named(tmp_path):
    file = tmp_path / "tokenizer.json"
    file.write_text("{}")
    with pytest.raises(WeightsError, match=r"tokenizer\.json"):
        TextTokenizer(file, max_tokens=8)


def test_lowercasing_where_the_folder_asks_for_it(path, tmp_path):
    import json

    document = json.loads(path.read_text("utf-8"))
    document["normalizer"] = None
    cased = tmp_path / "tokenizer.json"
    cased.write_text(json.dumps(document), encoding="utf-8")
    texts = ["hello world", "Hello WORLD"]
    lower, mixed = TextTokenizer(cased, max_tokens=64, lowercase=True).encode(texts, prompt="").ids
    assert lower.tolist() == mixed.tolist()
    lower, mixed = TextTokenizer(cased, max_tokens=64).encode(texts, prompt="").ids
    assert lower.tolist() != mixed.tolist()


def test_a_word_of_megabytes_is_truncated_where_the_tokenizer_would_need_too_much_memory(path):
    tokenizer = TextTokenizer(path, max_tokens=64)
    text = "x" * (3 << 20)
    (cut,) = tokenizer.encode([text], prompt="").truncations
    assert (cut.kept_tokens, cut.kept_characters, cut.lost_characters, cut.lost_tokens) == (3, 1 << 20, 2 << 20, None)
    (cut,) = tokenizer.encode_pairs("query", [text]).truncations
    assert (cut.kept_characters, cut.lost_tokens) == (1 << 20, None)
    with pytest.raises(InputError, match="the query has 3,145,728 characters, more than 1,048,576: shorten it"):
        tokenizer.encode_pairs(text, ["a"])
