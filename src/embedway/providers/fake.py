"""A provider for tests: deterministic vectors from the text, and injected faults."""

from __future__ import annotations

import asyncio
import hashlib
import re
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from embedway.errors import ConfigError, UnavailableError
from embedway.providers.base import Answer, Declared
from embedway.providers.options import known, most_inputs, whole, whole_or_none

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from embedway.providers.base import Endpoint
    from embedway.types import InputType, Vectors

    #: Fault of call n (from 0) with these texts: an error to raise, or a function that changes the answer.
    Fault: TypeAlias = Exception | Callable[[Answer], Answer] | None


def vector_of(text: str, dimensions: int) -> Vectors:
    """Return the vector of a text, float32 (dimensions,), of length 1; equal on every machine and in every process."""
    seed = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    vector = np.random.default_rng(int.from_bytes(seed, "little")).standard_normal(dimensions)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


class Fake:
    """Fake provider that returns `vector_of` each text, after `delay_s` seconds.

    `faults` is called before each answer. `calls` contains the texts of every call, in order, failed ones included;
    `done` those of successful calls.
    """

    def __init__(
        self,
        *,
        width: int = 16,
        declared: Declared | None = None,
        delay_s: float = 0.0,
        faults: Callable[[int, Sequence[str]], Fault] | None = None,
    ) -> None:
        self.declared = declared or Declared(max_inputs=32, dimensions=True, input_type=True)
        self.calls: list[tuple[str, ...]] = []
        self.done: list[tuple[str, ...]] = []
        self.cancelled = 0
        self._width = width
        self._delay_s = delay_s
        self._faults = faults or (lambda _number, _texts: None)

    async def embed(self, texts: Sequence[str], *, input_type: InputType, dimensions: int | None) -> Answer:
        """Embed texts; see `Provider.embed`. A query and a document with the same text have different vectors."""
        number = len(self.calls)
        self.calls.append(tuple(texts))
        try:
            await asyncio.sleep(self._delay_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        prompt = "query: " if input_type == "query" else ""
        rows = [vector_of(prompt + text, self._width)[: dimensions or self._width] for text in texts]
        vectors = np.stack([row / np.linalg.norm(row) for row in rows])
        answer = Answer(vectors, tokens=sum(len(text.split()) for text in texts))
        fault = self._faults(number, texts)
        if isinstance(fault, Exception):
            raise fault
        if fault is not None:
            return fault(answer)
        self.done.append(tuple(texts))
        return answer

    async def aclose(self) -> None:
        """Do nothing: there are no connections."""


def fake(endpoint: Endpoint) -> Fake:
    """Create the provider, an entry of `embedway.providers`.

    Options: `width` (16), `max_inputs` or `batch_size` (32), `delay_s` (0), and `fail_every` (n: every n-th call
    fails).
    """
    known(endpoint, ("width", "delay_s", "fail_every"))
    declared = Declared(max_inputs=most_inputs(endpoint, 32), dimensions=True, input_type=True)
    delay_s = endpoint.options.get("delay_s", "0")
    if not re.fullmatch(r"\d+(\.\d+)?", delay_s):
        raise ConfigError("must be seconds, such as 0.5", where=endpoint.route, key="options.delay_s")
    every = whole_or_none(endpoint, "fail_every")
    down = UnavailableError("simulated failure", route=endpoint.route)

    def faults(number: int, texts: Sequence[str]) -> Fault:
        del texts
        return down if every is not None and (number + 1) % every == 0 else None

    return Fake(width=whole(endpoint, "width", 16), declared=declared, delay_s=float(delay_s), faults=faults)
