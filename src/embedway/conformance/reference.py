"""Tokenizer of the judged model: exact counts, texts of an exact length, and the tokens of a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedway.catalog import default_catalog
from embedway.errors import UnknownModelError, UsageError, WeightsError
from embedway.local.loading import HUB_PREFIX, resolve
from embedway.local.outline import TextLimits, outline_of, read_limits
from embedway.local.tokenize import TextTokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import Tokenizer

    from embedway.config import Config

#: Words that most tokenizers have as one token.
_WORDS = ("time", "year", "people", "way", "day", "man", "woman", "life", "child", "world", "school", "state", "family")
#: Attempts to reach an exact number of tokens.
_ATTEMPTS = 50


@dataclass(frozen=True, slots=True)
class Reference:
    """Tokenizer of a model, its limit in tokens with special ones, and its prompts."""

    name: str
    tokenizer: Tokenizer
    max_tokens: int
    query_prompt: str = ""
    document_prompt: str = ""

    def count(self, text: str, *, special: bool = True) -> int:
        """Return the number of tokens of a text."""
        return len(self.tokenizer.encode(text, add_special_tokens=special))

    def ids(self, text: str, *, special: bool) -> list[int]:
        """Return the token ids of a text."""
        return list(self.tokenizer.encode(text, add_special_tokens=special).ids)

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return int(self.tokenizer.get_vocab_size())

    def words_of(self, tokens: int, start: str) -> list[str] | None:
        """Return words that have exactly `tokens` tokens, special ones included; None if none are found."""
        beginning = start.split()
        words = [word for word in _WORDS if self.count(f"the {word} {word}") - self.count("the") == 2]
        if not words:
            return None
        wanted = max(0, tokens - self.count(start))
        for _ in range(_ATTEMPTS):
            made = [*beginning, *(words[n % len(words)] for n in range(wanted))]
            missing = tokens - self.count(" ".join(made))
            if missing == 0:
                return made
            wanted = max(0, wanted + missing)
        return None


def load_reference(name: str, config: Config) -> Reference:
    """Load the tokenizer of a catalog model, a repository of the hub, or a folder. Blocking.

    Raises UsageError, and the errors of the weights store.
    """
    try:
        named = resolve(name)
    except UnknownModelError:
        if "/" not in name:
            raise
        named = resolve(f"{HUB_PREFIX}{name}")
    if named.folder is not None:
        path = named.folder / "tokenizer.json"
        if not path.is_file():
            raise UsageError(f"--tokenizer: {named.folder} has no tokenizer.json")
        return _reference_of(str(named.folder), path, read_limits(named.folder, None))
    outline = outline_of(named, config)
    if outline.tokenizer is None:
        raise WeightsError(f"{name}: the tokenizer is not on this machine, and could not be fetched")
    return _reference_of(outline.name, outline.tokenizer, outline.limits)


def find_reference(model: str, config: Config) -> Reference | None:
    """Load the tokenizer of a served model if the catalog knows it by its name or the part behind `/`. Blocking."""
    catalog = default_catalog()
    found = next((name for name in (model, model.rpartition("/")[2]) if name in catalog), None)
    if found is None:
        return None
    try:
        return load_reference(found, config)
    except WeightsError:
        return None


def _reference_of(name: str, path: Path, limits: TextLimits) -> Reference:
    tokenizer = TextTokenizer(path, max_tokens=limits.max_tokens, lowercase=limits.lowercase)
    return Reference(
        name,
        tokenizer.plain,
        limits.max_tokens,
        query_prompt=limits.prompts.get("query", ""),
        document_prompt=limits.prompts.get("document", ""),
    )
