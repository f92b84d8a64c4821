"""Models of the inference process: loaded at their first use, unloaded when unused or when memory is needed."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from embedway.errors import ClosedError, EmbedwayError, RuntimeUnavailableError, UnsupportedModelError
from embedway.server.inference.failures import unavailable
from embedway.text import redact
from embedway.third_party import must_pass, place_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine

    from embedway.local.remote import ModelSpec
    from embedway.server.inference.frames import Job
    from embedway.types import Vectors

_log = logging.getLogger("embedway.server.inference")

#: Wait that an error requests for a model that was never loaded here, in seconds.
_FIRST_LOAD_S = 5.0
_CLOSED = "the inference process ends"
#: Shortest pause between two looks at a model in use, in seconds.
_SWEEP_S = 1.0
_MIB = 1 << 20


class Computing(Protocol):
    """A loaded model."""

    runtime: str
    #: Measured memory.
    bytes: int

    @property
    def waiting(self) -> int:
        """Number of jobs that wait."""

    async def run(self, job: Job) -> Vectors:
        """Compute a job."""

    async def close(self) -> None:
        """Wait for running batches and free the memory."""


@dataclass(eq=False, slots=True)
class _Resident:
    """A model that is being loaded, is loaded, or is being unloaded."""

    spec: ModelSpec
    keep_alive_s: float | None
    began: float
    #: Loads it, and later unloads it. Jobs wait for its end.
    task: asyncio.Task[None] | None = None
    model: Computing | None = None
    is_leaving: bool = False
    #: Jobs that run or wait in its scheduler.
    users: int = 0
    used: float = 0.0
    unused: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_ready(self) -> bool:
        return self.model is not None and not self.is_leaving


class Residents:
    """Models in memory. Used from one event loop.

    Models are loaded one after another. Before a model is loaded, the least recently used ones are unloaded until it
    fits, unused ones first. A model that is in use accepts no further jobs then, and ends those that it has.
    """

    def __init__(
        self,
        load: Callable[[ModelSpec], Awaitable[Computing]],
        *,
        keep_alive_s: float | None = None,
        models_bytes: int | None = None,
        load_wait_s: float = 30.0,
        free: Callable[[], Awaitable[None]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create it without models. `load` loads a model, and `free` returns the memory of unloaded ones."""
        self._load_model = load
        self._keep_alive_s = keep_alive_s
        self._models_bytes = models_bytes
        self._load_wait_s = load_wait_s
        self._free = free
        self._clock = clock
        self._residents: dict[ModelSpec, _Resident] = {}
        #: Measured memory, and duration of the last load, of models that were loaded before.
        self._known: dict[ModelSpec, tuple[int, float]] = {}
        self._loading = asyncio.Lock()
        self._changed = asyncio.Event()
        self._closed = False

    async def run(self, spec: ModelSpec, job: Job) -> Vectors:
        """Compute a job on a model, which is loaded if necessary.

        Raises UnavailableError if that takes longer than `load_wait_s`; loading goes on. Raises the errors of loading.
        """
        async with self._using(spec) as model:
            return await model.run(job)

    async def warm(self, spec: ModelSpec) -> None:
        """Load a model. Raises as `run`."""
        async with self._using(spec):
            pass

    def keep(self, model: str, keep_alive_s: float | None) -> int:
        """Set the time after which a model is unloaded, by its canonical name; return how many models have it."""
        found = [one for one in self._residents.values() if one.spec.model == model]
        for one in found:
            one.keep_alive_s = keep_alive_s
        self._changed.set()
        return len(found)

    @asynccontextmanager
    async def _using(self, spec: ModelSpec) -> AsyncGenerator[Computing]:
        """Wait until a model is loaded, and keep it in memory for the block.

        Jobs that wait for a model use it, too: otherwise, models that do not fit together could unload each other
        before they computed anything.
        """
        until = self._clock() + self._load_wait_s
        while True:
            if self._closed:
                raise ClosedError(_CLOSED)
            resident = self._residents.get(spec)
            if resident is None:
                resident = self._residents[spec] = self._begin(spec)
            if not resident.is_leaving:
                break
            await self._wait(resident, until)
        resident.users += 1
        resident.unused.clear()
        try:
            if resident.model is None:
                await self._wait(resident, until)
            assert resident.model is not None  # noqa: S101  loaded
            yield resident.model
        finally:
            resident.users -= 1
            resident.used = self._clock()
            if not resident.users:
                resident.unused.set()
                if resident.keep_alive_s is not None and resident.keep_alive_s < _SWEEP_S:
                    self._changed.set()

    async def _wait(self, resident: _Resident, until: float) -> None:
        """Wait until a model is loaded or unloaded. Raises its error, and UnavailableError after `until`."""
        task = resident.task
        assert task is not None  # noqa: S101  it is loaded or unloaded
        while not task.done():
            await asyncio.wait({task}, timeout=max(0.0, until - self._clock()))
            if not task.done() and self._clock() >= until:
                raise self._still_loading(resident)
        if task.cancelled():
            raise ClosedError(_CLOSED)
        await task  # raises the error of loading

    def _begin(self, spec: ModelSpec) -> _Resident:
        now = self._clock()
        resident = _Resident(spec, self._keep_alive_s, now, used=now)
        resident.unused.set()
        resident.task = _task(self._load(resident))
        return resident

    def _still_loading(self, resident: _Resident) -> EmbedwayError:
        _, load_s = self._known.get(resident.spec, (0, _FIRST_LOAD_S))
        left_s = max(1.0, load_s - (self._clock() - resident.began))
        return unavailable(
            f"local:{resident.spec.model.rsplit('/', 1)[-1]}",
            f"the model is still being loaded; try again in {left_s:.0f} s",
            retry_after_s=left_s,
            loading=True,
        )

    async def _load(self, resident: _Resident) -> None:
        spec = resident.spec
        try:
            async with self._loading:
                await self._make_room(spec)
                resident.began = began = self._clock()
                model = await self._load_model(spec)
            now = self._clock()
            self._known[spec] = model.bytes, now - began
            resident.model, resident.used = model, now
            self._unload_excess(resident)
            self._changed.set()
            _log.info("loaded %s: %d MiB in %.1f s", redact(spec.model), model.bytes // _MIB, now - began)
        except BaseException as error:
            self._residents.pop(spec, None)
            if must_pass(error) or isinstance(error, EmbedwayError):
                raise
            raise UnsupportedModelError(
                f"{spec.model} cannot be loaded: the code that loads it failed ({place_of(error)})"
            ) from error

    async def _make_room(self, spec: ModelSpec) -> None:
        """Unload models until another one fits. Raises RuntimeUnavailableError if it alone is too large."""
        if self._models_bytes is None:
            return
        needed = self._known.get(spec, (spec.weights_bytes, 0.0))[0]
        if needed > self._models_bytes:
            raise RuntimeUnavailableError(
                f"{spec.model} needs about {needed // _MIB:,} MiB, and server.models_mib allows "
                f"{self._models_bytes // _MIB:,}: raise it, or use a smaller model"
            )
        while True:
            held = [one for one in self._residents.values() if one.model is not None]
            if needed + sum(one.model.bytes for one in held if one.model is not None) <= self._models_bytes:
                return
            staying = [one for one in held if not one.is_leaving]
            if staying:
                self._unload(min(staying, key=lambda one: (one.users > 0, one.used)))
            await asyncio.wait([one.task for one in held if one.task is not None and one.is_leaving])

    def _unload_excess(self, loaded: _Resident) -> None:
        """Unload unused models if one needs more memory than its files let expect."""
        if self._models_bytes is None:
            return
        held = {one: one.model.bytes for one in self._residents.values() if one.model is not None}
        total = sum(held.values())
        for one in sorted(held, key=lambda one: one.used):
            if total > self._models_bytes and one.is_ready and not one.users and one is not loaded:
                self._unload(one)
                total -= held[one]

    def _unload(self, resident: _Resident) -> None:
        resident.is_leaving = True
        resident.task = _task(self._close(resident))

    async def _close(self, resident: _Resident) -> None:
        await resident.unused.wait()
        model, resident.model = resident.model, None
        assert model is not None  # noqa: S101  it was loaded
        try:
            await model.close()
            del model
            if self._free is not None:
                await self._free()
        finally:
            self._residents.pop(resident.spec, None)
        _log.info("unloaded %s", redact(resident.spec.model))

    async def sweep(self) -> float | None:
        """Unload models that were unused for long; return the seconds until the next may be, or None."""
        now, rest = self._clock(), []
        for one in list(self._residents.values()):
            if not one.is_ready or one.keep_alive_s is None:
                continue
            if one.users:
                rest.append(max(_SWEEP_S, one.keep_alive_s))
                continue
            left_s = one.used + one.keep_alive_s - now
            if left_s <= 0:
                self._unload(one)
                assert one.task is not None  # noqa: S101  it unloads
                await asyncio.shield(one.task)
            else:
                rest.append(left_s)
        return min(rest, default=None)

    async def keep_sweeping(self) -> None:
        """Sweep whenever a model may have been unused for long. Runs until it is cancelled."""
        while True:
            self._changed.clear()
            rest_s = await self.sweep()
            try:
                await asyncio.wait_for(self._changed.wait(), rest_s)
            except TimeoutError:
                continue

    def states(self) -> list[dict[str, Any]]:
        """Return the state of each model as plain values."""
        return [self._state(one) for one in self._residents.values()]

    def _state(self, one: _Resident) -> dict[str, Any]:
        now, model = self._clock(), one.model
        state = "loaded" if one.is_ready else "unloading" if one.is_leaving else "loading"
        return {
            "model": one.spec.model,
            "task": one.spec.task,
            "normalized": not one.spec.raw,
            "state": state,
            "bytes": 0 if model is None else model.bytes,
            "runtime": str(one.spec.choice.bulk) if model is None else model.runtime,
            "unused_s": 0.0 if one.users else max(0.0, now - one.used),
            "keep_alive_s": one.keep_alive_s,
            "jobs": one.users,
            "waiting": 0 if model is None else model.waiting,
        }

    async def aclose(self) -> None:
        """Unload all models after their jobs."""
        self._closed = True
        for one in list(self._residents.values()):
            if one.task is not None and not one.task.done() and not one.is_leaving:
                one.task.cancel()
            elif one.is_ready:
                self._unload(one)
        tasks = [one.task for one in self._residents.values() if one.task is not None]
        if tasks:
            await asyncio.wait(tasks)


def _task(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Return a task whose error may be seen by no one."""
    task = asyncio.create_task(work)
    task.add_done_callback(lambda task: task.cancelled() or task.exception())
    return task
