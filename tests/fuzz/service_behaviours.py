"""Odd behaviours of services, as data: each with its outcome for texts and money.

Texts in a body may contain `{text}`, `{key}` and `{word}`: the server then repeats a text, the key, or a word of its
own, none of which may appear in an error. Sources are public reports about the servers that a name contains.
"""

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Fields of every good row in OpenAI's format.
INDEX, EMBEDDING = "index", "embedding"


@dataclass(frozen=True)
class Fault:
    """One answer that is not a good one.

    `body` is JSON, or bytes and text that are sent unchanged; None is the good answer, sent as `wire` says. `money` is
    `free` if it must not be booked, `maybe` if the service may bill it, `computed` if the vectors were computed and no
    usage can be read, and `bad` if a usage can be read.
    `ends_as` are the classes of errors by which a call may end if this is the only answer; empty for any.
    """

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    wire: str = "whole"
    money: str = "maybe"
    ends_as: tuple[str, ...] = ()


def _error(message, kind="api_error", code="{word}"):
    return {"error": {"message": f"{message} {{text}} {{key}}", "type": kind, "param": None, "code": code}}


def _free(status, body, headers=None, *, ends_as=()):
    return Fault(status, body, headers or {}, money="free", ends_as=ends_as)


def _limited(headers=None, body=None):
    return _free(429, body or _error("too many requests", "requests", "rate_limit_exceeded"), headers)


_LATER = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.02s"}
_GOOGLE = {"error": {"code": 429, "message": "{text}", "status": "RESOURCE_EXHAUSTED", "details": [_LATER]}}
_HTML = "<html><head><title>{word}</title></head><body>{text} Ray ID {key}</body></html>"
_AS_HTML = {"Content-Type": "text/html; charset=utf-8"}

#: Faults that end after one request: the next request may succeed.
PASSING = {
    "500": Fault(500, _error("internal error")),
    "500 with a number as code": Fault(500, _error("internal error", "server_error", 500)),
    "500 text": Fault(500, "Internal Server Error {text}", {"Content-Type": "text/plain"}),
    "502 html": Fault(502, _HTML, _AS_HTML),
    "503": Fault(503, {"detail": "{text}"}),
    "503 with Retry-After 0": Fault(503, _error("busy"), {"Retry-After": "0"}),
    "504 empty": Fault(504, b""),
    "529": Fault(529, {"type": "error", "error": {"type": "overloaded_error", "message": "{text}"}}),
    "408": Fault(408, _error("timeout")),
    "409": Fault(409, _error("conflict")),
    "425": Fault(425, _error("too early")),
    "reset": Fault(wire="reset"),
    "closed": Fault(wire="closed"),
    "cut body": Fault(wire="cut", money="computed"),
    "cut chunks": Fault(wire="cut chunks", money="computed"),
    "no last chunk": Fault(wire="no last chunk", money="bad"),
    "cut gzip": Fault(wire="cut gzip", money="computed"),
    "lying gzip": Fault(wire="lying gzip", money="bad"),
    "429": _limited(),
    "429 Retry-After 0": _limited({"Retry-After": "0"}),
    "429 Retry-After 0.02": _limited({"Retry-After": "0.02"}),
    "429 retry-after-ms": _limited({"retry-after-ms": "15"}),
    "429 date": _limited({"Retry-After": "Thu, 26 Nov 2026 10:00:00 GMT", "Date": "Thu, 26 Nov 2026 10:00:00 GMT"}),
    "429 past date": _limited({"Retry-After": "Thu, 01 Jan 2015 10:00:00 GMT"}),
    "429 google list": _limited(body=[_GOOGLE]),
    "429 google": _limited(body=_GOOGLE),
    "429 phrase in ms": _limited(
        body=_error("Rate limit reached. Please try again in 20ms.", "tokens", "rate_limit_exceeded")
    ),
    "429 reset header": _limited({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "20ms"}),
    "429 Unix time": _limited({"Retry-After": "1764100000"}),
    "429 400 digits": _limited({"Retry-After": "9" * 400}),
    "429 negative": _limited({"Retry-After": "-5"}),
    "429 nan": _limited({"Retry-After": "nan", "retry-after-ms": "-inf"}),
    "429 words": _limited({"Retry-After": "{word}"}),
    "200 with error 429": Fault(200, {"error": {"message": "Provider returned error {text}", "code": 429}}),
    "200 with error 503": Fault(200, {"error": {"message": "Provider returned error {text}", "code": 503}}),
    "200 with a list of error 429": Fault(200, [_GOOGLE]),
}

