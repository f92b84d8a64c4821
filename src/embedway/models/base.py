"""The contract of an opened model, whatever computes it, and the steps that all kinds have in common.

A new kind of model is a subclass with `tokenize` and `_run`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from embedway.batching.ready_rows import ReadyRows
from embedway.batching.work import Work, make_work
from embedway.compute import Computed, ComputeRequest
from embedway.dispatch.recovery import UpstreamClient
from embedway.dispatch.request import RetryPolicy
from embedway.errors import DimensionsError, UsageError
from embedway.ledger.budgets import Budgets
from embedway.telemetry.hooks import Hooks
from embedway.telemetry.operations import ValidationDetails, WaitDetails
from embedway.vectors import to_size, validate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from embedway.catalog.types import Task
    from embedway.config import Config
    from embedway.errors import ConfigError, EmbedwayError
    from embedway.local.encoder import Encoder
    from embedway.types import Bill, ModelDescription, Space, TokenizedTexts, Vectors

#: Tokenizing so little takes 0.1 ms, less than handing it to a thread and back; more never runs on the event loop.
_INLINE_CHARACTERS = 512


@dataclass(frozen=True, slots=True)
class ModelEnvironment:
    """Everything that models share: settings, the client of services, and who pays."""

    config: Config
    budgets: Budgets = field(default_factory=lambda: Budgets(None))
    hooks: Hooks = field(default_factory=Hooks)
    client: UpstreamClient = field(init=False)

    def __post_init__(self) -> None:
        """Make the client from the settings."""
        upstream = self.config.upstream
        policy = RetryPolicy(upstream.max_attempts, upstream.first_wait_s, upstream.longest_wait_s, upstream.deadline_s)
        object.__setattr__(self, "client", UpstreamClient(policy, hooks=self.hooks))


@dataclass(frozen=True, slots=True)
class Profile:
    """Facts of an opened model. `route` is provider and model, such as `local:all-MiniLM-L6-v2`."""

    description: ModelDescription
    route: str
    #: The size of vectors where none is asked for.
    default_dimensions: int
    #: How it computes, as far as the numbers depend on it, such as its precision; empty for services.
    variant: str
    #: Whether tokens are counted with the model's own tokenizer, not estimated.
    exact: bool


@dataclass(frozen=True, slots=True)
class Estimate:
    """The bill of work that is planned: at once, and through the service's batch API. None where nobody knows."""

    tokens: int
    requests: int
    cost_nanousd: int | None
    batch_cost_nanousd: int | None


