"""Services that fail on demand, a client with simulated time, and a check of its results."""

import asyncio
import collections
import dataclasses
import functools

import numpy as np

from embedway.dispatch.circuit_breaker import CircuitBreaker
from embedway.dispatch.rate_limiter import RateLimiter
from embedway.dispatch.recovery import UpstreamClient
from embedway.dispatch.request import RetryPolicy, ServiceRoute, UpstreamRequest
from embedway.errors import RateLimitedError, RefusedInputError, UnavailableError
from embedway.providers.fake import Fake, vector_of
from embedway.types import Space

WIDTH = 16

SPACE = Space(model="fake", weights="f" * 64, dimensions=WIDTH, pooling="mean", normalized=True)


class Time:
    def __init__(self):
        self.now = 0.0
        self.slept = []

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


class FakeUpstream:
    """Client with simulated time, and routes to fakes."""

    def __init__(self, *fakes, failures=10_000, **policy):
        self.time = Time()
        self.client = UpstreamClient(RetryPolicy(**policy), clock=self.time, sleep=self.time.sleep, chance=lambda: 0.0)
        self.fakes = fakes
        self.failures = failures

    def routes(self):
        return [
            ServiceRoute(
                f"fake-{number}",
                fake,
                limiter=RateLimiter(clock=self.time, sleep=self.time.sleep),
                circuit=CircuitBreaker(failures=self.failures, clock=self.time),
            )
            for number, fake in enumerate(self.fakes)
        ]

    def send(self, texts, **more):
        lengths = np.array([len(text.split()) for text in texts], np.int32)
        request = UpstreamRequest(texts, lengths, "document", SPACE, WIDTH)
        request = dataclasses.replace(request, **more)

        async def main():
            return await self.client.send(request, self.routes())

        return asyncio.run(main())


def texts_of(count):
    return [f"text number {number}" for number in range(count)]


def assert_right(response, texts, width=WIDTH):
    for row, text in enumerate(texts):
        if row in response.errors:
            assert np.isnan(response.vectors[row]).all()
        else:
            full = vector_of(text, WIDTH)[:width]
            np.testing.assert_allclose(response.vectors[row], full / np.linalg.norm(full), atol=1e-6)


def on_calls(*faults):
    """Return these faults for the first calls, in order, and none later."""
    return lambda number, _texts: faults[number] if number < len(faults) else None


def unavailable(**more):
    return UnavailableError("it failed", route="fake", status=503, **more)


def limited(seconds=None):
    return RateLimitedError("too many requests", route="fake", status=429, retry_after_s=seconds)


def refused():
    return RefusedInputError("the service refused the request", route="fake", status=400)


MANGLERS = {
    "short": lambda answer: dataclasses.replace(answer, vectors=answer.vectors[:-1]),
    "nan": lambda answer: dataclasses.replace(answer, vectors=answer.vectors * np.float32("nan")),
    "zeros": lambda answer: dataclasses.replace(answer, vectors=answer.vectors * np.float32(0)),
    "narrow": lambda answer: dataclasses.replace(answer, vectors=answer.vectors[:, :-1]),
    "long": lambda answer: dataclasses.replace(answer, vectors=answer.vectors * np.float32(9)),
}


def failed(**more):
    """Return the failure of a request that reached the service, such as a status 500."""
    return UnavailableError("the service failed", route="fake", status=500, billed=True, **more)


#: Changes of a row that make it invalid.
SPOILERS = {
    "nan": lambda vector: vector * np.float32("nan"),
    "infinite": lambda vector: vector * np.float32("inf"),
    "zeros": lambda vector: vector * np.float32(0),
    "long": lambda vector: vector * np.float32(9),
}


class Poisoned(Fake):
    """Fake service that refuses some texts, fails on others, and returns invalid vectors for others.

    `billed` counts the tokens of its answers, and `answered` the texts with valid vectors.
    """

    def __init__(self, refused=(), failing=(), spoiled=(), *, kind="nan", more=lambda _number, _texts: None, **options):
        super().__init__(faults=self._fault, **options)
        self.refused, self.failing, self.spoiled = set(refused), set(failing), set(spoiled)
        self.kind = kind
        self.more = more
        self.billed = 0
        self.answered = collections.Counter()

    def _fault(self, number, texts):
        if fault := self.more(number, texts):
            return fault
        if self.refused & set(texts):
            return refused()
        if self.failing & set(texts):
            return failed()
        self.billed += sum(len(text.split()) for text in texts)
        self.answered.update(set(texts) - self.spoiled)
        return functools.partial(self._spoil, texts) if self.spoiled & set(texts) else None

    def _spoil(self, texts, answer):
        vectors = answer.vectors.copy()
        for row, text in enumerate(texts):
            if text in self.spoiled:
                vectors[row] = SPOILERS[self.kind](vectors[row])
        return dataclasses.replace(answer, vectors=vectors)
