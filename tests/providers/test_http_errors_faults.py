"""Answers that repeat the key and the texts everywhere: none of it is in an error or a log."""

import base64
import gzip
import logging
import traceback

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedway.errors import EmbedwayError
from provider_suite import all_said
from raw_server import answer, post

KEY = "sk-Zq7xPLUGH-4Wn2"
TEXTS = ["Xyzzy opens 471108 doors", "quuxword", "Grault. garply\n waldo: plugh"]
#: No part of the key or of a text may be in an error. Longer ones contain these.
PARTS = ["zq7x", "plugh", "4wn2", "xyzzy", "471108", "quuxword", "grault", "garply", "waldo", "e7c6"]
SECRETS = [
    KEY,
    f"Bearer {KEY}",
    KEY[3:12],
    KEY.lower(),
    KEY.replace("-", "_"),
    base64.b64encode(KEY.encode()).decode(),
    KEY.encode().hex(),
    *TEXTS,
    TEXTS[0].upper().replace(" ", "_"),
    TEXTS[0].split()[2],
    TEXTS[2][:9],
    f"invalid_{TEXTS[1]}_error",
    f"error_{KEY[3:12].lower()}",
    f"Incorrect API key provided: {KEY}. Insufficient credits",
    f"model {TEXTS[1]} not found, try pulling it first",
    f"maximum allowed batch size {TEXTS[0].split()[2]}",
    f"try again in 2s, {TEXTS[2]}",
]
#: Forms of the secrets that are not readable, but can be decoded.
CODED = [base64.b64encode(KEY.encode()).decode(), KEY.encode().hex(), KEY.encode().hex()[:16]]
FIELDS = ["code", "type", "status", "reason", "error_type", "message", "detail", "error", "msg", "errors", "title"]
FIELDS += ["param", "data", "details", "metadata", "errorMessage", "error_code", "loc", "index", "object", "__type"]
HEADERS = ["Location", "x-amzn-errortype", "x-ratelimit-remaining-tokens", "Retry-After", "Server", "X-Echo", "Date"]
#: Good words and numbers, so that the rows of the table match too.
PLAIN = [
    "insufficient_quota",
    "invalid_request_error",
    "rate_limit_exceeded",
    429,
    402,
    400,
    503,
    None,
    True,
    7,
    -1,
    0.5,
]
STATUSES = [
    200,
    201,
    204,
    206,
    300,
    301,
    302,
    307,
    308,
    400,
    401,
    402,
    403,
    404,
    405,
    408,
    413,
    418,
    422,
    424,
    429,
    500,
]
STATUSES += [501, 502, 503, 520, 599]

values = st.recursive(
    st.sampled_from([*SECRETS, *PLAIN]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=8,
)
bodies = st.dictionaries(st.sampled_from(FIELDS), values, max_size=5)
shapes = st.sampled_from(
    [
        orjson.dumps,
        lambda body: orjson.dumps({"error": body}),
        lambda body: orjson.dumps([{"error": body}]),
        lambda body: orjson.dumps({"success": False, "errors": [body], "result": None}),
        lambda body: orjson.dumps({"data": None, **body}),
        lambda body: orjson.dumps({"error": {"message": orjson.dumps(body).decode(), "code": 500}}),
        lambda body: b"<html>" + orjson.dumps(body),
        lambda body: b"data: " + orjson.dumps(body) + b"\n\n",
        lambda body: orjson.dumps(body)[:-1],
        lambda body: orjson.dumps(body) * 2,
        lambda body: gzip.compress(orjson.dumps(body))[:-9],
        lambda body: b"NaN " + orjson.dumps(body),
    ]
)
headers = st.dictionaries(st.sampled_from(HEADERS), st.sampled_from(SECRETS), max_size=3)
types = st.sampled_from(["application/json", "text/html", "text/plain", *(f"text/{part}" for part in SECRETS[:8])])


def assert_nothing_is_told(said):
    assert not [part for part in PARTS if part in said.lower()], said
    assert not [form for form in CODED if form.lower() in said.lower()], said


@given(bodies, shapes, headers, types, st.sampled_from(STATUSES), st.sampled_from(["/embeddings", "/rerank"]))
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_error_and_no_log_repeats_the_key_or_a_text(caplog, body, shape, header, content_type, status, path):
    caplog.set_level(logging.DEBUG)
    caplog.clear()
    lines = [f"{name}: {value}".replace("\n", " ") for name, value in header.items()]
    redirect = f"Location: https://user:{KEY}@{TEXTS[1]}.example/{TEXTS[1]}?key={KEY}"
    raw = answer(shape(body), *lines, redirect, status=status, content_type=content_type.replace("\n", " "))
    try:
        post(raw, path=path, body={"input": TEXTS}, key=KEY)
    except EmbedwayError as error:
        chained = "".join(traceback.format_exception(error, chain=True))
        shown = "\n".join(line for line in chained.splitlines() if not line.lstrip().startswith(("File ", "raise ")))
        # Limits and waits are numbers, which the answer is read for.
        numbers = {"rates", "limits", "retry_after_s"}
        facts = {name: value for name, value in error.__dict__.items() if name not in numbers}
        assert_nothing_is_told(f"{all_said(error)}\n{facts}\n{shown}")
    assert_nothing_is_told(caplog.text)
