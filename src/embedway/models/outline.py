"""Outlined models, for plans and descriptions: models whose weights or library are not on this machine."""

from __future__ import annotations

import decimal
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from typing_extensions import override

from embedway.catalog import default_catalog
from embedway.catalog.services import tokens_nanousd
from embedway.errors import EmbedwayError, WeightsError
from embedway.local.loading import ResolvedName, resolve
from embedway.local.outline import UNPULLED, Outline, TextLimits, facts_of, has_weights, outline_of
from embedway.local.runtime_choice import choose_runtime
from embedway.local.tokenize import TextTokenizer
from embedway.models.base import Estimate, Model, Profile
from embedway.models.identities import LOCAL
from embedway.models.multi_route import served_price
from embedway.models.opening import check_task
from embedway.providers.counting import EstimatingCounter, FileCounter
from embedway.providers.names import library_of, local_names, service_of
from embedway.providers.requirements import first_library, library_lacks
from embedway.space import Space
from embedway.text import single_line
from embedway.types import ModelDescription

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from embedway.batching.ready_rows import ReadyRows
    from embedway.batching.work import Work
    from embedway.catalog.services import ServiceFacts
    from embedway.catalog.types import Task
    from embedway.compute import ComputeRequest
    from embedway.local.encoder import Encoder
    from embedway.models.base import ModelEnvironment
    from embedway.providers.counting import TokenCounter
    from embedway.types import InputType, TokenizedTexts


_log = logging.getLogger(__name__)

_FREE = decimal.Decimal(0)
#: Texts of a request to a server, whose own limit is unknown.
_REQUEST_TEXTS = 32


@dataclass(frozen=True, slots=True)
class Route:
    """Route that would compute the texts."""

    name: str
    #: Maximum padded tokens of a batch on the built-in runtime; None for other routes.
    token_budget: int | None
    #: Whether it is a server, which receives requests.
    requests: bool = False


