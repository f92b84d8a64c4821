"""Exact totals of long texts."""

import pytest

from embedway.selection import token_counts
from embedway.selection.token_counts import TokenizerCache, TokenTotals, file_key


@pytest.mark.parametrize("text", ["Some words, (again) and again. " * 2000, "tokens " * 9000, "x" * 50_000])
@pytest.mark.parametrize("form", ["tiktoken", "file"])
def test_long_texts_are_counted_in_pieces(default_model_directory, monkeypatch, text, form):
    path = next(default_model_directory.glob("models/*/*/tokenizer.json"))
    cache = TokenizerCache()
    key = cache.resolve("tiktoken:cl100k_base" if form == "tiktoken" else file_key(path))
    count = cache[key]
    most = 0

    def counted(texts):
        nonlocal most
        most = max(most, sum(map(len, texts)))
        return count(texts)

    totals = TokenTotals({"a": counted})
    (tokens,) = count([text])
    monkeypatch.setattr(token_counts, "_GROUP_CHARACTERS", 10_000)
    totals.add([text, "another"])
    assert most < 20_000
    # A word of 50,000 letters is cut within; elsewhere the count is exact.
    assert totals.tokens["a"] - count(["another"])[0] == pytest.approx(tokens, abs=0 if " " in text else 10)
