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
        self.misdeeds = []
        self.url = ""

    async def handle(self, request):
        self.headers.append(request.headers)
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

    def refusal(self, request, body):
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return error(401, "invalid_api_key")
        unknown = set(body) - {"input", "model", "encoding_format", "dimensions", "user"}
        texts = body.get("input")
        rules = [
            (not unknown, f"unrecognized arguments: {sorted(unknown)}"),
            (isinstance(texts, list) and 0 < len(texts) <= self.max_inputs, "input: wrong number of texts"),
            (isinstance(texts, list) and all(isinstance(text, str) and text for text in texts), "input: empty"),
            (body.get("model") in {"text-embedding-3-small", "text-embedding-ada-002"}, "model"),
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

    def rate_headers(self):
        return {
            "x-ratelimit-limit-requests": "3000",
            "x-ratelimit-remaining-requests": "2999",
            "x-ratelimit-reset-requests": "20ms",
            "x-ratelimit-limit-tokens": "1000000",
            "x-ratelimit-remaining-tokens": "999000",
            "x-ratelimit-reset-tokens": "1m0.06s",
        }
