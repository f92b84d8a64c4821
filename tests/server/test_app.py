"""The gateway over HTTP on loopback, with the fake provider and the default model."""

import asyncio
import base64
import io
import json
import logging

import aiohttp
import numpy as np
import pytest

from embedway import Config, Embedder
from embedway.server.endpoints import ENDPOINTS
from embedway.server.openapi import document
from gateways import gateway_at


@pytest.fixture
def settings(default_model_directory):
    return {"weights.directory": str(default_model_directory), "weights.offline": True}


def ask(settings, path, body=None, *, headers=None, data=None, method=None):
    """Send one request to a gateway with these settings; return status, headers and body."""

    async def main():
        async with gateway_at(**settings) as (url, _), aiohttp.ClientSession() as session:
            verb = method or ("GET" if body is None and data is None else "POST")
            async with session.request(verb, url + path, json=body, data=data, headers=headers) as answer:
                return answer.status, answer.headers, await answer.read()

    return asyncio.run(main())


def test_vectors_are_those_of_the_library(settings):
    texts = ["a cat", "two dogs", "a cat"]
    status, headers, body = ask(settings, "/v1/embeddings", {"model": "all-MiniLM-L6-v2", "input": texts})
    with Embedder(config=Config.load([], overrides=settings)) as embedder:
        expected = embedder.embed_documents(texts)
    answer = json.loads(body)
    assert status == 200
    assert [one["index"] for one in answer["data"]] == [0, 1, 2]
    np.testing.assert_array_equal(np.float32([one["embedding"] for one in answer["data"]]), expected.vectors)
    assert answer["usage"]["prompt_tokens"] == 4 + 4 + 4
    assert headers["x-embedway-space"] == expected.space.id
    assert headers["x-embedway-cache"] == "0/2"
    assert headers["x-embedway-truncated"] == "0"
    assert float(headers["x-embedway-cost-usd"]) == 0


def test_base64_is_the_same_numbers(settings):
    async def main():
        async with gateway_at(**settings) as (url, _), aiohttp.ClientSession() as session:
            found = []
            for encoding in ("float", "base64"):
                body = {"model": "all-MiniLM-L6-v2", "input": "a cat", "encoding_format": encoding}
                async with session.post(f"{url}/v1/embeddings", json=body) as answer:
                    found.append((await answer.json())["data"][0]["embedding"])
            return found

    numbers, written = asyncio.run(main())
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(written), "<f4"), np.float32(numbers))


def test_a_truncated_text_is_told(settings):
    status, headers, _ = ask(settings, "/v1/embeddings", {"model": "all-MiniLM-L6-v2", "input": ["a", "word " * 2000]})
    assert (status, headers["x-embedway-truncated"]) == (200, "1; rows=1")


MISTAKES = {
    "no model": ({"input": "a"}, 400, "model"),
    "no input": ({"model": "m"}, 400, "input"),
    "empty text": ({"model": "all-MiniLM-L6-v2", "input": ["a", ""]}, 400, "input.1"),
    "no texts": ({"model": "all-MiniLM-L6-v2", "input": []}, 400, "input"),
    "a number among texts": ({"model": "m", "input": ["a", 3]}, 400, "input"),
    "unknown field": ({"model": "m", "input": "a", "dimension": 3}, 400, "dimension"),
    "unknown model": ({"model": "no-such-model", "input": "a"}, 404, "model"),
    "a folder": ({"model": "/etc", "input": "a"}, 404, "model"),
    "a repository": ({"model": "hf:owner/name", "input": "a"}, 404, "model"),
    "size": ({"model": "all-MiniLM-L6-v2", "input": "a", "dimensions": 100}, 400, "dimensions"),
    "token ids": ({"model": "all-MiniLM-L6-v2", "input": [1, 2]}, 400, "input.0"),
    "encoding": ({"model": "m", "input": "a", "encoding_format": "int8"}, 400, "encoding_format"),
    "deadline": ({"model": "all-MiniLM-L6-v2", "input": "a", "deadline": 1e9}, 400, "deadline"),
    "not a number": ({"model": "m", "input": "a", "max_cost": "NaN"}, 400, "max_cost"),
    "tenant of another": ({"model": "all-MiniLM-L6-v2", "input": "a", "collection": "@a/b"}, 400, "collection"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_its_field(settings, name):
    body, expected, param = MISTAKES[name]
    status, headers, answer = ask(settings, "/v1/embeddings", body)
    error = json.loads(answer)["error"]
    assert (status, error["param"]) == (expected, param)
    assert set(error) == {"message", "type", "param", "code"}
    assert headers["x-should-retry"] == "false"


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'"a"', b"null", b'{"input":' + b"[" * 100_000, b"\xff"])
def test_a_body_that_is_no_request_is_refused(settings, data):
    status, _, answer = ask(settings, "/v1/embeddings", data=data)
    assert status == 400
    assert json.loads(answer)["error"]["type"] == "invalid_request_error"