#: Answers of the kind that a service must not give twice: after the second one the route counts as failed.
BAD = {
    "html": Fault(200, _HTML, _AS_HTML),
    "empty body": Fault(200, b""),
    "data null": Fault(200, {"object": "list", "data": None, "results": None, "usage": None}),
    "data empty": Fault(200, {"object": "list", "data": [], "results": [], "usage": {"total_tokens": 0}}),
    "not json": Fault(200, "{text} {key}"),
    "a number": Fault(200, 5),
    "a row less": Fault(wire="a row less", money="bad"),
    "a row more": Fault(wire="a row more", money="bad"),
    "zeros once": Fault(wire="zeros", money="bad"),
    "NaN literals once": Fault(wire="NaN literals", money="bad"),
}

#: Refusals while a model is loaded.
LOADING = {
    "llama.cpp": _free(503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}),
    "Hugging Face": _free(503, {"error": "Model acme/m is currently loading", "estimated_time": 0.02}),
    "Hugging Face, float text": _free(503, {"error": "Model acme/m is currently loading", "estimated_time": 0.05}),
    "Ollama": _free(503, {"error": {"message": "llm server loading model", "type": "api_error"}}),
}

_QUOTA, _KEY, _PROTOCOL = ("QuotaExceededError",), ("AuthenticationError",), ("ProtocolError",)
_BAD_KEY = {"reason": "API_KEY_INVALID", "@type": "type.googleapis.com/google.rpc.ErrorInfo"}
#: Answers that a route gives to each request: another route must serve the texts.
FINAL = {
    "401": _free(
        401,
        _error("Incorrect API key provided: {key}", "invalid_request_error", "invalid_api_key"),
        ends_as=_KEY,
    ),
    "401 with the key as code": _free(401, _error("wrong", "{key}", "{key}"), ends_as=_KEY),
    "403 firewall": _free(403, _HTML, _AS_HTML),
    "402": _free(402, {"error": {"message": "Insufficient credits {text}", "code": 402}}, ends_as=_QUOTA),
    "429 no money": _free(429, _error("quota", "insufficient_quota", "insufficient_quota"), ends_as=_QUOTA),
    "LiteLLM 400 budget": _free(400, _error("Budget has been exceeded!", "budget_exceeded", "400"), ends_as=_QUOTA),
    "LiteLLM 429 budget": _free(429, _error("Budget has been exceeded!", "budget_exceeded", "429"), ends_as=_QUOTA),
    "Gemini's list, bad key": _free(
        400,
        [{"error": {"code": 400, "message": "{key}", "status": "INVALID_ARGUMENT", "details": [_BAD_KEY]}}],
        ends_as=_KEY,
    ),
    "Ollama 404": _free(
        404,
        _error('model "m" not found, try pulling it first', "not_found_error", None),
        ends_as=_PROTOCOL,
    ),
    "vLLM 404": _free(
        404,
        {"object": "error", "message": "The model `{text}` does not exist.", "type": "NotFoundError", "code": 404},
        ends_as=_PROTOCOL,
    ),
    "400 model not found": _free(
        400,
        _error("The model `m` does not exist", "invalid_request_error", "model_not_found"),
        ends_as=_PROTOCOL,
    ),
    "405": _free(405, {"detail": "Method Not Allowed"}, ends_as=_PROTOCOL),
    "307": _free(307, b"", {"Location": "/elsewhere/{word}"}, ends_as=_PROTOCOL),
    "301 html": _free(301, _HTML, {**_AS_HTML, "Location": "https://example.com/{key}"}, ends_as=_PROTOCOL),
    "LM Studio 200": Fault(200, {"error": "Unexpected endpoint or method. (POST /embeddings) {text}"}),
    "200 with error 402": Fault(
        200, {"error": {"message": "Insufficient credits", "code": 402}, "user_id": "{word}"}, ends_as=_QUOTA
    ),
    "Cloudflare 200": Fault(
        200, {"success": False, "errors": [{"code": 10000, "message": "Authentication error {key}"}], "result": None}
    ),
    "html for ever": Fault(200, _HTML, _AS_HTML),
    "429 for a day": _limited({"Retry-After": "86400"}),
    "429 for hours, headers": _limited(
        {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "7h12m0s"}
    ),
}

#: Addresses that no request reaches: nothing may be booked.
UNREACHABLE = ("closed port", "TLS on a plain port", "proxy 403", "proxy 407", "proxy closes")

