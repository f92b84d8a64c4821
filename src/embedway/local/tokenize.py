"""Tokenizer of a local model: unpadded ids, truncated to the model's limit, with exact truncation facts."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer, normalizers

from embedway.errors import InputError, WeightsError
from embedway.text import redact
from embedway.types import TokenizedTexts, Truncation
from embedway.weights.model_files import read_required

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# Text is cut by characters before it is tokenized, so that a book costs as much as its first pages. Ordinary text has 2
# to 6 characters per token. If 16 per token do not fill the model's window, more text is tokenized.
_CHARACTERS_PER_TOKEN = 16
# Cutting by characters can split a word. This many tokens beyond the limit make that harmless.
_MARGIN_TOKENS = 64
_WINDOW_GROWTH = 8
# The library needs 60 bytes for each character. If this many characters have fewer tokens than the model accepts, such
# as a word of a million letters, the rest of the text is truncated.
_MAX_WINDOW_CHARACTERS = 1 << 20


class TextTokenizer:
    """Tokenizer of a model. Thread-safe."""

    def __init__(self, path: Path, *, max_tokens: int, lowercase: bool = False, written: bytes | None = None) -> None:
        """Read the file `path` once, or use `written` as its content."""
        data = read_required(path) if written is None else written
        try:
            self.plain: Tokenizer = Tokenizer.from_buffer(data)
            self._cutting: Tokenizer = Tokenizer.from_buffer(data)
        except BaseException as error:
            if not (isinstance(error, Exception) or _is_library_error(error)):
                raise
            raise WeightsError(f"{path}: the tokenizers library cannot read the file: {redact(str(error))}") from error
        self._path = path
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
        self._largest_window = max(self._window, _MAX_WINDOW_CHARACTERS)
        self._pairs: Tokenizer | None = None

    def encode_pairs(self, query: str, documents: Sequence[str]) -> TokenizedTexts:
        """Tokenize `query` with each document, as a cross-encoder reads them, with the type of each token.

        Documents are truncated if a pair exceeds `max_tokens`; queries are not. Raises InputError if a query leaves
        less than half of the model's tokens for documents.
        """
        if len(query) > self._largest_window:
            raise InputError(f"the query has {len(query):,} characters, more than {self._largest_window:,}: shorten it")
        with self._library_errors():
            query_tokens = len(self.plain.encode(query, add_special_tokens=False))
        if query_tokens > self.max_tokens // 2:
            raise InputError(
                f"the query has {query_tokens} tokens, more than half of the {self.max_tokens} that the model "
                "accepts with a document: shorten it"
            )
        pairs = self._pairs = self._pairs or self._make_pair_tokenizer()
        overhead_tokens = query_tokens + int(pairs.num_special_tokens_to_add(is_pair=True))
        with self._library_errors():
            encodings = pairs.encode_batch([(query, text[: self._window]) for text in documents])
        truncations: list[Truncation] = []
        for row, text in enumerate(documents):
            encoding, window = encodings[row], self._window
            overflowing = encoding.overflowing
            while not overflowing and window < min(len(text), self._largest_window):
                window = min(window * _WINDOW_GROWTH, self._largest_window)
                encodings[row] = encoding = pairs.encode(query, text[:window])
                overflowing = encoding.overflowing
            if not overflowing and len(text) <= window:
                continue
            kept = [end for (_, end), part in zip(encoding.offsets, encoding.sequence_ids, strict=True) if part == 1]
            characters = kept[-1] if kept else 0
            lost = sum(len(overflow) - overhead_tokens for overflow in overflowing)
            known = lost if len(text) <= window else None
            truncations.append(Truncation(row, len(encoding), characters, len(text) - characters, known))
        ids = tuple(np.array(encoding.ids, np.int32) for encoding in encodings)
        types = tuple(np.array(encoding.type_ids, np.int32) for encoding in encodings)
        lengths = np.fromiter((len(row) for row in ids), np.int32, len(ids))
        return TokenizedTexts(ids, lengths, tuple(truncations), types)

    @contextmanager
    def _library_errors(self) -> Iterator[None]:
        """Convert the library's errors for a text to WeightsError, without the text."""
        try:
            yield
        except BaseException as error:
            if not _is_library_error(error):
                raise
        else:
            return
        # Raised outside the handler: the library's error may repeat the text, and would be the context of this one.
        raise WeightsError(f"{self._path}: the tokenizers library fails with this file; it is damaged")

    def _make_pair_tokenizer(self) -> Tokenizer:
        tokenizer: Tokenizer = Tokenizer.from_str(self.plain.to_str())
        tokenizer.enable_truncation(self.max_tokens, strategy="only_second")
        return tokenizer

    def encode(self, texts: Sequence[str], *, prompt: str) -> TokenizedTexts:
        """Tokenize `prompt + text`, special tokens included; at most `max_tokens` each."""
        full = [prompt + text for text in texts] if prompt else list(texts)
        window = self._window
        with self._library_errors():
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
        """Encode a text at or above the limit, and return its exact truncation."""
        window = self._window
        while True:
            encoding = self._cutting.encode(text[:window])
            lost = sum(len(overflow) - self.special_tokens for overflow in encoding.overflowing)
            if len(text) <= window or lost >= _MARGIN_TOKENS or window == self._largest_window:
                break
            window = min(window * _WINDOW_GROWTH, self._largest_window)
        if lost == 0 and len(text) <= window:
            return encoding, None
        kept = [
            end for (_, end), special in zip(encoding.offsets, encoding.special_tokens_mask, strict=True) if not special
        ]
        characters = max(0, (kept[-1] if kept else 0) - len(prompt))
        known = lost if len(text) <= window else None
        return encoding, Truncation(row, len(encoding), characters, len(text) - len(prompt) - characters, known)


def _is_library_error(error: BaseException) -> bool:
    """Return whether the tokenizers library raised this for a file: bare Exception, or PyO3's error of a panic.

    No module exports PyO3's class. Errors of arguments have other classes.
    """
    return type(error) is Exception or type(error).__name__ == "PanicException"
