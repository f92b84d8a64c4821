"""The opened models: each is loaded once, at its first use, and kept."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from typing import TYPE_CHECKING

from embedway.config.local_models import AUTO
from embedway.errors import ClosedError, UsageError, WeightsError
from embedway.models.opening import open_model
from embedway.providers.names import key_of
from embedway.telemetry.operations import LoadDetails
from embedway.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedway.catalog.types import Task
    from embedway.models.base import Model, ModelEnvironment
    from embedway.weights.store import ProgressSink


class ModelRegistry:
    """Opens models by name. Used from one event loop."""

    def __init__(self, environment: ModelEnvironment, progress: ProgressSink | None = None) -> None:
        self._environment = environment
        self._progress = progress
        #: Opened models, by every name that they were asked by.
        self._models: dict[tuple[str, Task], Model] = {}
        #: Models that are being opened, by the name that all names of one model have in common.
        self._opening: dict[tuple[str, Task], asyncio.Task[Model]] = {}
        self._closed = False

    def check_open(self) -> None:
        """Raise ClosedError once all was given back."""
        if self._closed:
            raise ClosedError("this embedder was closed; make a new one")

    async def open(self, name: str, *, task: Task = "embed") -> Model:
        """The loaded model of a name, or the default one.

        Concurrent first callers wait for one loading. A failed one is tried anew, and so is that of a model that can
        send nothing, because its key may be there by now.
        """
        if name == AUTO:
            name = self._environment.config.embedding.default_model
        model = self._models.get((name, task))
        if model is not None:
            return model
        self.check_open()
        with _long_names_refused(name):
            key = key_of(name, self._environment.config), task
            opening = self._opening.get(key)
            if opening is None or _is_stale(opening):
                former = None if opening is None or _failed(opening) else opening.result()
                opening = self._opening[key] = asyncio.create_task(self._load(name, task))
                if former is not None:
                    await former.close()
            # Shielded: one caller's cancellation must not fail the others that wait.
            model = await asyncio.shield(opening)
        if model.blocked is None and not self._closed:
            self._models[name, task] = model
        return model

    def opened(self, name: str, *, task: Task = "embed") -> Model | None:
        """A model by its full name; None where it is not open."""
        for (_, kind), opening in self._opening.items():
            if kind == task and opening.done() and not _failed(opening) and opening.result().name == name:
                return opening.result()
        return None

    async def aclose(self) -> None:
        """Let running batches end and give all models back."""
        self._closed = True
        self._models.clear()
        opening, self._opening = self._opening, {}
        for task in opening.values():
            task.cancel()
        for outcome in await asyncio.gather(*opening.values(), return_exceptions=True):
            if not isinstance(outcome, BaseException):
                await outcome.close()

    async def _load(self, name: str, task: Task) -> Model:
        # A daemon's thread: a download that nobody waits for any more must not keep the process from ending.
        worker = Worker("embedway-load")
        try:
            with self._environment.hooks.operation(LoadDetails, name):
                return await worker.call(open_model, name, self._environment, task=task, progress=self._progress)
        finally:
            worker.close()


def _is_stale(opening: asyncio.Task[Model]) -> bool:
    """Whether a model has to be opened again."""
    if not opening.done() or _failed(opening):
        return opening.done()
    model = opening.result()
    return model.blocked is not None and not model.is_still_blocked()


def _failed(opening: asyncio.Task[Model]) -> bool:
    return opening.cancelled() or opening.exception() is not None


@contextlib.contextmanager
def _long_names_refused(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, WeightsError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError) or cause.errno != errno.ENAMETOOLONG:
            raise
        raise UsageError(f"model is {name[:40]!r}…, which is longer than the name of a folder can be") from None
