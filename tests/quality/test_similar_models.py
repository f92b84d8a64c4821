"""Models whose vectors are close to each other, but no fault: the checks of answers must not refuse them."""

import re

import numpy as np
import pytest

from embedway import Config, Embedder
from embedway.quality.memory import RecentVectors
from embedway.quality.pairs import built_in_pairs
from embedway.quality.reading import TextReader, TokenReader, ignored_ids
from embedway.quality.sameness import SamenessCheck
from embedway.quality.similarity import check_similarity
from tiny_models import tiny_encoder

TEXTS = [text for pair in built_in_pairs() for text in (pair.query, pair.passage) if text.isascii()]
READS = TextReader(512)
SETTINGS = {"cache.backend": "none", "ledger.backend": "none"}


@pytest.fixture(scope="module")
def real_vectors(default_model_directory):
    """Return vectors of the default model."""
    overrides = {**SETTINGS, "weights.directory": str(default_model_directory)}
    with Embedder(config=Config.load(environ={}, overrides=overrides)) as embedder:
        return embedder.embed(TEXTS).vectors


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def check_of(texts, vectors, reads=READS, readings=None):
    """Return the check that refuses vectors of texts: in one answer, in answers of eight, and of one; else ''."""
    readings = texts if readings is None else readings
    for size in (len(texts), 8, 1):
        check = SamenessCheck(reads, RecentVectors())
        for start in range(0, len(texts), size):
            part = readings[start : start + size]
            found = check.find(np.ascontiguousarray(vectors[start : start + size]), part.__getitem__)
            if found.check:
                return found.check
    return ""


@pytest.mark.parametrize(("layers", "deviation"), [(2, 1.0), (12, 1.0), (12, 0.02), (24, 0.02)])
def test_models_with_random_weights_are_not_refused(tmp_path, tokenizer, layers, deviation):
    folder = tiny_encoder(tmp_path / "model", tokenizer, layers=layers, deviation=deviation)
    with Embedder(str(folder), config=Config.load(environ={}, overrides=SETTINGS)) as embedder:
        result = embedder.embed(TEXTS)
        for start in range(0, len(TEXTS), 3):
            embedder.embed(TEXTS[start])
            embedder.embed(TEXTS[start : start + 3])
    assert result.receipt.checks.mean_similarity > 0.7
    assert result.receipt.checks.warnings == ()


@pytest.mark.parametrize(
    ("common", "mean", "warnings"),
    [(2, 0.8, ()), (3, 0.9, ()), (5, 0.96, ()), (9, 0.985, ("high_similarity",)), (40, 0.999, ("high_similarity",))],
)
@pytest.mark.parametrize("precision", [np.float32, np.float16])
def test_vectors_with_a_large_common_part_are_not_refused(real_vectors, common, mean, warnings, precision):
    # Vectors of E5 models are of this kind: each pair has a cosine of 0.7 to 0.9.
    direction = unit(np.random.default_rng(1).standard_normal((1, real_vectors.shape[1])))
    vectors = unit(real_vectors + common * direction).astype(precision).astype(np.float32)
    checks = check_similarity(TEXTS, vectors)
    assert checks.mean_similarity > mean
    assert checks.warnings == warnings
    assert check_of(TEXTS, vectors) == ""


def test_a_static_model_gives_texts_with_the_same_words_one_vector(tokenizer):
    from tokenizers import Tokenizer

    read = Tokenizer.from_file(str(tokenizer))
    table = np.random.default_rng(1).standard_normal((read.get_vocab_size(), 32)).astype(np.float32)

    def vectors_of(texts):
        # Added up in the order of ids, so that texts with the same tokens get the same bits.
        ids = [sorted(read.encode(text, add_special_tokens=False).ids) for text in texts]
        return unit(np.stack([table[row].sum(axis=0) for row in ids]))

    words = [" ".join(sorted(set(re.findall(r"[a-z]{3,}", text.lower())))[:12]) for text in TEXTS]
    texts = [*words, *(" ".join(reversed(text.split())) for text in words), *(f"{text} {text}" for text in words)]
    vectors = vectors_of(texts)
    assert len(np.unique(vectors, axis=0)) < len(texts)
    readings = [np.array(read.encode(text).ids, np.int32) for text in texts]
    assert check_of(texts, vectors) == ""
    assert check_of(texts, vectors, TokenReader(ignored_ids(read)), readings) == ""


def test_texts_without_words_do_not_warn(real_vectors):
    texts = [chr(0x1F600 + number) for number in range(10)]
    vectors = np.repeat(real_vectors[:1], len(texts), axis=0)
    assert check_similarity(texts, vectors).warnings == ()
    assert check_similarity(TEXTS[:10], vectors).warnings == ("high_similarity",)
