"""Proofs that all routes of a model answer in one space.

A server reports its model, but not the weights, prompts and pooling. A wrong server would mix vectors of another space
with the right ones, without an error. So the routes of a model with several are compared on a canary: a fixed text.
The reference is this machine, if it has the weights. Otherwise it is the first route that answers, or better a listed
one: a route to the service that the catalog names, with a source, for the model.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from embedway.config.addresses import belongs_to_hosts
from embedway.config.known_services import SERVICES
from embedway.dispatch.probes import Probe
from embedway.dispatch.proofs import RouteProof
from embedway.errors import BadVectorsError
from embedway.rerank.base import check_scores
from embedway.types import Space
from embedway.vectors import SAME_COSINE, cosines, to_size, validate

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from embedway.catalog.services import ServiceFacts
    from embedway.dispatch.probes import SendProbe
    from embedway.dispatch.request import ServiceRoute
    from embedway.providers.base import Endpoint, Provider
    from embedway.providers.counting import TokenCounter
    from embedway.rerank.base import Scoring
    from embedway.types import InputType, Vectors

_log = logging.getLogger(__name__)

#: Text for the comparison. It has non-ASCII characters, both cases and digits, because tokenizers differ in these.
_TEXT = "Where does a vector belong? In one space: Café, Straße, 42 and naïve."
#: A query with a relevant and an irrelevant document.
_PAIRS = (
    "Where does a vector belong?",
    ("In its own vector space, among its like.", "Straße 42 was closed for a day."),
)
#: Maximum difference of scores from 0 to 1, for half precision.
_SAME_SCORE = 0.02
_INPUT_TYPES: tuple[InputType, ...] = ("query", "document")


def is_listed(provider: str, endpoint: Endpoint, facts: ServiceFacts) -> bool:
    """Return whether a route is one that the catalog lists for the model, at the service's own address."""
    service = SERVICES.get(provider)
    is_own = not endpoint.base_url or (service is not None and belongs_to_hosts(endpoint.base_url, service.hosts))
    return is_own and any((one.provider, one.model) == (provider, endpoint.model) for one in facts.routes)


class Canary(Protocol):
    """Fixed texts whose results are compared."""

    def probes(self, provider: Provider, max_inputs: int) -> dict[str, tuple[Probe, ...]]:
        """Return the probes of a provider by kind, each of at most `max_inputs` texts.

        The answers of a kind's probes are joined. Kinds with the same requests share one object.
        """

    def check(self, answered: Vectors, route: str) -> str:
        """Return the fault of an answer in itself, or an empty text. Raises BadVectorsError for invalid vectors."""

    def difference(self, kind: str, answered: Vectors, reference: Vectors, source: str) -> str:
        """Return the difference to the reference, or an empty text."""


@dataclass(frozen=True)
class SpaceCanary:
    """Canary of an embedding model: one text as query and as document.

    A route that supports no input type gets the prompt in the text; without prompts, the text is sent once.
    """

    #: Name of the model or space for messages.
    name: str
    #: Sizes that a route may return if none is requested, the model's full size first.
    sizes: Sequence[int]
    prompts: Mapping[InputType, str]
    counter: TokenCounter

    def probes(self, provider: Provider, max_inputs: int) -> dict[str, tuple[Probe, ...]]:
        """Return the probes of a query and of a document."""
        del max_inputs
        has_input_type = provider.declared.input_type
        probes: dict[str, tuple[Probe, ...]] = {}
        by_text: dict[str, tuple[Probe, ...]] = {}
        for input_type in _INPUT_TYPES:
            text = _TEXT if has_input_type else self.prompts[input_type] + _TEXT
            call = partial(provider.embed, [text], input_type=input_type, dimensions=None)
            # A service's own prompt for the input type is not counted.
            probe = (Probe(1, int(self.counter.count([text]).lengths.sum()), call),)
            probes[input_type] = probe if has_input_type else by_text.setdefault(text, probe)
        return probes

    def check(self, answered: Vectors, route: str) -> str:
        """Return the fault of an answer in itself, or an empty text. Raises BadVectorsError for invalid vectors."""
        width = answered.shape[-1]
        if width not in self.sizes:
            return f"returns {width} dimensions, but {self.name} has {self.sizes[0]}"
        validate(answered, count=1, space=_any_space(width), route=route)
        return ""

    def difference(self, kind: str, answered: Vectors, reference: Vectors, source: str) -> str:
        """Return the difference to the reference, or an empty text."""
        shared = _any_space(min(answered.shape[1], reference.shape[1]))
        cosine = float(cosines(to_size(answered, shared), to_size(reference, shared))[0])
        if cosine >= SAME_COSINE:
            return ""
        return (
            f"returns vectors of another space than {self.name}: for a probe ({kind}), the cosine to the vector of "
            f"{source} is {cosine:.3f}; it runs another model, or uses other prompts or pooling"
        )


def _any_space(dimensions: int) -> Space:
    """Return a space of a size for checks of any vectors."""
    return Space(model="", weights="", dimensions=dimensions, pooling="service", normalized=False)


