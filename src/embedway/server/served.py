"""Models that a gateway serves, and those that a caller may use."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING

from embedway.config.local_models import AUTO
from embedway.local.loading import resolve
from embedway.local.outline import has_weights
from embedway.models.reranker import names as reranker_names
from embedway.providers.names import folder_of, full_name, known_names, own_models, service_of
from embedway.server.problems import NotServedError
from embedway.server.unserved import explain_unserved
from embedway.text import shown_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from embedway.catalog.types import Task
    from embedway.config import Config
    from embedway.selection.selector import ModelSelector
    from embedway.server.caller import Caller

#: Time after which models are listed again, in seconds: weights and keys may have been added.
_FRESH_S = 30.0


class ServedModels:
    """The models of a gateway: those of `server.models`, or those of the catalog and the settings that run here.

    Callers can name no others: folders and repositories are for the user of the machine.
    """

    def __init__(self, config: Config, selector: ModelSelector, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._selector = selector
        self._clock = clock
        #: Canonical names by lower-case name or alias, and tasks by canonical name.
        self._names: dict[str, str] = {}
        self._tasks: dict[str, Task] = {}
        #: Names of folders for callers, who must not read paths of the machine.
        self._shown: dict[str, str] = {}
        #: Canonical names of all models of the catalog and the settings, by lower-case name or alias.
        self._known = known_names(config)
        #: Canonical names of the models that a selection can compare.
        self._comparable: frozenset[str] = frozenset()
        self._listed_at = float("-inf")
        self._listing: asyncio.Task[None] | None = None

    async def refresh(self) -> None:
        """List the models again if the list is old. Concurrent callers share the work."""
        if self._clock() - self._listed_at < _FRESH_S:
            return
        if self._listing is None or self._listing.done():
            self._listing = asyncio.create_task(self._list())
        await asyncio.shield(self._listing)

    async def _list(self) -> None:
        embedding = await self._selector.available()
        self._names, self._tasks, self._shown = await asyncio.to_thread(self._read, embedding)
        self._comparable = frozenset(full_name(name, self._config) for name in embedding)
        self._listed_at = self._clock()

    def _read(self, embedding: list[str]) -> tuple[dict[str, str], dict[str, Task], dict[str, str]]:
        """Return names, tasks and names of folders, as attributes have them. Reads the weights store."""
        config = self._config
        listed = self._runnable(embedding) if config.server.models is None else config.server.models
        chosen = {full_name(name, config): name for name in listed}
        tasks: dict[str, Task] = {name: _task_of(name, config) for name in chosen}
        reranker = config.rerank.default_model and full_name(config.rerank.default_model, config)
        if reranker in tasks:  # a folder does not tell its task before it is read
            tasks[reranker] = "rerank"
        found = {name.casefold(): name for name in chosen}
        found.update({spelling.casefold(): name for name, spelling in chosen.items()})
        found.update({spelling: name for spelling, name in self._known.items() if name in chosen})
        shown = self._names_of_folders(chosen)
        found.update({name.casefold(): folder for folder, name in shown.items()})
        return found, tasks, shown

    def _runnable(self, embedding: list[str]) -> list[str]:
        """Return the models of the catalog and the settings that run here, with the given embedding models."""
        config = self._config
        default, reranker = config.embedding.default_model, config.rerank.default_model
        return [
            *([] if default == AUTO else [full_name(default, config)]),
            *embedding,
            *([reranker] if reranker else []),
            *(name for name in reranker_names() if self._is_ready(name)),
            *(facts.name for facts in own_models(config).values()),
        ]

    def _names_of_folders(self, chosen: Iterable[str]) -> dict[str, str]:
        """Return a name for each folder: its last part, with a number if another model has that name."""
        shown: dict[str, str] = {}
        taken = set(self._known)
        for model in chosen:
            folder = folder_of(model, self._config)
            if folder is not None:
                names = (folder.name if number == 1 else f"{folder.name}-{number}" for number in itertools.count(1))
                shown[model] = next(name for name in names if name.casefold() not in taken)
                taken.add(shown[model].casefold())
        return shown

    def _is_ready(self, name: str) -> bool:
        """Return whether a reranker of the catalog can run here now."""
        facts = service_of(name, self._config)
        if facts is not None:
            return any(self._config.key_for(route.provider) for route in facts.routes)
        return has_weights(resolve(name), self._config)

    async def resolve(self, name: str, caller: Caller, task: Task = "embed") -> str:
        """Return the canonical name of a model that a caller may use. Raises NotServedError."""
        canonical, its_task = await self.find(name, caller)
        if its_task != task:
            other = "/v1/rerank" if task == "embed" else "/v1/embeddings"
            raise NotServedError(f"model {shown_name(name)} is served by {other} only")
        return canonical

    async def find(self, name: str, caller: Caller) -> tuple[str, Task]:
        """Return the canonical name and the task of a model that a caller may use. Raises NotServedError."""
        canonical = self._names.get(name.casefold())
        if canonical is None or self._clock() - self._listed_at >= _FRESH_S:
            await self.refresh()
            canonical = self._names.get(name.casefold())
        allowed = self.allowed(caller)
        if canonical is None or (allowed is not None and canonical not in allowed):
            raise await self._not_served(name, caller)
        return canonical, self._tasks[canonical]

    async def _not_served(self, name: str, caller: Caller) -> NotServedError:
        """Return the error for a model, with the reason for one of the catalog that the caller may know of."""
        known, why = self._known.get(name.casefold()), ""
        mine = {self._known.get(one.casefold()) for one in caller.models or ()}
        if known is not None and known != AUTO and (caller.models is None or known in mine):
            why = await asyncio.to_thread(explain_unserved, known, self._config)
        reason = f"; {why}" if why else ""
        return NotServedError(f"model {shown_name(name)} is not served here{reason}; GET /v1/models lists the models")

    def shown(self, canonical: str) -> str:
        """Return the name of a served model that callers read: the canonical one, but no path."""
        return self._shown.get(canonical, canonical)

    def allowed(self, caller: Caller) -> frozenset[str] | None:
        """Return the canonical names of the models of a key; None for all."""
        if caller.models is None:
            return None
        return frozenset(self._names.get(name.casefold(), name) for name in caller.models)

    async def all(self, caller: Caller) -> list[tuple[str, Task]]:
        """Return the models that a caller may use, by name."""
        await self.refresh()
        allowed = self.allowed(caller)
        found = [(name, task) for name, task in self._tasks.items() if allowed is None or name in allowed]
        return sorted(found, key=lambda one: self.shown(one[0]))

    async def selectable(self, caller: Caller) -> tuple[str, ...]:
        """Return the models among which a selection may choose. Raises NotServedError if there is none."""
        served = await self.all(caller)
        found = tuple(name for name, task in served if task == "embed" and name in self._comparable)
        if not found:  # criteria without models would allow every model
            raise NotServedError("none of the models that may be used here can be selected; name one")
        return found


def _task_of(name: str, config: Config) -> Task:
    facts = service_of(name, config)
    if facts is not None:
        return facts.task
    known = resolve(name).facts
    return "embed" if known is None else known.task
