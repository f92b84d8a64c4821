"""Vector sizes: membership, words and notes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.sizes import ADVISED_MIN_DIMENSIONS, VectorSizes, min_dimensions_fault

SMALL = VectorSizes((1536, 512), 1)
SIZES = st.lists(st.integers(1, 3072), min_size=1, max_size=5, unique=True).map(
    lambda sizes: tuple(sorted(sizes, reverse=True))
)


@given(SIZES, st.none() | st.integers(1, 3072), st.integers(1, 4000))
def test_a_size_is_supported_if_it_is_listed_or_in_the_range(listed, least, size):
    sizes = VectorSizes(listed, least)
    in_range = least is not None and least <= size <= listed[0]
    assert (size in sizes) == (size in listed or in_range)
    if least is None:
        assert list(sizes.notes("m", size)) == []


def test_sizes_in_words():
    assert str(SMALL) == "1 to 1536"
    assert str(VectorSizes((1024, 512))) == "1024, 512"


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (1536, []),
        (512, []),
        (768, ["the vector size 768 is not one that its maker trained or evaluated (1536, 512)"]),
        (256, ["the vector size 256 is not one that its maker"]),
        (255, ["the vector size 255 is not one", "the vector size 255 is below the advised minimum of 256"]),
        (1, ["the vector size 1 is not one", "the vector size 1 is below the advised minimum"]),
    ],
)
def test_notes_name_what_is_not_evaluated_and_what_is_too_small(size, said):
    notes = list(SMALL.notes("text-embedding-3-small", size))
    assert len(notes) == len(said)
    assert all(note.startswith(f"text-embedding-3-small: {part}") for note, part in zip(notes, said, strict=True))


def test_an_evaluated_size_below_the_advised_minimum_has_that_note_alone():
    (note,) = VectorSizes((1024, 128), 1).notes("m", 128)
    assert note == f"m: the vector size 128 is below the advised minimum of {ADVISED_MIN_DIMENSIONS}"


def test_a_smallest_size_is_below_the_others():
    assert min_dimensions_fault(1, 1024, (512,)) == min_dimensions_fault(512, 1024, (512,)) == ""
    assert min_dimensions_fault(1024, 1024, ()) == "must be below dimensions, which is 1024"
    assert "smallest size of matryoshka, which is 256" in min_dimensions_fault(300, 1024, (512, 256))
