"""Scripts of texts, and whether a model knows them.

A tokenizer without the letters of a script writes its words as unknown tokens, letters or bytes. Unrelated texts then
have nearly the same vector. Languages that share a script with a known one, such as German for an English model, are
the concern of the selection.
"""

from __future__ import annotations

import functools
import itertools
import re
import tomllib
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple
from unicodedata import category

from embedway.files import read_package_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from embedway.types import PlainTokenizer

#: Texts with other characters than ASCII that are read in a request, evenly spaced; and characters of all of them.
SAMPLE_TEXTS, SAMPLE_CHARACTERS = 64, 2048
#: Minimum characters of a text that are read: half from its start, half from its middle.
_TEXT_CHARACTERS = 64
#: Letters count in runs of this length, so that symbols of formulas and faces do not; by kind of script.
_MIN_RUN = {"words": 3, "syllables": 2}
#: Minimum letters of a script in a text that is written in it; by kind. Also a third of the text's letters.
_MIN_LETTERS = {"words": 4, "syllables": 2}
_SHARE = 3
#: Letters after which a measurement is final, and characters that are tokenized at once.
ENOUGH_LETTERS = 64
_MEASURED_CHARACTERS = 512
#: Share of letters in unknown tokens from which a script is unknown; of less than `_FEW_LETTERS` the higher one.
_UNKNOWN_SHARE, _UNKNOWN_SHARE_OF_FEW, _FEW_LETTERS = 0.1, 0.5, 20
#: Tokens for a letter: up to the first, a tokenizer knows words of the script; from the second, only letters or bytes.
#: XLM-RoBERTa has 0.27 to 0.51 for words, 0.74 for Chinese and 0.71 for Korean; multilingual BERT 0.36 to 0.60, 1.09
#: and 0.82. English BERT has 1.0 for Cyrillic, Greek, Hebrew and Arabic; byte-level BPE of RoBERTa 1.2 to 3.2 for all
#: scripts except Latin, and 2.2 for Chinese. Measured on article 1 of the Universal Declaration of Human Rights.
#: Universal Sentence Encoder multilingual 3, which was not used to set these limits: 0.29 to 0.43 for words of the
#: scripts of its languages, 0.54 to 0.88 for syllables, and for other scripts unknown tokens or 0.98 and more.
_TOKENS_PER_LETTER: dict[str, tuple[float, float]] = {"words": (0.65, 0.85), "syllables": (0.9, 1.4)}
_UNKNOWN_TOKENS = ("[UNK]", "<unk>", "<UNK>", "unk")


@dataclass(frozen=True, slots=True)
class Script:
    """A script: its ranges of letters and marks, and the languages that are written in it, the most used first."""

    name: str
    kind: Literal["words", "syllables"]
    languages: tuple[str, ...]
    ranges: tuple[tuple[int, int], ...]


class ScriptSample(NamedTuple):
    """Beginnings of the sampled texts in a script, and the number of these texts."""

    text: str
    texts: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """Letters of a script, those of them in unknown tokens, and the tokens that contain any of them."""

    letters: int = 0
    unknown: int = 0
    tokens: int = 0

    def __add__(self, other: Measurement) -> Measurement:
        return Measurement(self.letters + other.letters, self.unknown + other.unknown, self.tokens + other.tokens)


@functools.cache
def all_scripts() -> Mapping[str, Script]:
    """Return the scripts by name, from `scripts.toml`."""
    rows = tomllib.loads(read_package_text("embedway.quality", "scripts.toml"))
    return {
        name: Script(name, row["kind"], tuple(row["languages"]), tuple(_ranges(row["ranges"])))
        for name, row in rows.items()
    }


def _ranges(written: str) -> Iterator[tuple[int, int]]:
    for one in written.split():
        first, _, last = one.partition("-")
        yield int(first, 16), int(last, 16)


def foreign_characters(known: Collection[str] = ()) -> re.Pattern[str]:
    """Return a pattern for a character of any script except Latin and those that are known."""
    ranges = (one for name, row in all_scripts().items() if name not in {"Latin", *known} for one in row.ranges)
    inside = "".join(f"{re.escape(chr(first))}-{re.escape(chr(last))}" for first, last in ranges)
    return re.compile(f"[{inside}]" if inside else r"(?!)")


