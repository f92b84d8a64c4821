"""Models that services or libraries run: routes, token counter, and a shared vector space."""

from __future__ import annotations

import asyncio
import decimal
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from embedway.batching.backends import UpstreamBackend
from embedway.batching.scheduler import BatchScheduler
from embedway.catalog.services import TodaysPrice, tokens_nanousd
from embedway.dispatch.billing import make_bill, reserve_for
from embedway.dispatch.request import UpstreamRequest
from embedway.dispatch.waits import waited_for
from embedway.errors import DeadlineError, NoRouteError, RefusedInputError, UpstreamError
from embedway.models.base import Estimate, Model, Profile, not_here
from embedway.providers.base import KnowsTokenizer, KnowsWeights, sum_of
from embedway.providers.counting import TiktokenCounter, about_tokens
from embedway.providers.requirements import set_up_here
from embedway.quality.checks import AnswerHistory
from embedway.quality.reading import TextComparer, ignored_ids
from embedway.telemetry.hooks import current_operation
from embedway.types import Bill, ModelDescription, Space

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from embedway.batching.ready_rows import ReadyRows
    from embedway.batching.work import Work
    from embedway.catalog.services import ServiceFacts
    from embedway.compute import ComputeRequest
    from embedway.dispatch.request import ServiceRoute, UpstreamResponse
    from embedway.errors import ConfigError, EmbedwayError
    from embedway.ledger.account import Account, Prices
    from embedway.local.encoder import Encoder
    from embedway.models.base import ModelEnvironment
    from embedway.providers.counting import TokenCounter
    from embedway.types import InputType, TokenizedTexts, Vectors


@dataclass(frozen=True, slots=True)
class Service:
    """A service model: its catalog facts, and its routes in the order of failover.

    `blocked` is the error that prevents requests, such as a missing key. Plans and cache hits need no key.
    """

    facts: ServiceFacts
    routes: tuple[ServiceRoute, ...]
    counter: TokenCounter
    blocked: ConfigError | None = None
    #: Checks again; returns the current value of `blocked`.
    find_block: Callable[[], ConfigError | None] = lambda: None