def test_a_large_body_is_refused(settings):
    status, _, answer = ask({**settings, "server.body_mib": 1}, "/v1/embeddings", data=io.BytesIO(b"a" * (2 << 20)))
    assert (status, json.loads(answer)["error"]["code"]) == (413, "request_too_large")


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embed"])
def test_a_compressed_body_is_refused_as_the_description_says(settings, path):
    status, _, _ = ask(settings, path, data=b"x", headers={"content-encoding": "gzip"})
    assert status == 415
    assert "415" in document(ENDPOINTS, keys=False, max_deadline_s=60)["paths"][path]["post"]["responses"]


def test_unknown_addresses_and_methods(settings):
    assert ask(settings, "/v1/nothing")[0] == 404
    assert ask(settings, "/v1/embeddings", method="GET")[0] == 405
    assert ask(settings, "/v1/files/", method="GET")[0] == 404  # no redirect


def test_pages_of_other_origins_are_refused(settings):
    body = {"model": "all-MiniLM-L6-v2", "input": "a"}
    foreign = ask(settings, "/v1/embeddings", body, headers={"Origin": "https://evil.example"})
    rebound = ask(settings, "/v1/embeddings", body, headers={"Host": "evil.example"})
    assert (foreign[0], rebound[0]) == (403, 403)
    assert "server.metrics_host" in json.loads(rebound[2])["error"]["message"]
    for path in ("/v1/embeddings", "/v1/files"):
        status, _, answer = ask(settings, path, body, headers={"Origin": "http://["})
        assert (status, json.loads(answer)["error"]["code"]) == (403, "foreign_origin")
    allowed = {**settings, "server.cors_origins": ["https://search.example"]}
    assert ask(allowed, "/v1/embeddings", body, headers={"Origin": "https://search.example"})[0] == 200


def test_health_and_metrics(settings):
    assert ask(settings, "/health/live")[0] == 200
    status, _, answer = ask(settings, "/health/ready")
    assert (status, json.loads(answer)) == (200, {"status": "ready"})
    status, headers, answer = ask(settings, "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain")


def test_a_model_without_weights_is_not_ready(tmp_path, caplog):
    settings = {"weights.directory": str(tmp_path), "weights.offline": True}
    status, _, answer = ask(settings, "/health/ready")
    assert (status, json.loads(answer)["status"]) == (503, "not ready")
    (line,) = (record.getMessage() for record in caplog.records if "not ready" in record.getMessage())
    assert "are not available" in line


def test_a_client_that_leaves_ends_its_call(settings, monkeypatch):
    """The call is cancelled, and the gateway answers the next one."""

    async def main():
        async with gateway_at(**settings) as (url, gateway), aiohttp.ClientSession() as session:
            started, ended = asyncio.Event(), asyncio.Event()

            async def embed(caller, call):
                started.set()
                try:
                    await asyncio.sleep(600)
                finally:
                    ended.set()

            monkeypatch.setattr(gateway, "embed", embed)
            asking = asyncio.create_task(session.post(f"{url}/v1/embeddings", json={"model": "m", "input": "a"}))
            await started.wait()
            asking.cancel()
            await asyncio.wait_for(ended.wait(), 30)
            monkeypatch.undo()
            async with session.get(f"{url}/health/live") as answer:
                return answer.status

    assert asyncio.run(main()) == 200


