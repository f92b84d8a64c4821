"""Readiness of a worker: whether its default model answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING

from embedway.compute import ComputeRequest
from embedway.config.addresses import server_of
from embedway.config.local_models import AUTO
from embedway.errors import EmbedwayError, NoRouteError
from embedway.ledger.account import CallBudget
from embedway.ledger.base import Purpose
from embedway.providers.names import full_name, service_of
from embedway.text import printable
from embedway.urgency import Urgency

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway._engine import Engines
    from embedway.config import Config
    from embedway.models.base import Model

_log = logging.getLogger("embedway.server")

#: Time for which the result of a check is used, in seconds, and maximum time of a check.
_FRESH_S, _CHECK_S = 5.0, 5.0
_PROBE = "ready"


class Readiness:
    """Whether the default model answers: a local model computes a word; a service can be reached, and costs nothing."""

    def __init__(self, config: Config, engines: Engines, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._engines = engines
        self._clock = clock
        self._checked_at = float("-inf")
        #: Reason why the worker is not ready; empty if it is.
        self._reason = "it is starting"
        self._checking: asyncio.Task[None] | None = None
        #: Set while the worker ends.
        self.is_ending = False

    async def reason(self) -> str:
        """Return why the worker is not ready; empty if it is. Concurrent callers share a check."""
        if self.is_ending:
            return "it is ending"
        if self._clock() - self._checked_at >= _FRESH_S:
            if self._checking is None or self._checking.done():
                self._checking = asyncio.create_task(self._check())
            await asyncio.shield(self._checking)
        return self._reason

    async def _check(self) -> None:
        try:
            async with asyncio.timeout(_CHECK_S):
                await self._answer()
            self._reason = ""
        except EmbedwayError as error:
            reason = f"the default model does not answer ({type(error).__name__})"
            if reason != self._reason:  # probes ask all the time
                _log.warning("not ready: the default model does not answer: %s", printable(str(error)))
            self._reason = reason
        except OSError:  # with the timeout of the check
            self._reason = "the default model does not answer"
        self._checked_at = self._clock()

    async def _answer(self) -> None:
        config = self._config
        name = config.embedding.default_model
        served = config.server.models
        if name == AUTO and served:
            name = served[0]
        async with self._engines.call() as engine:
            model = await engine.models.open(name)
            if model.blocked is not None:
                raise model.blocked
            facts = None if name == AUTO else await asyncio.to_thread(service_of, name, config)
            if facts is None and not config.routes_to({full_name(name, config).casefold()} if name != AUTO else set()):
                await _compute(model)
            else:
                await _reach(model, config)


async def _compute(model: Model) -> None:
    """Compute a word, without the cache."""
    request = ComputeRequest((_PROBE,), model.space, CallBudget(Purpose(model.name)), urgency=Urgency(9, query=True))
    await model.compute(request)


async def _reach(model: Model, config: Config) -> None:
    """Connect to the servers of a model until one accepts. Raises NoRouteError."""
    reasons: list[tuple[str, str]] = []
    addresses = [(key, server_of(route.base_url)) for key, route in config.routes.items() if route.base_url]
    addresses = [(key, address) for key, address in addresses if f"routes.{key}" in model.route_names]
    for key, (host, port) in addresses:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), _CHECK_S / len(addresses))
        except TimeoutError:
            reasons.append((key, "it does not accept a connection"))
        except OSError as error:
            reasons.append((key, error.strerror or type(error).__name__))
        else:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            return
    if reasons:
        raise NoRouteError(model.name, failed=reasons)
