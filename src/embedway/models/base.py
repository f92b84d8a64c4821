"""Base class of opened models: the contract, and the steps that all kinds share.

A new kind of model is a subclass with `tokenize` and `_run`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from embedway._public import public
from embedway.batching.ready_rows import ReadyRows
from embedway.batching.work import Work, make_work
from embedway.compute import Computed, ComputeRequest
from embedway.dispatch.error_rate import AlertPolicy, ErrorRates
from embedway.dispatch.recovery import UpstreamClient
from embedway.dispatch.request import RetryPolicy
from embedway.errors import BadVectorsError, DimensionsError, EmbedwayError, NoRouteError, UsageError, with_row
from embedway.ledger.budgets import Budgets
from embedway.models.part_checks import PartCheck
from embedway.quality.checks import DiversityCheck, report_refusal
from embedway.quality.similarity import note_of
from embedway.quality.space_proofs import SpaceProofs
from embedway.sizes import VectorSizes
from embedway.telemetry.hooks import Hooks
from embedway.telemetry.operations import ValidationDetails, VectorCheckDetails, WaitDetails
from embedway.vectors import to_size, validate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from embedway.catalog.types import Task
    from embedway.config import Config
    from embedway.errors import ConfigError
    from embedway.local.encoder import Encoder
    from embedway.local.remote import Inference
    from embedway.quality.quarantine import Quarantines
    from embedway.types import Bill, ModelDescription, Space, Spread, TokenizedTexts, VectorChecks, Vectors

#: Maximum characters to tokenize on the event loop: this takes 0.1 ms, less than the round trip to a thread.
_INLINE_CHARACTERS = 512


_log = logging.getLogger("embedway.models")


@dataclass(frozen=True, slots=True)
class ModelEnvironment:
    """Shared context of models: settings, the client for services, and budgets."""

    config: Config
    budgets: Budgets = field(default_factory=lambda: Budgets(None))
    hooks: Hooks = field(default_factory=Hooks)
    #: Stored proofs of vector spaces.
    proofs: SpaceProofs = field(default_factory=lambda: SpaceProofs(None))
    #: Routes that are not used; None without a ledger.
    quarantines: Quarantines | None = None
    #: Process that computes local models; None if this one does.
    inference: Inference | None = None
    client: UpstreamClient = field(init=False)
    #: Error rates of routes; None without alerts.
    error_rates: ErrorRates | None = field(init=False)

    def __post_init__(self) -> None:
        """Create the client and the error rates from the settings."""
        alerts, upstream = self.config.alerts, self.config.upstream
        policy = AlertPolicy(alerts.error_rate, alerts.window_s, alerts.min_requests)
        object.__setattr__(self, "error_rates", ErrorRates(policy, self.hooks) if alerts.enabled else None)
        waits = upstream.first_wait_s, upstream.longest_wait_s, upstream.deadline_s
        retries = RetryPolicy(upstream.max_attempts, *waits)
        object.__setattr__(self, "client", UpstreamClient(retries, hooks=self.hooks))


@dataclass(frozen=True, slots=True)
class Profile:
    """Facts of an opened model. `route` is provider and model, such as `local:all-MiniLM-L6-v2`."""

    description: ModelDescription
    route: str
    #: Dimensions of vectors if the request names none.
    default_dimensions: int
    #: Settings that change the numbers, such as precision; empty for services.
    variant: str
    #: Whether tokens are counted with the model's own tokenizer, not estimated.
    exact: bool


@public
@dataclass(frozen=True, slots=True)
class Estimate:
    """Estimated bill of planned work: directly, and with the service's batch API. None if unknown."""

    tokens: int
    requests: int
    cost_nanousd: int | None
    batch_cost_nanousd: int | None