class OutlinedModel(Model):
    """A model for plans and descriptions only. It counts tokens, and computes nothing."""

    def __init__(
        self,
        name: str,
        outline: Outline,
        counter: TokenCounter,
        environment: ModelEnvironment,
        route: Route,
        *,
        price: decimal.Decimal | None,
    ) -> None:
        space = outline.space
        description = ModelDescription(
            model=name,
            space=space,
            sizes=outline.sizes,
            max_tokens=outline.limits.max_tokens,
            special_tokens=counter.special_tokens,
            tokenizer=counter.plain,
            runtime="not loaded",
        )
        profile = Profile(description, route.name, space.dimensions, "", exact=counter.exact)
        super().__init__(profile, environment.hooks, token_budget=route.token_budget)
        self._counter, self._route, self._price = counter, route, price
        self.can_be_raw = route.token_budget is not None
        self._prompts: dict[InputType, str] = {"query": space.query_prompt, "document": space.document_prompt}

    @override
    def tokenize(self, texts: Sequence[str], request: ComputeRequest) -> TokenizedTexts:
        prompt = self._prompts[request.input_type]
        counted = self._counter.count([prompt + text for text in texts])
        # Character counts exclude the prompt.
        cuts = (replace(cut, kept_characters=max(0, cut.kept_characters - len(prompt))) for cut in counted.truncations)
        return replace(counted, truncations=tuple(cuts))

    async def _run(self, work: Work, request: ComputeRequest, on_ready: ReadyRows | None) -> NoReturn:
        del work, request, on_ready
        raise WeightsError(f"{self.name} was opened for a plan, without its weights")

    @override
    def cost_nanousd(self, tokens: int, dimensions: int | None = None) -> int | None:
        del dimensions
        return None if self._price is None else tokens_nanousd(self._price, tokens)

    @override
    def estimate(self, work: Work, dimensions: int) -> Estimate:
        tokens = work.tokenized.tokens
        requests = -(-len(work.texts) // _REQUEST_TEXTS) if self._route.requests else 0
        return Estimate(tokens, requests, self.cost_nanousd(tokens, dimensions), None)

    @property
    @override
    def may_depend_on_batch(self) -> bool:
        return False

    async def warm(self) -> None:
        """Do nothing: there are no weights."""

    @override
    def encoder(self) -> Encoder:
        raise WeightsError(f"{self.name} was opened for a plan, without its weights")

    async def _close(self) -> None:
        """Do nothing: there are no threads and no connections."""


def outline_model(name: str, environment: ModelEnvironment, task: Task) -> Model | None:
    """Return an outlined model; None if the model can be opened without fetching weights. Blocking.

    Raises the errors of names and tasks, and those of the weights store if nothing is known about a repository.
    """
    config = environment.config
    facts, library = service_of(name, config), library_of(name)
    if facts is not None:
        check_task(facts.name, facts.task, task)
        return _listed_library_model(facts, environment)
    if library is not None:
        return _library_model(name, *library, task, environment)
    named = resolve(name)
    row = facts_of(named)
    if row is not None:
        check_task(row.name if named.facts is not None else name, row.task, task)
    if has_weights(named, config):
        return None
    outline = outline_of(named, config)
    check_task(outline.name, outline.task, task)
    return _local_model(outline, {one.casefold() for one in (*local_names(name), outline.name)}, environment)


def _counter(outline: Outline) -> TokenCounter:
    limits = outline.limits
    if outline.tokenizer is None:
        return EstimatingCounter(max_tokens=limits.max_tokens)
    return FileCounter(TextTokenizer(outline.tokenizer, max_tokens=limits.max_tokens, lowercase=limits.lowercase))


def _local_model(outline: Outline, names: Collection[str], environment: ModelEnvironment) -> Model:
    """Return the outline of a model that this machine can run, and that servers may run too."""
    config, space = environment.config, outline.space
    budget = choose_runtime(config, weights_sha256=space.weights, weights_bytes=0).token_budget
    price: decimal.Decimal | None = _FREE
    route = Route(f"local:{space.model}", budget)
    served = next(((key, one) for key, one in config.routes_to(names).items() if one.provider != LOCAL), None)
    if served is not None:
        route, price = Route(f"routes.{served[0]}", None, requests=True), served_price(outline.name, config)
    return OutlinedModel(outline.name, outline, _counter(outline), environment, route, price=price)


def _listed_library_model(facts: ServiceFacts, environment: ModelEnvironment) -> Model | None:
    """Return the outline of a listed model whose first route is a library that cannot run here now; else None."""
    route = first_library(facts, environment.config)
    if route is None:
        return None
    space = Space(
        model=facts.name.rsplit("/", 1)[-1],
        weights=f"service:{facts.name}",
        dimensions=facts.dimensions,
        pooling="service",
        normalized=facts.normalized,
        query_prompt=facts.query_prompt,
        document_prompt=facts.document_prompt,
        digest=UNPULLED,
        tokenizer="",
        config="",
    )
    prompts: dict[InputType, str] = {"query": facts.query_prompt, "document": facts.document_prompt}
    outline = Outline(facts.name, facts.task, space, facts.sizes, TextLimits(facts.max_tokens, prompts, False), None)
    return OutlinedModel(facts.name, outline, _counter(outline), environment, Route(route, None), price=_FREE)


def _library_model(name: str, provider: str, model: str, task: Task, environment: ModelEnvironment) -> Model | None:
    """Return the outline of a library's own model that cannot run here now; None if it can, or is not known."""
    config, catalog = environment.config, default_catalog()
    row = ResolvedName(model, facts=catalog.get(model)) if model in catalog else None
    if row is not None and row.facts is not None:
        check_task(name, row.facts.task, task)
    if not library_lacks(name, provider, model, config):
        return None
    if row is None and (model.count("/") != 1 or model.startswith((".", "/", "~"))):
        return None
    try:
        outline = outline_of(row or ResolvedName(model, repository=model), config)
    except EmbedwayError as error:
        # The caller opens the library, whose error is another one.
        _log.warning("%s cannot be planned from its repository: %s", name, single_line(str(error)))
        return None
    check_task(name, outline.task, task)
    space = replace(outline.space, weights=f"service:{name}", pooling="service", digest=UNPULLED)
    # fastembed runs its own conversions, which may count in another way.
    tokenizer = outline.tokenizer if provider == "sentence-transformers" else None
    outline = replace(outline, space=space, sizes=outline.sizes[:1], tokenizer=tokenizer)
    return OutlinedModel(name, outline, _counter(outline), environment, Route(name, None), price=_FREE)
