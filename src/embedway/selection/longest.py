"""The longest text for a model, in tokens.

All texts are candidates, because the text with the most characters need not have the most tokens. Texts are counted by
descending estimate, and only if their upper bound is over the longest so far and the lowest limit.
"""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedway.providers.counting import about_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: As in `TextTokenizer`: characters that are tokenized per token of the limit, the tokens beyond the limit that make
#: cutting harmless, the growth of a part that has too few tokens, and the longest part.
_CHARACTERS_PER_TOKEN = 16
_MARGIN_TOKENS = 64
_WINDOW_GROWTH = 8
_MAX_WINDOW_CHARACTERS = 1 << 20
#: Minimum characters that are tokenized, so that the length of most texts is exact.
_EXACT_CHARACTERS = 1 << 16
#: Maximum tokens per byte of UTF-8 outside ASCII: lower-case letters may have one byte more than upper-case ones.
_TOKENS_PER_BYTE = 2
_ASCII = bytes(range(128))
#: Maximum tokens that tokenizers add to a text.
_ADDED_TOKENS = 16
#: Texts of the first group, which are counted first, and characters of the others.
_FIRST_TEXTS = 32
_GROUP_CHARACTERS = 1 << 19


@dataclass(frozen=True, slots=True)
class Longest:
    """Tokens of the longest text, with prompt and special tokens; `exact` is false if they are extrapolated."""

    tokens: int = 0
    exact: bool = True


class TextLengths:
    """Unique texts by descending estimate of their tokens."""

    def __init__(self, texts: Sequence[str]) -> None:
        about = {text: about_tokens(text) for text in dict.fromkeys(texts)}
        self._texts = sorted(about, key=about.__getitem__, reverse=True)
        self._about = [about[text] for text in self._texts]
        self._most: dict[str, int] = {}

    def estimated(self, prompt: str) -> Longest:
        """Return the estimated tokens of the longest text."""
        longest = 0
        for text, about in zip(self._texts, self._about, strict=True):
            # The prompt adds its own tokens, and rounding at most one.
            if about + about_tokens(prompt) + 1 <= longest:
                break
            longest = max(longest, about_tokens(prompt + text))
        return Longest(longest)

    def counted(
        self,
        count: Callable[[Sequence[str]], Sequence[int]],
        prompt: str,
        *,
        limits: tuple[int, int],
        most_characters: int | None = None,
    ) -> Longest:
        """Return the counted tokens of the longest text.

        `limits` are the lowest and the highest limit that it is compared with: below the lowest and above the highest,
        the result may be another long text. After `most_characters`, texts with lower estimates are not counted.
        """
        least, most = limits
        longest, characters, floor = Longest(), 0, 0
        most_of_prompt = most_tokens(prompt) - _ADDED_TOKENS
        for group in self._groups():
            rows = [prompt + text for text in group if self._most_tokens(text) + most_of_prompt > floor]
            characters += sum(map(len, rows))
            window = max((most + _MARGIN_TOKENS) * _CHARACTERS_PER_TOKEN, _EXACT_CHARACTERS)
            short = [text for text in rows if len(text) <= window]
            found = [Longest(tokens) for tokens in count(short)] if short else []
            found += [_count_long(text, count, window, most) for text in rows if len(text) > window]
            longest = max([longest, *found], key=lambda one: one.tokens)
            floor = max(least, longest.tokens)
            if longest.tokens > most or (most_characters is not None and characters >= most_characters):
                break
        return longest

    def _most_tokens(self, text: str) -> int:
        """Return the bound of a text, which is computed once for all tokenizers."""
        if text not in self._most:
            self._most[text] = most_tokens(text)
        return self._most[text]

    def _groups(self) -> Iterator[list[str]]:
        yield self._texts[:_FIRST_TEXTS]
        group: list[str] = []
        characters = 0
        for text in self._texts[_FIRST_TEXTS:]:
            group.append(text)
            characters += len(text)
            if characters >= _GROUP_CHARACTERS:
                yield group
                group, characters = [], 0
        if group:
            yield group


def most_tokens(text: str) -> int:
    """Return an upper bound of a text's tokens with any tokenizer, including special tokens.

    A token has at least one byte of the text as the tokenizer normalizes it. NFKD, the longest normalization, may
    lengthen characters elevenfold (https://unicode.org/faq/normalization.html).
    """
    if text.isascii():
        return len(text) + _ADDED_TOKENS
    own, normalized = text.encode("utf-8", "replace"), unicodedata.normalize("NFKD", text).encode("utf-8", "replace")
    others = max(len(own.translate(None, _ASCII)), len(normalized.translate(None, _ASCII)))
    return max(len(own), len(normalized)) + (_TOKENS_PER_BYTE - 1) * others + _ADDED_TOKENS


def _count_long(text: str, count: Callable[[Sequence[str]], Sequence[int]], window: int, most: int) -> Longest:
    """Count a part of a text that decides whether it has more tokens than a limit, and extrapolate the rest."""
    largest = max(window, _MAX_WINDOW_CHARACTERS)
    while True:
        (tokens,) = count([text[:window]])
        if len(text) <= window:
            return Longest(tokens)
        if tokens >= most + _MARGIN_TOKENS:
            return Longest(math.ceil(tokens * len(text) / window), exact=False)
        if window == largest:
            # The model truncates it here, however few tokens it has.
            return Longest(max(most + 1, math.ceil(tokens * len(text) / window)), exact=False)
        window = min(window * _WINDOW_GROWTH, largest)
