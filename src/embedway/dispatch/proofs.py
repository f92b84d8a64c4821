"""Proofs of a route: that it answers in its model's vector space, and that answers without `index` are in order.

A wrong server, or a wrong order of rows, returns valid vectors: only a comparison of probes shows the fault. A proof is
shared by all requests to the route. It is repeated after some time and after a failure, because a server that failed
may have been restarted with another model.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embedway.dispatch.probes import Probe
from embedway.errors import BadVectorsError, DeadlineError, ProtocolError, RefusedInputError, UnavailableError
from embedway.types import ServiceLimits
from embedway.vectors import SAME_COSINE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from contextlib import AbstractContextManager

    from embedway.dispatch.probes import SendProbe
    from embedway.dispatch.request import ServiceRoute
    from embedway.providers.base import Answer
    from embedway.quality.space_proofs import RouteIdentity
    from embedway.types import Vectors

_log = logging.getLogger(__name__)

#: Time for which a result is valid, in seconds.
VALID_S = 300.0
#: Maximum time of a proof, in seconds. It does not depend on the deadlines of the callers.
_LONGEST_S = 120.0
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


@dataclass(frozen=True, slots=True)
class ProofResult:
    """Result of a comparison: the reason why a route is not used, empty if it is.

    A result that is not `is_lasting` holds for this request only: the next one compares again.
    """

    reason: str = ""
    is_lasting: bool = True


class RouteProof:
    """Proofs of one route.

    `compare` sends probes and decides whether the route is used; None if the route needs no such proof. `identity` has
    the facts of the route that stored proofs are about. Results are valid for `valid_s` seconds. A proof is a task that
    all callers wait for, so that it ends even if they do not wait until then.
    """

    def __init__(
        self,
        compare: Callable[[ServiceRoute, SendProbe], Awaitable[ProofResult]] | None = None,
        *,
        identity: RouteIdentity | None = None,
        valid_s: float = VALID_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._compare = compare
        self.identity = identity
        self._valid_s = valid_s
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        #: Number of failures of the route; a proof is void if it was higher at its end than at its start.
        self.failures = 0
        #: Last result of the comparison.
        self._result = ProofResult()
        self._valid_until = float("-inf") if compare is not None else float("inf")
        #: Maximum texts of a request for which the order is proved; 0 if it is not.
        self._ordered = 0
        #: Time until which the order counts as known.
        self._order_until = float("-inf")
        self._is_logged = False

    @property
    def is_settled(self) -> bool:
        """Whether requests need no verification now: nothing is due or refused."""
        is_order_refused = not self._ordered and not self._is_order_due()
        return not self._result.reason and not is_order_refused and not self._is_due()

    async def verify(
        self,
        route: ServiceRoute,
        texts: int,
        send: SendProbe,
        *,
        hold: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> None:
        """Raise BadVectorsError if the route cannot be used for a request of `texts` texts; send probes if due.

        `hold` keeps the caller's account open during a proof that the caller starts.
        """
        await self._run(self._is_due, lambda: self._compare_now(route, send), route, hold)
        if self._result.reason:
            again = f". It is checked again within {self._valid_s:g} s" if self._result.is_lasting else ""
            raise _refusal(f"{self._result.reason}{again}", route)
        if texts > 1 and not self._ordered and not self._is_order_due():
            raise _refusal(_UNORDERED, route)

    async def prove_order(
        self,
        route: ServiceRoute,
        embed: Callable[[Sequence[str]], Awaitable[Answer]],
        prompt: str,
        send: SendProbe,
        *,
        hold: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> int:
        """Return the maximum texts of a request whose answer without `index` is in their order.

        `embed` calls the provider, with `prompt` before each text. See `verify` for `hold`. Raises BadVectorsError if
        the order is not proved.
        """
        await self._run(self._is_order_due, lambda: self._prove_now(route, embed, prompt, send), route, hold)
        if not self._ordered:
            raise _refusal(_UNORDERED, route)
        return self._ordered

    def record_failure(self) -> None:
        """Repeat the proofs before the next use. A refusal is not repeated earlier, because no text is sent then."""
        self.failures += 1
        if self._compare is not None and not self._result.reason:
            self._valid_until = float("-inf")
        if self._ordered:
            self._order_until = float("-inf")

    async def aclose(self) -> None:
        """Cancel a proof that no caller waits for any more."""
        if self._task is not None and self._task.get_loop() is asyncio.get_running_loop():
            self._task.cancel()
            await asyncio.wait([self._task])

    def _is_due(self) -> bool:
        return self._compare is not None and self._clock() >= self._valid_until

    def _is_order_due(self) -> bool:
        return self._clock() >= self._order_until

    async def _run(
        self,
        is_due: Callable[[], bool],
        prove: Callable[[], Coroutine[object, object, None]],
        route: ServiceRoute,
        hold: Callable[[], AbstractContextManager[object]],
    ) -> None:
        """Wait for the running proof, and start one if it is due then. Raises the errors of the own one only."""
        while is_due():
            task = self._task
            if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
                self._task = task = asyncio.create_task(_in_time(prove, route, hold()))
                task.add_done_callback(_retrieve)
                await asyncio.shield(task)
                return
            await asyncio.wait([task])

    async def _compare_now(self, route: ServiceRoute, send: SendProbe) -> None:
        assert self._compare is not None  # noqa: S101  it is due
        started, failures = self._clock(), self.failures
        before, self._result = self._result, await self._compare(route, send)
        reason = self._result.reason
        if not self._result.is_lasting:
            self._valid_until = float("-inf")
        elif reason or failures == self.failures:
            self._valid_until = started + self._valid_s
        self._order_until = float("-inf")
        if reason and not before.reason:
            _log.warning("%s is not used: it %s", route.name, reason)
        elif before.reason and not reason:
            _log.warning("%s is used again: its vectors are those of the model's space", route.name)

    async def _prove_now(
        self, route: ServiceRoute, embed: Callable[[Sequence[str]], Awaitable[Answer]], prompt: str, send: SendProbe
    ) -> None:
        started, failures = self._clock(), self.failures
        self._ordered = await _rows_in_order(route, embed, prompt, send)
        if not self._ordered:
            self._order_until = self._clock() + self._valid_s
            _log.warning("%s is not used for several texts at a time: it %s", route.name, _UNORDERED)
            return
        if failures == self.failures:
            self._order_until = started + self._valid_s
        route.learned.max_ordered = self._ordered
        if not self._is_logged:
            self._is_logged = True
            _log.warning("%s", order_note(route.name, self._ordered))


async def _in_time(
    prove: Callable[[], Coroutine[object, object, None]], route: ServiceRoute, held: AbstractContextManager[object]
) -> None:
    """Run a proof within its own time; there is no limit for a local provider, which may load a model."""
    limit = asyncio.timeout(None if route.provider.declared.local else _LONGEST_S)
    try:
        with held:
            async with limit:
                await prove()
    except DeadlineError:
        raise
    except TimeoutError as error:
        if not limit.expired():
            raise
        late = UnavailableError(f"probes were not answered within {_LONGEST_S:g} s", route=route.name)
        late.of_probe = True
        raise late from error


def _retrieve(task: asyncio.Task[None]) -> None:
    """Retrieve the error of a proof that no caller waits for, so that asyncio does not log it."""
    if not task.cancelled():
        task.exception()


_UNORDERED = (
    "answers without index, and the order of its answers could not be proved: the vectors of a probe are not those of "
    "the same texts alone; set max_inputs = 1 in the options of the route"
)


def order_note(route: str, rows: int) -> str:
    """Return the note of receipts on answers without `index`, and on the limit of their requests."""
    return (
        f"{route} answers without index; its vectors belong to the texts by position, after a probe of its order; its "
        f"requests have at most {rows} texts, as the probe"
    )


def too_many_rows(route: str, rows: int) -> RefusedInputError:
    """Return the error that splits a request whose answer has more rows than the order is proved for."""
    error = RefusedInputError(
        f"answered without index, and its order is proved for at most {rows} texts in a request",
        route=route,
        billed=True,
    )
    error.limits, error.of_probe = ServiceLimits(), True  # the route has learned the limit already
    return error


def _refusal(reason: str, route: ServiceRoute) -> BadVectorsError:
    error = BadVectorsError(reason, route=route.name)
    error.billed, error.of_probe = False, True  # no text was sent
    return error


async def _rows_in_order(
    route: ServiceRoute, embed: Callable[[Sequence[str]], Awaitable[Answer]], prompt: str, send: SendProbe
) -> int:
    """Return the most rows of one request of a probe, or 0 if its rows are not those of its texts alone, by position.

    Another order may begin with a larger request: a gateway may split it, and join the parts in the order of their end.
    """

    async def vectors_of(texts: Sequence[str]) -> Vectors:
        tokens = sum(_tokens_of(prompt + text) for text in texts)
        vectors = (await send(route, Probe(len(texts), tokens, lambda: embed(texts)))).vectors
        if len(vectors) == len(texts):
            return vectors
        error = BadVectorsError(f"returned {len(vectors)} vectors for a probe of {len(texts)} texts", route=route.name)
        error.of_probe = True
        raise error

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
    if len({block.shape[1] for block in (*rows, *alone)}) > 1:
        return 0
    return max(map(len, rows)) if has_order(np.vstack(rows), np.vstack(alone)) else 0


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
