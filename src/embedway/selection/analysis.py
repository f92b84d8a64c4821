"""Analysis of a bounded sample of texts: languages, code, lengths."""

from __future__ import annotations

import functools
import re
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from embedway._public import public
from embedway.selection.code_detection import MAX_CHARACTERS, detect_code, magika_classifier, strip_fenced_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Maximum size of the sample: evenly spaced texts, and characters from the start of each.
SAMPLE_TEXTS = 64
SAMPLE_CHARACTERS = 1000
#: Minimum letters, and minimum probability, for distinguishing languages of one script.
_FEWEST_LETTERS = 20
_SUREST = 0.8
#: Minimum share of a text's letters for a script, and of the texts for a language.
_SCRIPT_SHARE = 0.15
_LANGUAGE_SHARE = 0.05
#: Minimum share of sampled texts with code for `contains_code`.
CODE_SHARE = 0.1

#: Scripts of one widely used language, which determine the language.
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
#: Scripts of several languages, which a classifier distinguishes by words.
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
#: Patterns for words of a script.
_WORDS = {name: re.compile(f"[{chars}]+") for name, chars in _SHARED.items()}
#: The end of a sentence or of a line.
_END = re.compile(r"(?<=[.!?…])\s+|\n+")
#: Minimum letters of a part that is classified separately, and minimum share of a text's letters for a language.
_PART_LETTERS = 40
_PART_SHARE = 0.2
#: Languages that are easily confused in a sentence: within a text they count as the language of the complete text.
_SIMILAR = (
    {"no", "nb", "nn", "da"},
    {"hr", "bs", "sr", "sl"},
    {"es", "gl", "pt", "an", "ca", "oc"},
    {"id", "ms", "jv"},
    {"cs", "sk"},
    {"nl", "af"},
    {"ru", "uk", "be", "bg", "mk"},
    {"ar", "fa", "ur"},
    {"hi", "mr", "ne"},
)


@public
@dataclass(frozen=True, slots=True)
class TextAnalysis:
    """The languages, code and lengths of texts. Shares are of the sampled texts."""

    texts: int
    characters: int
    mean_characters: float
    longest_characters: int
    #: The row of the longest text; None where there are no texts.
    longest_row: int | None
    sampled: int
    #: Description of the sampling.
    sample: str
    #: Languages, as BCP 47 tags, with their shares of texts, largest first.
    languages: tuple[tuple[str, float], ...]
    #: Share of texts, without code, whose language was not detected.
    unknown: float
    primary_language: str | None
    #: Whether at least two languages each have one text in twenty.
    multilingual: bool
    #: Share of texts that contain code.
    code: float
    contains_code: bool
    #: Code detectors: `look` (line patterns), or `look and magika` if magika is installed.
    code_by: str

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON types."""
        return {**asdict(self), "languages": dict(self.languages)}


def take_sample(texts: Sequence[str]) -> list[str]:
    """Return the beginnings of at most 64 evenly spaced texts. Blank texts are left out."""
    step = max(1, len(texts) / SAMPLE_TEXTS)
    rows = [int(number * step) for number in range(min(len(texts), SAMPLE_TEXTS))]
    return [texts[row][:SAMPLE_CHARACTERS] for row in rows if texts[row].strip()]


def analyze(texts: Sequence[str], *, sample: Sequence[str] | None = None) -> TextAnalysis:
    """Analyze texts by a sample of them. Blocking: the first call loads the language model, 0.3 s.

    `sample` is `take_sample(texts)` by default.
    """
    sample = take_sample(texts) if sample is None else sample
    votes: Counter[str] = Counter()
    unknown = code = prose = 0
    for text in sample:
        holds, all_code = detect_code(text)
        code += holds
        if all_code:
            continue
        prose += 1
        found = detect_languages(strip_fenced_blocks(text))
        unknown += not found
        for language in found:
            votes[language] += 1
    lengths = [len(text) for text in texts]
    total = sum(lengths)
    shares = tuple((language, count / len(sample)) for language, count in votes.most_common())
    longest = max(range(len(texts)), key=lengths.__getitem__, default=None)
    chosen = f"the first {SAMPLE_CHARACTERS:,} characters of {len(sample)} of {len(texts):,} texts, evenly spaced"
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
        code_by="look and magika" if magika_classifier() is not None else "look",
    )


def detect_languages(text: str) -> tuple[str, ...]:
    """Return the languages of the beginning of a text; none if they are unknown.

    A script of one language determines the language. Other scripts need twenty letters and a confident classifier. It
    classifies each part, so a text may have two languages.
    """
    text = text[:MAX_CHARACTERS]
    letters = {name: len(pattern.findall(text)) for name, pattern in _LETTERS.items()}
    total = sum(letters.values())
    if not total:
        return ()
    if letters["Kana"]:
        # Japanese also uses Chinese characters, but Chinese uses no kana.
        letters["Kana"] += letters.pop("Han")
    found: dict[str, None] = {}
    for name, count in letters.items():
        if count < total * _SCRIPT_SHARE:
            continue
        if name in _SCRIPTS:
            found[_SCRIPTS[name][0]] = None
        elif count >= _FEWEST_LETTERS:
            found |= dict.fromkeys(_classify_script(text, _WORDS[name]))
    return tuple(found)


def _classify_script(text: str, words: re.Pattern[str]) -> tuple[str, ...]:
    """Classify the parts of a text in one script; return no language if the classifier is not confident."""
    whole, sure = _classify(" ".join(words.findall(text)))
    letters: Counter[str] = Counter()
    total = 0
    for part in _split_parts(text, words):
        count = sum(map(len, words.findall(part)))
        total += count
        language, probability = _classify(" ".join(words.findall(part)))
        if probability >= _SUREST:
            similar = any({language, whole} <= group for group in _SIMILAR)
            letters[whole if similar else language] += count
    found = tuple(language for language, count in letters.most_common() if count >= _PART_SHARE * total)
    return found or ((whole,) if sure >= _SUREST else ())


def _split_parts(text: str, words: re.Pattern[str]) -> Iterator[str]:
    """Split a text into sentences and lines, and join short ones."""
    waiting, letters = "", 0
    pieces = _END.split(text)
    for number, piece in enumerate(pieces):
        waiting = f"{waiting} {piece}"
        letters += sum(map(len, words.findall(piece)))
        if letters >= _PART_LETTERS or (number == len(pieces) - 1 and letters):
            yield waiting
            waiting, letters = "", 0


@functools.cache
def _language_identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # noqa: PLC0415  the import takes 0.3 s

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _classify(text: str) -> tuple[str, float]:
    language, probability = _language_identifier().classify(text)
    return str(language), float(probability)
