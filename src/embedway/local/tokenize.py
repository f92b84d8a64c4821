"""Texts to token ids, once, unpadded, cut at the model's limit, with an exact account of every cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer, normalizers

from embedway.errors import WeightsError
from embedway.types import TokenizedTexts, Truncation

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Text is cut by characters before it is tokenized, so that a book costs no more than its first pages. Ordinary
# text has 2 to 6 characters a token; where 16 do not fill the model's window, the text is looked at again.
_CHARACTERS_PER_TOKEN = 16
# Cutting by characters can split a word; so many tokens beyond the limit must be seen for the cut to be harmless.
_MARGIN_TOKENS = 64
_WINDOW_GROWTH = 8


class TextTokenizer:
    """The model's own tokenizer. Safe to use from several threads."""

    def __init__(self, path: Path, *, max_tokens: int, lowercase: bool = False) -> None:
        try:
            self.plain: Tokenizer = Tokenizer.from_file(str(path))
            self._cutting: Tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise WeightsError(f"{path}: the tokenizers library cannot read it: {error}") from error
        if lowercase:
            for tokenizer in (self.plain, self._cutting):
                after = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
                tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *after])
        self.plain.no_truncation()
        self.plain.no_padding()
        self._cutting.no_padding()
        self.special_tokens = int(self.plain.num_special_tokens_to_add(is_pair=False))
        self.max_tokens = max_tokens
        self._cutting.enable_truncation(max_tokens)
        self._window = (max_tokens + _MARGIN_TOKENS) * _CHARACTERS_PER_TOKEN

    def encode(self, texts: Sequence[str], *, prompt: str) -> TokenizedTexts:
        """Ids of `prompt + text`, special tokens included; no more than `max_tokens` each."""
        full = [prompt + text for text in texts] if prompt else list(texts)
        window = self._window
        encodings: list[Any] = self._cutting.encode_batch_fast([text[:window] for text in full])
        truncations: list[Truncation] = []
        for row, encoding in enumerate(encodings):
            if len(encoding) >= self.max_tokens or len(full[row]) > window:
                encodings[row], truncation = self._cut(full[row], row, prompt)
                if truncation is not None:
                    truncations.append(truncation)
        ids = tuple(np.array(encoding.ids, np.int32) for encoding in encodings)
        lengths = np.fromiter((len(row) for row in ids), np.int32, len(ids))
        return TokenizedTexts(ids, lengths, tuple(truncations))

    def _cut(self, text: str, row: int, prompt: str) -> tuple[Any, Truncation | None]:
        """Encode a text that is at or over the limit, and tell exactly what was cut."""
        window = self._window
        while True:
            encoding = self._cutting.encode(text[:window])
            lost = sum(len(rest) - self.special_tokens for rest in encoding.overflowing)
            if len(text) <= window or lost >= _MARGIN_TOKENS:
                break
            window *= _WINDOW_GROWTH
        if lost == 0:
            return encoding, None
        kept = [
            end for (_, end), special in zip(encoding.offsets, encoding.special_tokens_mask, strict=True) if not special
        ]
        characters = max(0, (kept[-1] if kept else 0) - len(prompt))
        return encoding, Truncation(
            row=row,
            kept_tokens=len(encoding),
            kept_characters=characters,
            lost_characters=len(text) - len(prompt) - characters,
            lost_tokens=lost if len(text) <= window else None,
        )
