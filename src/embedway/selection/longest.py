"""The longest text for a model, in tokens.

All texts are candidates, because the text with the most characters need not have the most tokens. Texts are counted by
descending estimate, and only if they may have more tokens than the longest so far.
"""

from __future__ import annotations

import math
import re
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
#: Maximum tokens of a lower-case letter within a word: random letters have up to 0.7 with BERT's and OpenAI's.
_TOKENS_PER_LETTER = 0.8
#: Maximum tokens of a byte of UTF-8 outside ASCII: tokenizers split characters into bytes, or into at most three.
_TOKENS_PER_BYTE = 2
#: The same, in a text with characters that are normalized to up to 18 others of 2 bytes each, such as U+FDFA
#: (https://unicode.org/faq/normalization.html).
_TOKENS_PER_NORMALIZED_BYTE = 12
_NORMALIZED = re.compile("[\u2000-\u2bff\u3200-\u33ff\ufb00-\ufdff\ufe70-\uffef\U0001d000-\U0001f2ff]")
_SPACES, _LETTERS = b" \n", bytes(range(ord("a"), ord("z") + 1))
#: Tokens that tokenizers add to a text.
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
        longest, characters = Longest(), 0
        most_of_prompt = _most_tokens(prompt)
        for group in self._groups():
            floor = longest.tokens if characters == 0 else max(least, longest.tokens)
            rows = [prompt + text for text in group if _most_tokens(text) + most_of_prompt > floor]
            characters += sum(map(len, group))
            window = max((most + _MARGIN_TOKENS) * _CHARACTERS_PER_TOKEN, _EXACT_CHARACTERS)
            short = [text for text in rows if len(text) <= window]
            found = [Longest(tokens) for tokens in count(short)] if short else []
            found += [_count_long(text, count, window, most) for text in rows if len(text) > window]
            longest = max([longest, *found], key=lambda one: one.tokens)
            if longest.tokens > most or (most_characters is not None and characters >= most_characters):
                break
        return longest

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


def _most_tokens(text: str) -> int:
    """Return an upper estimate of the tokens of a text, which it hardly ever exceeds with any tokenizer."""
    data = text.encode("utf-8", "replace")
    spaces = len(data) - len(data.translate(None, _SPACES))
    letters = len(data) - len(data.translate(None, _LETTERS))
    others = len(data) - spaces - letters
    if not text.isascii():
        normalized = _NORMALIZED.search(text) is not None
        others *= _TOKENS_PER_NORMALIZED_BYTE if normalized else _TOKENS_PER_BYTE
    # Each word has at least one token, however short it is.
    return others + min(letters, math.ceil(letters * _TOKENS_PER_LETTER) + spaces) + _ADDED_TOKENS


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
