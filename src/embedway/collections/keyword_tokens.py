"""Tokens of the keyword index: words, identifiers whole and in parts, and pairs of characters where no spaces are.

The same rules split rows and queries, so that all stores find the same rows. FTS5 receives the tokens separated by
spaces, and only stems them (Porter's stemmer, which leaves words of other languages mostly unchanged).
"""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Version of these rules; an index of another version is built again.
TOKENS_VERSION = 1
#: Maximum characters of a token. Longer runs are data, such as keys in base64.
MAX_TOKEN_CHARACTERS = 64
#: Maximum characters of a query that are split, and maximum distinct tokens of a query.
MAX_QUERY_CHARACTERS = 20_000
MAX_QUERY_TOKENS = 256

#: Scripts whose words are not separated by spaces, and Hangul, whose words end in particles: Thai, Lao, Myanmar, Khmer,
#: Hangul, Kana, Han.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1100-\u11ff\u3005-\u3007\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff66-\uff9f"
    "\U0001b000-\U0001b16f\U00020000-\U0003134f"
)
#: Marks that are no letters to `re`, and that are inside words: of Hebrew, Arabic and the scripts of India.
_MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670\u0900-\u0903\u093a-\u094f\u0980-\u0dff\u0951-\u0963"
_LETTER = rf"(?:[^\W{_UNSPACED}]|[{_MARKS}])"
#: A word or an identifier: `asyncio.gather`, `--on-error`, `snake_case`, `C++`, `docs/guide.md`.
_TOKEN = re.compile(
    rf"(?P<unspaced>[{_UNSPACED}]+)|(?P<word>(?<![\w-])--?(?=[A-Za-z]))?{_LETTER}+(?:[.\-:/@+#]{{1,2}}{_LETTER}+)*"
    r"(?:\+\+|\#(?!\w))?"
)
_SEPARATORS = re.compile(r"[^\w\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670\u0900-\u0dff]+|_+")
#: Borders inside of an identifier: `camelCase`, `HTTPServer`, `E1133`, `utf8`.
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_DIGITS = re.compile(r"(?<=[^\W\d])(?=\d)|(?<=\d)(?=[^\W\d])")
#: Sign of an identifier. A hyphen alone is not one: `end-to-end`.
_IDENTIFIER = re.compile(r"[^\W_]\d|\d[^\W\d_]|\w[._:/@]+\w|_\w|\w_|^--|[a-z][A-Z]|\w[+#]")


def index_tokens(text: str) -> str:
    """Return the tokens of a text for the index, separated by spaces."""
    found: list[str] = []
    for match in _TOKEN.finditer(_folded(text)):
        if match.lastgroup == "unspaced":
            run = match[0]
            found.extend(run[at : at + 2] for at in range(len(run)))  # the last one has one character
        else:
            found.append(_word_tokens(match[0]))
    return " ".join(found)


def query_tokens(text: str) -> list[str]:
    """Return the distinct tokens of a query, in order. A token of one unspaced character ends with `*`: a prefix."""
    found: dict[str, None] = {}
    for match in _TOKEN.finditer(_folded(text[:MAX_QUERY_CHARACTERS])):
        if match.lastgroup == "unspaced":
            run = match[0]
            pairs = [run[at : at + 2] for at in range(len(run) - 1)] or [f"{run}*"]
            found.update(dict.fromkeys(pairs))
        else:
            found.update(dict.fromkeys(_word_tokens(match[0]).split()))
        if len(found) >= MAX_QUERY_TOKENS:
            break
    return list(found)[:MAX_QUERY_TOKENS]


def identifiers(text: str) -> list[str]:
    """Return the tokens of a query that are identifiers as a whole: with digits, separators or inner capitals."""
    found = []
    for match in _TOKEN.finditer(_folded(text[:MAX_QUERY_CHARACTERS])):
        word = match[0]
        if match.lastgroup != "unspaced" and _IDENTIFIER.search(word) and not word.isdecimal():
            found.append(word.casefold()[:MAX_TOKEN_CHARACTERS])
    return list(dict.fromkeys(found))[:MAX_QUERY_TOKENS]


def token_spans(text: str) -> Iterator[tuple[int, int, frozenset[str]]]:
    """Iterate over the words of a text: start, end, and their tokens."""
    folded = _folded(text)
    if len(folded) != len(text):  # offsets of the folded text would be others
        folded = text
    for match in _TOKEN.finditer(folded):
        if match.lastgroup == "unspaced":
            run, first = match[0], match.start()
            for at in range(len(run)):
                yield first + at, first + min(at + 2, len(run)), frozenset((run[at : at + 2], f"{run[at]}*"))
        else:
            yield match.start(), match.end(), _token_set(match[0])


def _folded(text: str) -> str:
    """Return the text in compatible, composed characters, without accents of letters; the case stays."""
    if text.isascii():
        return text
    text = unicodedata.normalize("NFKC", text)
    return _ACCENTS.sub(_without_accent, text)


#: Letters with accents: Latin, Greek, Cyrillic, and combining accents.
_ACCENTS = re.compile("[\u00c0-\u04ff\u1e00-\u1fff\u0300-\u036f]")


@functools.lru_cache(maxsize=2048)
def _fold_letter(letter: str) -> str:
    plain = "".join(char for char in unicodedata.normalize("NFD", letter) if not "\u0300" <= char <= "\u036f")
    return plain if len(plain) == len(letter) else letter if plain else ""


def _without_accent(match: re.Match[str]) -> str:
    return _fold_letter(match[0])


@functools.lru_cache(maxsize=1 << 16)
def _word_tokens(word: str) -> str:
    """Return a word, and the parts of an identifier, in lower case."""
    whole = word.casefold()[:MAX_TOKEN_CHARACTERS]
    if word.isalpha() and (word.islower() or word.istitle() or word.isupper()):
        return whole
    if len(word) > 4 * MAX_TOKEN_CHARACTERS:
        return whole
    parts = {whole: None}
    for piece in _SEPARATORS.split(word):
        if not piece:
            continue
        parts[piece.casefold()[:MAX_TOKEN_CHARACTERS]] = None
        camel = _CAMEL.split(piece)
        for part in camel:
            if len(camel) > 1:
                parts[part.casefold()] = None
            digits = _DIGITS.split(part)
            if len(digits) > 1:
                parts.update(dict.fromkeys(one.casefold() for one in digits if len(one) > 1))
    bare = whole.strip("-")
    if bare != whole and bare:
        parts[bare] = None
    return " ".join(parts)


@functools.lru_cache(maxsize=1 << 14)
def _token_set(word: str) -> frozenset[str]:
    return frozenset(_word_tokens(word).split())
