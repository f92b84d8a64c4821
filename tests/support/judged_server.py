"""A small server with OpenAI's embeddings API, and one of many known faults."""

import asyncio
import base64
import hashlib
import itertools
import json

import numpy as np
import orjson
from aiohttp import web

from embedway.conformance.texts import CL100K_IDS, CL100K_TEXT

MODEL, WIDTH, MOST, MAX_TOKENS = "judged-model", 16, 3000, 128
KEY = "sk-key-of-the-judged-server"


class Refused(Exception):  # noqa: N818  not an error of the tests
    """A refused request, with its status and its body."""

    def __init__(self, status, message, code="invalid", headers=None):
        super().__init__(message)
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
        self.status, self.body, self.headers = status, {"error": error}, headers


class JudgedServer:
    """The server. `tokenizer` counts and truncates; a vector depends on all tokens of its text, and nothing else.

    `faults` are names; each test that sets one says what it does.
    """

    def __init__(self, tokenizer, *faults, key=None):
        self.tokenizer = tokenizer
        self.faults = set(faults)
        self.key = key
        self.requests = 0
        self._waiting = []
        self._left = False
        self._reported = itertools.count()

    def app(self):
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/embeddings", self.guarded(self.embeddings))
        app.router.add_post("/v1/rerank", self.guarded(self.rerank))
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/openapi.json", self.openapi)
        return app

    def has(self, fault):
        return fault in self.faults

    def guarded(self, handle):
        async def answer(request):
            self.requests += 1
            try:
                response = await handle(request, self.read(request, await request.read()))
            except Refused as refused:
                body = {"detail": [{"msg": "bad"}]} if self.has("fastapi errors") else refused.body
                status = 500 if self.has("500 on invalid requests") else refused.status
                response = self.json(body, status=status, headers=refused.headers)
            if self.has("closes connections"):
                response.force_close()
            return response

        return answer

    def read(self, request, data):
        if self.has("busy once") and self.requests == 3:
            raise Refused(429, "busy", headers={"Retry-After": "0"})
        if self.has("busy without a wait") and self.requests == 3:
            raise Refused(429, "busy")
        given = request.headers.get("Authorization")
        if self.key is not None and given != f"Bearer {self.key}":
            raise Refused(403 if self.has("forbidden") else 500 if self.has("500 without a key") else 401, "key")
        if self.has("401 for any key") and given is not None:
            raise Refused(401, "key")
        try:
            body = orjson.loads(data)
        except orjson.JSONDecodeError:
            if self.has("drops odd input"):
                request.transport.abort()
            if self.has("500 on odd input"):
                raise Refused(500, "odd") from None
            raise Refused(400, "invalid JSON") from None
        if not isinstance(body, dict):
            raise Refused(400, "no object")
        return body

    # -- embeddings ---------------------------------------------------------------------------------------------

    async def embeddings(self, request, body):
        model = body.get("model")
        if model != MODEL and not (isinstance(model, str) and self.has("any model")):
            raise Refused(404, "no such model", "model_not_found")
        inputs = self.inputs_of(body)
        ids = [self.tokens_of(one) for one in inputs]
        await self.work(request, inputs)
        rows = [self.vector(row, body, inputs, ids) for row in range(len(ids))]
        rows = await self.mixed_up(rows, inputs)
        return self.answer(body, rows, inputs, ids)

    def inputs_of(self, body):
        given = body.get("input")
        if isinstance(given, list) and given and all(type(one) is int for one in given):
            given = [given]
        texts = [given] if isinstance(given, str) else given
        if texts == [] and self.has("answers empty batches"):
            return []
        if not isinstance(texts, list) or not texts:
            raise Refused(400, "input")
        if len(texts) > (1000 if self.has("500 on huge batches") else MOST):
            raise Refused(500 if self.has("500 on huge batches") else 413, "too many")
        for one in texts:
            is_ids = isinstance(one, list) and one and all(type(n) is int and n >= 0 for n in one)
            if not (isinstance(one, str) or is_ids):
                raise Refused(400, "input")
            if one == "" and not self.has("embeds empty texts"):
                raise Refused(400, "empty")
        return texts

    def tokens_of(self, one):
        if isinstance(one, str):
            if len(one) > 100_000 and self.has("500 on long words"):
                raise Refused(500, "long")
            ids = self.tokenizer.encode(one[:50_000] if len(one.split()) == 1 else one).ids
            limit = 64 if self.has("half of the limit") else MAX_TOKENS
            if len(ids) > limit and not self.faults & {"truncates", "half of the limit", "tells of truncation"}:
                raise Refused(400, f"{len(ids)} tokens")
            return ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]]
        if self.has("token ids as text"):
            return self.tokenizer.encode(str(one)).ids
        if self.has("no token ids"):
            raise Refused(400, "token ids are not supported")
        if tuple(one) == CL100K_IDS and not self.has("any token ids"):
            if self.has("500 on unknown token ids"):
                raise Refused(500, "index out of range")
            return self.tokenizer.encode(CL100K_TEXT).ids
        special = self.tokenizer.encode("").ids
        return [special[0], *one, special[1]]

    async def work(self, request, inputs):
        """Compute for ever for a request whose client has left, with that fault."""
        if self.has("computes for clients that left"):
            if len(inputs) == 64 and self._waiting:
                self._left = True
                await asyncio.Event().wait()
            if len(inputs) == 64:
                self._waiting.append(inputs)
            if self._left:
                await asyncio.Event().wait()

    def vector(self, row, body, inputs, ids):
        key = repr((self.prompt(body), ids[row]))
        vector = vector_of("" if self.has("one vector for all") else key)
        if self.has("depends on the batch") and len(ids) > 1:
            vector = unit(vector + 0.3 * vector_of(repr(len(ids))))
        if self.has("random"):
            vector = unit(vector + 0.3 * vector_of(repr(next(self._reported))))
        return self.shortened(self.spoiled(vector, inputs[row], len(ids)), body)

    def prompt(self, body):
        kind = body.get("input_type")
        if kind is None or self.has("ignores input_type"):
            return ""
        if kind not in {"query", "document"}:
            raise Refused(400, "input_type")
        return "query: " if kind == "query" and self.has("prompts") else ""

    def spoiled(self, vector, text, count):
        if self.has("null rows") and text in (" ", "."):
            return None
        if self.has("NaN") and text == "a":
            return np.full(WIDTH, np.nan)
        if self.has("zeros") and text == "🦊":
            return np.zeros(WIDTH)
        if self.has("lengths differ") and count > 1:
            return vector * 3
        return vector[:-1] if self.has("widths differ") and count == 8 else vector

    def shortened(self, vector, body):
        wanted = body.get("dimensions")
        if vector is None or wanted is None or self.has("ignores dimensions"):
            return vector
        if self.has("no dimensions") or type(wanted) is not int or not 0 < wanted <= WIDTH:
            raise Refused(400, "dimensions")
        return vector[:wanted] if self.has("not normalized") else unit(vector[:wanted])

    async def mixed_up(self, rows, inputs):
        if self.has("wrong order") and len(rows) > 5:
            return rows[::-1]
        if self.has("late rows move up") and len(rows) > 100:
            return [*rows[:32], *rows[33:], rows[32]]
        if self.has("loses duplicates"):
            unique = {repr(text): row for text, row in zip(inputs, rows, strict=True)}
            return list(unique.values())
        if self.has("swaps rows of concurrent requests") and 1 < len(rows) < 4:
            self._waiting.append(rows)
            for _ in range(5):
                await asyncio.sleep(0)
            other, self._waiting = self._waiting[-1], self._waiting[-1:]
            return other if len(other) == len(rows) else rows
        return rows

    def answer(self, body, rows, inputs, ids):
        encoding = body.get("encoding_format", "float")
        if encoding not in {"float", "base64"} and not self.has("ignores encodings"):
            raise Refused(400, "encoding_format")
        as_text = encoding == "base64" and not self.has("ignores base64")
        data = [
            {"object": "embedding", "index": number, "embedding": None if row is None else self.written(row, as_text)}
            for number, row in enumerate(rows)
        ]
        if self.has("unsorted") and len(data) > 5:
            data.reverse()
        if self.has("no index"):
            data = [{**row, "index": None} for row in data]
        tokens = self.reported(inputs, ids)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        answer = {"object": "list", "data": data, "model": MODEL, "usage": usage}
        if self.has("no object"):
            del answer["object"]
        if self.has("no usage"):
            del answer["usage"]
        headers = (
            {"X-Server-Truncated": "true"}
            if self.has("tells of truncation") and max(map(len, ids)) >= MAX_TOKENS
            else {}
        )
        return self.json(answer, headers=headers)

    def written(self, row, as_text):
        if not as_text:
            return [float(number) for number in row]
        kind = "<f8" if self.has("float64 in base64") else ">f4" if self.has("big-endian base64") else "<f4"
        return base64.b64encode(np.asarray(row, kind).tobytes()).decode()

    def reported(self, inputs, ids):
        if self.has("usage of 0"):
            return 0
        if self.has("counts words"):
            return sum(len(str(one).split()) for one in inputs)
        if self.has("counts characters"):
            return sum(len(str(one)) for one in inputs)
        if self.has("counts padding"):
            return len(ids) * max(map(len, ids), default=0)
        return sum(map(len, ids))

    # -- the other paths ----------------------------------------------------------------------------------------

    async def rerank(self, request, body):
        if self.has("no rerank"):
            raise Refused(404, "no such path")
        scores = {n: 1 / (2 + n) for n in range(len(body["documents"]))} | {2: 0.9}
        order = sorted(scores, key=scores.get, reverse=not self.has("worst first"))
        wanted = len(order) if self.has("ignores top_n") else body.get("top_n", len(order))
        results = [{"index": n, "relevance_score": scores[n]} for n in order[:wanted]]
        if self.has("positions as index"):
            results = [{**row, "index": n} for n, row in enumerate(results)]
        return self.json({"results": results})

    async def models(self, request):
        if self.has("no list"):
            return self.json({"error": {"message": "no"}}, status=404)
        names = ["other", "judged-model", "third"] if self.has("several models") else [MODEL]
        names = [f"{name}\x1b[31m" for name in names] if self.has("control characters") else names
        return self.json({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})

    async def openapi(self, request):
        fields = {} if self.has("no input_type") else {"input_type": {"type": "string"}}
        request = {"$ref": "#/components/schemas/Request"}
        content = {"application/json": {"schema": request}}
        paths = {"/v1/embeddings": {"post": {"requestBody": {"content": content}, "responses": {}}}}
        return self.json({"paths": paths, "components": {"schemas": {"Request": {"properties": fields}}}})

    def json(self, value, *, status=200, headers=None):
        kind = "text/plain" if self.has("plain text") else "application/json"
        text = json.dumps(value, allow_nan=True)
        return web.Response(text=text, status=status, headers=headers, content_type=kind)


def unit(vector):
    return vector / np.linalg.norm(vector)


def vector_of(key):
    """Return a vector of length 1 for a key."""
    seed = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return unit(np.random.default_rng(int.from_bytes(seed, "little")).standard_normal(WIDTH).astype(np.float32))
