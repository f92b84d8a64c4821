"""Tokens of the keyword index: identifiers whole and in parts, scripts without spaces, and linear time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.collections.keyword_tokens import (
    MAX_QUERY_TOKENS,
    MAX_TOKEN_CHARACTERS,
    identifiers,
    index_tokens,
    query_tokens,
    token_spans,
)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("error E1133", "error e1133 1133"),
        ("asyncio.gather()", "asyncio.gather asyncio gather"),
        ("--on-error skip", "--on-error on error on-error skip"),
        ("snake_case", "snake_case snake case"),
        ("HTTPServer", "httpserver http server"),
        ("C++ and C#", "c++ c and c# c"),
        ("für naïve", "fur naive"),
        ("猫が好き", "猫が が好 好き き"),
        ("Python3の", "python3 python の"),
        ("end.", "end"),
        ("हिन्दी भाषा", "हिन्दी भाषा"),
    ],
)
def test_tokens_of_a_row(text, tokens):
    assert index_tokens(text) == tokens


def test_one_character_of_an_unspaced_script_is_a_prefix():
    assert query_tokens("猫") == ["猫*"]
    assert query_tokens("猫が好き") == ["猫が", "が好", "好き"]


def test_identifiers_of_a_query():
    text = "what does E1133 mean in asyncio.gather --on-error, an end-to-end snake_case camelCase of 2024 or C++?"
    assert identifiers(text) == ["e1133", "asyncio.gather", "--on-error", "snake_case", "camelcase", "c++"]


@given(st.text(max_size=200))
def test_each_query_token_is_a_token_of_the_same_text(text):
    row = index_tokens(text).split(" ")
    for token in query_tokens(text):
        assert token in row or (token.endswith("*") and any(one.startswith(token[:-1]) for one in row))
        assert len(token) <= MAX_TOKEN_CHARACTERS + 1
        assert not set(token) & set(" \t\n\x00")


@given(st.text(max_size=200))
def test_spans_are_inside_of_the_text_and_in_order(text):
    last = 0
    for start, end, tokens in token_spans(text):
        assert last <= start < end <= len(text)
        assert tokens
        last = start


@pytest.mark.parametrize("run", ["a.", "-", "aB", "a-", "猫", "é", "_", "a+", "1a"])
def test_long_runs_have_bounded_tokens(run):
    text = run * 200_000
    assert all(len(token) <= 4 * MAX_TOKEN_CHARACTERS for token in index_tokens(text).split(" "))
    assert len(query_tokens(text)) <= MAX_QUERY_TOKENS
