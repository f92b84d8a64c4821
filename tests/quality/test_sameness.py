"""Equal and nearly equal vectors of different texts, within an answer and across answers."""

import numpy as np
import pytest

from embedway.providers.fake import vector_of
from embedway.quality.memory import RecentVectors
from embedway.quality.reading import TextComparer, TokenComparer
from embedway.quality.sameness import SamenessCheck

READS = TextComparer(512)
TEXTS = [f"subject{n} verb{n} object{n}" for n in range(40)]


def right(texts, width=32):
    return np.stack([vector_of(text, width) for text in texts])


class Route:
    def __init__(self, reads=READS):
        self.check = SamenessCheck(reads, RecentVectors())

    def find(self, texts, vectors):
        return self.check.find(np.ascontiguousarray(vectors), texts.__getitem__)


def test_different_texts_with_one_vector_are_at_fault_and_the_others_are_not():
    vectors = right(TEXTS)
    vectors[7] = vectors[31]
    found = Route().find(TEXTS, vectors)
    assert (found.check, found.rows, found.is_earlier) == ("same_vector", [7, 31], False)


@pytest.mark.parametrize(
    "texts",
    [
        ("Polish", "polish"),
        ("a b", "b a"),
        ("a b a b", "a b"),
        ("caf\u00e9", "cafe"),
        ("a, b.", "a b"),
        ("great \U0001f600", "great \U0001f622"),
        ("soft\u00adware", "software"),
        ("f " + "x" * 80, "f " + "y" * 80),
    ],
)
def test_texts_that_a_model_may_read_alike_may_have_one_vector(texts):
    found = Route().find(list(texts), np.repeat(right(["one"]), 2, axis=0))
    assert (found.rows, found.unsure) == ([], [])


def test_words_of_another_script_without_a_tokenizer_are_not_certain():
    found = Route().find(["\u0e01\u0e02", "\u4e00\u4e8c"], np.repeat(right(["one"]), 2, axis=0))
    assert (found.rows, found.unsure) == ([], [0, 1])


def test_only_the_part_is_compared_that_a_service_reads_in_any_case():
    same, reads = "w " * 40, TextComparer(64)
    texts = [f"{same}one", f"{same}two"]
    assert Route(reads).find(texts, np.repeat(right(["one"]), 2, axis=0)).rows == []
    longer = Route(TextComparer(256))
    found = longer.find(texts, np.repeat(right(["one"]), 2, axis=0))
    assert found.rows == [0, 1]
    assert "may read fewer tokens than 256: set max_tokens" in longer.check.reads.explain(found.difference)


def test_token_ids_are_compared_as_sets_without_unknown_ones():
    ids = [np.array(row, np.int32) for row in ([1, 5, 6, 2], [1, 6, 5, 5, 2], [1, 5, 6, 100, 2], [1, 5, 7, 2])]
    vectors = np.repeat(right(["one"]), 3, axis=0)
    reads = TokenComparer(frozenset({1, 2, 100}))
    assert Route(reads).find(ids[:3], vectors).rows == []
    assert Route(reads).find(ids[1:], vectors).rows == [0, 1, 2]


@pytest.mark.parametrize("sizes", [(1, 1), (1, 3), (3, 1), (2, 5)])
def test_a_vector_of_an_earlier_answer_is_found(sizes):
    route = Route()
    first, second = TEXTS[: sizes[0]], TEXTS[20 : 20 + sizes[1]]
    vectors = right(first)
    assert route.find(first, vectors).rows == []
    again = right(second)
    again[-1] = vectors[0]
    found = route.find(second, again)
    assert (found.check, found.rows, found.is_earlier) == ("same_vector", [len(second) - 1], True)
    assert route.find(second, right(second)).rows == []


def test_a_text_that_gets_its_own_vector_blames_no_other_text_any_more():
    route, (one, two) = Route(), right(["one", "two"])
    assert route.find(["one"], two[None]).rows == []  # the vector of another text
    assert route.find(["two"], two[None]).rows == [0]
    assert route.find(["one"], one[None]).rows == []
    assert route.find(["two"], two[None]).rows == []


def test_vectors_with_numeric_noise_are_nearly_constant():
    noise = np.random.default_rng(1).standard_normal((40, 32)).astype(np.float32) * 1e-5
    vectors = right(["one"]) + noise
    assert Route().find(TEXTS, vectors).check == "near_constant"
    assert Route().find(TEXTS, vectors).rows == list(range(40))
    route = Route()
    found = [route.find(TEXTS[n : n + 1], vectors[n : n + 1]).check for n in range(4)]
    assert found == ["", "", "near_constant", "near_constant"]


def test_texts_of_one_template_may_be_nearly_equal():
    texts = [f"Invoice {n} of this year: thank you for your order, we look forward to your visit" for n in range(40)]
    noise = np.random.default_rng(1).standard_normal((40, 32)).astype(np.float32) * 1e-5
    vectors = right(["one"]) + noise
    assert Route().find(texts, vectors).check == ""
    route = Route()
    assert not any(route.find(texts[n : n + 1], vectors[n : n + 1]).rows for n in range(40))


def test_rows_that_are_no_vectors_are_left_to_other_checks():
    for row in (np.zeros(32, np.float32), np.full(32, np.nan, np.float32)):
        route = Route()
        assert route.find(TEXTS[:4], np.stack([row] * 4)).rows == []
        assert route.find(TEXTS[4:5], row[None]).rows == []


def test_the_memory_is_bounded():
    route = Route()
    for start in range(0, 20_000, 20):
        texts = [f"word{n}" for n in range(start, start + 20)]
        route.find(texts, right(texts, 4))
    recent = route.check.recent
    assert recent.vectors == 512
    assert recent.texts == 512
