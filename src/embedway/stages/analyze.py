"""What texts are like, looked at on a bounded sample: languages, code, lengths."""

from __future__ import annotations

import functools
import importlib.util
import re
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Texts that are looked at, evenly over all, and characters of each from its beginning.
SAMPLE_TEXTS = 64
SAMPLE_CHARACTERS = 1000
#: Below so many letters, or below this probability, nobody can tell languages of one alphabet apart.
_FEWEST_LETTERS = 20
_SUREST = 0.8
#: A script counts from this share of a text's letters on; a language from this share of the texts on.
_SCRIPT_SHARE = 0.15
_LANGUAGE_SHARE = 0.05
#: Texts count as holding code from this share of the sample on.
CODE_SHARE = 0.1

#: Scripts that one language of many readers is written in: they tell it alone.
_SCRIPTS: dict[str, tuple[str, str]] = {
    "Han": ("zh", "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"),
    "Kana": ("ja", "\u3041-\u30ff\uff66-\uff9f"),
    "Hangul": ("ko", "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af"),
    "Greek": ("el", "\u0370-\u03ff\u1f00-\u1fff"),
    "Hebrew": ("he", "\u0590-\u05ff"),
    "Thai": ("th", "\u0e00-\u0e7f"),
    "Lao": ("lo", "\u0e80-\u0eff"),
    "Khmer": ("km", "\u1780-\u17ff"),
    "Myanmar": ("my", "\u1000-\u109f"),
    "Georgian": ("ka", "\u10a0-\u10ff"),
    "Armenian": ("hy", "\u0530-\u058f"),
    "Ethiopic": ("am", "\u1200-\u137f"),
    "Gurmukhi": ("pa", "\u0a00-\u0a7f"),
    "Gujarati": ("gu", "\u0a80-\u0aff"),
    "Tamil": ("ta", "\u0b80-\u0bff"),
    "Telugu": ("te", "\u0c00-\u0c7f"),
    "Kannada": ("kn", "\u0c80-\u0cff"),
    "Malayalam": ("ml", "\u0d00-\u0d7f"),
    "Sinhala": ("si", "\u0d80-\u0dff"),
}
#: Scripts of several languages, which words have to tell apart.
_SHARED: dict[str, str] = {
    "Latin": "A-Za-z\u00c0-\u024f\u1e00-\u1eff",
    "Cyrillic": "\u0400-\u052f",
    "Arabic": "\u0600-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufeff",
    "Devanagari": "\u0900-\u097f",
    "Bengali": "\u0980-\u09ff",
}
_LETTERS = {name: re.compile(f"[{chars}]") for name, chars in _SHARED.items()} | {
    name: re.compile(f"[{chars}]") for name, (_, chars) in _SCRIPTS.items()
}
#: What belongs to words of a script: its letters and the spaces between.
_WORDS = {name: re.compile(f"[{chars}]+") for name, chars in _SHARED.items()}

_FENCE = re.compile(r"^(?:```|~~~)", re.MULTILINE)
#: Lines that begin as statements do, or end or hold what only they do.
_STATEMENT = re.compile(
    r"""^\s*(?:
        (?:async\s+)?def\s+\w+\s*\( | class\s+\w+\s*[:({] | (?:from\s+[\w.]+\s+)?import\s+[\w.*{"'] [\w.*{}"',\s]*;?$ |
        @\w[\w.]*(?:\(.*\))?$ | return\b.*[;)\]}\w]$ | (?:if|elif|for|while|with|except|else|try)\b.*:$ |
        (?:if|for|while|switch|catch)\s*\(.*\)\s*\{? | \}\s*(?:else|catch|finally)?.*$ |
        \#(?:include|define|ifdef|pragma)\b |
        (?:public|private|protected|static|export|const|let|var|func|fn|function|package|namespace|struct|enum|impl)
            \s+\S+.*[({;=] |
        (?:SELECT|INSERT\s+INTO|UPDATE|DELETE\s+FROM|CREATE\s+TABLE)\s+.*\b(?:FROM|VALUES|SET|\() |
        (?:SELECT|FROM|WHERE|(?:LEFT\s+|INNER\s+)?JOIN|ORDER\s+BY|GROUP\s+BY|VALUES)\s+\S+ |
        [\w.\[\]"']+\s*(?:=|\+=|:=)\s*\S+.* | [\w.]+\(.*\)[;:]?$ | .*[;{]$ | <\/?[a-z]+[^>]*>$ | (?://|/\*|\*/|\#!)\S*.*
    )""",
    re.VERBOSE,
)
_OPERATORS = re.compile(r"[{}()\[\];=<>]|->|=>|::|\.\w+\(")
#: Lines that no prose has; two of them are code among whatever else.
_STRONG = re.compile(
    r"^\s*(?:(?:async )?def \w+\(.*|class \w+(?:\(.*\))?:|from [\w.]+ import .+|import [\w.]+(?: as \w+)?;?|"
    r"#include [<\"].*|(?:export )?(?:async )?function \w*\(.*|(?:public|private) (?:static )?[\w<>]+ \w+.*[{;])\s*$",
    re.MULTILINE,
)
#: A text is code from this share of its lines on, where they also hold this many operators a character.
_CODE_LINES = 0.4
_CODE_OPERATORS = 0.02
_MAGIKA_SURE = 0.9


