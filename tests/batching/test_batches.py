import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.batching.batches import even_budget, fill_batches
from embedway.types import Spread

LENGTHS = st.lists(st.integers(1, 600), max_size=300).map(lambda rows: np.array(rows, np.int32))


@given(LENGTHS, st.integers(1, 5000))
def test_every_row_is_in_exactly_one_batch(lengths, budget):
    rows = [row for batch in fill_batches(lengths, token_budget=budget) for row in batch.rows.tolist()]
    assert sorted(rows) == list(range(len(lengths)))


@given(LENGTHS, st.integers(1, 5000))
def test_no_batch_passes_the_budget_unless_it_is_one_row(lengths, budget):
    for batch in fill_batches(lengths, token_budget=budget):
        assert batch.padded_tokens <= budget or len(batch.rows) == 1
        assert batch.width == lengths[batch.rows].max()


@given(LENGTHS)
def test_batches_run_from_long_to_short(lengths):
    widths = [batch.width for batch in fill_batches(lengths, token_budget=1000)]
    assert widths == sorted(widths, reverse=True)


def test_uneven_rows_do_not_share_a_batch():
    batches = fill_batches(np.array([300, 20, 20, 290], np.int32), token_budget=4096)
    assert [sorted(batch.rows.tolist()) for batch in batches] == [[0, 3], [1, 2]]


def test_long_rows_go_alone_whatever_the_budget():
    batches = fill_batches(np.array([8000, 8000, 30, 1025], np.int32), token_budget=100_000)
    assert [batch.rows.tolist() for batch in batches] == [[0], [1], [3], [2]]


def test_padding_of_mixed_lengths_is_small():
    lengths = np.random.default_rng(1).integers(5, 257, 2000).astype(np.int32)
    padded = sum(batch.padded_tokens for batch in fill_batches(lengths, token_budget=2048))
    assert padded < 1.05 * lengths.sum()


ONE_STREAM, TWO_STREAMS, WHOLE = Spread(1, 0), Spread(2, 0), Spread(2, 2048)


def spread_batches(lengths, spread, budget=2048):
    lengths = np.array(lengths, np.int32)
    even = even_budget(lengths, token_budget=budget, spread=spread)
    return [len(batch.rows) for batch in fill_batches(lengths, token_budget=even)]


@pytest.mark.parametrize(
    ("lengths", "spread", "rows"),
    [
        ([186] * 9, TWO_STREAMS, [5, 4]),
        ([186] * 9, WHOLE, [9]),
        ([186] * 9, ONE_STREAM, [9]),
        ([186] * 9, None, [9]),
        ([186] * 12, WHOLE, [6, 6]),
        ([186] * 13, WHOLE, [7, 6]),
        ([186] * 24, WHOLE, [6, 6, 6, 6]),
        ([186] * 2, TWO_STREAMS, [1, 1]),
        ([12] * 9, TWO_STREAMS, [5, 4]),
        ([12] * 3, TWO_STREAMS, [3]),
        ([12], TWO_STREAMS, [1]),
        ([3000], WHOLE, [1]),
        ([186] * 9, Spread(8, 0), [2, 2, 2, 2, 1]),
    ],
)
def test_few_texts_fill_the_streams_evenly(lengths, spread, rows):
    assert spread_batches(lengths, spread) == rows


@pytest.mark.parametrize("spread", [ONE_STREAM, TWO_STREAMS, WHOLE])
def test_batches_of_many_texts_have_the_whole_budget(spread):
    assert spread_batches([186] * 200, spread) == [11] * 18 + [2]


@given(LENGTHS, st.integers(1, 5000), st.integers(1, 8), st.integers(0, 5000))
def test_spread_texts_keep_the_budget(lengths, budget, streams, whole):
    even = even_budget(lengths, token_budget=budget, spread=Spread(streams, whole))
    assert even <= budget
    assert even == budget or even >= lengths.max()
