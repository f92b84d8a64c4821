"""Texts over the limit, averaged from windows: each character counts once, and each window fits."""

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedway import AsyncEmbedder, Embedder
from embedway.batching.windows import TextWindows, split_windows
from embedway.errors import InputError, TextTooLongError, UsageError
from embedway.types import Space, TokenizedTexts, Truncation

SPACE = Space("m", "w", 3, "mean", normalized=True)


class Letters:
    """Model whose tokens are pairs of letters within words; it accepts four besides the two special ones."""

    max_tokens = 6

    def tokens(self, text):
        return [(n, min(n + 2, len(text))) for n in range(0, len(text), 2)]

    def tokenize(self, texts, input_type):
        lengths, cuts = [], []
        for row, text in enumerate(texts):
            tokens = self.tokens(text)
            kept = tokens[:4]
            lengths.append(2 + len(kept))
            if len(tokens) > 4:
                characters = kept[-1][1]
                cuts.append(Truncation(row, 6, characters, len(text) - characters, len(tokens) - 4))
        return TokenizedTexts((), np.array(lengths, np.int32), tuple(cuts))


@given(st.lists(st.text(max_size=40), min_size=1, max_size=5))
@settings(deadline=None)
def test_windows_cover_each_text_in_order_and_fit(texts):
    model = Letters()
    too_long = {cut.row for cut in model.tokenize(texts, "document").truncations}
    parts, windows = split_windows(texts, too_long, lambda parts: model.tokenize(parts, "document"), max_tokens=6)
    assert model.tokenize(parts, "document").truncations == ()
    for row, text in enumerate(texts):
        mine = [part for part, owner in zip(parts, windows.owner, strict=True) if owner == row]
        if row in too_long:
            assert "".join("".join(mine).split()) == "".join(text.split())
        else:
            assert mine == [text]
    assert windows.texts == len(texts)


def test_a_mean_is_weighed_by_tokens_and_of_length_1():
    windows = TextWindows(np.array([0, 1, 1, 2]), 3, np.array([5, 3, 1, 2], np.float32))
    vectors = np.eye(3, dtype=np.float32)[[0, 0, 1, 2]]
    merged = windows.merge(vectors, SPACE)
    np.testing.assert_array_equal(merged[[0, 2]], vectors[[0, 3]])
    np.testing.assert_allclose(merged[1], np.array([3, 1, 0]) / np.sqrt(10), atol=1e-6)


LONG = " ".join(f"sentence number {n} of a long text." for n in range(150))


def test_the_vector_of_a_long_text_is_the_mean_of_its_windows(config):
    with Embedder(config=config) as embedder:
        result = embedder.embed(["short", LONG, "short", LONG], on_overflow="mean")
        (first, second) = result.receipt.averaged
        assert (first.row, second.row, first.windows) == (1, 3, second.windows)
        assert first.windows >= 4
        assert result.receipt.truncations == ()
        np.testing.assert_array_equal(result.vectors[1], result.vectors[3])
        np.testing.assert_array_equal(result.vectors[0], result.vectors[2])
        assert np.linalg.norm(result.vectors, axis=1) == pytest.approx([1] * 4, abs=1e-5)
        # Computed by hand: windows at the model's cuts, weighted by their tokens.
        described, rest, parts = embedder.models.describe(), LONG, []
        while rest:
            offsets = described.tokenizer.encode(rest, add_special_tokens=False).offsets
            end = offsets[min(len(offsets), described.max_tokens - 2) - 1][1]
            parts.append(rest[:end])
            rest = rest[end:]
        alone = embedder.embed(parts)
        assert alone.receipt.truncations == ()
        tokens = [len(described.tokenizer.encode(part, add_special_tokens=False).ids) for part in parts]
        mean = (alone.vectors * np.array(tokens)[:, None]).sum(axis=0)
        assert float(mean @ result.vectors[1] / np.linalg.norm(mean)) > 0.9995
        assert first.windows == len(parts)
        assert first.tokens == sum(tokens) + 2 * len(parts)
        cut = embedder.embed([LONG])
        assert float(cut.vectors[0] @ result.vectors[1]) < 0.9999


def test_the_plan_reports_windows_before_anything_is_computed(config):
    with Embedder(config=config) as embedder:
        plan = embedder.plan([LONG, "a"], on_overflow="mean")
        assert [item.row for item in plan.averaged] == [0]
        assert (plan.unique_texts, plan.texts, plan.truncations) == (2, 2, ())
        assert plan.tokens == embedder.embed([LONG, "a"], on_overflow="mean").receipt.tokens


