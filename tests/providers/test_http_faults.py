"""Odd answers through the engine: requests for one call, for embeddings and for reranking."""

import asyncio
import gzip
import json
from dataclasses import dataclass

import numpy as np
import orjson
import pytest

from embedway import AsyncEmbedder, Config
from embedway.errors import (
    AuthenticationError,
    ProtocolError,
    QuotaExceededError,
    RateLimitedError,
    RefusedInputError,
    UnavailableError,
)
from provider_suite import APIS, KEY, MODEL, TEXTS, all_said, ask, assert_tells_no_secret
from raw_server import RawServer, answer

BUDGET = {"error": {"message": "Budget has been exceeded!", "type": "budget_exceeded", "code": "400"}}
GZIP = "Content-Encoding: gzip"


@dataclass(frozen=True)
class Odd:
    """An answer to every request, the call's error, and the number of requests of a call."""

    raw: bytes
    kind: type
    says: str
    requests: int


def odd_json(body, kind, says, requests, status=200):
    return Odd(answer(orjson.dumps(body), status=status), kind, says, requests)


#: Attempts of a text; transient failures use them all.
ALL = 5
ODD = {
    "wrong path": odd_json({"error": "Unexpected endpoint or method."}, ProtocolError, "no such path", 1),
    "429 inside": odd_json({"error": {"message": "x", "code": 429}}, RateLimitedError, "an error inside HTTP 200", ALL),
    "402 inside": odd_json({"error": {"message": "x", "code": 402}}, QuotaExceededError, "quota", 1),
    "unknown inside": odd_json({"error": {"message": "x"}}, ProtocolError, "an error inside HTTP 200", 2),
    "refused success": odd_json({"success": False, "errors": [{"code": 1}]}, ProtocolError, "inside HTTP 200", 2),
    "key in a list": odd_json(
        [{"error": {"code": 400, "details": [{"reason": "API_KEY_INVALID"}]}}], AuthenticationError, "api_key", 1, 400
    ),
    "budget 400": odd_json(BUDGET, QuotaExceededError, "budget_exceeded", 1, 400),
    "budget 429": odd_json(BUDGET, QuotaExceededError, "budget_exceeded", 1, 429),
    "no model": odd_json({"error": "The model `x` does not exist."}, ProtocolError, "upstream_model", 1, 404),
    "trial": odd_json({"message": "limited to 1000 API calls / month."}, QuotaExceededError, "this period", 1, 429),
    "firewall": Odd(
        answer(b"<html>Attention Required!", status=403, content_type="text/html"), ProtocolError, "a web page", 1
    ),
    "gateway": Odd(answer(b"<html>", status=502, content_type="text/html"), UnavailableError, "a web page", ALL),
    "portal": Odd(answer(b"<html>Log in", content_type="text/html"), ProtocolError, "a web page", 2),
    "redirect": Odd(answer(b"", "Location: /login", status=302), ProtocolError, "a login page", 1),
    "cut": Odd(answer(gzip.compress(b'{"data": []}')[:9], GZIP), UnavailableError, "cut off", ALL),
    "corrupt": Odd(answer(b"\x01\x02\x03", GZIP), ProtocolError, "compression is corrupt", 2),
    "empty": Odd(answer(b""), ProtocolError, "is empty", 2),
}


def call(server, *, rerank, texts=TEXTS):
    """Call the engine with one route to a server."""

    async def main():
        async with server.running() as url:
            kind = {"task": "rerank"} if rerank else {"dimensions": 2, "normalized": False}
            settings = {
                "models.m": {"name": MODEL, "max_tokens": 512, "tokenizer": "estimate", **kind},
                "routes.r": {"model": MODEL, "provider": "openai-compatible", "base_url": f"{url}/v1", "api_key": KEY},
                "upstream.first_wait_s": 0.001,
                "upstream.longest_wait_s": 0.002,
                "cache.backend": "none",
                "ledger.backend": "none",
            }
            async with AsyncEmbedder(config=Config.load(environ={}, overrides=settings)) as embedder:
                if rerank:
                    return await embedder.rerank("which one?", texts, model=MODEL)
                return await embedder.embed(texts, model=MODEL)

    return asyncio.run(main())


@pytest.mark.parametrize("rerank", [False, True], ids=["embed", "rerank"])
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_an_odd_answer_is_one_named_error_after_as_many_requests_as_help(odd, rerank, caplog):
    server = RawServer(lambda _: odd.raw)
    with pytest.raises(odd.kind, match=odd.says) as caught:
        call(server, rerank=rerank, texts=TEXTS[:1])
    assert len(server.requests) == odd.requests
    assert_tells_no_secret(all_said(caught.value) + caplog.text)


def vectors_of(body):
    def vector(text):
        scale = float(ord(text[-1]))  # texts of one length differ in the lengths of their vectors
        return [len(text) * scale, scale]

    rows = [{"index": n, "embedding": vector(text)} for n, text in enumerate(json.loads(body)["input"])]
    return {"object": "list", "data": rows, "usage": {"total_tokens": 9}}


def test_one_text_whose_result_is_not_a_number_costs_no_other_text_its_vector():
    def serve(body):
        if TEXTS[1] in json.loads(body)["input"]:
            failure = {"error": "failed to encode response: json: unsupported value: NaN"}
            return answer(orjson.dumps(failure), status=500)
        return answer(orjson.dumps(vectors_of(body)))

    server = RawServer(serve)
    with pytest.raises(RefusedInputError, match="not a number"):
        call(server, rerank=False, texts=[*TEXTS, *(f"text {number}" for number in range(5))])
    assert len(server.requests) <= 9


@pytest.mark.parametrize("header", ["", GZIP])
def test_a_stream_without_its_last_chunk_is_paid_once(header):
    def serve(body):
        content = orjson.dumps(vectors_of(body))
        content = gzip.compress(content) if header else content
        chunk = f"{len(content):x}\r\n".encode() + content + b"\r\n"
        return answer(chunk, "Transfer-Encoding: chunked", *([header] if header else []), length=False)

    server = RawServer(serve)
    result = call(server, rerank=False)
    assert len(server.requests) == result.receipt.attempts == 1
    np.testing.assert_allclose(result.vectors[:, 0] / result.vectors[:, 1], [len(text) for text in TEXTS], rtol=1e-5)


@pytest.mark.parametrize("name", sorted(APIS))
def test_every_provider_reads_an_error_inside_http_200(name):
    server = APIS[name].serve()
    server.misdeeds = [lambda _: {"error": {"message": "x", "code": 402}}]
    with pytest.raises(QuotaExceededError, match="an error inside HTTP 200") as caught:
        ask(name, server)
    assert not caught.value.billed