@dataclass(frozen=True)
class ScoreCanary:
    """Canary of a reranker: a query with two documents."""

    counter: TokenCounter

    def probes(self, provider: Provider, max_inputs: int) -> dict[str, tuple[Probe, ...]]:
        """Return the probes of the scores."""
        query, documents = _PAIRS
        asking = cast("Scoring", provider).asking(query)
        *lengths, asked = self.counter.count([*documents, query]).lengths.tolist()
        size = min(max_inputs, len(documents))
        return {
            "scores": tuple(
                Probe(
                    len(documents[start : start + size]),
                    sum(length + asked for length in lengths[start : start + size]),
                    partial(asking.embed, documents[start : start + size], input_type="document", dimensions=None),
                )
                for start in range(0, len(documents), size)
            )
        }

    def check(self, answered: Vectors, route: str) -> str:
        """Return an empty text. Raises BadVectorsError for invalid scores."""
        check_scores(answered, count=len(_PAIRS[1]), space=_any_space(1), route=route)
        return ""

    def difference(self, kind: str, answered: Vectors, reference: Vectors, source: str) -> str:
        """Return the difference to the reference, or an empty text."""
        del kind
        if np.allclose(answered, reference, atol=_SAME_SCORE):
            return ""
        theirs, ours = (scores[:, 0].round(3).tolist() for scores in (answered, reference))
        return (
            f"returns other scores than {source}: {theirs} for a probe, not {ours}; it runs another model, "
            "or uses another scale"
        )


@dataclass
class SharedReference:
    """Canary results in a model's space, shared by its routes.

    They are kept as long as the model is open, so that all its vectors are of one space, whatever routes do later. Only
    the first answer of a listed route replaces those of a route that is not listed.
    """

    canary: Canary
    #: This machine, if it has the weights.
    local: Provider | None = None
    #: Proofs of the compared routes.
    proofs: list[RouteProof] = field(default_factory=list)
    results: dict[str, Vectors] = field(default_factory=dict)
    #: The route that the results are from.
    source: str = ""
    is_final: bool = False
    #: The first route that is probed.
    first: str = ""
    #: Whether another route agreed with the results.
    is_confirmed: bool = False

    async def compare(self, route: ServiceRoute, send: SendProbe) -> str:
        """Return the difference of a route's results to the reference, or an empty text."""
        if self.local is not None and not self.is_final:
            probes = self.canary.probes(self.local, self.local.declared.max_inputs)
            self.results = {
                kind: np.concatenate([(await probe.call()).vectors for probe in parts])
                for kind, parts in probes.items()
            }
            self.source, self.is_final = "this machine", True
        answered, fault = await self._ask(route, send)
        if fault:
            return fault
        if not self.results:
            self.results, self.source = answered, route.name
            if note := self.note_of(route.name):
                _log.warning("%s", note)
            return ""
        difference = self._difference(answered)
        self.is_confirmed = self.is_confirmed or (route.name != self.source and not difference)
        return difference

    def note_of(self, route: str) -> str:
        """Return a note if a route is used although no other route has answered before, or an empty text."""
        if route != self.source or route == self.first or self.is_final or self.is_confirmed:
            return ""
        return f"no vectors to compare {route} with: {self.first} did not answer; vectors of {route} are used unproved"

    async def introduce(self, route: ServiceRoute, send: SendProbe) -> str:
        """Use a listed route's results as reference, unless another listed route or this machine is the reference."""
        if self.is_final:
            return ""
        answered, fault = await self._ask(route, send)
        if fault or self.is_final:
            return fault
        before, differs = self.source, bool(self.results and self._difference(answered))
        self.results, self.source, self.is_final = answered, route.name, True
        if differs:
            _log.warning(
                "%s answered in another space than %s, which the catalog lists for the model: its vectors are wrong",
                before,
                route.name,
            )
            for proof in self.proofs:
                proof.expire()
        return ""

    async def _ask(self, route: ServiceRoute, send: SendProbe) -> tuple[dict[str, Vectors], str]:
        """Return a route's results by kind, and its fault in itself."""
        results: dict[str, Vectors] = {}
        sent: dict[int, Vectors] = {}
        for kind, parts in self.canary.probes(route.provider, route.declared.max_inputs).items():
            if id(parts) not in sent:
                answers = [(await send(route, probe)).vectors for probe in parts]
                sent[id(parts)] = _joined(answers, route.name)
            results[kind] = sent[id(parts)]
            if fault := self.canary.check(results[kind], route.name):
                return results, fault
        return results, ""

    def _difference(self, answered: Mapping[str, Vectors]) -> str:
        differences = (
            self.canary.difference(kind, vectors, self.results[kind], self.source) for kind, vectors in answered.items()
        )
        return next(filter(None, differences), "")


def _joined(answers: Sequence[Vectors], route: str) -> Vectors:
    if len({vectors.shape[1:] for vectors in answers}) > 1:
        raise BadVectorsError("answered probes with vectors of different sizes", route=route)
    return np.concatenate(answers)


def with_proofs(
    routes: tuple[ServiceRoute, ...],
    compared: Collection[str],
    canary: Canary,
    *,
    valid_s: float,
    local: Provider | None = None,
    listed: Collection[str] = (),
) -> tuple[ServiceRoute, ...]:
    """Return the routes of a model with the proofs that they need.

    The routes named in `compared` are compared with this machine, if `local` is given, or else with one another and
    with the routes named in `listed`. A single route needs no comparison: nothing is mixed in this process.
    """
    if local is None and len(routes) < 2:
        return tuple(replace(route, proof=RouteProof(valid_s=valid_s)) for route in routes)
    first = next((route.name for route in routes if route.name in compared or route.name in listed), "")
    reference = SharedReference(canary, local, first=first)

    def proof_of(route: ServiceRoute) -> RouteProof:
        if route.name in compared:
            proof = RouteProof(reference.compare, note_of=reference.note_of, valid_s=valid_s)
            reference.proofs.append(proof)
            return proof
        return RouteProof(reference.introduce if route.name in listed and compared else None, valid_s=valid_s)

    return tuple(replace(route, proof=proof_of(route)) for route in routes)
