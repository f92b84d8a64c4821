import contextlib
import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.errors import BadVectorsError
from embedway.types import Space
from embedway.vectors import bad_rows, good_rows, to_size, validate

SPACE = Space("m", "0" * 64, 4, "mean", normalized=True)


def unit(rows):
    return np.eye(4, dtype=np.float32)[:rows]


def test_good_vectors_pass():
    validate(unit(3), count=3, space=SPACE, route="r")
    validate(np.empty((0, 4), np.float32), count=0, space=SPACE, route="r")


@pytest.mark.parametrize(
    ("change", "rows"),
    [
        (lambda v: v.__setitem__((1, 0), np.nan), (1,)),
        (lambda v: v.__setitem__((2, 3), np.inf), (2,)),
        (lambda v: v.__setitem__((2, 3), 1e30), (2,)),
        (lambda v: v.__setitem__(0, 0), (0,)),
        (lambda v: v.__imul__(1.5), (0, 1, 2)),
    ],
)
def test_bad_vectors_are_refused_with_their_rows(change, rows):
    vectors = unit(3)
    change(vectors)
    with pytest.raises(BadVectorsError) as caught:
        validate(vectors, count=3, space=SPACE, route="r")
    assert caught.value.rows == rows


@pytest.mark.parametrize("number", [np.nan, np.inf, 1e30, 0.0, 0.97, 1.03, -1.03])
def test_a_single_vector_is_checked_like_many(number):
    vectors = unit(1) * np.float32(0.999)
    validate(vectors, count=1, space=SPACE, route="r")
    vectors[0, 0] = number
    with pytest.raises(BadVectorsError) as caught:
        validate(vectors, count=1, space=SPACE, route="r")
    assert caught.value.rows == (0,)


@pytest.mark.parametrize("normalized", [False, True])
@given(st.data())
def test_what_a_cache_held_is_refused_in_the_rows_that_a_fresh_answer_is_refused_for(normalized, data):
    space = dataclasses.replace(SPACE, normalized=normalized, digest="")
    count = data.draw(st.integers(0, 4))
    vectors = np.zeros((count, 4), np.float32)
    for row in range(count):
        vectors[row, 1] = data.draw(st.sampled_from([1, 1, 0, np.nan, -np.inf, 1e30, 0.985, 1.015, 0.97, 1.03]))
    bad = bad_rows(vectors, space)
    assert bad == [row for row, good in enumerate(good_rows(vectors, space)) if not good]
    with pytest.raises(BadVectorsError) if bad else contextlib.nullcontext() as caught:
        validate(vectors, count=count, space=space, route="r")
    assert not bad or set(caught.value.rows) <= set(bad)


@pytest.mark.parametrize("array", [unit(2), np.eye(3, dtype=np.float32), np.eye(4)[:3]])
def test_wrong_shapes_and_types_are_refused(array):
    with pytest.raises(BadVectorsError):
        validate(array, count=3, space=SPACE, route="r")


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("rows", [1, 3])
def test_vectors_are_cut_to_a_size_in_a_copy(rows, normalized):
    vectors = np.random.default_rng(rows).standard_normal((rows, 4)).astype(np.float32)
    before = vectors.copy()
    space = dataclasses.replace(SPACE, dimensions=2, normalized=normalized, digest="")
    first, again = to_size(vectors, space), to_size(vectors, space)
    np.testing.assert_array_equal(vectors, before)
    np.testing.assert_array_equal(first, again)
    cut = before[:, :2]
    np.testing.assert_allclose(
        first, cut / np.linalg.norm(cut, axis=1, keepdims=True) if normalized else cut, rtol=1e-6
    )
    first[:] = 0
    np.testing.assert_array_equal(vectors, before)
