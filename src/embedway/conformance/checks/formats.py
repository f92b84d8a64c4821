"""Checks of the form of vectors: base64, dimensions, and input types."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pybase64

from embedway.conformance.openapi import claims_field
from embedway.conformance.rows import EQUAL, SAME, cosine, read_list, read_vectors, rounded
from embedway.conformance.verdicts import CheckFailedError, CheckSkippedError, Verdict, passed

if TYPE_CHECKING:
    from embedway.conformance.client import Answer
    from embedway.conformance.server import Server

#: Largest difference of a number as text and as float32.
_ROUNDING = 1e-4


async def base64(server: Server) -> Verdict:
    """Ask for base64 and for float, and compare the numbers."""
    texts = server.texts.known[:2]
    plain = await server.post(texts, rows=2, encoding_format="float")
    if any(not isinstance(row.get("embedding"), list) for row in read_list(plain, 2)):
        raise CheckFailedError("encoding_format float is answered without lists of numbers")
    floats = read_vectors(plain, 2)
    if any(isinstance(row.get("embedding"), str) for row in read_list(await server.post(texts, rows=2), 2)):
        raise CheckFailedError("without encoding_format, the answer is base64; OpenAI's default is float")
    answer = await server.post(texts, rows=2, encoding_format="base64")
    for row in read_list(answer, 2):
        encoded = row.get("embedding")
        if not isinstance(encoded, str):
            raise CheckFailedError("base64 is ignored: the answer has lists of numbers")
        try:
            size = len(pybase64.b64decode(encoded, validate=True))
        except ValueError:
            raise CheckFailedError("the text is not base64") from None
        if size != 4 * floats.shape[1]:
            raise CheckFailedError(f"{size} bytes for {floats.shape[1]} numbers; float32 has {4 * floats.shape[1]}")
    decoded = read_vectors(answer, 2)
    difference = float(np.abs(decoded - floats).max())
    if difference > _ROUNDING * max(1.0, float(np.abs(floats).max())):
        raise CheckFailedError(f"base64 has other numbers than float: they differ by up to {difference:.2g}")
    return passed(f"{4 * floats.shape[1]} bytes, with the same numbers as float")


async def dimensions(server: Server) -> Verdict:
    """Ask for half of the numbers, and for more than there are."""
    text = server.texts.known[0]
    full = await server.embed_one(text)
    wanted = max(1, len(full) // 2)
    answer = await server.post(text, dimensions=wanted)
    if answer.is_refusal:
        raise CheckSkippedError(f"not supported: dimensions is refused with {answer.shown}")
    short = read_vectors(answer, 1)[0]
    if len(short) != wanted:
        raise CheckFailedError(f"dimensions is ignored: {wanted} numbers are requested, {len(short)} are answered")
    norms = float(np.linalg.norm(full)), float(np.linalg.norm(short))
    if abs(norms[0] - 1) < 1e-2 < abs(norms[1] - 1):
        raise CheckFailedError(f"truncated vectors are not normalized: length {norms[1]:.3f}")
    too_many = await server.post(text, dimensions=4 * len(full) + 1)
    if not too_many.is_refusal:
        raise CheckFailedError(f"{4 * len(full) + 1} dimensions are answered with {too_many.shown}")
    return passed(f"{wanted} numbers of length {norms[1]:.3f}; too many are refused with {too_many.status}")


async def input_type(server: Server) -> Verdict:
    """Ask for a query and a document, if the server's OpenAPI document has `input_type`."""
    if not await claims_field(server, "input_type"):
        raise CheckSkippedError("not supported, and not claimed by /openapi.json")
    text = server.texts.known[0]
    plain = await server.embed_one(text)
    query, document = [await server.embed_one(text, input_type=kind) for kind in ("query", "document")]
    wrong = await server.post(text, input_type="no-such-type")
    if not wrong.is_refusal:
        raise CheckFailedError(f"an unknown input_type is answered with {wrong.shown}")
    reference = server.target.reference
    if reference is not None and reference.query_prompt != reference.document_prompt:
        if cosine(query, document) >= EQUAL:
            raise CheckFailedError("input_type is ignored: the model has a prompt for queries, and it is not added")
    elif reference is not None and (similarity := cosine(query, plain)) < SAME:
        raise CheckFailedError(f"the model has no prompts, but input_type changes the vector ({rounded(similarity)})")
    return passed(f"cosine of a query and a document with the same text: {rounded(cosine(query, document))}")


