"""Services that fail on demand, a client with simulated time, and a check of its results."""

import asyncio
import dataclasses

import numpy as np

from embedway.dispatch.circuit_breaker import CircuitBreaker
from embedway.dispatch.rate_limiter import RateLimiter
from embedway.dispatch.recovery import UpstreamClient
from embedway.dispatch.request import RetryPolicy, ServiceRoute, UpstreamRequest
from embedway.errors import RateLimitedError, RefusedInputError, UnavailableError
from embedway.providers.fake import vector_of
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
