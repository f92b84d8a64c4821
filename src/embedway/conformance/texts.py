"""Texts of the checks. Each run marks them with its own number, so that no cache of an earlier run answers."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

#: Texts of different topics and lengths. A model with English words tells all of them apart.
SENTENCES = (
    "Bread needs flour, water, salt and time.",
    "The parliament voted against the new tax on imported steel.",
    "Penguins",
    "def area(width, height): return width * height",
    "A glacier moves a few metres in a year, and leaves stones of all sizes in the valley when it melts in summer.",
    "My train was late again.",
    "The violin has four strings, which are tuned in fifths.",
    "Interest rates rose, so fewer families bought houses; builders wait until loans become cheaper, and rents rise.",
    "Malaria is carried by mosquitoes.",
    "How do I reset the password of my router?",
    "The goalkeeper stopped two penalties in the final.",
    "Neptune is the planet that is farthest from the sun.",
    "In 1453 the city fell after a siege of fifty-three days.",
    "Please find the invoice attached.",
    "Bees dance to tell the way to flowers: the direction shows the angle to the sun, and the duration the distance.",
    "SELECT name FROM users WHERE age > 30",
)
#: A text and its tokens in cl100k_base, which LangChain's OpenAIEmbeddings sends by default to any server.
CL100K_TEXT = "The harbour master measured nineteen centimetres of unexpectedly crystalline snow."
CL100K_IDS = (791, 75742, 7491, 17303, 94935, 2960, 86366, 417, 315, 51709, 64568, 483, 12056, 13)
#: Two words that no tokenizer of subwords has as two tokens.
LONG_WORDS = "Donaudampfschifffahrtselektrizitaetenhauptbetriebswerk antidisestablishmentarianistically"
#: Texts whose vectors are not numbers on some servers, by their description.
ODD_TEXTS = {
    "one letter": "a",
    "a space": " ",
    "a full stop": ".",
    "line ends": "\n\n\n",
    "one word many times": "word " * 400,
    "only symbols": "≈∞∑∂ ◊◊◊",
    "Thai": "แมวนอนอยู่บนเสื่อ",
    "an emoji": "🦊",
}
#: Texts of Unicode that JSON can carry, by their description, as JSON strings.
UNICODE_TEXTS = {
    "NUL": b'"before\\u0000after"',
    "a family of emoji": '"\N{MAN}\u200d\N{WOMAN}\u200d\N{GIRL} and \N{FOX FACE}"'.encode(),
    "right-to-left marks": '"\u202eabc\u202c \u05e9\u05dc\u05d5\u05dd"'.encode(),
    "200 combining marks": ('"e' + "\u0301" * 200 + '"').encode(),
    "a noncharacter": '"a\uffffb"'.encode(),
    "half a surrogate pair": b'"half \\ud800 pair"',
    "a reversed surrogate pair": b'"\\udc00\\ud800"',
}
_FILLER = (
    "keepers",
    "of",
    "a",
    "lighthouse",
    "write",
    "weather",
    "ships",
    "and",
    "tides",
    "into",
    "books",
    "at",
    "night",
)


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts of one run."""

    mark: str = field(default_factory=lambda: secrets.token_hex(3))

    @property
    def known(self) -> list[str]:
        """Different texts whose vectors are compared."""
        return [f"{text} ({self.mark})" for text in SENTENCES]

    def fresh(self, number: int) -> str:
        """Return a text that no other request of the run has."""
        return f"{SENTENCES[number % len(SENTENCES)]} ({self.mark} {number})"

    def short(self, number: int) -> str:
        """Return a text of a few tokens."""
        return f"item {number} {self.mark}"

    def long(self, words: int, number: int = 0) -> str:
        """Return a text of so many words."""
        start = [f"{self.mark}", str(number)]
        return " ".join([*start, *(_FILLER[(n + number) % len(_FILLER)] for n in range(words - len(start)))])