class Model(ABC):
    """A model, ready to compute. `name` is its full name, `space` that of its vectors at full width.

    Whoever keeps a model `retain`s it, and `close`s it once; the last one gives threads and connections back.
    """

    task: ClassVar[Task] = "embed"
    #: Raises BadVectorsError for rows that cannot be right.
    check: ClassVar[Callable[..., None]] = staticmethod(validate)
    #: Whether hooks hear of the check of each answer, which has the route that gave it, and not of the check of all.
    checks_answers: ClassVar[bool] = False
    #: Why nothing can be sent, such as a key that is not set; None where it can.
    blocked: ConfigError | None = None

    def __init__(self, profile: Profile, hooks: Hooks, *, token_budget: int | None) -> None:
        self.profile = profile
        self.hooks = hooks
        self.name = profile.description.model
        self.space = profile.description.space
        self.max_tokens = profile.description.max_tokens
        self.variant = profile.variant
        self.token_budget = token_budget
        self._owners = 1

    @abstractmethod
    def tokenize(self, texts: Sequence[str], request: ComputeRequest) -> TokenizedTexts:
        """Token ids with prompt and special tokens, or their counts, cut at `max_tokens`. Blocking."""

    @abstractmethod
    async def _run(
        self, work: Work, request: ComputeRequest, on_ready: ReadyRows | None
    ) -> tuple[Vectors, dict[int, EmbedwayError], Bill]:
        """Rows of the parts of some work, float32 (parts, full width or that of the request), errors by part, the bill.

        Errors are raised unless the request is partial.
        """

    @abstractmethod
    def cost_nanousd(self, tokens: int, dimensions: int | None = None) -> int | None:
        """The price of so many tokens, for vectors of a size; None where none is known."""

    @abstractmethod
    def estimate(self, work: Work, dimensions: int) -> Estimate:
        """The bill of some work, for vectors of a size."""

    @property
    @abstractmethod
    def may_depend_on_batch(self) -> bool:
        """Whether one of its routes may give vectors that depend on the other texts of their batch."""

    def depends_on_batch(self, routes: Sequence[str]) -> bool:
        """Whether one of these routes gives vectors that depend on the other texts of their batch."""
        del routes
        return self.may_depend_on_batch

    @abstractmethod
    async def warm(self) -> None:
        """Make the model ready, so that the first call need not wait."""

    @abstractmethod
    def encoder(self) -> Encoder:
        """The part that computes on this machine, for tuning. Raises UsageError where there is none."""

    def scheduler_wait(self) -> Callable[[], AbstractContextManager[object]] | None:
        """The hooks' operation in which texts wait for those of other callers; None where no hook wants it."""
        hooks = self.hooks
        return partial(hooks.operation, WaitDetails, "scheduler", self.profile.route) if hooks.operating else None

    @abstractmethod
    async def _close(self) -> None:
        """Give threads, memory and connections back."""

    async def compute(self, request: ComputeRequest) -> Computed:
        """Tokenize, compute, average windows and check; see `Computes.compute`."""
        began = time.perf_counter()
        work = await self.work(request)
        tokenized = time.perf_counter()
        # Means are of whole windows: cut before, they would be other vectors than those that a cache keeps.
        space = request.space if work.windows is None else self.space
        on_ready = None
        if request.on_ready is not None and not self.may_depend_on_batch:
            on_ready = ReadyRows(work, space, request.on_ready)
        asked = request if space is request.space else replace(request, space=space)
        vectors, errors, bill = await self._run(work, asked, on_ready)
        if work.windows is not None:
            vectors, errors = work.windows.merge(vectors, space), work.windows.errors(errors)
        if vectors.shape[1] != space.dimensions:
            vectors = to_size(vectors, space)
        good = vectors[sorted(set(range(len(vectors))) - set(errors))] if errors else vectors
        route, hooks = self.profile.route, self.hooks
        with contextlib.nullcontext() if self.checks_answers else hooks.operation(ValidationDetails, route, len(good)):
            self.check(good, count=len(work.positions) - len(errors), space=space, route=route)
        if space.dimensions != request.space.dimensions:
            vectors = to_size(vectors, request.space)
        return Computed(
            {"dense": vectors if not work.refused else work.rows(vectors)},
            work.metas,
            bill,
            {**work.refused, **{int(work.positions[text]): error for text, error in errors.items()}},
            storable=not (self.may_depend_on_batch and self.depends_on_batch(bill.routes)),
            tokenize_s=tokenized - began,
            compute_s=time.perf_counter() - tokenized,
            origin=self.profile.route,
        )

    async def work(self, request: ComputeRequest) -> Work:
        """Make texts ready; off the event loop unless they are few."""
        if sum(map(len, request.texts)) <= _INLINE_CHARACTERS:
            return make_work(request, self)
        return await asyncio.to_thread(make_work, request, self)

    def space_of_size(self, dimensions: int | None) -> Space:
        """The space at a size, or at the model's default one. Raises DimensionsError for a size that it has not."""
        size = dimensions or self.profile.default_dimensions
        if size == self.space.dimensions:
            return self.space
        if size not in self.profile.description.sizes:
            raise DimensionsError(self.name, asked=size, sizes=self.profile.description.sizes)
        return replace(self.space, dimensions=size)

    def describe(self, dimensions: int | None = None) -> ModelDescription:
        """The space at a size, with limits and tokenizer. Raises DimensionsError."""
        return replace(self.profile.description, space=self.space_of_size(dimensions))

    def decode(self, ids: Sequence[int]) -> str | None:
        """The text that token ids stand for; None where ids are not known for certain to be this model's.

        Raises ValueError for ids that are no text.
        """
        del ids
        return None

    def is_still_blocked(self) -> bool:
        """Look again whether anything can be sent; a key may be there by now."""
        return self.blocked is not None

    def retain(self) -> None:
        """Keep the model open until one more `close`."""
        self._owners += 1

    async def close(self) -> None:
        """Give the model back; its last owner lets running batches end and closes it."""
        self._owners -= 1
        if self._owners == 0:
            await self._close()


def not_here(model: str) -> UsageError:
    """The error for tuning a model that services run."""
    return UsageError(f"{model} runs on a service; only models on this machine can be tuned")
