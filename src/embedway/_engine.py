"""Engine of an embedder: its parts that belong to one event loop of one process.

An embedder outlives event loops and forks. Its engine does not: connections, background tasks and threads end with the
loop, and do not exist in a forked process. `Engines` opens a new engine after the loop has ended, and after a fork.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING

from embedway.cache.vector_cache import open_vector_cache
from embedway.config.addresses import server_of
from embedway.errors import ClosedError, UsageError
from embedway.forks import at_fork, never_free
from embedway.ledger.budgets import Budgets
from embedway.ledger.opening import limits_of, open_ledger, open_records
from embedway.models.base import ModelEnvironment
from embedway.models.registry import ModelRegistry
from embedway.pipeline.baseline_admin import Baselines
from embedway.pipeline.embed import EmbedPipeline
from embedway.providers.names import full_name, known_names
from embedway.quality.names import PAID_PERIOD_S
from embedway.quality.quarantine import Quarantines
from embedway.quality.schedule import Schedule
from embedway.quality.space_proofs import SpaceProofs
from embedway.selection.collection_pins import CollectionPins
from embedway.selection.selector import ModelSelector
from embedway.telemetry import HookSettings, check_hooks, open_hooks
from embedway.telemetry.route_facts import RouteFacts

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from embedway.config import Config
    from embedway.config.routes import RouteSettings
    from embedway.local.remote import OpenInference
    from embedway.telemetry.hooks import Hook
    from embedway.weights.store import ProgressSink

_CLOSED = "the embedder is closed; create a new one"


def hook_settings(config: Config) -> HookSettings:
    """Return the settings of the shipped hooks."""
    budget_webhook, alert_webhook, push_gateway = (
        None if url is None else url.get_secret_value()
        for url in (config.ledger.webhook, config.alerts.webhook, config.telemetry.push_gateway)
    )
    telemetry = config.telemetry
    return HookSettings(
        budget_webhook,
        alerts=config.alerts.enabled,
        alert_webhook=alert_webhook,
        prometheus=telemetry.prometheus,
        opentelemetry=telemetry.opentelemetry,
        log_requests=telemetry.log_requests,
        push_gateway=push_gateway,
        push_job=telemetry.push_job,
        push_every_s=telemetry.push_every_s,
        models=partial(known_names, config),
        routes={f"routes.{name}": _facts_of(route) for name, route in config.routes.items()},
    )


def _facts_of(route: RouteSettings) -> RouteFacts:
    host, port = server_of(route.base_url)
    return RouteFacts(route.provider, host, port)


class Engine:
    """The parts of an embedder, and its pending calls. Used only from the event loop of its first call."""

    def __init__(
        self,
        config: Config,
        hooks: Sequence[Hook],
        progress: ProgressSink | None,
        inference: OpenInference | None = None,
    ) -> None:
        self.hooks = open_hooks(hooks, hook_settings(config))
        self.budgets = Budgets(
            open_ledger(config),
            limits_of(config, full_name),
            lease_s=config.ledger.lease_s,
            hooks=self.hooks,
        )
        #: Records that processes share; None without a ledger.
        self.records = open_records(config)
        # Whatever `on_drift` is here: another process may have put a route in quarantine.
        quarantines = None if self.records is None else Quarantines(self.records)
        self._quarantines = quarantines
        self._inference = None if inference is None else inference()
        self.environment = ModelEnvironment(
            config, self.budgets, self.hooks, SpaceProofs(self.records), quarantines, self._inference
        )
        self.models = ModelRegistry(self.environment, progress)
        self.baselines = Baselines(config, self.records, self.budgets, quarantines)
        #: Schedule, and its task in the background; None without `quality.check_every_s`, and before the first call.
        self.schedule: Schedule | None = None
        self.scheduled_checks: asyncio.Task[None] | None = None
        self.selector = ModelSelector(config)
        self.pins = CollectionPins(config, self.selector, hooks=self.hooks)
        self.pipeline = EmbedPipeline(
            config,
            self.models,
            self.selector,
            self.pins,
            budgets=self.budgets,
            cache=open_vector_cache(config, self.hooks),
        )
        #: Loop of the first call; None before it.
        self.loop: asyncio.AbstractEventLoop | None = None
        self.calls: set[_PendingCall] = set()
        self._closing = asyncio.Lock()
        self._end_of_loop: AsyncGenerator[None, None] | None = None

    async def start(self) -> None:
        """Register the engine with its event loop, so that `asyncio.run` closes the engine before the loop."""
        self._end_of_loop = _close_with_loop(self._finish)
        await anext(self._end_of_loop)
        every_s = self.baselines.config.quality.check_every_s
        if self.records is not None and every_s is not None:
            self.schedule = Schedule(
                every_s, self.records, self.names_to_check, self._check, shortest_s=self.shortest_period_s
            )
            # In an own context: the task belongs to no call, and has no deadline.
            self.scheduled_checks = asyncio.create_task(self.schedule.run(), context=contextvars.Context())

    async def names_to_check(self) -> list[str]:
        """Return the spaces of open models that have a baseline: a check loads no model."""
        assert self.records is not None  # noqa: S101  the schedule has them
        stored = {name for name, _ in await self.records.names("baseline")}
        found = []
        for model in self.models.open_embedding_models():
            if model.space.id in stored:
                found.append(model.space.id)
            else:
                self.baselines.report_missing(model)
        return found

    def shortest_period_s(self, space_id: str) -> float:
        """Return the minimum period of checks: a mistake of units in `check_every_s` must not cost much."""
        found = [model for model in self.models.open_embedding_models() if model.space.id == space_id]
        is_free = all(model.price_on(route, 1_000_000) == 0 for model in found for route in model.route_names)
        return 0.0 if is_free else PAID_PERIOD_S

    async def _check(self, space_id: str) -> None:
        for model in self.models.open_embedding_models():
            if model.space.id == space_id:
                model.retain()
                try:
                    await self.baselines.check(model)
                finally:
                    await model.close()
                return

    async def aclose(self, *, drain: bool) -> None:
        """End pending calls with ClosedError, or wait for them with `drain`; then close all parts."""
        own = asyncio.current_task()
        pending = [call for call in self.calls if call.task is not own]
        for call in pending:
            if not drain:
                call.end()
        for call in pending:
            await call.done.wait()
        async with self._closing:
            await (self._finish() if self._end_of_loop is None else self._end_of_loop.aclose())

    async def _finish(self) -> None:
        if self.scheduled_checks is not None:
            self.scheduled_checks.cancel()
            await asyncio.gather(self.scheduled_checks, return_exceptions=True)
        await self.models.aclose()
        if self._inference is not None:
            await self._inference.aclose()
        if self.pipeline.cache is not None:
            await self.pipeline.cache.aclose()
        try:
            await self.budgets.aclose()
            if self._quarantines is not None:
                await self._quarantines.aclose()
            if self.records is not None:
                await self.records.aclose()
        finally:
            await self.hooks.flush()
        await self.pins.aclose()


class _PendingCall:
    """A call of the current task, as a context manager that yields the engine.

    It is ended as `asyncio.timeout` does it: by a counted cancellation. Not a generator, which takes longer than a hit.
    """

    __slots__ = ("_cancellations", "_engines", "_is_ended", "done", "engine", "task")

    def __init__(self, engines: Engines) -> None:
        self._engines = engines
        self._is_ended = False
        self.done = asyncio.Event()

    async def __aenter__(self) -> Engine:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  public calls are coroutines
        self.engine = await self._engines.current()
        self.task, self._cancellations = task, task.cancelling()
        self.engine.calls.add(self)
        return self.engine

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.engine.calls.discard(self)
        self.done.set()
        if (
            kind is not None
            and issubclass(kind, asyncio.CancelledError)
            and self._is_ended
            and self.task.uncancel() <= self._cancellations
        ):
            raise ClosedError("the embedder was closed before this call ended") from None

    def end(self) -> None:
        """Cancel the task, once: a second cancellation would be the caller's own."""
        if not self._is_ended:
            self._is_ended = True
            self.task.cancel()


