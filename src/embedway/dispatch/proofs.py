"""Proofs of a route: that it answers in its model's vector space, and that answers without `index` are in order.

A wrong server, or a wrong order of rows, returns valid vectors: only a comparison of probes shows the fault. A proof is
shared by all requests to the route. It is repeated after a failure, because a server that failed may have been
restarted with another model.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

import numpy as np

from embedway.dispatch.probes import Probe
from embedway.errors import BadVectorsError, ProtocolError, RefusedInputError
from embedway.vectors import SAME_COSINE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from embedway.dispatch.probes import SendProbe
    from embedway.dispatch.request import ServiceRoute
    from embedway.providers.base import Answer
    from embedway.types import Vectors

_log = logging.getLogger(__name__)

#: Time for which a result is valid, in seconds.
VALID_S = 300.0
#: Three texts whose order by length and by alphabet is not their order here.
ORDER_TEXTS = (
    "Moss grows on the north wall.",
    "Zinc, copper and tin were traded here for three centuries.",
    "A red kite.",
)
#: Texts of the rows of the probe of the order. Neighbours differ, so that each swap, shift, reversal and sorting of the
#: rows changes it. A random order passes once in 2,000,000 times (6! 5! 5! / 16!).
ORDER_PATTERN = (0, 1, 2, 0, 2, 1, 0, 1, 0, 2, 1, 2, 0, 2, 0, 1)
#: Minimum rows of a part of this probe.
_LEAST_ROWS = 2


class RouteProof:
    """Proofs of one route.

    `compare` sends probes and returns the reason why the route is of another space, or an empty text; None if the route
    needs no such proof. Its result is valid for `valid_s` seconds. Used from one event loop.
    """

    def __init__(
        self,
        compare: Callable[[ServiceRoute, SendProbe], Awaitable[str]] | None = None,
        *,
        valid_s: float = VALID_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._compare = compare
        self._valid_s = valid_s
        self._clock = clock
        self._lock = asyncio.Lock()
        self._failures = 0
        #: Reason why the route cannot be used; empty if it can.
        self._reason = ""
        self._valid_until = float("-inf") if compare is not None else float("inf")
        self._is_ordered = False
        #: Time until which the order counts as known.
        self._order_until = float("-inf")
        self._is_logged = False

    @property
    def is_settled(self) -> bool:
        """Whether requests need no verification now: nothing is due or refused."""
        is_order_refused = not self._is_ordered and self._order_until > self._clock()
        return not self._reason and not is_order_refused and not self._is_due()

    async def verify(self, route: ServiceRoute, texts: int, send: SendProbe) -> None:
        """Raise BadVectorsError if the route cannot be used for a request of `texts` texts; send probes if due."""
        if self._is_due():
            async with self._lock:
                if self._is_due():
                    await self._compare_now(route, send)
        if self._reason:
            raise _refusal(f"{self._reason}. It is checked again within {self._valid_s:g} s", route)
        if texts > 1 and not self._is_ordered and self._clock() < self._order_until:
            raise _refusal(_UNORDERED, route)

    async def prove_order(
        self,
        route: ServiceRoute,
        embed: Callable[[Sequence[str]], Awaitable[Answer]],
        prompt: str,
        send: SendProbe,
    ) -> None:
        """Raise BadVectorsError unless the route's answers without `index` are in the order of the texts.

        `embed` calls the provider, with `prompt` before each text.
        """
        if self._clock() >= self._order_until:
            async with self._lock:
                if self._clock() >= self._order_until:
                    failures = self._failures
                    self._is_ordered = await _is_in_order(route, embed, prompt, send)
                    if not self._is_ordered:
                        self._order_until = self._clock() + self._valid_s
                    elif failures == self._failures:
                        self._order_until = float("inf")
                    self._log_order(route)
        if not self._is_ordered:
            raise _refusal(_UNORDERED, route)

    def record_failure(self) -> None:
        """Repeat the proofs before the next use. A refusal is not repeated earlier, because no text is sent then."""
        self._failures += 1
        if self._compare is not None and not self._reason:
            self._valid_until = float("-inf")
        if self._is_ordered:
            self._order_until = float("-inf")

    def expire(self) -> None:
        """Repeat the comparison before the next use, even after a refusal."""
        if self._compare is not None:
            self._valid_until = float("-inf")

    def _is_due(self) -> bool:
        return self._compare is not None and self._clock() >= self._valid_until

    async def _compare_now(self, route: ServiceRoute, send: SendProbe) -> None:
        assert self._compare is not None  # noqa: S101  it is due
        started, failures = self._clock(), self._failures
        before, self._reason = self._reason, await self._compare(route, send)
        if self._reason or failures == self._failures:
            self._valid_until = started + self._valid_s
        self._order_until = float("-inf")
        if self._reason and not before:
            _log.warning("%s is not used: it %s", route.name, self._reason)
        elif before and not self._reason:
            _log.warning("%s is used again: its vectors are those of the model's space", route.name)

    def _log_order(self, route: ServiceRoute) -> None:
        if not self._is_ordered:
            _log.warning("%s is not used for several texts at a time: it %s", route.name, _UNORDERED)
        elif not self._is_logged:
            self._is_logged = True
            _log.warning("%s", order_note(route.name))


_UNORDERED = (
    "answers without index, and the order of its answers could not be proved: the vectors of a probe are not those of "
    "the same texts alone; set max_inputs = 1 in the options of the route"
)


def order_note(route: str) -> str:
    """Return the note of receipts on answers without `index`."""
    return f"{route} answers without index; its vectors belong to the texts by position, after a probe of its order"


def _refusal(reason: str, route: ServiceRoute) -> BadVectorsError:
    error = BadVectorsError(reason, route=route.name)
    error.billed, error.of_probe = False, True  # no text was sent
    return error


async def _is_in_order(
    route: ServiceRoute, embed: Callable[[Sequence[str]], Awaitable[Answer]], prompt: str, send: SendProbe
) -> bool:
    """Return whether the rows of a probe are those of its texts alone, by position."""

    async def vectors_of(texts: Sequence[str]) -> Vectors:
        tokens = sum(_tokens_of(prompt + text) for text in texts)
        return (await send(route, Probe(len(texts), tokens, lambda: embed(texts)))).vectors

    async def rows_of(texts: Sequence[str]) -> list[Vectors]:
        try:
            return [await vectors_of(texts)]
        except ProtocolError as error:
            if len(texts) < 2 * _LEAST_ROWS or not isinstance(error.__cause__, RefusedInputError):
                raise
        # The service accepts fewer texts in a request.
        middle = len(texts) // 2
        return [*await rows_of(texts[:middle]), *await rows_of(texts[middle:])]

    texts = [ORDER_TEXTS[place] for place in ORDER_PATTERN]
    lengths = np.array([_tokens_of(prompt + text) for text in texts], np.int32)
    # Single texts are sent first: a gateway's cache then has some of the rows, as it may have later.
    alone = [await vectors_of([text]) for text in ORDER_TEXTS[:2]]
    rows: list[Vectors] = []
    for part in route.split(np.arange(len(texts)), lengths):
        rows += await rows_of([texts[row] for row in part.tolist()])
    if len({block.shape[1] for block in (*rows, *alone)}) > 1 or any(len(block) != 1 for block in alone):
        return False
    return has_order(np.vstack(rows), np.vstack(alone))


def _tokens_of(text: str) -> int:
    """Return an estimate of a probe's tokens that is rather too high: three bytes a token, and one more."""
    return len(text.encode()) // 3 + 1


def has_order(rows: Vectors, alone: Vectors) -> bool:
    """Return whether `rows`, of the texts of `ORDER_PATTERN`, agree with the first two texts `alone`.

    The rows of the third text must be equal to one another, and different from the others.
    """
    if len(rows) != len(ORDER_PATTERN):
        return False
    third = rows[ORDER_PATTERN.index(2)]
    with np.errstate(all="ignore"):  # whatever the caller has set
        anchors = np.vstack([alone, third[None]])
        anchors = anchors / np.linalg.norm(anchors, axis=1, keepdims=True)
        same = (rows / np.linalg.norm(rows, axis=1, keepdims=True)) @ anchors.T >= SAME_COSINE
    return bool((same == np.eye(3, dtype=bool)[list(ORDER_PATTERN)]).all())