class Model(ABC):
    """A model, ready to compute. `name` is its canonical name, `space` is the space of its vectors at full width.

    The model is reference-counted, starting at 1: each further owner calls `retain`, and every owner calls `close`
    once. The last `close` releases threads and connections.
    """

    task: ClassVar[Task] = "embed"
    #: Raises BadVectorsError for invalid rows.
    check: ClassVar[Callable[..., None]] = staticmethod(validate)
    #: Whether hooks get one validation per answer, with its route, instead of one for all rows.
    checks_answers: ClassVar[bool] = False
    #: Whether the model can be opened without its final normalization.
    can_be_raw: bool = False
    #: Error that prevents requests, such as a missing key; None if requests can be sent.
    blocked: ConfigError | None = None
    #: Division of small requests among this machine's streams; None for services.
    spread: Spread | None = None
    #: Maximum texts of a batch on this machine; None for services, whose routes limit their requests.
    max_batch_size: int | None = None
    #: Routes that are not used, because they differ from their baseline; None without a ledger.
    quarantines: Quarantines | None = None

    def __init__(self, profile: Profile, hooks: Hooks, *, token_budget: int | None) -> None:
        self.profile = profile
        self.hooks = hooks
        self.name = profile.description.model
        self.space = profile.description.space
        #: Id of the space that has the baseline and the quarantine of the routes.
        self.baseline_space_id = self.space.id
        self.max_tokens = profile.description.max_tokens
        self.variant = profile.variant
        self.token_budget = token_budget
        self._owners = 1
        #: Vector sizes whose notes were logged.
        self._logged_sizes: set[int] = set()
        #: Checks of vectors whose warnings were logged.
        self._logged_checks: set[str] = set()

    @abstractmethod
    def tokenize(self, texts: Sequence[str], request: ComputeRequest) -> TokenizedTexts:
        """Return token ids with prompt and special tokens, or their counts, truncated at `max_tokens`. Blocking."""

    @abstractmethod
    async def _run(
        self, work: Work, request: ComputeRequest, on_ready: ReadyRows | None
    ) -> tuple[Vectors, dict[int, EmbedwayError], Bill]:
        """Compute the parts of some work; return their rows, the errors by part, and the bill.

        Rows are float32 (parts, d); d is the full width or that of the request. Errors are raised unless the request is
        partial.
        """

    @abstractmethod
    def cost_nanousd(self, tokens: int, dimensions: int | None = None) -> int | None:
        """Return the price of `tokens`, for vectors of a size; None if it is unknown."""

    @abstractmethod
    def estimate(self, work: Work, dimensions: int) -> Estimate:
        """Estimate the bill of some work, for vectors of a size."""

    @property
    @abstractmethod
    def may_depend_on_batch(self) -> bool:
        """Whether vectors of any route may depend on the other texts in their batch."""

    def depends_on_batch(self, routes: Sequence[str]) -> bool:
        """Return whether vectors of one of these routes depend on the other texts in their batch."""
        del routes
        return self.may_depend_on_batch

    @abstractmethod
    async def warm(self) -> None:
        """Prepare the model, so that the first call does not wait."""

    @abstractmethod
    def encoder(self) -> Encoder:
        """Return the local encoder, for tuning. Raises UsageError if there is none."""

    def scheduler_wait(self) -> Callable[[], AbstractContextManager[object]] | None:
        """Return a factory of the hook operation for the scheduler wait; None if no hook needs it."""
        hooks = self.hooks
        return partial(hooks.operation, WaitDetails, "scheduler", self.profile.route) if hooks.operating else None

    @abstractmethod
    async def _close(self) -> None:
        """Release threads, memory and connections."""

    async def compute(self, request: ComputeRequest) -> Computed:
        """Tokenize, compute, average windows and validate; see `Computes.compute`."""
        if self.quarantines is not None and not request.only_route:
            await self._check_quarantine(self.quarantines)
        began = time.perf_counter()
        work = await self.work(request)
        tokenized = time.perf_counter()
        # Average windows at full width: truncating first would give other vectors than those in the cache.
        space = request.space if work.windows is None else self.space
        diversity = self._diversity(request)
        checks = None if diversity is None else PartCheck(work, diversity)
        on_ready = None
        if request.on_ready is not None and not self.may_depend_on_batch:
            on_ready = ReadyRows(work, space, request.on_ready, checks)
        asked = request if space is request.space else replace(request, space=space)
        try:
            vectors, errors, bill = await self._run(work, asked, on_ready)
        except EmbedwayError as error:
            raise error if error.row is None else with_row(error, work.position(error.row)) from error.__cause__
        if checks is not None:
            self._refuse_parts(checks, vectors, errors, partial=request.partial)
        if work.windows is not None:
            vectors, errors = work.windows.merge(vectors, space), work.windows.errors(errors)
        if vectors.shape[1] != space.dimensions:
            vectors = to_size(vectors, space)
        good = vectors[sorted(set(range(len(vectors))) - set(errors))] if errors else vectors
        route, hooks = self.profile.route, self.hooks
        with contextlib.nullcontext() if self.checks_answers else hooks.operation(ValidationDetails, route, len(good)):
            try:
                self.check(good, count=len(work.positions) - len(errors), space=space, route=route)
            except BadVectorsError as error:
                report_refusal(hooks, self.name, error, len(good))
                raise
        if space.dimensions != request.space.dimensions:
            vectors = to_size(vectors, request.space)
        return Computed(
            {"dense": vectors if not work.refused else work.rows(vectors)},
            work.metas,
            bill,
            {**work.refused, **_by_position(errors, work)},
            storable=not (self.may_depend_on_batch and self.depends_on_batch(bill.routes)),
            tokenize_s=tokenized - began,
            compute_s=time.perf_counter() - tokenized,
            origin=self.profile.route,
        )

    def _diversity(self, request: ComputeRequest) -> DiversityCheck | None:
        """Return the check of computed parts for equal vectors; None if their answers were checked, or need not be."""
        del request
        return None

    def _refuse_parts(
        self, checks: PartCheck, vectors: Vectors, errors: dict[int, EmbedwayError], *, partial: bool
    ) -> None:
        """Add the errors of parts with one vector for different texts, or raise the first one if not `partial`."""
        fault = checks.find_fault(vectors, errors)
        if fault is None:
            return
        report_refusal(self.hooks, self.name, fault, len(vectors))
        found = checks.errors(fault)
        if not partial:
            raise next(iter(found.values()))
        errors.update(found)
        vectors[list(found)] = np.nan

    async def _check_quarantine(self, quarantines: Quarantines) -> None:
        """Raise NoRouteError if every route of the model is in quarantine."""
        await quarantines.refresh()
        found = quarantines.of_space(self.baseline_space_id)
        if found and found.keys() >= set(self.route_names):
            raise NoRouteError(self.name, failed=[(route, found[route]) for route in self.route_names])

    @property
    def route_names(self) -> tuple[str, ...]:
        """Names of the routes, in the order of failover."""
        return (self.profile.route,)

    @property
    def circuit_states(self) -> Mapping[str, str]:
        """State of the circuit of each route: closed, half-open or open."""
        return dict.fromkeys(self.route_names, "closed")

    def price_on(self, route: str, tokens: int) -> int | None:
        """Return the price of `tokens` on one route, in nano-dollars; None if it is unknown."""
        del route
        return self.cost_nanousd(tokens)

    async def work(self, request: ComputeRequest) -> Work:
        """Prepare texts; in a thread unless they are short."""
        if sum(map(len, request.texts)) <= _INLINE_CHARACTERS:
            return make_work(request, self)
        return await asyncio.to_thread(make_work, request, self)

    def space_of_size(self, dimensions: int | None) -> Space:
        """Return the space at a size, by default the model's default size.

        Raises DimensionsError for an unsupported size.
        """
        size = dimensions or self.profile.default_dimensions
        if size == self.space.dimensions:
            return self.space
        known = self.profile.description
        if size not in VectorSizes(known.sizes, known.min_dimensions):
            raise DimensionsError(self.name, asked=size, sizes=known.sizes, min_dimensions=known.min_dimensions)
        return replace(self.space, dimensions=size)

    def notes_on_size(self, dimensions: int) -> tuple[str, ...]:
        """Return notes for the receipt on vectors of a size, such as one that the maker did not evaluate."""
        known = self.profile.description
        notes = tuple(VectorSizes(known.sizes, known.min_dimensions).notes(self.name, dimensions))
        if notes and dimensions not in self._logged_sizes:
            self._logged_sizes.add(dimensions)
            _log.warning("%s. This is logged once", "; ".join(notes))
        return notes

    def notes_on_checks(self, checks: VectorChecks) -> tuple[str, ...]:
        """Return notes for the receipt on checks that warned, report them to hooks, and log each once."""
        for check in checks.warnings:
            self.hooks.event(VectorCheckDetails, self.name, self.profile.route, check, "warned", checks.texts)
        note = note_of(checks, self.name)
        if note is None:
            return ()
        if not self._logged_checks.issuperset(checks.warnings):
            self._logged_checks.update(checks.warnings)
            _log.warning("%s. This is logged once", note)
        return (note,)

    def describe(self, dimensions: int | None = None) -> ModelDescription:
        """Return the space at a size, with limits and tokenizer. Raises DimensionsError."""
        return replace(self.profile.description, space=self.space_of_size(dimensions), variant=self.variant)

    def decode(self, ids: Sequence[int]) -> str | None:
        """Return the text of token ids; None if the model's encoding is not known.

        Raises ValueError for ids that do not decode to a text.
        """
        del ids
        return None

    def is_still_blocked(self) -> bool:
        """Check again whether requests are blocked: a missing key may be available now."""
        return self.blocked is not None

    def retain(self) -> None:
        """Add an owner: the model needs one more `close`."""
        self._owners += 1

    async def close(self) -> None:
        """Release the model; for the last owner, wait for running batches and close it."""
        self._owners -= 1
        if self._owners == 0:
            await self._close()


def _by_position(errors: Mapping[int, EmbedwayError], work: Work) -> dict[int, EmbedwayError]:
    """Return the errors by position in the request, from those by text."""
    positions = work.positions.tolist() if errors else ()
    return {positions[text]: with_row(error, positions[text]) for text, error in errors.items()}


def not_here(model: str) -> UsageError:
    """Return the error for tuning a model that services run."""
    return UsageError(f"{model} runs on a service; only models on this machine can be tuned")
