"""The models that were asked for, loaded once and kept, with the routes to those that services run."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
from typing import TYPE_CHECKING, Any

from embedway.arguments import named
from embedway.dispatch.rate_limiter import RateLimiter
from embedway.dispatch.recovery import ServiceRoute
from embedway.dispatch.semaphore import PrioritySemaphore
from embedway.errors import ClosedError, ConfigError, UsageError, WeightsError
from embedway.models.multi_route import with_services
from embedway.models.multi_route_rerank import open_any_reranker
from embedway.models.reranker import ServiceReranker
from embedway.models.reranker import key_of as reranker_key
from embedway.models.service import ServiceModel
from embedway.providers.names import key_of, local_names, open_model, service_of
from embedway.providers.unsent import open_unsent, unsent_key
from embedway.rerank.base import Scoring
from embedway.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence

    from embedway.config import Config
    from embedway.models.reranker import AnyReranker
    from embedway.providers.base import Provider
    from embedway.providers.names import AnyModel
    from embedway.rerank.base import RerankProvider
    from embedway.weights.store import ProgressSink


@contextlib.contextmanager
def _told_of_long_names(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, WeightsError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError) or cause.errno != errno.ENAMETOOLONG:
            raise
        raise UsageError(f"model is {name[:40]!r}…, which is longer than the name of a folder can be") from None


class ModelRegistry:
    """Opens models and rerankers by name. Used from one event loop.

    `routes` and `scoring` are what is known of the routes of opened models, by the model's full name.
    """

    def __init__(self, config: Config, progress: ProgressSink | None = None) -> None:
        self._config = config
        self._progress = progress
        self._keys: dict[tuple[str, Callable[[str, Config], str]], str] = {}
        self._opening: dict[str, asyncio.Task[AnyModel | AnyReranker]] = {}
        self._closed = False
        self.routes: dict[str, list[ServiceRoute]] = {}
        self.scoring: dict[str, list[tuple[RerankProvider, ServiceRoute]]] = {}

    def check_open(self) -> None:
        """Raise ClosedError once all was given back."""
        if self._closed:
            raise ClosedError("this embedder was closed; make a new one")

    async def open(self, name: str, *, sending: bool = True) -> AnyModel:
        """The loaded model; one that will not be sent anything needs no key."""
        opened: AnyModel
        try:
            opened = await self._opened(name, key_of, self._load)
        except ConfigError:
            if sending or service_of(name, self._config) is None:
                raise
            opened = await self._opened(name, unsent_key, functools.partial(self._in_worker, open_unsent))
        return opened

    async def open_reranker(self, name: str) -> AnyReranker:
        """The loaded reranker."""
        opened: AnyReranker = await self._opened(name, reranker_key, self._load_reranker)
        return opened

    def batch_dependent(self, model: AnyModel, answered: Sequence[str] | None = None) -> bool:
        """Whether one of the routes that answered, or of all, gives vectors that depend on their batch."""
        if not isinstance(model, ServiceModel):
            return model.batch_dependent
        routes = self.routes.get(model.model, ())
        return any(one.provider.declared.batch_dependent for one in routes if answered is None or one.name in answered)

    async def aclose(self) -> None:
        """Let running batches end and give all models back."""
        self._closed = True
        opening, self._opening = self._opening, {}
        for task in opening.values():
            task.cancel()
        for outcome in await asyncio.gather(*opening.values(), return_exceptions=True):
            if not isinstance(outcome, BaseException):
                await outcome.close()

    async def _opened(
        self, name: str, key_of_name: Callable[[str, Config], str], load: Callable[[str], Coroutine[Any, Any, Any]]
    ) -> Any:
        """What was loaded; concurrent first callers wait for one loading, and a failed one is tried anew."""
        self.check_open()
        with _told_of_long_names(named(name, "model")):
            return await self._found(name, key_of_name, load)

    async def _found(
        self, name: str, key_of_name: Callable[[str, Config], str], load: Callable[[str], Coroutine[Any, Any, Any]]
    ) -> Any:
        key = self._keys.get((name, key_of_name))
        if key is None:
            key = self._keys[name, key_of_name] = key_of_name(name, self._config)
        task = self._opening.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._opening[key] = asyncio.create_task(load(name))
        if task.done():
            return task.result()
        # Shielded: one caller's cancellation must not fail the others that wait.
        return await asyncio.shield(task)

    async def _load(self, name: str) -> AnyModel:
        model: AnyModel = await self._in_worker(open_model, name)
        if not isinstance(model, ServiceModel):
            model = with_services(model, local_names(name), self._config)
        if isinstance(model, ServiceModel):
            self.routes[model.model] = [self._route(*served) for served in model.endpoints]
        return model

    async def _load_reranker(self, name: str) -> AnyReranker:
        model: AnyReranker = await self._in_worker(open_any_reranker, name)
        if isinstance(model, ServiceReranker):
            self.scoring[model.model] = [
                (reranker, self._route(name, Scoring(reranker, ""), limits))
                for name, reranker, limits in model.endpoints
            ]
        return model

    async def _in_worker(self, opening: Callable[..., Any], name: str) -> Any:
        # A daemon's thread: a download that nobody waits for any more must not keep the process from ending.
        worker = Worker("embedway-load")
        try:
            return await worker.call(opening, name, self._config, self._progress)
        finally:
            worker.close()

    def _route(self, name: str, provider: Provider, limits: tuple[int | None, int | None]) -> ServiceRoute:
        requests, tokens = limits
        return ServiceRoute(
            name,
            provider,
            limiter=RateLimiter(requests_per_minute=requests, tokens_per_minute=tokens),
            slots=PrioritySemaphore(self._config.upstream.concurrency),
        )
