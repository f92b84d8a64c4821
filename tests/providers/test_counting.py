"""Counting a service's tokens: exact with a published tokenizer, otherwise estimated and marked so."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from embedway.providers.counting import EstimatingCounter, FileCounter, TiktokenCounter, open_counter
from inside import token_ids

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def estimate(text):
    digits = sum(character in "0123456789" for character in text)
    return digits - (-(len(text.encode()) - digits) // 3)


@given(TEXTS | st.text("a1é漢2", max_size=60), st.integers(1, 20))
def test_an_estimate_is_a_digit_or_three_bytes_a_token_and_its_cut_fits(text, most):
    counter = EstimatingCounter(max_tokens=most)
    counted = counter.count([text, "x"])
    whole = estimate(text)
    assert counted.lengths.tolist() == [min(whole, most), 1]
    assert bool(counted.truncations) == (whole > most)
    for cut in counted.truncations:
        kept = text[: cut.kept_characters]
        assert estimate(kept) <= most < estimate(text[: cut.kept_characters + 1])
        assert cut.lost_characters == len(text) - len(kept)
        assert counter.count([kept]).truncations == ()


@given(TEXTS)
def test_estimated_places_cover_a_text_in_order(text):
    offsets = EstimatingCounter(max_tokens=5).encode(text).offsets
    assert "".join(text[start:end] for start, end in offsets) == text
    assert all(start < end for start, end in offsets)


@given(st.lists(st.integers(0, 100_255), max_size=30))
@hypothesis_settings(deadline=None)
def test_ids_become_the_text_that_they_came_from_or_an_error(ids):
    counter = TiktokenCounter("cl100k_base", max_tokens=100)
    try:
        text = counter.decode(ids)
    except ValueError:
        return
    assert token_ids(counter, text) == ids


@given(TEXTS)
@hypothesis_settings(deadline=None)
def test_the_ids_that_an_encoding_gives_a_text_are_that_text(text):
    counter = TiktokenCounter("cl100k_base", max_tokens=100)
    assert counter.decode(token_ids(counter, text)) == text


# "ab" has its own id; 100257 is <|endoftext|>, which has no special meaning in a text.
@pytest.mark.parametrize("ids", [[64, 65], [100257], [64, 100257]])
def test_ids_that_a_service_would_not_read_from_the_text_are_an_error(ids):
    with pytest.raises(ValueError, match="not the ids"):
        TiktokenCounter("cl100k_base", max_tokens=100).decode(ids)


@pytest.mark.parametrize("ids", [[10**6], [-1], [2**40]])
def test_ids_beyond_the_vocabulary_are_an_error(ids):
    with pytest.raises(ValueError, match="not ids"):
        TiktokenCounter("cl100k_base", max_tokens=100).decode(ids)


@pytest.fixture
def words(hub):
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "one": 1}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    hub.repositories["acme/tiny"]["tokenizer.json"] = tokenizer.to_str().encode()
    return hub


def test_a_repository_s_tokenizer_counts_exactly(words, settings, caplog):
    counter = open_counter("hub:acme/tiny", max_tokens=3, model="m", store=settings)
    assert isinstance(counter, FileCounter)
    assert counter.exact
    counted = counter.count(["one two", "one two three four five"])
    assert counted.lengths.tolist() == [2, 3]
    assert [(cut.row, cut.kept_characters, cut.lost_tokens) for cut in counted.truncations] == [(1, 13, 2)]
    assert not caplog.records
    again = open_counter("hub:acme/tiny", max_tokens=9, model="m", store=settings)
    assert again.count(["one two three"]).lengths.tolist() == [3]


def test_an_unavailable_tokenizer_gives_an_estimate_with_a_warning(hub, settings, caplog):
    with caplog.at_level(logging.WARNING):
        counter = open_counter("hub:nobody/nothing", max_tokens=3, model="voyage-x", store=settings)
    assert not counter.exact
    (told,) = [one.getMessage() for one in caplog.records if one.name == "embedway.providers.counting"]
    assert told.startswith("the tokens of voyage-x are estimated, because its tokenizer is not available: ")
    assert "\n" not in told
    assert "Put " not in told


def test_an_estimate_of_many_texts_is_each_text_s_own():
    texts = ["ab", "äöü", "", "漢字漢字", "2026-11"]
    np.testing.assert_array_equal(EstimatingCounter(max_tokens=9).count(texts).lengths, [1, 2, 0, 4, 7])


@given(st.text(alphabet="東京漢字🙂é a", min_size=1, max_size=60), st.integers(1, 12))
@hypothesis_settings(deadline=None)
def test_a_cut_within_a_character_of_several_tokens_is_before_it(text, limit):
    counter = TiktokenCounter("cl100k_base", max_tokens=limit)
    (length,) = counter.count([text]).lengths.tolist()
    cuts = counter.count([text]).truncations
    for cut in cuts:
        assert text.startswith(text[: cut.kept_characters])
        assert len(counter.encode(text[: cut.kept_characters]).ids) == cut.kept_tokens == length <= limit
    assert cuts or len(counter.encode(text).ids) == length
