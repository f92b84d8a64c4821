"""Checks of token ids as input, and of the tokens in `usage`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedway.conformance.rows import cosine, read_vectors, rounded
from embedway.conformance.texts import CL100K_IDS, CL100K_TEXT, LONG_WORDS
from embedway.conformance.verdicts import CheckFailedError, CheckSkippedError, Verdict, passed
from embedway.text import shown

if TYPE_CHECKING:
    from embedway.conformance.client import Answer
    from embedway.conformance.server import Server
    from embedway.types import Vectors


#: Cosine below which a vector is that of another text; batch-alone judges smaller differences.
_OTHER_TEXT = 0.9


async def token_ids(server: Server) -> Verdict:
    """Send token ids, and compare with the vector of their text."""
    text = await server.embed_one(CL100K_TEXT)
    reference = server.target.reference
    if reference is not None:
        own = [reference.ids(CL100K_TEXT, special=special) for special in (False, True)]
        answer = await server.post(own[0])
        if answer.is_refusal:
            raise CheckSkippedError(f"not supported: token ids are refused with {answer.shown}")
        single = read_vectors(answer, 1)[0]
        several = await server.embed([own[0], own[0][:4]])  # type: ignore[list-item]
        best = min(cosine(text, single), cosine(text, several[0]))
        if best < _OTHER_TEXT:  # the server may expect special tokens in the list
            best = cosine(text, read_vectors(await server.post(own[1]), 1)[0])
        if best < _OTHER_TEXT:
            raise CheckFailedError(f"ids of the model's tokenizer are read as another text (cosine {rounded(best)})")
    return await _cl100k(server, text)


async def _cl100k(server: Server, text: Vectors) -> Verdict:
    """Send ids of cl100k_base, some of which other vocabularies lack."""
    answer = await server.post(list(CL100K_IDS))
    reference = server.target.reference
    if answer.is_refusal:
        if reference is None:
            raise CheckSkippedError(f"not supported: token ids are refused with {answer.shown}")
        return passed(f"ids of the model are read; those of cl100k_base are refused with {answer.shown}")
    similarity = cosine(text, read_vectors(answer, 1)[0])
    several = read_vectors(await server.post([list(CL100K_IDS)]), 1)[0]
    similarity = min(similarity, cosine(text, several))
    if similarity >= _OTHER_TEXT:
        return passed("ids of cl100k_base have the vector of their text")
    if reference is not None and reference.vocabulary > max(CL100K_IDS):
        return passed("ids of the model's tokenizer have the vector of their text")
    raise CheckFailedError(f"ids of cl100k_base are embedded as something else (cosine {rounded(similarity)})")


async def usage(server: Server) -> Verdict:
    """Compare `usage.prompt_tokens` with the tokenizer, and with counts that are no tokens."""
    texts = [f"{LONG_WORDS} {server.texts.mark}", server.texts.known[0]]
    counts = [_tokens(await server.post(text)) for text in texts]
    both = _tokens(await server.post(texts, rows=2))
    _refuse_other_units(texts[0], counts[0])
    if both != sum(counts):
        raise CheckFailedError(f"a batch of two texts has {both} tokens, the texts alone {counts[0]} and {counts[1]}")
    reference = server.target.reference
    if reference is None:
        return passed(f"plausible: {counts[0]} tokens for {len(texts[0].split())} words, {both} for a batch of two")
    wanted = [reference.count(reference.document_prompt + text) for text in texts]
    plain = [reference.count(text, special=False) for text in texts]
    if counts not in (wanted, plain, [reference.count(text) for text in texts]):
        raise CheckFailedError(f"{counts[0]} tokens are reported, the tokenizer counts {wanted[0]}")
    special = "with" if counts == wanted else "without"
    return passed(f"{both} tokens for two texts, as the tokenizer counts {special} special tokens")


def _tokens(answer: Answer) -> int:
    """Return the reported tokens of a good answer. Raises CheckFailedError."""
    if not answer.is_ok:
        raise CheckFailedError(f"a text is answered with {answer.shown}")
    counted: Any = answer.value.get("usage") if isinstance(answer.value, dict) else None
    if not isinstance(counted, dict):
        raise CheckFailedError("the answer has no usage")
    prompt, total = counted.get("prompt_tokens"), counted.get("total_tokens")
    if type(prompt) is not int or type(total) is not int or prompt != total:
        raise CheckFailedError(
            f"prompt_tokens is {shown(prompt)}, total_tokens {shown(total)}; both are the number of tokens"
        )
    if prompt <= 0:
        raise CheckFailedError(f"usage reports {shown(prompt)} tokens for a text")
    return prompt


def _refuse_other_units(text: str, count: int) -> None:
    units = {
        len(text.split()): "words",
        len(text): "characters",
        len(text) - text.count(" "): "letters",
        len(text) // 4: "a quarter of the characters",
    }
    if count in units:
        raise CheckFailedError(f"usage counts {units[count]}, not tokens: {count} for {len(text)} characters")