#: Failures of each request that contains the text at fault.
REFUSED_TEXT = {
    "400": _free(400, _error("bad input", "invalid_request_error", "{word}")),
    "OpenAI context": _free(
        400,
        _error(
            "This model's maximum context length is 8192 tokens, however you requested 9001 tokens (9001 in your "
            "prompt; 0 for the completion).",
            "invalid_request_error",
            "context_length_exceeded",
        ),
    ),
    "TEI context": _free(
        413,
        {
            "error": "Input validation error: `inputs` must have less than 512 tokens. Given: 600",
            "error_type": "Validation",
        },
    ),
    "Ollama context": _free(400, _error("the input length exceeds the context length", code=None)),
    "vLLM context": _free(
        400,
        {
            "object": "error",
            "message": "This model's maximum context length is 512 tokens. However, you requested 600 "
            "tokens in the input.",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
    ),
    "content filter": _free(400, _error("filtered", None, "content_filter")),
    "422": _free(422, {"detail": [{"loc": ["body", "input"], "msg": "{text}", "type": "value_error"}]}),
}
FAILING_TEXT = {
    "500": Fault(500, _error("do encoding: EOF")),
    "Ollama NaN": Fault(500, _error("failed to encode response: json: unsupported value: NaN", code=None)),
    "llama.cpp batch": Fault(
        500, _error("input is too large to process. increase the physical batch size", "server_error", 500)
    ),
    "503": Fault(503, {"error": "{text}"}),
    "reset": Fault(wire="reset"),
    "closed": Fault(wire="closed"),
}
#: Those of them that do not say that the text is the reason.
PASSING_TEXT = frozenset({"500", "503", "reset", "closed"})
#: Values of a row, instead of the right ones, in a good answer; a function of the right vector and its written form.
BAD_ROWS = {
    "null numbers": lambda vector, written: [None] * len(vector),
    "one null": lambda vector, written: [None, *map(float, vector[1:])],
    "null": lambda vector, written: None,
    "zeros": lambda vector, written: [0.0] * len(vector),
    "no numbers": lambda vector, written: [],
    "words": lambda vector, written: ["a"] * len(vector),
    "bad base64": lambda vector, written: "not base64!",
    "base64 of NaN": lambda vector, written: base64.b64encode(
        struct.pack(f"<{len(vector)}f", *[float("nan")] * len(vector))
    ).decode(),
    "infinity": lambda vector, written: [1e300] * len(vector),
    "not normalized": lambda vector, written: [float(number) * 9 for number in vector],
}
#: The same where the answer as a whole may count as bad, and with it the other texts.
SPOILING_ROWS = {
    "NaN literals": lambda vector, written: [float("nan")] * len(vector),
    "a number less": lambda vector, written: [float(number) for number in vector[:-1]],
}
BAD_SCORES = {"null": None, "a word": "high", "a list": [0.5]}

#: Refusals of a request with too many texts, or too many tokens.
MANY_TEXTS = {
    "TEI": _free(
        413,
        {"error": "batch size {given} > maximum allowed batch size {limit}", "error_type": "Validation"},
    ),
    "TEI 422": _free(
        422,
        {
            "error": "Input validation error: batch size {given} > maximum allowed batch size {limit}",
            "error_type": "Validation",
        },
    ),
    "OpenAI": _free(
        400,
        _error(
            "Invalid 'input': array too long. Expected an array with maximum length {limit}, but got an array with "
            "length {given} instead.",
            "invalid_request_error",
            "array_above_max_length",
        ),
    ),
    "Gemini": _free(
        400,
        [
            {
                "error": {
                    "code": 400,
                    "message": "* BatchEmbedContentsRequest.requests: at most {limit} requests can be in one batch",
                    "status": "INVALID_ARGUMENT",
                }
            }
        ],
    ),
    "Cohere": _free(
        400,
        {"message": "invalid request: total number of texts must be at most {limit} - received {given}"},
    ),
    "bare 413": _free(413, b""),
    "bare 400": _free(400, _error("bad request", "invalid_request_error", None)),
}
MANY_TOKENS = {
    "OpenAI": _free(
        400,
        _error(
            "Requested {given} tokens, max {limit} tokens per request",
            "max_tokens_per_request",
            "max_tokens_per_request",
        ),
    ),
    "Voyage": _free(
        400,
        {
            "detail": "The max allowed tokens per submitted batch is {limit}. "
            "Your batch has {given} tokens after truncation. Please lower the number of tokens in the batch."
        },
    ),
    "bare 413": _free(413, b""),
}


def _each(change):
    return lambda rows: [change(number, row) for number, row in enumerate(rows)]


def _without(row):
    return {key: value for key, value in row.items() if key != INDEX}


@dataclass(frozen=True)
class Rows:
    """A change of the rows of a good answer; `effect` is `right`, `noted` (right, with a note), or `wrong`.

    Rows that are wrong must never be returned, because nothing tells which text they belong to.
    """

    change: Any
    effect: str = "right"


INDEXES = {
    "full": Rows(lambda rows: rows),
    "permuted": Rows(lambda rows: rows[1::2] + rows[::2]),
    "reversed": Rows(lambda rows: rows[::-1]),
    "missing": Rows(_each(lambda number, row: _without(row)), "noted"),
    "null": Rows(_each(lambda number, row: {**row, INDEX: None}), "noted"),
    "first missing": Rows(_each(lambda number, row: row if number else _without(row)), "noted"),
    "missing and reversed": Rows(lambda rows: [_without(row) for row in rows[::-1]], "wrong"),
    "all zero": Rows(_each(lambda number, row: {**row, INDEX: 0}), "wrong"),
    "from one": Rows(_each(lambda number, row: {**row, INDEX: number + 1}), "wrong"),
    "some missing, one from nowhere": Rows(
        lambda rows: [{**row, INDEX: len(rows)} if number == 0 else _without(row) for number, row in enumerate(rows)],
        "wrong",
    ),
}


@dataclass(frozen=True)
class Usage:
    """Reported usage: `report(tokens)` is the object, and `effect` how it must be booked.

    `exact`: with the tokens of `booked(tokens)`; `ours`: by our own count, as an estimate; `no number`: so, or as
    unsure; `implausible`: as unsure; `either`: exactly or by our count.
    """

    report: Any
    effect: str
    booked: Any = int


USAGES = {
    "both": Usage(lambda tokens: {"prompt_tokens": tokens, "total_tokens": tokens}, "exact"),
    "total only": Usage(lambda tokens: {"total_tokens": tokens}, "exact"),
    "prompt only": Usage(lambda tokens: {"prompt_tokens": tokens}, "exact"),
    "prompt, total null": Usage(lambda tokens: {"prompt_tokens": tokens, "total_tokens": None}, "exact"),
    "with a point": Usage(lambda tokens: {"prompt_tokens": float(tokens), "total_tokens": float(tokens)}, "exact"),
    "zero": Usage(lambda tokens: {"prompt_tokens": 0, "total_tokens": 0}, "ours"),
    "absent": Usage(lambda tokens: None, "ours"),
    "empty": Usage(lambda tokens: {}, "ours"),
    "null": Usage(lambda tokens: {"prompt_tokens": None, "total_tokens": None}, "ours"),
    "negative": Usage(lambda tokens: {"prompt_tokens": -3, "total_tokens": -3}, "no number"),
    "text": Usage(lambda tokens: {"prompt_tokens": str(tokens), "total_tokens": str(tokens)}, "either"),
    "huge": Usage(lambda tokens: {"prompt_tokens": 10**12, "total_tokens": 10**12}, "no number"),
    "too small": Usage(lambda tokens: {"prompt_tokens": 1, "total_tokens": 1}, "implausible", lambda tokens: 1),
    "too large": Usage(
        lambda tokens: {"prompt_tokens": 100 * tokens, "total_tokens": 100 * tokens},
        "implausible",
        lambda tokens: 100 * tokens,
    ),
}

_REQUESTS, _TOKENS = "x-ratelimit-{}-requests", "x-ratelimit-{}-tokens"


def _rates(limit, remaining, reset, form=_REQUESTS):
    return {form.format("limit"): limit, form.format("remaining"): remaining, form.format("reset"): reset}


#: Headers of good answers. None may delay the next request by more than some milliseconds.
RATES = {
    "none": {},
    "sane": _rates("3000", "2999", "20ms") | _rates("1000000", "999000", "60ms", _TOKENS),
    "none left for 10 ms": _rates("3000", "0", "10ms"),
    "Unix time": _rates("600", "0", "1764100000"),
    "400 digits": _rates("9" * 400, "9" * 400, "9" * 400) | _rates("9" * 400, "0", "9" * 400, _TOKENS),
    "negative": _rates("-1", "-1", "-1s") | _rates("-5", "-9", "-1", _TOKENS),
    "words": _rates("{word}", "{key}", "{word}"),
    "Retry-After on success": {"Retry-After": "3600"},
}

#: Forms of a good answer on the wire.
WIRES = ("whole", "chunks", "byte-order mark", "gzip", "text/plain", "no content type", "spaces", "close", "slow")
