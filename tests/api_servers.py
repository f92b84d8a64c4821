"""Loopback servers that speak the providers' APIs strictly, and misbehave on request."""

import asyncio
import base64
import contextlib
import json

import numpy as np
from aiohttp import web

from embedway.providers.fake import vector_of

KEY = "sk-secret-of-the-test"


class Server:
    """What every server has: the bodies it was sent, and what to do to the next answers.

    `misdeeds` are taken from the front, one for each request; each is a name of `WIRE` (what happens to the bytes),
    or a function from the good answer's body to another.
    """

    path = "/"
    width = 16

    def __init__(self):
        self.bodies = []
        self.headers = []
        self.queries = []
        self.misdeeds = []
        self.url = ""

    async def handle(self, request):
        self.headers.append(request.headers)
        self.queries.append(request.query_string)
        body = await request.json()
        self.bodies.append(body)
        refusal = self.refusal(request, body)
        if refusal is not None:
            return refusal
        misdeed = self.misdeeds.pop(0) if self.misdeeds else None
        if isinstance(misdeed, str):
            return await WIRE[misdeed](request, self.answer(body))
        answer = self.answer(body)
        return web.json_response(misdeed(answer) if misdeed else answer, dumps=dumps, headers=self.rate_headers())

    def refusal(self, request, body):
        """The API's own error for a request that it would not take, or None."""
        raise NotImplementedError

    def answer(self, body):
        """The API's good answer."""
        raise NotImplementedError

    def rate_headers(self):
        return {}

    @contextlib.asynccontextmanager
    async def running(self):
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_post(self.path, self.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield self
        finally:
            await runner.cleanup()


def dumps(value):
    """JSON as careless servers write it, NaN and all."""
    return json.dumps(value, allow_nan=True)


def error(status, code, message="", **headers):
    return web.json_response(
        {"error": {"message": message, "type": code, "code": code}}, status=status, headers=headers
    )


async def reset(request, answer):
    """Half of the body, then the connection is cut."""
    text = dumps(answer).encode()
    response = web.StreamResponse(headers={"Content-Length": str(len(text)), "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(text[: len(text) // 2])
    request.transport.abort()
    return response


async def slow(request, answer):
    """The first byte, then nothing."""
    response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b"{")
    await asyncio.sleep(3600)
    return response


async def hang_up(request, answer):
    request.transport.abort()
    return web.Response()


def status(code, name="server_error", **headers):
    async def answered(request, answer):
        # An upstream may repeat what it was sent; nothing of that may reach a log.
        return error(code, name, message=f"you sent {request.headers.get('authorization')}", **headers)

    return answered


async def html(request, answer):
    return web.Response(text="<html><body>Welcome</body></html>", content_type="text/html")


async def html_error(request, answer):
    return web.Response(text="<html>502 Bad Gateway</html>", content_type="text/html", status=502)


async def elsewhere(request, answer):
    return web.Response(status=307, headers={"Location": "https://elsewhere.invalid/"})


async def half_json(request, answer):
    return web.Response(text=dumps(answer)[:-20], content_type="application/json")


WIRE = {
    "reset": reset,
    "slow": slow,
    "hang up": hang_up,
    "html": html,
    "html error": html_error,
    "redirect": elsewhere,
    "half json": half_json,
    "400": status(400, "invalid_request_error"),
    "401": status(401, "invalid_api_key"),
    "403": status(403, "forbidden"),
    "404": status(404, "model_not_found"),
    "408": status(408, "timeout"),
    "409": status(409, "conflict"),
    "413": status(413, "too_large"),
    "429": status(429, "rate_limit_exceeded"),
    "429 later": status(429, "rate_limit_exceeded", **{"Retry-After": "17"}),
    "429 quota": status(429, "insufficient_quota"),
    "500": status(500),
    "503": status(503, **{"Retry-After": "4"}),
}


class OpenAIServer(Server):
    """`POST /v1/embeddings` as the API reference has it."""

    path = "/v1/embeddings"
    max_inputs = 2048
    models = frozenset({"text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002"})

    def refusal(self, request, body):
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return error(401, "invalid_api_key")
        unknown = set(body) - {"input", "model", "encoding_format", "dimensions", "user"}
        texts = body.get("input")
        rules = [
            (not unknown, f"unrecognized arguments: {sorted(unknown)}"),
            (isinstance(texts, list) and 0 < len(texts) <= self.max_inputs, "input: wrong number of texts"),
            (isinstance(texts, list) and all(isinstance(text, str) and text for text in texts), "input: empty"),
            (
                body.get("model") in {"text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002"},
                "model",
            ),
            (body.get("encoding_format", "float") in {"float", "base64"}, "encoding_format"),
            ("dimensions" not in body or body["model"] != "text-embedding-ada-002", "dimensions not supported"),
            (type(body.get("dimensions", 1)) is int, "dimensions"),
        ]
        broken = next((message for kept, message in rules if not kept), None)
        return error(400, "invalid_request_error", broken) if broken else None

    def answer(self, body):
        rows = []
        for index, text in enumerate(body["input"]):
            vector = vector_of(text, self.width)[: body.get("dimensions", self.width)]
            vector = (vector / np.linalg.norm(vector)).astype("<f4")
            base64_asked = body.get("encoding_format") == "base64"
            written = base64.b64encode(vector.tobytes()).decode() if base64_asked else vector.tolist()
            rows.append({"object": "embedding", "index": index, "embedding": written})
        tokens = sum(len(text.split()) for text in body["input"])
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": rows, "model": body["model"], "usage": usage}

    def rows(self, answer):
        return answer["data"]

    def with_rows(self, answer, rows):
        return {**answer, "data": rows}

    def rate_headers(self):
        return {
            "x-ratelimit-limit-requests": "3000",
            "x-ratelimit-remaining-requests": "2999",
            "x-ratelimit-reset-requests": "20ms",
            "x-ratelimit-limit-tokens": "1000000",
            "x-ratelimit-remaining-tokens": "999000",
            "x-ratelimit-reset-tokens": "1m0.06s",
        }


class AzureServer(OpenAIServer):
    """OpenAI's interface with a key of its own; the model is a deployment."""

    def refusal(self, request, body):
        if request.headers.get("api-key") != KEY:
            return error(401, "401")
        return error(400, "DeploymentNotFound") if body.get("model") != "my-deployment" else None


class ListedServer(Server):
    """What the APIs below have in common: fields that are known, and their values."""

    header, scheme = "authorization", f"Bearer {KEY}"
    most = 1

    def fields(self):
        """Name of each field to a check of its value; a name that ends in ? may be left out."""
        raise NotImplementedError

    def bad(self, status, message):
        return error(status, "bad_request", message)

    def refusal(self, request, body):
        if request.headers.get(self.header) != self.scheme:
            return self.bad(401, "invalid key")
        known = self.fields()
        unknown = set(body) - {name.rstrip("?") for name in known}
        if unknown:
            return self.bad(400, f"unknown: {unknown}")
        for name, check in known.items():
            value = body.get(name.rstrip("?"))
            if value is None and name.endswith("?"):
                continue
            if not check(value):
                return self.bad(400, name)
        return None

    def texts(self, value):
        return isinstance(value, list) and 0 < len(value) <= self.most and all(isinstance(t, str) and t for t in value)

    def vectors(self, texts, width, *, unit=True):
        made = [vector_of(text, self.width)[: width or self.width] for text in texts]
        return [vector / np.linalg.norm(vector) if unit else vector * 3 for vector in made]


def one_of(*values):
    return lambda value: value in values


def positive(value):
    return type(value) is int and value > 0


def as_base64(vector):
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


class CohereServer(ListedServer):
    path = "/v2/embed"
    most = 96

    def bad(self, status, message):
        return web.json_response({"message": message, "id": "x"}, status=status)

    def fields(self):
        return {
            "model": one_of("embed-v4.0"),
            "texts": self.texts,
            "input_type": one_of("search_query", "search_document"),
            "embedding_types": one_of(["float"]),
            "truncate": one_of("NONE"),
            "output_dimension?": one_of(8, 16),
        }

    def answer(self, body):
        # Asked for narrow, it answers vectors that are not of length 1.
        narrow = body.get("output_dimension")
        rows = [vector.tolist() for vector in self.vectors(body["texts"], narrow, unit=narrow is None)]
        tokens = float(sum(len(text.split()) for text in body["texts"]))
        meta = {"api_version": {"version": "2"}, "billed_units": {"input_tokens": tokens}}
        return {"id": "x", "response_type": "embeddings_by_type", "embeddings": {"float": rows}, "meta": meta}

    def rows(self, answer):
        return answer["embeddings"]["float"]

    def with_rows(self, answer, rows):
        return {**answer, "embeddings": {"float": rows}}


class IndexedServer(ListedServer):
    """An answer in OpenAI's shape."""

    def rows(self, answer):
        return answer["data"]

    def with_rows(self, answer, rows):
        return {**answer, "data": rows}

    def listed(self, texts, vectors, **usage):
        rows = [{"object": "embedding", "index": n, "embedding": as_base64(v)} for n, v in enumerate(vectors)]
        usage = {"total_tokens": sum(len(text.split()) for text in texts), **usage}
        return {"object": "list", "data": rows, "model": "m", "usage": usage}


class VoyageServer(IndexedServer):
    path = "/v1/embeddings"
    most = 1000

    def bad(self, status, message):
        return web.json_response({"detail": message}, status=status)

    def fields(self):
        return {
            "model": one_of("voyage-4"),
            "input": self.texts,
            "input_type": one_of("query", "document"),
            "truncation": one_of(False),
            "encoding_format": one_of("base64"),
            "output_dimension?": one_of(8, 16),
        }

    def answer(self, body):
        return self.listed(body["input"], self.vectors(body["input"], body.get("output_dimension")))


class JinaServer(IndexedServer):
    path = "/v1/embeddings"
    most = 512

    def bad(self, status, message):
        return web.json_response({"detail": message, "code": "INPUT_INVALID"}, status=status)

    def fields(self):
        return {
            "model": one_of("jina-embeddings-v3"),
            "input": self.texts,
            "task": one_of("retrieval.query", "retrieval.passage"),
            "embedding_type": one_of("base64"),
            "truncate": one_of(False),
            "dimensions?": positive,
        }

    def answer(self, body):
        return self.listed(body["input"], self.vectors(body["input"], body.get("dimensions"), unit=False))


class MistralServer(IndexedServer):
    path = "/v1/embeddings"
    most = 256

    def bad(self, status, message):
        return web.json_response({"object": "error", "message": message, "type": "invalid_request"}, status=status)

    def fields(self):
        return {
            "model": one_of("codestral-embed"),
            "input": self.texts,
            "encoding_format": one_of("base64"),
            "output_dimension?": positive,
        }

    def answer(self, body):
        narrow = body.get("output_dimension")
        return self.listed(body["input"], self.vectors(body["input"], narrow, unit=narrow is None))


class GeminiServer(ListedServer):
    path = "/v1beta/models/gemini-embedding-001:batchEmbedContents"
    header, scheme = "x-goog-api-key", KEY
    most = 100

    def bad(self, status, message):
        details = []
        if status == 401:  # it answers 400 for a wrong key, and says so in the details
            status, details = 400, [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
        body = {"error": {"code": status, "message": message, "status": "INVALID_ARGUMENT", "details": details}}
        return web.json_response(body, status=status)

    def fields(self):
        return {"requests": lambda value: 0 < len(value) <= self.most and all(map(self.is_request, value))}

    def is_request(self, value):
        return (
            set(value) <= {"model", "content", "taskType", "outputDimensionality"}
            and value["model"] == "models/gemini-embedding-001"
            and value["taskType"] in {"RETRIEVAL_QUERY", "RETRIEVAL_DOCUMENT"}
            and len(value["content"]["parts"]) == 1
            and bool(value["content"]["parts"][0]["text"])
        )

    def answer(self, body):
        texts = [request["content"]["parts"][0]["text"] for request in body["requests"]]
        narrow = body["requests"][0].get("outputDimensionality")
        rows = [{"values": vector.tolist()} for vector in self.vectors(texts, narrow, unit=narrow is None)]
        return {"embeddings": rows, "usageMetadata": {"promptTokenCount": sum(len(t.split()) for t in texts)}}

    def rows(self, answer):
        return answer["embeddings"]

    def with_rows(self, answer, rows):
        return {**answer, "embeddings": rows}


def score_of(query, document):
    """How well a document answers, by the hash of both; between 0 and 1."""
    return round(float(vector_of(f"{query}\n{document}", 4)[0]) / 2 + 0.5, 6)


class RerankServer(ListedServer):
    """What rerank APIs have in common: results by index, the best first."""

    most = 1000
    model = "rerank-v3.5"
    list_name, documents, score = "results", "documents", "relevance_score"

    def fields(self):
        return {"model": one_of(self.model), "query": bool, self.documents: self.texts, **self.more_fields()}

    def more_fields(self):
        return {}

    def answer(self, body):
        query, documents = body["query"], body[self.documents]
        results = [{"index": n, self.score: score_of(query, text)} for n, text in enumerate(documents)]
        results.sort(key=lambda result: -result[self.score])
        return self.framed(results, sum(len(text.split()) for text in documents))

    def framed(self, results, tokens):
        return {"object": "list", "model": self.model, self.list_name: results, "usage": {"total_tokens": tokens}}

    def rows(self, answer):
        return answer[self.list_name]

    def with_rows(self, answer, rows):
        return {**answer, self.list_name: rows}


class CohereRerankServer(RerankServer):
    path = "/v2/rerank"

    def more_fields(self):
        return {"max_tokens_per_doc?": positive}

    def framed(self, results, tokens):
        meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}
        return {"id": "x", "results": results, "meta": meta}


class VoyageRerankServer(RerankServer):
    path = "/v1/rerank"
    model = "rerank-2.5"
    list_name = "data"

    def more_fields(self):
        return {"truncation": one_of(False)}


class JinaRerankServer(RerankServer):
    path = "/v1/rerank"
    model = "jina-reranker-v2-base-multilingual"
    most = 512

    def more_fields(self):
        return {"return_documents": one_of(False)}


class CompatibleRerankServer(RerankServer):
    """vLLM's and Infinity's."""

    path = "/v1/rerank"
    most = 32


class TeiRerankServer(RerankServer):
    path = "/v1/rerank"
    most = 32
    documents, score = "texts", "score"

    def fields(self):
        return {"query": bool, "texts": self.texts, "truncate": one_of(False)}

    def framed(self, results, tokens):
        return results

    def rows(self, answer):
        return answer

    def with_rows(self, answer, rows):
        return rows
