"""A loopback server in OpenAI's format whose vectors have faults that no status shows."""

import asyncio
import base64
import contextlib
import functools

import numpy as np
import orjson
from aiohttp import web

from embedway.providers.fake import vector_of
from serving import serving_app

WIDTH = 64


def constant(_number, texts, right, _vectors):
    """One vector for all texts."""
    return np.repeat(right(["one"]), len(texts), axis=0)


def constant_after(served):
    """One vector for all texts after so many texts."""

    def fault(number, texts, right, vectors):
        return constant(number, texts, right, vectors) if number >= served else vectors

    return fault


def jittering(number, texts, right, vectors):
    """One vector with numeric noise."""
    noise = np.random.default_rng(number).standard_normal(vectors.shape) * 1e-5
    return constant(number, texts, right, vectors) + noise.astype(np.float32)


def int8(_number, _texts, _right, vectors):
    """Vectors of 8-bit integers, of length 1 again."""
    return _unit(np.round(vectors / np.abs(vectors).max(axis=1, keepdims=True) * 127))


def float16(_number, _texts, _right, vectors):
    """Vectors of half precision."""
    return vectors.astype(np.float16).astype(np.float32)


def other_model_after(served):
    """Vectors of another model after so many texts: the same distances in another space."""

    def fault(number, _texts, _right, vectors):
        return _rotated(vectors) if number >= served else vectors

    return fault


def drifting(number, texts, right, vectors):
    """Vectors that move slowly to those of another model."""
    return drifted(min(1.0, number / 10_000))(number, texts, right, vectors)


def drifted(share):
    """Vectors that moved by a share of the way to those of another model."""
    return lambda _number, _texts, _right, vectors: _unit((1 - share) * vectors + share * _rotated(vectors))


def prompted(_number, texts, right, _vectors):
    """Vectors with another prompt."""
    return right([f"query: {text}" for text in texts])


def permuted(_number, _texts, _right, vectors):
    """Each text has the vector of the one before."""
    return np.roll(vectors, 1, axis=0)


def zero_row(_number, _texts, _right, vectors):
    """A vector of zeros in the last row."""
    return np.concatenate([vectors[:-1], np.zeros_like(vectors[-1:])])


def nan_row(_number, _texts, _right, vectors):
    """A vector that is not finite in the last row."""
    return np.concatenate([vectors[:-1], np.full_like(vectors[-1:], np.nan)])


def truncating(words):
    """Vectors of the first words of each text only."""

    def fault(_number, texts, right, _vectors):
        return right([" ".join(text.split()[:words]) for text in texts])

    return fault


def _rotated(vectors):
    return np.asarray(vectors, np.float32) @ _rotation(np.shape(vectors)[1])


@functools.cache
def _rotation(width):
    turn, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((width, width)))
    return turn.astype(np.float32)


def _unit(vectors):
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def hash_made(texts):
    """Return vectors made from a hash of each text, float32 (n, WIDTH)."""
    return np.stack([vector_of(text, WIDTH) for text in texts])


class FaultyModel:
    """The server's texts and requests so far. `fault` may be replaced while it runs; None for right vectors.

    A fault is a function of the texts served before, the texts, the right function, and the right vectors.
    """

    def __init__(self, fault=None, right=hash_made):
        self.fault = fault
        self.right = right
        self.served = 0
        self.requests = []

    def vectors_of(self, texts):
        """Return the vectors of an answer."""
        vectors = self.right(texts)
        found = vectors if self.fault is None else self.fault(self.served, texts, self.right, vectors)
        self.served += len(texts)
        return np.asarray(found, "<f4")

    async def answer(self, request):
        """Answer one request."""
        texts = orjson.loads(await request.read())["input"]
        self.requests.append(texts)
        await asyncio.sleep(0)
        rows = [
            {"object": "embedding", "index": row, "embedding": base64.b64encode(vector.tobytes()).decode()}
            for row, vector in enumerate(self.vectors_of(texts))
        ]
        return web.json_response({"object": "list", "data": rows, "model": "m", "usage": {"prompt_tokens": len(texts)}})

    @contextlib.asynccontextmanager
    async def running(self):
        """Run the server, and yield its URL."""
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/embeddings", self.answer)
        async with serving_app(app) as port:
            yield f"http://127.0.0.1:{port}/v1"


#: Faults by name.
FAULTS = {
    "one vector for all texts": constant,
    "one vector after 500 texts": constant_after(500),
    "one vector with noise": jittering,
    "8-bit integers": int8,
    "half precision": float16,
    "another model after 500 texts": other_model_after(500),
    "another prompt": prompted,
    "slow drift": drifting,
    "rows in another order": permuted,
    "a row of zeros": zero_row,
    "a row that is not finite": nan_row,
    "only 16 words are read": truncating(16),
}


def settings_of(url, *, width=WIDTH, **more):
    """Return overrides of the settings for a model `faulty` at a URL, with vectors of `width` numbers."""
    return {
        "models.faulty": {"name": "faulty", "dimensions": width, "max_tokens": 512, "tokenizer": "estimate"},
        "routes.faulty": {"model": "faulty", "provider": "openai", "base_url": url, "api_key": "sk-none"},
        "embedding.default_model": "faulty",
        "upstream.first_wait_s": 0.01,
        **more,
    }