class ServiceModel(Model):
    """A model that services run."""

    checks_answers = True
    #: Whether requests of several callers may be merged.
    merges = True
    #: Whether a service may bill it by search, like reranking.
    by_search = False

    def __init__(self, service: Service, environment: ModelEnvironment, profile: Profile | None = None) -> None:
        """Create the model. Blocking if a library is the first route, because its weights are a fact of the space."""
        if self.task == "embed":
            service = _free_if_unbilled(service)
        super().__init__(profile or self._profile(service), environment.hooks, token_budget=None)
        self.quarantines = environment.quarantines if self.task == "embed" else None
        self.service = service
        self.routes = service.routes
        self.blocked = service.blocked
        self._environment = environment
        space = self.space
        self._price_by_size: dict[int | None, Prices] = {}
        self._prompts: dict[InputType, str] = {"query": space.query_prompt, "document": space.document_prompt}
        self._is_free = all(self._prices(size)(1_000_000, 1000) == 0 for size in service.facts.sizes_by_price)
        self._reader: TextComparer | None = None
        self._scheduling: tuple[UpstreamBackend, BatchScheduler[UpstreamRequest, UpstreamResponse]] | None = None
        batching, upstream = environment.config.batching, environment.config.upstream
        if self.merges and batching.across_callers:
            backend = UpstreamBackend(
                environment.client,
                service.routes,
                concurrency=upstream.concurrency,
                max_wait_s=batching.max_wait_ms / 1000,
            )
            self._scheduling = backend, BatchScheduler(backend, on_wait=self.scheduler_wait())

    def _profile(self, service: Service) -> Profile:
        return profile_of(service, space_of(service))

    def tokenize(self, texts: Sequence[str], request: ComputeRequest) -> TokenizedTexts:
        """Return lengths, prompt included, and truncations; no ids."""
        prompt = self._prompts[request.input_type]
        if not prompt:
            return self.service.counter.count(texts)
        counted = self.service.counter.count([prompt + text for text in texts])
        # Character counts exclude the prompt.
        cuts = (replace(cut, kept_characters=max(0, cut.kept_characters - len(prompt))) for cut in counted.truncations)
        return replace(counted, truncations=tuple(cuts))

    async def _run(
        self, work: Work, request: ComputeRequest, on_ready: ReadyRows | None
    ) -> tuple[Vectors, dict[int, EmbedwayError], Bill]:
        if not work.texts:
            return np.empty((0, request.space.dimensions), np.float32), {}, Bill(0, 0, 0, ())
        if self.blocked is not None:
            raise self.blocked
        prices = self._prices(request.space.dimensions)
        budgets = None if self._is_free else self._environment.budgets
        # A free route marks nothing as sent, with which the reservation could be made.
        later = not any(route.provider.declared.free for route in self.routes)
        async with reserve_for(
            work.tokenized.lengths,
            budgets,
            request.spending,
            prices,
            exact=self.profile.exact,
            by_search=self.by_search,
            later=later,
        ) as account:
            upstream = self._upstream(work, request, on_ready, () if account is None else (account,))
            try:
                response = await self._send(upstream, request)
            except (NoRouteError, UpstreamError) as error:
                await self._add_alternatives([error] if error.row is None or len(work.texts) == 1 else [])
                raise
            await self._add_alternatives(() if response.routes else response.errors.values())
            if account is not None:
                account.route = ", ".join(response.routes)
        return response.vectors, response.errors, make_bill(response, prices, account)

    def _upstream(
        self, work: Work, request: ComputeRequest, on_ready: ReadyRows | None, accounts: tuple[Account, ...]
    ) -> UpstreamRequest:
        prompt = self._prompts[request.input_type]
        return UpstreamRequest(
            work.texts,
            work.tokenized.lengths,
            request.input_type,
            request.space,
            full_width=self.space.dimensions,
            default_width=self.profile.default_dimensions,
            partial=request.partial,
            urgency=request.urgency,
            accounts=accounts,
            on_ready=on_ready,
            by_search=self.by_search,
            prompt=prompt,
            uncounted=about_tokens(prompt),
            model=self.name,
            operations=(current_operation.get(),),
            reads=self._reads(),
            quarantined={} if self.quarantines is None else self.quarantines.of_space(self.baseline_space_id),
        )

    def _reads(self) -> TextComparer | None:
        """Return the comparison of texts as the services read them; None if vectors may be equal."""
        if self.task != "embed" or not self._environment.config.quality.check_diversity:
            return None
        if self._reader is None:
            counter = self.service.counter
            plain = counter.plain if counter.exact else None
            ignored = frozenset[int]() if plain is None else ignored_ids(plain)
            prompt = max(len(prompt.encode()) for prompt in self._prompts.values())  # at most one token for each byte
            self._reader = TextComparer(max(1, self.max_tokens - prompt), plain, counter.special_tokens, ignored)
        return self._reader

    async def _send(self, upstream: UpstreamRequest, request: ComputeRequest) -> UpstreamResponse:
        """Send a request; merge it with other callers' requests if it is small."""
        client, settings = self._environment.client, self._environment.config.upstream
        if request.only_route:
            # A check judges the route of now: vectors of earlier answers blame none of its rows.
            routes = [
                replace(route, checks=AnswerHistory()) for route in self.routes if route.name == request.only_route
            ]
            return await client.send(replace(upstream, quarantined={}), routes)
        if self._scheduling is None or self._scheduling[0].is_large(upstream):
            return await client.send(upstream, self.routes)
        scheduler = self._scheduling[1]
        own, now = upstream.deadline, time.monotonic()
        # The deadline of the call, if that is sooner, ends it without a further timer.
        is_sooner = own is not None and own.end <= now + settings.deadline_s
        if is_sooner or any(route.provider.declared.local for route in self.routes):
            return await scheduler.run(upstream, upstream.urgency)
        try:
            async with asyncio.timeout(settings.deadline_s):
                return await scheduler.run(upstream, upstream.urgency)
        except DeadlineError:
            raise  # it counts its attempts
        except TimeoutError:
            route, tokens = self.routes[0], sum_of(upstream.lengths)
            late = DeadlineError(
                f"{self.name}: no request to {route.name} could start or finish within {settings.deadline_s:g} s "
                f"(upstream.deadline_s), {waited_for(route, tokens)}",
                attempts=0,
            )
            late.route = route.name
            raise late from None

    def _prices(self, dimensions: int | None) -> Prices:
        """Return the price function of tokens and searches, for vectors of a size."""
        found = self._price_by_size.get(dimensions)
        if found is None:
            found = self._price_by_size[dimensions] = TodaysPrice(self.service.facts, dimensions)
        return found

    async def _add_alternatives(self, errors: Iterable[EmbedwayError]) -> None:
        """Add the other models that are set up here to errors of all routes."""
        # A text is refused for its content, so other models do not help.
        failed = [
            error
            for error in errors
            if isinstance(error, (NoRouteError, UpstreamError)) and not isinstance(error, RefusedInputError)
        ]
        if failed:
            models = await asyncio.to_thread(set_up_here, self._environment.config, excluded=self.name, task=self.task)
            for error in failed:
                error.elsewhere = models

    def cost_nanousd(self, tokens: int, dimensions: int | None = None) -> int | None:
        """Return the list price of `tokens`, for vectors of a size; None if it is unknown."""
        return self._prices(dimensions)(tokens, 0)

    @property
    @override
    def route_names(self) -> tuple[str, ...]:
        return tuple(route.name for route in self.routes)

    @property
    @override
    def circuit_states(self) -> Mapping[str, str]:
        return {route.name: route.circuit.state for route in self.routes}

    @override
    def price_on(self, route: str, tokens: int) -> int | None:
        is_free = any(one.name == route and one.provider.declared.free for one in self.routes)
        return 0 if is_free else self.cost_nanousd(tokens)

    def estimate(self, work: Work, dimensions: int) -> Estimate:
        """Estimate the bill; each request to the first route is billed separately. See `Model.estimate`."""
        lengths, tokens = work.tokenized.lengths, work.tokenized.tokens
        parts = self.routes[0].split(np.arange(len(work.texts), dtype=np.int64), lengths)
        costs = [self.cost_nanousd(sum_of(lengths[part]), dimensions) for part in parts]
        known = [cost for cost in costs if cost is not None]
        price = self.service.facts.price(dimensions=dimensions, batch=True)
        batch = None if price is None else tokens_nanousd(price, tokens)
        return Estimate(tokens, len(parts), sum(known) if len(known) == len(costs) else None, batch)

    @override
    def is_still_blocked(self) -> bool:
        self.blocked = self.service.find_block() if self.blocked is not None else None
        return self.blocked is not None

    @property
    def may_depend_on_batch(self) -> bool:
        """Whether a route may be batch-dependent; a library knows it after it has loaded its model."""
        return any(route.provider.declared.batch_dependent for route in self.routes)

    @override
    def depends_on_batch(self, routes: Sequence[str]) -> bool:
        return any(route.provider.declared.batch_dependent for route in self.routes if route.name in routes)

    @override
    def decode(self, ids: Sequence[int]) -> str | None:
        counter = self.service.counter
        return counter.decode(ids) if isinstance(counter, TiktokenCounter) else None

    async def warm(self) -> None:
        """Do nothing: connections open with the first request."""

    @override
    def encoder(self) -> Encoder:
        raise not_here(self.name)

    async def _close(self) -> None:
        await asyncio.gather(*(route.proof.aclose() for route in self.routes))
        await asyncio.gather(*(route.provider.aclose() for route in self.routes))


