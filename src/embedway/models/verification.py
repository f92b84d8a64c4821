"""Verification that two models, routes or local configurations answer in one space; `embedway models verify`.

Each side is opened with one route only, without cache and without merging, so that the other one never answers for it.
Requests are reserved and booked like all others.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, get_args

import numpy as np

from embedway._public import public
from embedway.catalog.services import default_services
from embedway.compute import ComputeRequest
from embedway.dispatch.proofs import RouteProof
from embedway.errors import BudgetExceededError, UsageError
from embedway.ledger.account import CallBudget
from embedway.ledger.base import Purpose
from embedway.local.backend import BackendName, Precision
from embedway.models.identities import LOCAL, local_identity
from embedway.models.opening import open_model
from embedway.models.route_probes import EmbeddingProbes, counted_tokens
from embedway.models.service import ServiceModel
from embedway.money import usd
from embedway.quality.equivalence import Embedded, EquivalenceFigures, measure_agreement
from embedway.quality.probe_texts import ProbeText, digest, fixed_texts, long_texts, query_texts, route_probe_texts
from embedway.quality.space_proofs import Reference, SpaceProof, proof_name
from embedway.text import shown_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from embedway.config import Config
    from embedway.models.base import Model, ModelEnvironment
    from embedway.quality.space_proofs import RouteIdentity
    from embedway.types import InputType, Vectors


@public
@dataclass(frozen=True, slots=True)
class SpaceComparison:
    """Result of `models.verify`: the stored proof, the figures by input type, tokens and cost."""

    proof: SpaceProof
    figures: tuple[EquivalenceFigures, ...]
    dimensions: tuple[int, int]
    #: Texts that a side refused.
    left_out: int
    tokens: int
    #: None if no price is known.
    cost_nanousd: int | None

    @property
    def is_same(self) -> bool:
        """Whether both answer in the same space."""
        return self.proof.verdict == "same space"


@dataclass(slots=True)
class _Side:
    """One of the two compared sources: an opened model with one route."""

    model: Model
    identity: RouteIdentity
    spending: CallBudget
    tokens: int = 0
    cost: int | None = 0

    async def embed(self, texts: Sequence[ProbeText], input_type: InputType) -> Vectors:
        """Return a row for each text; NaN if it was refused. Raises the first error if more than a tenth failed."""
        request = self._request([one.text for one in texts], input_type)
        computed = await self.model.compute(replace(request, partial=True))
        bill = computed.bill
        self.tokens += bill.tokens
        self.cost = None if self.cost is None or bill.cost_nanousd is None else self.cost + bill.cost_nanousd
        self.spending.spent = self.spending.spent if self.cost is None else max(self.spending.spent, self.cost)
        if len(computed.errors) * 10 > len(texts):
            raise next(iter(computed.errors.values()))
        return computed.blocks["dense"]

    async def most_nanousd(self, texts: Sequence[ProbeText], input_type: InputType) -> int | None:
        """Return the list price of embedding texts."""
        work = await self.model.work(self._request([one.text for one in texts], input_type))
        return self.model.estimate(work, self.model.space_of_size(None).dimensions).cost_nanousd

    def _request(self, texts: Sequence[str], input_type: InputType) -> ComputeRequest:
        return ComputeRequest(tuple(texts), self.model.space_of_size(None), self.spending, input_type)


async def verify(
    a: str,
    b: str,
    environment: ModelEnvironment,
    *,
    max_nanousd: int | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> SpaceComparison:
    """Embed the probe texts with two sources, compare them, and store the result.

    Raises UsageError for an unknown or the same source, BudgetExceededError before anything is sent if the cost may
    exceed `max_nanousd`, LedgerError if the result cannot be stored, and the errors of the sources.
    """
    sides: list[_Side] = []
    try:
        for name in (a, b):
            sides.append(await _open(name, environment, max_nanousd))  # noqa: PERF401  the opened ones are closed
        if sides[0].identity.digest == sides[1].identity.digest:
            raise UsageError(f"{shown_name(a)} and {shown_name(b)} are the same route; name two different ones")
        return await _compare(sides[0], sides[1], environment, max_nanousd, report)
    finally:
        await asyncio.gather(*(side.model.close() for side in sides))


async def _compare(
    one: _Side, other: _Side, environment: ModelEnvironment, max_nanousd: int | None, report: Callable[[str], None]
) -> SpaceComparison:
    long = await asyncio.to_thread(_long_texts, one.model, other.model)
    texts: dict[InputType, tuple[ProbeText, ...]] = {"document": (*fixed_texts(), *long), "query": query_texts()}
    costs = [await side.most_nanousd(own, kind) for side in (one, other) for kind, own in texts.items()]
    _check_cost(costs, max_nanousd)
    known = sum(cost for cost in costs if cost is not None)
    price = "at an unknown price" if None in costs else f"for about ${usd(known)}"
    report(f"{sum(map(len, texts.values()))} probe texts are embedded by both, {price}")
    embedded = []
    for kind, own in texts.items():
        vectors = [await side.embed(own, kind) for side in (one, other)]
        embedded.append(Embedded(kind, own, *vectors))
    measured = await asyncio.to_thread(measure_agreement, embedded)
    proofs = environment.proofs
    proof = SpaceProof(
        proof_name(one.identity, other.identity),
        one.identity,
        other.identity,
        measured.verdict,
        measured.reasons,
        sum(map(len, texts.values())) - measured.left_out,
        digest(),
        proofs.clock(),
        is_measured=True,
        figures=measured.to_json(),
    )
    await proofs.keep(proof)
    if measured.verdict == "same space":
        await _keep_references((one, other), embedded, environment)
    costs = [one.cost, other.cost]
    total = None if None in costs else sum(cost for cost in costs if cost is not None)
    tokens = one.tokens + other.tokens
    return SpaceComparison(proof, measured.figures, measured.dimensions, measured.left_out, tokens, total)


def _check_cost(costs: Sequence[int | None], max_nanousd: int | None) -> None:
    if max_nanousd is None:
        return
    known = sum(cost for cost in costs if cost is not None)
    if None in costs or known > max_nanousd:
        needed = None if None in costs else known
        words = "no price is known for one side" if needed is None else f"the comparison may cost ${usd(needed)}"
        raise BudgetExceededError(
            f"max_cost is ${usd(max_nanousd)}, but {words}; nothing was sent",
            budget="max_cost",
            needed=needed,
            left=max_nanousd,
        )


def _long_texts(one: Model, other: Model) -> tuple[ProbeText, ...]:
    """Return texts up to and beyond the longer of the two limits. Blocking."""
    model = one if one.max_tokens >= other.max_tokens else other
    if isinstance(model, ServiceModel):
        counter = model.service.counter
        return long_texts(model.max_tokens, lambda text: counted_tokens(counter, text))
    tokenizer = model.encoder().tokenizer
    return long_texts(model.max_tokens, lambda text: len(tokenizer.plain.encode(text).ids))


async def _keep_references(sides: Sequence[_Side], embedded: Sequence[Embedded], environment: ModelEnvironment) -> None:
    """Store the vectors that other processes compare routes with: those of the probe texts."""
    for number, side in enumerate(sides):
        model = side.model
        if not isinstance(model, ServiceModel) or side.identity.provider == LOCAL:
            continue
        facts = model.service.facts
        probes = EmbeddingProbes(
            facts.name,
            (facts.dimensions,),
            {"query": facts.query_prompt, "document": facts.document_prompt},
            model.service.counter,
            facts.max_tokens,
        )
        results: dict[str, Vectors] = {}
        for own in embedded:
            # The long text of the probes is not among these; its row is left out of comparisons.
            vectors = (own.a, own.b)[number][: len(route_probe_texts())]
            results[own.input_type] = np.vstack([vectors, np.full_like(vectors[:1], np.nan)])
        await environment.proofs.keep_reference(side.identity, Reference(results), probes.digest)


async def _open(name: str, environment: ModelEnvironment, max_nanousd: int | None) -> _Side:
    """Open one side with one route. Raises UsageError if no such route exists."""
    plain, _, choice = name.partition("#")
    config = _with_choice(environment.config, name, choice)
    model_name, route = _resolve(plain, config)
    batching = config.batching.model_copy(update={"across_callers": False})
    # Equal vectors of different texts, as of a route that truncates early, are a result here.
    quality = config.quality.model_copy(update={"check_diversity": False})
    own = replace(environment, config=config.model_copy(update={"batching": batching, "quality": quality}))
    model = await asyncio.to_thread(open_model, model_name, own)
    try:
        identity = _choose(model, plain, route, choice)
    except BaseException:
        await model.close()
        raise
    named = replace(identity, name=f"{identity.name}#{choice}") if choice else identity
    return _Side(model, named, CallBudget(Purpose(model.name), max_nanousd))


def _choose(model: Model, name: str, route: str, choice: str) -> RouteIdentity:
    """Leave a model one route: the named one, or else this machine, or else the first one. Return its identity."""
    if not isinstance(model, ServiceModel):
        if route:
            raise UsageError(f"{shown_name(name)} is not a route of {model.name}")
        return local_identity(f"{LOCAL}:{model.space.model}", model.encoder())
    if model.task != "embed":
        raise UsageError(f"{model.name} is a reranker, which returns no vectors")
    if model.blocked is not None:
        raise model.blocked
    here = next((one for one in model.routes if one.proof.identity and one.proof.identity.provider == LOCAL), None)
    chosen = next((one for one in model.routes if one.name == route), None) if route else here or model.routes[0]
    if chosen is None:
        there = ", ".join(one.name for one in model.routes)
        raise UsageError(f"{shown_name(name)} is not a route of {model.name} that can be used here, as {there} can")
    if choice and chosen is not here:
        raise UsageError(f"{shown_name(name)}: only a model on this machine has a precision and a backend")
    identity = chosen.proof.identity
    if identity is None:
        raise UsageError(f"{shown_name(name)} is a library's model without routes; add [routes.NAME] for it")
    model.routes = (replace(chosen, proof=RouteProof(identity=identity)),)
    return identity


def _with_choice(config: Config, name: str, choice: str) -> Config:
    """Return the settings with the precision and the backend after #."""
    changes: dict[str, str] = {}
    for word in choice.split(",") if choice else ():
        if word in get_args(Precision):
            changes["precision"] = word
        elif word in get_args(BackendName):
            changes["backend"] = word
        else:
            known = ", ".join((*get_args(Precision), *get_args(BackendName)))
            raise UsageError(f"{shown_name(name)}: {word!r} is no precision and no backend; available: {known}")
    return config.model_copy(update={"local": config.local.model_copy(update=changes)}) if changes else config


def _resolve(name: str, config: Config) -> tuple[str, str]:
    """Return the model and the route of a name; the route is empty for a model."""
    own = name.removeprefix("routes.")
    if own in config.routes:
        return config.routes[own].model, f"routes.{own}"
    if name.startswith("routes."):
        raise UsageError(f"{shown_name(name)} is not a route; available: {', '.join(config.routes) or 'none'}")
    for facts in default_services().values():
        if any(f"{one.provider}:{one.model}" == name for one in facts.routes):
            return facts.name, name
    if name.startswith(f"{LOCAL}:"):
        return name.removeprefix(f"{LOCAL}:"), ""
    return name, ""
