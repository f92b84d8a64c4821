"""Reciprocal rank fusion and snippets."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.collections.fusion import RRF_K, fused
from embedway.collections.snippets import Highlighter, sentences


def test_scores_are_sums_of_reciprocal_ranks():
    scores = fused({"vector": ["a", "b"], "keyword": ["b", "c"]}, {"keyword": 2.0})
    assert scores == pytest.approx({"b": 1 / (RRF_K + 2) + 2 / (RRF_K + 1), "c": 2 / (RRF_K + 2), "a": 1 / (RRF_K + 1)})
    assert list(scores) == ["b", "c", "a"]


def test_equal_scores_keep_the_order_of_the_first_list():
    assert list(fused({"vector": ["a"], "keyword": ["b"]}, {})) == ["a", "b"]


@given(st.text(max_size=2000))
def test_sentences_are_in_order_and_lose_only_white_space(text):
    found = sentences(text)
    assert "".join("".join(text[a:b] for a, b in found).split()) == "".join(text.split())
    assert all(a < b for a, b in found)
    assert all(one[1] <= other[0] for one, other in pairwise(found))


@pytest.mark.parametrize(
    ("query", "text", "best"),
    [
        ("limit of retries", "It has a cache. Retries have a limit. The end.", "Retries have a limit."),
        ("timeout", "| name | use |\n| timeout | seconds to wait |\n| x | y |", "| timeout | seconds to wait |"),
        ("猫が好き", "犬がいる。私は猫が好きです。終わり。", "私は猫が好きです。"),
        ("def close", "x = 1\ndef close():\n    pass", "def close():"),
        ("zebra", "Nothing here. Or there.", "Nothing here."),
    ],
)
def test_the_best_sentence_shares_the_rarest_words(query, text, best):
    highlighter = Highlighter(query)
    highlighter.learn([text])
    snippet = highlighter.best(text)
    assert text[snippet.start : snippet.end] == best
    assert all(snippet.start <= a < b <= snippet.end for a, b in snippet.words)
