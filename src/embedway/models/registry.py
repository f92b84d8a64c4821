"""Registry of opened models: each is loaded once, at its first use, and stays open."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import errno
from typing import TYPE_CHECKING

from embedway.config.local_models import AUTO
from embedway.errors import ClosedError, UnknownModelError, UsageError, WeightsError
from embedway.models.opening import open_model
from embedway.models.outline import outline_model
from embedway.models.reranker import names as reranker_names
from embedway.providers.names import key_of
from embedway.telemetry.operations import LoadDetails
from embedway.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedway.catalog.types import Task
    from embedway.models.base import Model, ModelEnvironment
    from embedway.weights.store import ProgressSink

    #: Name of a model, or the key of all its names; its task; and whether it is opened without normalization.
    _Key = tuple[str, Task, bool]

#: Maximum number of rerankers that the error for an unknown one names.
_MAX_NEAREST = 5


class ModelRegistry:
    """Registry that opens models by name. For use from one event loop."""

    def __init__(self, environment: ModelEnvironment, progress: ProgressSink | None = None) -> None:
        self._environment = environment
        self.hooks = environment.hooks
        self._progress = progress
        #: Opened models, by every requested name.
        self._models: dict[_Key, Model] = {}
        #: Tasks that open models, by the key that all names of one model share.
        self._opening: dict[_Key, asyncio.Task[Model]] = {}
        #: Tasks that open models for plans; their result is None for a model that can be opened here.
        self._outlines: dict[tuple[str, Task], asyncio.Task[Model | None]] = {}
        self._closed = False

    def check_open(self) -> None:
        """Raise ClosedError after close."""
        if self._closed:
            raise ClosedError("the embedder is closed; create a new one")

    async def open(self, name: str, *, task: Task = "embed", raw: bool = False) -> Model:
        """Return the loaded model with a name; `auto` is the default model.

        Concurrent first callers share one load. A failed load is retried. A blocked model is loaded again when its key
        is available. With `raw`, its vectors are not normalized, if it can be opened so.
        """
        if name == AUTO:
            name = self._environment.config.embedding.default_model
        model = await self._open(name, task)
        return await self._open(name, task, raw=True) if raw and model.space.normalized and model.can_be_raw else model

    async def _open(self, name: str, task: Task, *, raw: bool = False) -> Model:
        model = self._models.get((name, task, raw))
        if model is not None:
            return model
        self.check_open()
        with _long_names_refused(name):
            key = self._key_of(name, task), task, raw
            opening = self._opening.get(key)
            if opening is None or _is_stale(opening):
                former = None if opening is None or _failed(opening) else opening.result()
                opening = self._opening[key] = asyncio.create_task(self._load(name, task, raw=raw))
                if former is not None:
                    await former.close()
            # Shielded: one caller's cancellation must not fail the others that wait.
            model = await asyncio.shield(opening)
        if model.blocked is None and not self._closed:
            self._models[name, task, raw] = model
        return model

    async def outline(self, name: str, *, task: Task = "embed", raw: bool = False) -> Model:
        """Return a model for plans: the loaded one, or one without weights if they are not here. Fetches no weights."""
        if name == AUTO:
            name = self._environment.config.embedding.default_model
        if (name, task, False) in self._models:
            return await self.open(name, task=task, raw=raw)
        self.check_open()
        with _long_names_refused(name):
            key = self._key_of(name, task), task
            opening = self._opening.get((*key, False))
            if opening is not None and not _is_stale(opening):
                return await self.open(name, task=task, raw=raw)
            outline = self._outlines.get(key)
            if outline is None or (outline.done() and _failed(outline)):
                outline = self._outlines[key] = asyncio.create_task(self._outline(name, task))
            model = await asyncio.shield(outline)
        # Without an outline, nothing has to be fetched to open the model.
        return model or await self.open(name, task=task, raw=raw)

    def opened(self, name: str, *, task: Task = "embed") -> Model | None:
        """Return an open model by its canonical name, or None."""
        for (_, kind, raw), opening in self._opening.items():
            if kind == task and not raw and opening.done() and not _failed(opening) and opening.result().name == name:
                return opening.result()
        return None

    def open_embedding_models(self) -> list[Model]:
        """Return the open models that return vectors."""
        tasks = [opening for (_, task, raw), opening in self._opening.items() if task == "embed" and not raw]
        return [opening.result() for opening in tasks if opening.done() and not _failed(opening)]

    async def aclose(self) -> None:
        """Wait for running batches and release all models."""
        self._closed = True
        self._models.clear()
        opening = [*self._opening.values(), *self._outlines.values()]
        self._opening, self._outlines = {}, {}
        for task in opening:
            task.cancel()
        for outcome in await asyncio.gather(*opening, return_exceptions=True):
            if outcome is not None and not isinstance(outcome, BaseException):
                await outcome.close()

    def _key_of(self, name: str, task: Task) -> str:
        """Return the key that all names of a model share. Raises UnknownModelError with names of the task's models."""
        try:
            return key_of(name, self._environment.config)
        except UnknownModelError as error:
            if task != "rerank":
                raise
            by_short_name = {known.rpartition("/")[2].casefold(): known for known in reranker_names()}
            near = difflib.get_close_matches(name.casefold(), by_short_name, _MAX_NEAREST, cutoff=0)
            nearest = [by_short_name[one] for one in near]
            raise UnknownModelError(name, nearest=nearest, route=error.route, lacks=error.lacks) from None

    async def _outline(self, name: str, task: Task) -> Model | None:
        # A daemon thread, as for loading.
        worker = Worker("embedway-outline")
        try:
            return await worker.call(outline_model, name, self._environment, task)
        finally:
            worker.close()

    async def _load(self, name: str, task: Task, *, raw: bool) -> Model:
        # A daemon thread: a download that no caller waits for must not keep the process alive.
        worker = Worker("embedway-load")
        try:
            with self._environment.hooks.operation(LoadDetails, name) as outcome:
                model = await worker.call(
                    open_model, name, self._environment, task=task, progress=self._progress, raw=raw
                )
                outcome.model = model.name
                return model
        finally:
            worker.close()


def _is_stale(opening: asyncio.Task[Model]) -> bool:
    """Return whether a model must be opened again."""
    if not opening.done() or _failed(opening):
        return opening.done()
    model = opening.result()
    return model.blocked is not None and not model.is_still_blocked()


def _failed(opening: asyncio.Task[Model] | asyncio.Task[Model | None]) -> bool:
    return opening.cancelled() or opening.exception() is not None


@contextlib.contextmanager
def _long_names_refused(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, WeightsError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError) or cause.errno != errno.ENAMETOOLONG:
            raise
        raise UsageError(f"model is {name[:40]!r}…, which is too long for the name of a folder") from None