def test_an_allowed_page_may_read_the_answer(settings):
    allowed = {**settings, "server.cors_origins": ["https://search.example"]}
    origin = {"Origin": "https://search.example"}
    asked = {**origin, "Access-Control-Request-Headers": "authorization,x-stainless-lang"}
    status, headers, _ = ask(allowed, "/v1/embeddings", headers=asked, method="OPTIONS")
    assert (status, headers["access-control-allow-origin"]) == (204, "https://search.example")
    assert headers["access-control-allow-headers"] == "authorization,x-stainless-lang"
    for path in ("/v1/files", "/v1/files/file-unknown"):
        _, headers, _ = ask(allowed, path, headers=origin)
        assert headers["access-control-allow-origin"] == "https://search.example"
    _, headers, _ = ask(allowed, "/health/live", headers=origin)
    assert "x-embedway-space" in headers["access-control-expose-headers"]
    _, headers, _ = ask(allowed, "/v1/embeddings", headers={"Origin": "https://evil.example"}, method="OPTIONS")
    assert "access-control-allow-origin" not in headers


def test_an_allowed_page_may_use_files_and_batches(settings, tmp_path):
    allowed = {
        **settings,
        "server.cors_origins": ["https://search.example"],
        "server.state_directory": str(tmp_path),
    }
    origin = {"Origin": "https://search.example"}
    status, headers, _ = ask(allowed, "/v1/files", headers=origin)
    assert (status, headers["access-control-allow-origin"]) == (200, "https://search.example")
    _, headers, _ = ask(allowed, "/v1/files", headers=origin, method="OPTIONS")
    assert headers["access-control-allow-methods"] == "GET, POST, DELETE"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/filesystem", 404), ("GET", "/v1/batches/a/b/c", 404), ("PATCH", "/v1/files/a", 405)],
)
def test_unknown_addresses_and_methods_of_files_and_batches(settings, tmp_path, method, path, status):
    """The answer has the form of the other addresses."""
    here = {**settings, "server.state_directory": str(tmp_path)}
    found, headers, answer = ask(here, path, method=method)
    assert (found, headers["content-type"]) == (status, "application/json")
    assert json.loads(answer)["error"]["type"] == "invalid_request_error"
    if status == 405:
        assert set(headers["allow"].split(", ")) == {"GET", "DELETE", "HEAD"}


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/files"])
def test_a_refused_request_is_logged_with_its_code(settings, tmp_path, caplog, path):
    here = {**settings, "server.state_directory": str(tmp_path), "server.access_log": True}
    with caplog.at_level(logging.INFO, "embedway.access"):
        status, headers, _ = ask(here, path, method="GET", headers={"Origin": "https://evil.example"})
    (line,) = [record.getMessage() for record in caplog.records if record.name == "embedway.access"]
    code = "method_not_allowed" if path == "/v1/embeddings" else "foreign_origin"
    assert f" {status} in " in line
    assert f"code {code}, " in line
    assert headers["x-embedway-request-id"] in line


@pytest.mark.parametrize(
    ("limit", "code"),
    [({"server.max_inputs": 1}, "too_many_inputs"), ({"server.max_tokens": 1}, "too_many_tokens")],
)
def test_a_request_over_a_limit_of_the_settings_is_refused(settings, limit, code):
    body = {"model": "all-MiniLM-L6-v2", "input": ["some words", "other words"]}
    status, _, answer = ask({**settings, **limit}, "/v1/embeddings", body)
    assert (status, json.loads(answer)["error"]["code"]) == (400, code)


def test_a_deadline_over_the_maximum_is_refused(settings):
    body = {"model": "all-MiniLM-L6-v2", "input": "a", "deadline": 8}
    limits = {"server.deadline_s": 5.0, "server.max_deadline_s": 7.0}
    status, _, answer = ask({**settings, **limits}, "/v1/embeddings", body)
    assert (status, json.loads(answer)["error"]["param"]) == (400, "deadline")
