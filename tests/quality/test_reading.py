"""Texts whose vectors may be equal, compared with the tokens that real models read of them."""

import random

import pytest

from embedway.providers.fake import vector_of
from embedway.quality.memory import RecentVectors
from embedway.quality.reading import TextComparer
from embedway.quality.sameness import SamenessCheck

#: The first and last characters of blocks that tokenizers treat in different ways.
BLOCKS = [
    (0x00, 0x1F),  # control characters
    (0x20, 0x7E),
    (0x80, 0xFF),
    (0x100, 0x24F),
    (0x250, 0x2AF),
    (0x300, 0x36F),
    (0x370, 0x3FF),
    (0x400, 0x4FF),
    (0x590, 0x5FF),
    (0x600, 0x6FF),
    (0x900, 0x97F),
    (0xE00, 0xE7F),
    (0x1100, 0x11FF),
    (0x1E00, 0x1EFF),
    (0x1F00, 0x1FFF),
    (0x2000, 0x206F),
    (0x2070, 0x209F),
    (0x20A0, 0x20CF),
    (0x2100, 0x218F),
    (0x2190, 0x22FF),
    (0x2460, 0x24FF),
    (0x3000, 0x30FF),
    (0x3200, 0x33FF),
    (0x4E00, 0x9FFF),
    (0xA000, 0xA4CF),
    (0xAC00, 0xD7A3),
    (0xE000, 0xE0FF),
    (0xF900, 0xFAFF),
    (0xFB00, 0xFDFF),
    (0xFE00, 0xFE4F),
    (0xFF00, 0xFFEF),
    (0x1D400, 0x1D7FF),
    (0x1F300, 0x1FAFF),
    (0x20000, 0x2A6DF),
    (0xE0000, 0xE007F),
]
PLAIN = ["red", "Red", "fox", "a", "b", "ab", "12", "21", "1", "7", "km", "kg", "viii", "x" * 60, "y" * 60, "z" * 90]
BETWEEN = ["", "", " ", " ", ".", "-", "\n", "\t", "\x0b", "\x0c", "\x1c", "\x85", "\u00a0", "\u200b", "\u2028", "\x00"]


def odd_texts(chance, number):
    """Return texts of plain words and characters of all blocks."""
    texts = []
    for _ in range(number):
        text = ""
        for _ in range(chance.randint(1, 5)):
            low, high = chance.choice(BLOCKS)
            odd = "".join(chr(chance.randint(low, high)) for _ in range(chance.randint(1, 3)))
            text += chance.choice([odd, odd, chance.choice(PLAIN)]) + chance.choice(BETWEEN)
        texts.append(text)
    return texts


def refused(texts, max_tokens=512):
    """Return whether texts with one vector are refused without the tokenizer of the service."""
    reads = TextComparer(max_tokens)
    difference = reads.differ(*texts)
    return difference is not None and difference.certain


@pytest.fixture(scope="session")
def word_piece(tokenizer):
    from tokenizers import Tokenizer

    found = Tokenizer.from_file(str(tokenizer))
    found.no_padding()
    found.no_truncation()
    return found


@pytest.mark.parametrize(
    "texts",
    [
        ("\uff21\uff22\uff23", "\uff24\uff25\uff26"),
        ("\uff11\uff12\uff13", "\uff14\uff15\uff16"),
        ("\u2460", "\u2461"),
        ("\U0001d400\U0001d401", "\U0001d402\U0001d403"),
        ("\u2167", "\u2168"),
        ("\u338f", "\u339e"),
        ("\U0001f600", "\uff21\uff22\uff23"),
        ("\ufb01", "\ufb02"),
        ("abc\u0e01", "xyz\u0e01"),  # the whole word is unknown
        ("x" * 50 + "\x00" + "x" * 51, "y" * 50 + "\x00" + "y" * 51),  # one word of 101 characters
        ("form\x0cfeed", "formfeed"),
        ("form\x0cfeed", "form feed"),
        ("12", "21"),
        ("11", "1"),
    ],
)
def test_texts_that_some_model_reads_alike_are_not_refused(texts):
    assert not refused(texts)
    assert not refused(texts[::-1])


def test_equal_tokens_of_odd_texts_are_never_refused(word_piece):
    chance = random.Random(7)
    texts = [*odd_texts(chance, 8_000), *odd_texts(random.Random(8), 8_000)]
    by_ids = {}
    for text, encoded in zip(texts, word_piece.encode_batch(texts), strict=True):
        by_ids.setdefault(tuple(encoded.ids), []).append(text)
    groups = [sorted(set(group))[:40] for group in by_ids.values() if len(set(group)) > 1]
    pairs = [(one, other) for group in groups for one in group for other in group if one != other]
    assert len(pairs) > 1000
    assert [pair for pair in pairs if refused(pair)] == []


@pytest.mark.parametrize("limit", [20, 64, 256])
def test_equal_tokens_within_the_limit_of_a_service_are_never_refused(word_piece, limit):
    chance = random.Random(limit)
    words = ["red", "fox", "jumps", "over", "the", "lazy", "dog", "0", "1", "pump"]
    fillers = ["", "\u0301", "\x00", "\u200b", "\u00ad", "\ufe0f"]
    for _ in range(100):
        same = chance.choices(words, k=chance.randint(limit // 2, 6 * limit))
        one, other = (
            "".join(word + chance.choice(fillers) * chance.randint(0, 9) + " " for word in [*same, last])
            for last in ("alpha", "beta")
        )
        ids = [word_piece.encode(text).ids[: limit - 1] for text in (one, other)]
        if ids[0] == ids[1]:
            assert not refused((one, other), limit), (one, other)


def test_a_kept_beginning_hides_words_behind_invisible_characters():
    same = " ".join(f"w{n}" for n in range(40))
    assert not refused((f"{same} " + "\u200b" * 5000 + " alpha", f"{same} alpha"), 8192)


@pytest.mark.parametrize(
    "texts",
    [
        ("red fox", "lazy dog"),
        ("pump \u0e01", "valve \u0e02"),
        ("red fox. " * 600, "lazy dog. " * 600),
        ("caf\u00e9 in Berlin", "caf\u00e9 in Paris"),
        ("order 12", "order 34"),
    ],
)
def test_a_constant_service_is_found_by_plain_words(texts):
    assert refused(texts)


def test_a_constant_vector_for_full_width_texts_is_only_a_warning():
    import numpy as np

    texts = ["\uff21\uff22\uff23", "\uff24\uff25\uff26"]
    check = SamenessCheck(TextComparer(512), RecentVectors())
    found = check.find(np.stack([vector_of("one", 32)] * 2), texts.__getitem__)
    assert (found.rows, found.unsure) == ([], [0, 1])