def find_scripts(texts: Sequence[str], foreign: re.Pattern[str]) -> dict[str, ScriptSample]:
    """Return the scripts with characters of `foreign` in which some of the texts are written, with samples of these.

    Bounded by `SAMPLE_TEXTS` and `SAMPLE_CHARACTERS`, except for a look at each text whether it is ASCII, which takes
    30 ns.
    """
    other = [text for text in texts if not text.isascii()]
    if not other:
        return {}
    count = min(len(other), SAMPLE_TEXTS)
    size = max(_TEXT_CHARACTERS, SAMPLE_CHARACTERS // count)
    found: dict[str, list[str]] = {}
    for number in range(count):
        text = other[number * len(other) // count]
        if len(text) > size:
            middle = len(text) // 2
            text = f"{text[: size // 2]}\n{text[middle : middle + size // 2]}"
        if foreign.search(text) is None:
            continue
        for name in scripts_of(text):
            found.setdefault(name, []).append(text)
    return {name: ScriptSample("\n".join(samples), len(samples)) for name, samples in found.items()}


def scripts_of(text: str) -> tuple[str, ...]:
    """Return the scripts in which a text is written, except Latin: those of a third of its letters at least."""
    letters: Counter[str] = Counter()
    total = 0
    names = filter(None, map(_SCRIPT_OF.__getitem__, text))
    for name, run in itertools.groupby(names):
        count = sum(1 for _ in run)
        if name is _NO_LETTER:
            continue
        total += count
        script = all_scripts().get(name)
        if script is not None and count >= _MIN_RUN[script.kind]:
            letters[name] += count
    if letters["Japanese"]:
        letters["Japanese"] += letters.pop("Chinese", 0)  # Japanese also uses Chinese characters
    return tuple(
        name
        for name, count in letters.items()
        if name != "Latin" and count * _SHARE >= total and count >= _MIN_LETTERS[all_scripts()[name].kind]
    )


#: What a character is in `_ScriptOf`: a letter of an unlisted script or a symbol that counts as a letter; no letter.
_OTHER, _NO_LETTER = "other", "none"


class _ScriptOf(dict[str, str]):
    """The script of each character that was looked up; empty for marks and joiners, which belong to any script."""

    def __missing__(self, char: str) -> str:
        self[char] = found = self._find(char)
        return found

    @staticmethod
    def _find(char: str) -> str:
        kind = category(char)[0]
        if kind not in "LM":
            return "" if char in "\u200c\u200d" else _NO_LETTER
        starts, rows = _table()
        place = bisect_right(starts, ord(char)) - 1
        if place >= 0 and ord(char) <= rows[place][0]:
            return rows[place][1]
        return _OTHER if kind == "L" else ""


_SCRIPT_OF = _ScriptOf()


@functools.cache
def _table() -> tuple[list[int], list[tuple[int, str]]]:
    """Return the first code points of all ranges, ascending, and the last one with the script of each."""
    rows = sorted((first, last, row.name) for row in all_scripts().values() for first, last in row.ranges)
    return [first for first, _, _ in rows], [(last, name) for _, last, name in rows]


def count_tokens_of_script(tokenizer: PlainTokenizer, script: str, text: str) -> Measurement:
    """Tokenize a text, and count the letters of a script, those in unknown tokens, and their tokens."""
    text = text[:_MEASURED_CHARACTERS]
    own = {script, "Chinese"} if script == "Japanese" else {script}
    is_own = [_SCRIPT_OF[char] in own for char in text]
    before = [0, *itertools.accumulate(is_own)]
    unknown_ids = _unknown_ids(tokenizer)
    encoded = tokenizer.encode(text, add_special_tokens=False)
    unknown = tokens = 0
    for token, (start, end) in zip(encoded.ids, encoded.offsets, strict=True):
        inside = before[end] - before[start]
        tokens += inside > 0
        unknown += inside if token in unknown_ids else 0
    return Measurement(before[-1], unknown, tokens)


def _unknown_ids(tokenizer: PlainTokenizer) -> set[int]:
    """Return the ids of unknown tokens; none for a tokenizer without an unknown token, which reads bytes."""
    id_of = getattr(tokenizer, "token_to_id", None)
    if id_of is None:
        return set()
    own = getattr(getattr(tokenizer, "model", None), "unk_token", None)
    found = (id_of(name) for name in (*_UNKNOWN_TOKENS, *([own] if own else [])))
    return {one for one in found if one is not None}


def is_known(measurement: Measurement | None, script: str, languages: Collection[str]) -> bool:
    """Return whether a model knows a script, by its tokenizer and by its maker's list of languages.

    Unknown tokens decide. Else the list decides if it contains a language of the script, or `mul`. Else tokens for a
    letter decide, and between their limits the list; without a list, the script counts as known. `measurement` is None
    for models whose tokenizer is not on this machine.
    """
    row = all_scripts()[script]
    listed = "mul" in languages or any(one.split("-")[0].casefold() in row.languages for one in languages)
    if measurement is None or not measurement.letters:
        return listed or not languages
    few = measurement.letters < _FEW_LETTERS
    if measurement.unknown >= (_UNKNOWN_SHARE_OF_FEW if few else _UNKNOWN_SHARE) * measurement.letters:
        return False
    if listed:
        return True
    most, too_many = _TOKENS_PER_LETTER[row.kind]
    tokens = measurement.tokens / measurement.letters
    return tokens <= most or (tokens < too_many and not languages)
