"""Texts of mixed lengths for tuning, from the documentation that comes with Python."""

from __future__ import annotations

import re

#: Words to a token of English prose, about; probes aim at lengths, they need not hit them.
_WORDS_PER_TOKEN = 0.7
_SHORTEST_TOKENS = 8
_LONGEST_TOKENS = 512
_PROBES = 128


def probe_texts(max_tokens: int) -> list[str]:
    """Return 128 different texts, from a few tokens to the model's limit (512 at most), short ones more often.

    They are passages of the language reference, which `pydoc` shows as `help("topics")`.
    """
    from pydoc_data import topics  # noqa: PLC0415  700 kB that only tuning needs

    longest = min(max_tokens, _LONGEST_TOKENS)
    # The first line of a topic is its heading and a row of asterisks.
    passages = [
        passage
        for name in sorted(topics.topics)
        for passage in _passages(topics.topics[name].split("\n", 3)[-1], longest)
    ]
    step = len(passages) / _PROBES
    texts = []
    for index in range(_PROBES):
        # Evenly spread on a logarithmic scale.
        tokens = _SHORTEST_TOKENS * (longest / _SHORTEST_TOKENS) ** (index / (_PROBES - 1))
        words = passages[int(index * step)].split(" ")
        texts.append(" ".join(words[: max(3, int(tokens * _WORDS_PER_TOKEN))]))
    return texts


def _passages(topic: str, longest_tokens: int) -> list[str]:
    words = re.sub(r"\s+", " ", topic).strip().split(" ")
    size = max(3, int(longest_tokens * _WORDS_PER_TOKEN))
    cut = [words[start : start + size] for start in range(0, len(words), size)]
    return [" ".join(part) for part in cut if len(part) == size]