def _free_if_unbilled(service: Service) -> Service:
    if service.facts.price_usd_per_million_tokens is None and all(
        route.provider.declared.free for route in service.routes
    ):
        return replace(service, facts=replace(service.facts, price_usd_per_million_tokens=decimal.Decimal(0)))
    return service


def space_of(service: Service) -> Space:
    """Return the space of a model's vectors, from its catalog facts and its first route. Blocking for libraries."""
    facts, first = service.facts, service.routes[0].provider
    # Models of one family share a space.
    shared = facts.family or facts.name
    revision = first.weights() if isinstance(first, KnowsWeights) else facts.revision
    return Space(
        model=shared.rsplit("/", 1)[-1],
        weights=f"service:{shared}@{revision}" if revision else f"service:{shared}",
        dimensions=facts.dimensions,
        pooling="service",
        normalized=facts.normalized,
        query_prompt=facts.query_prompt,
        document_prompt=facts.document_prompt,
        tokenizer=_tokenizer_fact(first),
        config="",
    )


def profile_of(service: Service, space: Space) -> Profile:
    """Return the profile of a service model."""
    facts, counter, first = service.facts, service.counter, service.routes[0]
    description = ModelDescription(
        model=facts.name,
        space=space,
        sizes=facts.sizes,
        min_dimensions=facts.min_dimensions,
        # Limit of a text, without its prompt.
        max_tokens=facts.max_tokens,
        special_tokens=counter.special_tokens,
        tokenizer=counter.plain,
        runtime=str(getattr(first.provider, "runtime", "service")),
    )
    # Models of one family share a space, but their vectors differ.
    variant = first.provider.variant if isinstance(first.provider, KnowsWeights) else facts.name if facts.family else ""
    return Profile(description, first.name, facts.default_dimensions, variant, exact=counter.exact)


def _tokenizer_fact(first: object) -> str:
    """Return the tokenizer's fact for the space; empty if a service tokenizes behind its API."""
    if not isinstance(first, KnowsTokenizer):
        return ""
    from embedway.local.facts import tokenizer_fact  # noqa: PLC0415  needed only for libraries

    return tokenizer_fact(first.tokenizer_json().encode(), where="the library's tokenizer", lowercase=False)
