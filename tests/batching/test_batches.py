import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embedway.batching.batches import fill_batches

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
