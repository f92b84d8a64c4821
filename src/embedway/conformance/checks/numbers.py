"""Checks of texts that are unusual: odd, of rare characters, or very long words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from embedway.conformance.rows import describe_bad, read_list
from embedway.conformance.texts import ODD_TEXTS, UNICODE_TEXTS
from embedway.conformance.verdicts import CheckFailedError, NoAnswerError, Verdict, passed
from embedway.providers.vectors import decode
from embedway.text import count_of

if TYPE_CHECKING:
    from embedway.conformance.client import Answer
    from embedway.conformance.server import Server

#: Characters of one word.
_LONG_WORD = 1_000_000


async def numbers(server: Server) -> Verdict:
    """Send odd texts, alone and together, and look at each number."""
    bad: list[str] = []
    refused: list[str] = []
    for name, text in ODD_TEXTS.items():
        answer = await server.post(text)
        if answer.is_refusal:
            refused.append(name)
        else:
            bad += _problems(answer, 1, name)
    accepted = {name: text for name, text in ODD_TEXTS.items() if name not in refused}
    if accepted and not bad:
        answer = await server.post([*accepted.values(), server.texts.known[0]], rows=len(accepted) + 1)
        bad += _problems(answer, len(accepted) + 1, "all in one batch")
    if bad:
        raise CheckFailedError("; ".join(bad[:3]))
    left = f"; refused: {', '.join(refused)}" if refused else ""
    return passed(f"{len(accepted)} odd texts have finite vectors{left}")


async def unicode(server: Server) -> Verdict:
    """Send rare characters, and escapes that are no text."""
    bad: list[str] = []
    refused: list[str] = []
    model = orjson.dumps(server.target.model)
    for name, text in UNICODE_TEXTS.items():
        body = b'{"model": ' + model + b', "input": [' + text + b"]}"
        try:
            answer = await server.client.post(server.url, body)
        except NoAnswerError as error:
            bad.append(f"{name}: {error}")
            continue
        if answer.is_refusal:
            refused.append(name)
        else:
            bad += _problems(answer, 1, name)
    if bad:
        raise CheckFailedError("; ".join(bad[:3]))
    left = f"; refused: {', '.join(refused)}" if refused else ""
    return passed(f"{count_of(len(UNICODE_TEXTS) - len(refused), 'text')} answered with vectors{left}")


async def long_word(server: Server) -> Verdict:
    """Send one word of a million letters, and then an ordinary text."""
    answer = await server.post("x" * _LONG_WORD)
    if not answer.is_refusal and (bad := _problems(answer, 1, "a word of 1 MB")):
        raise CheckFailedError(bad[0])
    await server.embed_one(server.texts.known[0])
    seen = f"refused with {answer.status}" if answer.is_refusal else "answered with a vector"
    return passed(f"{seen} after {answer.seconds:.1f} s")


def _problems(answer: Answer, count: int, name: str) -> list[str]:
    """Return what is wrong with an answer; empty if all its rows are finite vectors."""
    try:
        data = read_list(answer, count)
    except CheckFailedError as error:
        return [f"{name}: {error}"]
    return [f"{name}: {problem}" for row in data if (problem := _problem(row.get("embedding")))]


def _problem(value: Any) -> str:
    vector = decode(value)
    if vector is None:
        return describe_bad(value)
    return "" if np.any(vector) else "a vector of zeros"
