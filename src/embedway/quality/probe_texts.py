"""Fixed texts to compare vector spaces: languages, code, case, numbers, Unicode, whitespace and all lengths.

Long texts are made for a model's limit, because models that cut texts at different lengths only differ there.
"""

from __future__ import annotations

import functools
import hashlib
import json
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

Group: TypeAlias = Literal[
    "route", "languages", "code", "case", "numbers", "unicode", "whitespace", "short", "questions", "prose", "long"
]
#: Lengths of the long texts, as parts of the limit of the model that reads more.
LONG_PARTS = (0.2, 0.45, 0.55, 0.9, 1.0, 1.5)
#: Maximum tokens of a long text, so that the comparison of models with huge limits stays cheap.
MOST_TOKENS = 8192
#: Maximum tokens of the long text that is sent before a route is used.
MAX_ROUTE_PROBE_TOKENS = 1024
#: Groups whose texts are compared as queries too.
_QUERIES: tuple[Group, ...] = ("route", "questions", "short", "case")


@dataclass(frozen=True, slots=True)
class ProbeText:
    """A text with its group."""

    text: str
    group: Group


@functools.cache
def _groups() -> dict[str, list[str]]:
    return tomllib.loads((files("embedway.quality") / "probe_texts.toml").read_text("utf-8"))


@functools.cache
def route_probe_texts() -> tuple[str, ...]:
    """Return the texts of a comparison before a route is used. The first one alone is repeated later."""
    return tuple(_groups()["route"])


@functools.cache
def fixed_texts() -> tuple[ProbeText, ...]:
    """Return the texts that are the same for all models. The texts of `route_probe_texts` come first."""
    return tuple(ProbeText(text, group) for group, texts in _groups().items() for text in texts)  # type: ignore[arg-type]


def query_texts() -> tuple[ProbeText, ...]:
    """Return the texts that are compared as queries. The texts of `route_probe_texts` come first."""
    return tuple(one for one in fixed_texts() if one.group in _QUERIES)


@functools.cache
def digest() -> str:
    """Return the digest of all fixed texts, as 16 hex digits."""
    return hashlib.sha256(json.dumps(_groups(), sort_keys=True).encode()).hexdigest()[:16]


@functools.cache
def _sentences() -> tuple[str, ...]:
    """Return sentences of many subjects in a fixed order, so that the end of a long text has other subjects."""
    groups = _groups()
    return tuple(" ".join(one.split()) for name in ("prose", "questions", "route") for one in groups[name])


def long_text(tokens: int, count: Callable[[str], int]) -> str:
    """Return a text of about `tokens` tokens, and not more, by a function that counts them.

    Each round begins with another sentence and has its number, so that no two parts of the text are alike.
    """
    sentences = _sentences()
    parts: list[str] = []
    size = 0
    # Three bytes a token is rather too many tokens; the count decides below.
    while size < 6 * tokens:
        number = len(parts)
        sentence = sentences[(number + number // len(sentences)) % len(sentences)]
        part = f"{number + 1}. {sentence}"
        parts.append(part)
        size += len(part) + 1
    low, high = 1, len(parts)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if count(" ".join(parts[:middle])) <= tokens else (low, middle - 1)
    return " ".join(parts[:low])


def long_texts(limit: int, count: Callable[[str], int]) -> tuple[ProbeText, ...]:
    """Return texts up to and beyond a limit in tokens."""
    limit = min(limit or MOST_TOKENS, MOST_TOKENS)
    return tuple(ProbeText(long_text(max(1, int(part * limit)), count), "long") for part in LONG_PARTS)
