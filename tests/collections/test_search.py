"""Best rows, with ties in row order."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from embedway.collections.search import TopRows


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 1.0]), max_size=60),
    batch=st.integers(1, 17),
    top_n=st.integers(1, 12),
)
def test_the_best_rows_do_not_depend_on_the_batches(scores, batch, top_n):
    best = TopRows(top_n)
    array = np.array(scores, np.float32)
    for first in range(0, len(array), batch):
        best.add(array[first : first + batch], first)
    expected = sorted(range(len(scores)), key=lambda row: (-scores[row], row))[:top_n]
    assert best.rows.tolist() == expected
