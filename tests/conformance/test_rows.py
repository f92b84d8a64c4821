"""Reading of rows, and comparisons of vectors."""

import base64

import numpy as np
import pytest

from embedway.conformance.client import Answer
from embedway.conformance.rows import cosine, cosines, describe_bad, read_list, read_vectors, rounded
from embedway.conformance.verdicts import CheckFailedError


def answer(data, status=200):
    return Answer(status, {}, {"data": data}, "", 0.1, is_reused=False)


def rows(*pairs):
    return answer([{"index": index, "embedding": vector} for index, vector in pairs])


def test_rows_are_read_by_index_and_by_position_if_the_indexes_are_no_order():
    assert read_vectors(rows((1, [0.0, 1.0]), (0, [1.0, 0.0])), 2).tolist() == [[1, 0], [0, 1]]
    assert read_vectors(rows((None, [0.0, 1.0]), (None, [1.0, 0.0])), 2).tolist() == [[0, 1], [1, 0]]
    assert read_vectors(rows((0, [0.0, 1.0]), (0, [1.0, 0.0])), 2).tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        (answer([]), "1 text is answered with 0 rows"),
        (answer("text"), "no list data"),
        (answer([1]), "no list data"),
        (answer([], status=500), "1 text is answered with 500"),
        (Answer(200, {}, None, "the answer is empty", 0.1, is_reused=False), "the answer is empty"),
        (rows((0, None)), "row 0 has null"),
        (rows((0, [1.0, None])), "a vector with null"),
        (rows((0, [float("nan")])), "NaN or infinity"),
        (rows((0, [1e300])), "not a list of finite numbers"),
        (rows((0, [["a"]])), "not a list of finite numbers"),
        (rows((0, [])), "no list of numbers"),
        (rows((0, {})), "no list of numbers"),
        (rows((0, "%%")), "not base64"),
        (rows((0, base64.b64encode(np.float32([1, np.nan]).tobytes()).decode())), "base64 of NaN or infinity"),
    ],
)
def test_what_is_no_vector_is_described(seen, message):
    with pytest.raises(CheckFailedError, match=message):
        read_vectors(seen, 1)


def test_vectors_of_different_lengths_in_one_answer():
    with pytest.raises(CheckFailedError, match="different lengths: 1 and 2"):
        read_vectors(rows((0, [1.0]), (1, [1.0, 2.0])), 2)


def test_cosines():
    a, b, zero = np.array([3, 0], np.float32), np.array([1, 1], np.float32), np.zeros(2, np.float32)
    assert cosine(a, b) == pytest.approx(0.7071, abs=1e-4)
    assert (cosine(a, zero), cosine(a, a[:1])) == (0, 0)
    assert cosines(np.stack([a, zero]), np.stack([a, b])) == pytest.approx(np.array([[1, 0.7071068], [0, 0]]))
    assert cosines(np.stack([a]), np.stack([a[:1]])).tolist() == [[0]]
    assert (rounded(0.999999), rounded(1.0)) == ("0.99999", "1.00000")


def test_rows_are_objects():
    assert read_list(answer([{"a": 1}]), 1) == [{"a": 1}]
    assert describe_bad(3) == "no list of numbers"
