"""Deduplication of texts that arrive in parts."""

from hypothesis import given
from hypothesis import strategies as st

from embedway.selection.deduplication import TextDeduplicator


@given(st.lists(st.lists(st.sampled_from(["a", "A", "a ", "", "\ud800", "\udfff", "漢"]))))
def test_each_text_is_new_once_whatever_it_holds(windows):
    deduplicator = TextDeduplicator()
    new = [text for window in windows for text in deduplicator.filter(window)]
    assert new == list(dict.fromkeys(text for window in windows for text in window))