def test_words_without_spaces_and_every_script_are_averaged(config):
    texts = ["x" * 5000, "漢字" * 900, "ß" * 2000, "😀" * 1500, "word\n\n\n" * 800 + " " * 5000]
    with Embedder(config=config) as embedder:
        result = embedder.embed(texts, on_overflow="mean")
        assert np.isfinite(result.vectors).all()
        assert result.receipt.truncations == ()


def test_a_limit_that_the_prompt_fills_is_an_error():
    class Full(Letters):
        def tokenize(self, texts, input_type):
            cuts = tuple(Truncation(row, 6, 0, len(text), len(text)) for row, text in enumerate(texts) if text)
            return TokenizedTexts((), np.full(len(texts), 6, np.int32), cuts)

    with pytest.raises(TextTooLongError, match="text 0"):
        split_windows(["ab"], {0}, lambda parts: Full().tokenize(parts, "document"), max_tokens=6)


@pytest.mark.parametrize("text", ["\x00", "\x00 \x00", " \t\n", "", "\u3000"])
def test_what_holds_nothing_is_refused(config, text):
    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            await embedder.embed(["a", text])

    with pytest.raises(InputError, match="text 1: it is empty"):
        asyncio.run(main())


def test_nuls_within_a_text_change_nothing_of_the_default_model(config):
    with Embedder(config=config) as embedder:
        result = embedder.embed(["ab cd", "a\x00b cd\x00"])
    assert float(result.vectors[0] @ result.vectors[1]) > 0.9999


@pytest.mark.parametrize("texts", [[[101, 102]], ["a", (5,)]])
def test_token_ids_are_refused_by_a_model_without_a_known_tokenizer(config, texts):
    with Embedder(config=config) as embedder, pytest.raises(InputError, match="list of token ids"):
        embedder.embed(texts)


def test_other_things_are_no_token_ids(config):
    with Embedder(config=config) as embedder:
        for texts in ([["a"]], [[1.5]], [[True]], [[]], [3]):
            with pytest.raises(InputError, match="text 0: it is of type"):
                embedder.embed(texts)
        with pytest.raises(UsageError, match="must be one of truncate, error, mean"):
            embedder.embed("a", on_overflow="average")


def test_a_long_text_is_read_a_few_times_not_once_per_window():
    read = 0

    def tokenize(texts):
        nonlocal read
        read += sum(map(len, texts))
        cuts = tuple(
            Truncation(row, 102, 200, len(text) - 200, None) for row, text in enumerate(texts) if len(text) > 200
        )
        return TokenizedTexts((), np.full(len(texts), 102, np.int32), cuts)

    text = "a" * 400_000
    parts, _ = split_windows([text], {0}, tokenize, max_tokens=102)
    assert "".join(parts) == text
    assert len(parts) == 2000
    assert read < 100 * len(text)  # a thousand times if each window reads the rest


def test_white_space_without_a_token_is_skipped():
    def tokenize(texts):
        """Return a token for each of the first 4 letters; a text is read up to 20,000 characters."""
        cuts = []
        for row, text in enumerate(texts):
            letters = [end for end, char in enumerate(text[:20_000], 1) if char != " "]
            if len(letters) > 4 or len(text) > 20_000:
                kept = letters[min(len(letters), 4) - 1] if letters else 0
                cuts.append(Truncation(row, 4, kept, len(text) - kept, None))
        return TokenizedTexts((), np.full(len(texts), 4, np.int32), tuple(cuts))

    text = "a" + " " * 100_000 + "b" + " " * 50_000 + "c"
    parts, _ = split_windows([text], {0}, tokenize, max_tokens=4)
    assert "".join(parts).replace(" ", "") == "abc"


def test_a_text_of_which_no_token_is_left_is_refused(config):
    text = "\u200b" * (1 << 21) + "x"
    with Embedder(config=config) as embedder:
        with pytest.raises(InputError, match="text 1: its beginning has no token for the model"):
            embedder.embed(["a", text])
        result = embedder.embed(["a", text, "word " * 1000, "b"], partial=True)
        assert list(result.errors) == [1]
        assert [cut.row for cut in result.receipt.truncations] == [2]