@dataclass(frozen=True, slots=True)
class TextAnalysis:
    """What texts are like. Shares are of the sampled texts."""

    texts: int
    characters: int
    mean_characters: float
    longest_characters: int
    #: The row of the longest text; None where there are no texts.
    longest_row: int | None
    sampled: int
    #: How the sample was chosen, in words.
    sample: str
    #: Languages, as BCP 47 tags, with the share of texts that are in them, most first.
    languages: tuple[tuple[str, float], ...]
    #: The share of texts, code left out, whose language could not be told.
    unknown: float
    primary_language: str | None
    #: Whether at least two languages are each that of one text in twenty.
    multilingual: bool
    #: The share of texts that hold code.
    code: float
    contains_code: bool
    #: `look`, or `look and magika` where that is installed.
    code_by: str

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON's types."""
        return {**asdict(self), "languages": dict(self.languages)}


def sample_of(texts: Sequence[str]) -> list[str]:
    """The beginnings of at most 64 texts, evenly over all of them, blank ones left out."""
    step = max(1, len(texts) / SAMPLE_TEXTS)
    rows = [int(number * step) for number in range(min(len(texts), SAMPLE_TEXTS))]
    return [texts[row][:SAMPLE_CHARACTERS] for row in rows if texts[row].strip()]


def analyze(texts: Sequence[str], *, sample: Sequence[str] | None = None) -> TextAnalysis:
    """Look at texts. Blocking: the first call loads the language model, 0.3 s.

    `sample` stands for `sample_of(texts)`.
    """
    sample = sample_of(texts) if sample is None else sample
    votes: Counter[str] = Counter()
    unknown = code = prose = 0
    for text in sample:
        holds, all_code = _code(text)
        code += holds
        if all_code:
            continue
        prose += 1
        found = languages_of(_without_fences(text))
        unknown += not found
        for language in found:
            votes[language] += 1
    lengths = [len(text) for text in texts]
    total = sum(lengths)
    shares = tuple((language, count / len(sample)) for language, count in votes.most_common())
    longest = max(range(len(texts)), key=lengths.__getitem__, default=None)
    chosen = f"the first {SAMPLE_CHARACTERS:,} characters of {len(sample)} of {len(texts):,} texts, evenly over all"
    return TextAnalysis(
        texts=len(texts),
        characters=total,
        mean_characters=total / len(texts) if texts else 0.0,
        longest_characters=lengths[longest] if longest is not None else 0,
        longest_row=longest,
        sampled=len(sample),
        sample=chosen,
        languages=shares,
        unknown=unknown / prose if prose else 0.0,
        primary_language=shares[0][0] if shares else None,
        multilingual=sum(share >= _LANGUAGE_SHARE for _, share in shares) > 1,
        code=code / len(sample) if sample else 0.0,
        contains_code=bool(sample) and code / len(sample) >= CODE_SHARE,
        code_by="look and magika" if _magika() is not None else "look",
    )


def languages_of(text: str) -> tuple[str, ...]:
    """The languages of a text; none where nobody can tell.

    Scripts that belong to one language tell it alone. Others need twenty letters and a sure classifier.
    """
    letters = {name: len(pattern.findall(text)) for name, pattern in _LETTERS.items()}
    total = sum(letters.values())
    if not total:
        return ()
    if letters["Kana"]:
        # Japanese is written with Chinese characters too, and Chinese with no kana.
        letters["Kana"] += letters.pop("Han")
    found: dict[str, None] = {}
    for name, count in letters.items():
        if count < total * _SCRIPT_SHARE:
            continue
        if name in _SCRIPTS:
            found[_SCRIPTS[name][0]] = None
        elif count >= _FEWEST_LETTERS:
            language, sure = _classify(" ".join(_WORDS[name].findall(text)))
            if sure >= _SUREST:
                found[language] = None
    return tuple(found)


def looks_like_code(text: str) -> bool:
    """Whether most of a text is code, by the look of its lines and signs."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return False
    statements = sum(_STATEMENT.match(line) is not None for line in lines)
    dense = len(_OPERATORS.findall(text)) >= _CODE_OPERATORS * len(text)
    return dense and statements >= max(_CODE_LINES * len(lines), 1)


def _code(text: str) -> tuple[bool, bool]:
    """Whether a text holds code, and whether it is nothing else."""
    fences = len(_FENCE.findall(text))
    if looks_like_code(_without_fences(text)) or _magika_says_code(text):
        return True, True
    # The end of a block may be cut off.
    return fences > 0 or len(_STRONG.findall(text)) > 1 or _indented_block(text), False


def _indented_block(text: str) -> bool:
    """Whether prose holds an indented block that looks like code, as in Markdown and in docstrings."""
    block = [line for line in text.splitlines() if line.startswith(("    ", "\t")) or line.lstrip().startswith(">>> ")]
    return len(block) > 1 and looks_like_code("\n".join(line.lstrip().removeprefix(">>> ") for line in block))


def _without_fences(text: str) -> str:
    """What stands outside of fenced blocks."""
    return "\n".join(part for number, part in enumerate(re.split(r"(?m)^(?:```|~~~).*$", text)) if number % 2 == 0)


@functools.cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # noqa: PLC0415  it takes 0.3 s

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _classify(text: str) -> tuple[str, float]:
    language, probability = _identifier().classify(text)
    return str(language), float(probability)


@functools.cache
def _magika() -> Any:
    """The classifier of the extra `magika`; None where it is not installed."""
    if importlib.util.find_spec("magika") is None:
        return None
    from magika import Magika  # noqa: PLC0415  an extra

    return Magika()


def _magika_says_code(text: str) -> bool:
    magika = _magika()
    if magika is None:
        return False
    answer = magika.identify_bytes(text.encode("utf-8", "replace"))
    return bool(answer.output.group == "code" and answer.score >= _MAGIKA_SURE)
