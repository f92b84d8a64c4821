"""All checks in the order in which they run, each with the reason why clients need it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedway.conformance.checks import errors, formats, identity, lengths, load, numbers, rerank, tokens

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from embedway.conformance.server import Server
    from embedway.conformance.verdicts import Verdict


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its name, why clients need it, and the function that sends requests and judges the answers."""

    name: str
    why: str
    run: Callable[[Server], Awaitable[Verdict]]


CHECKS: tuple[Check, ...] = (
    Check("distinct", "Texts with one vector cannot be told apart by any search.", identity.distinct),
    Check(
        "row-order",
        "Clients store row n as the vector of text n; another order mixes up documents.",
        identity.row_order,
    ),
    Check("batch-alone", "Documents are embedded in batches and queries alone; both must agree.", identity.batch_alone),
    Check("concurrency", "Requests at the same time must not get vectors of each other.", identity.concurrency),
    Check(
        "duplicates", "Clients do not remove duplicates; a server that does must put them back.", identity.duplicates
    ),
    Check("determinism", "A text that is embedded again must be found by its stored vector.", identity.determinism),
    Check("width", "Vector stores refuse, or silently misuse, vectors of changing size or length.", identity.width),
    Check("numbers", "One null, NaN or zero vector breaks an index or never matches.", numbers.numbers),
    Check("unicode", "Real texts contain emoji, NUL and broken escapes; one must not stop a job.", numbers.unicode),
    Check("long-word", "Files with one endless word must not block the server for others.", numbers.long_word),
    Check("exact-limit", "Clients cut texts to the limit and expect all of it to be read.", lengths.exact_limit),
    Check("over-limit", "The end of a silently truncated text can never be found.", lengths.over_limit),
    Check(
        "token-ids",
        "LangChain sends token ids of cl100k by default; read otherwise, every vector is wrong.",
        tokens.token_ids,
    ),
    Check("usage", "Bills, budgets and rate limits count these tokens.", tokens.usage),
    Check(
        "base64", "The openai clients ask for base64 by default; some read an ignored request as zeros.", formats.base64
    ),
    Check("dimensions", "An ignored or unnormalized size breaks the index that was made for it.", formats.dimensions),
    Check("input-type", "Models with prompts lose accuracy if queries are embedded as documents.", formats.input_type),
    Check("fields", "Typed clients fail on answers that lack OpenAI's fields.", formats.fields),
    Check("content-type", "Clients and proxies parse a body by its type.", formats.content_type),
    Check("keep-alive", "A new connection for each request costs round trips.", formats.keep_alive),
    Check("unknown-fields", "Clients send user and fields of other APIs.", formats.unknown_fields),
    Check("models", "Clients find and check model names in the list.", formats.models),
    Check("empty-text", "An empty cell of a table must not fail in a new way.", errors.empty_text),
    Check("empty-batch", "A job without texts must get an answer, not a server error.", errors.empty_batch),
    Check("wrong-types", "Clients retry 5xx for ever, and report 4xx at once.", errors.wrong_types),
    Check("missing-input", "A mistake in a request must be told as one.", errors.missing_input),
    Check("invalid-json", "A mistake in a request must be told as one.", errors.invalid_json),
    Check("deep-nesting", "One small request must not crash a server.", errors.deep_nesting),
    Check(
        "unknown-model", "Vectors of another model than the requested one poison a collection.", errors.unknown_model
    ),
    Check(
        "unknown-encoding", "An ignored option gives numbers that the client decodes wrongly.", errors.unknown_encoding
    ),
    Check("error-shape", "The openai clients read error.message, type, param and code.", errors.error_shape),
    Check("keys", "Clients always send a key; a wrong one must be told as 401.", load.keys),
    Check("huge-batch", "OpenAI accepts 2,048 texts; clients send that many.", load.huge_batch),
    Check("cancelled", "Work for clients that left must not delay the others.", load.cancelled),
    Check("rerank-order", "Clients show the first result first.", rerank.rerank_order),
    Check("rerank-top-n", "Clients pay for and show only as many results as they ask for.", rerank.rerank_top_n),
    Check("overload", "Without Retry-After, clients come back too early or give up.", load.overload),
)