async def _close_with_loop(finish: Callable[[], Awaitable[None]]) -> AsyncGenerator[None, None]:
    """Await `finish` when this generator is closed. An event loop closes its asynchronous generators when it ends."""
    try:
        yield
    finally:
        await finish()


class Engines:
    """The current engine of an embedder. It is replaced after its event loop has ended, and after a fork."""

    def __init__(
        self,
        config: Config,
        hooks: Sequence[Hook],
        progress: ProgressSink | None,
        inference: OpenInference | None = None,
    ) -> None:
        """Open an engine. `inference` connects to the process that computes local models, for each event loop.

        Raises ConfigError and UsageError.
        """
        self._arguments = config, check_hooks(hooks), progress, inference
        #: The current engine; None in a forked process before its first call.
        self.engine: Engine | None = Engine(*self._arguments)
        self._is_closed = False
        self._lock = threading.Lock()
        _all.add(self)

    def call(self) -> _PendingCall:
        """Return a context manager that yields the engine of the running loop for one call.

        Raises ClosedError after `aclose`, also during the call, and UsageError if another loop uses the engine.
        """
        return _PendingCall(self)

    async def current(self) -> Engine:
        """Return the engine of the running loop. Raises as `call`."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._is_closed:
                raise ClosedError(_CLOSED)
            engine = self.engine
            if engine is None or (engine.loop is not None and engine.loop.is_closed()):
                engine = self.engine = Engine(*self._arguments)
            if engine.loop is loop:
                return engine
            if engine.loop is not None:
                raise UsageError(
                    "another event loop uses this AsyncEmbedder; create one in each event loop, or share an Embedder, "
                    "which is thread-safe"
                )
            engine.loop = loop
        await engine.start()
        return engine

    async def aclose(self, *, drain: bool = False) -> None:
        """Close the engine, in its own loop. Later calls raise ClosedError."""
        with self._lock:
            self._is_closed, engine = True, self.engine
        if engine is None:
            return
        loop = engine.loop
        if loop is None or loop is asyncio.get_running_loop():
            await engine.aclose(drain=drain)
        elif loop.is_running():
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(engine.aclose(drain=drain), loop))
        elif not loop.is_closed():  # `asyncio.run` closes the engine before it closes the loop
            raise UsageError("the event loop that used this AsyncEmbedder is not running; call aclose on that loop")

    def forget(self) -> None:
        """Drop the engine of the parent process without freeing it. Freeing it would end the parent's connections."""
        never_free(self.engine)
        self.engine, self._lock = None, threading.Lock()


_all: weakref.WeakSet[Engines] = weakref.WeakSet()


def _after_fork() -> None:
    for engines in list(_all):
        engines.forget()


at_fork(after_in_child=_after_fork)