async def fields(server: Server) -> Verdict:
    """Look at the other fields of an answer."""
    answer = await server.post(server.texts.known[:2], rows=2)
    rows = read_list(answer, 2)
    wrong = []
    if answer.value.get("object") != "list":
        wrong.append("object is not list")
    if any(row.get("object") != "embedding" for row in rows):
        wrong.append("object of a row is not embedding")
    name = answer.value.get("model")
    if not isinstance(name, str) or not name:
        wrong.append("model is no name")
    if wrong:
        raise CheckFailedError("; ".join(wrong))
    if name != server.target.model:
        return Verdict("warned", f"the answer names another model than the request: {name[:100]!r}")
    return passed("object, model and data are those of OpenAI")


async def content_type(server: Server) -> Verdict:
    """Look at the type of a good answer and of an error."""
    answers = {"an answer": await server.post(server.texts.known[0]), "an error": await server.post([])}
    wrong = {name: _type(answer) for name, answer in answers.items() if _type(answer) != "application/json"}
    if wrong:
        shown = "; ".join(f"{name} is {kind or 'without a type'}" for name, kind in wrong.items())
        raise CheckFailedError(f"{shown}; both are application/json")
    return passed("application/json, also of errors")


def _type(answer: Answer) -> str:
    return answer.headers.get("content-type", "").partition(";")[0].strip().lower()


async def keep_alive(server: Server) -> Verdict:
    """Send two requests one after the other."""
    await server.embed_one(server.texts.known[0])
    second = await server.post(server.texts.known[1])
    if not second.is_reused:
        return Verdict("warned", "each request needs a new connection")
    return passed("the second request uses the connection of the first")


async def unknown_fields(server: Server) -> Verdict:
    """Send OpenAI's field `user`, and a field that no API has."""
    text = server.texts.known[0]
    plain = await server.embed_one(text)
    user = await server.post(text, user="someone")
    if not user.is_ok:
        raise CheckFailedError(f"OpenAI's field user is answered with {user.shown}")
    other = await server.post(text, x_no_such_field={"a": [1]})
    if other.is_refusal:
        return passed(f"user is accepted; an unknown field is refused with {other.status}")
    if cosine(plain, read_vectors(other, 1)[0]) < SAME:
        raise CheckFailedError("an unknown field changes the vector")
    return passed("user is accepted; an unknown field is ignored")


async def models(server: Server) -> Verdict:
    """Look at the list of models."""
    answer = await server.client.get(f"{server.target.base_url}/models")
    if not answer.is_ok:
        raise CheckFailedError(f"the list of models is answered with {answer.shown}")
    data = answer.value.get("data") if isinstance(answer.value, dict) else None
    if not isinstance(data, list) or not all(isinstance(row, dict) and isinstance(row.get("id"), str) for row in data):
        raise CheckFailedError("the list of models has no list data of objects with an id")
    names = {row["id"] for row in data}
    if server.target.model not in names:
        plain = await server.post(server.texts.known[0])
        answered = plain.value.get("model") if isinstance(plain.value, dict) else None
        if isinstance(answered, str) and answered in names:
            return Verdict("warned", f"the list has the model as {answered[:100]!r} only, not by the requested name")
        raise CheckFailedError("the list of models lacks the model that answers")
    return passed(f"{len(data)} listed, with the judged one")
