"""Proofs that all routes of a model answer in one space: texts fail over only to a route that is proved.

A server reports its model, but not the weights, prompts and pooling. A wrong server would mix vectors of another space
with the right ones, without an error. So a route other than the first is used only if one of these holds:

- the catalog lists it and the first route, with a source, and both are at the services' own addresses;
- your declaration: `same_space` in the settings of the route;
- a stored proof (`quality/space_proofs.py`), made here or by `models.verify`;
- its answers to fixed texts agree with those of this machine, if it has the weights, or of the first route. Those of
  the first route may be stored, so that a process that starts while that route is down can compare others with it.

A proof is then repeated with one text in each process and after failures: a server may run another model later.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from embedway.config.addresses import belongs_to_hosts
from embedway.config.known_services import SERVICES
from embedway.dispatch.proofs import ProofResult, RouteProof
from embedway.errors import BadVectorsError, BudgetExceededError, ConfigError
from embedway.providers.options import yes
from embedway.quality.space_proofs import Reference, SpaceProof, SpaceProofs, proof_name, reference_name

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from embedway.catalog.services import ServiceFacts
    from embedway.config import Config
    from embedway.dispatch.probes import SendProbe
    from embedway.dispatch.request import ServiceRoute
    from embedway.models.route_probes import RouteProbes
    from embedway.providers.base import Endpoint, Provider
    from embedway.quality.space_proofs import RouteIdentity

_log = logging.getLogger(__name__)


def is_listed(provider: str, endpoint: Endpoint, facts: ServiceFacts) -> bool:
    """Return whether a route is one that the catalog lists for the model, at the service's own address."""
    service = SERVICES.get(provider)
    is_own = not endpoint.base_url or (service is not None and belongs_to_hosts(endpoint.base_url, service.hosts))
    is_own = is_own and "path" not in endpoint.options  # a folder of the user, which a library loads instead
    return is_own and any((one.provider, one.model) == (provider, endpoint.model) for one in facts.routes)


def is_declared_same_space(endpoint: Endpoint, config: Config) -> bool:
    """Return whether the settings of a route say that it answers in the space of the model's other routes.

    `options.verify = false` is the former name of `same_space = true`. Raises ConfigError if the two contradict.
    """
    route = config.routes.get(endpoint.route.removeprefix("routes.")) if endpoint.route.startswith("routes.") else None
    is_same = route is not None and route.same_space
    if "verify" not in endpoint.options:
        return is_same
    former = not yes(endpoint, "verify", default=True)
    if is_same and not former:
        message = "contradicts same_space = true, which means that the route needs no proof; remove options.verify"
        raise ConfigError(message, where=endpoint.route, key="options.verify")
    if former and not is_same:
        _log.warning("%s: options.verify = false is now same_space = true, beside options", endpoint.route)
    return former


def without_verify(endpoint: Endpoint) -> Endpoint:
    """Return an endpoint for the provider, without the option that is the former name of `same_space`."""
    return replace(endpoint, options={name: value for name, value in endpoint.options.items() if name != "verify"})


@dataclass(frozen=True, slots=True)
class KnownRoutes:
    """Which routes of a model are trusted without a comparison, and the facts of all of them, by name."""

    identities: Mapping[str, RouteIdentity]
    #: Routes that the catalog lists, at their services' own addresses.
    listed: Collection[str] = ()
    #: Routes declared with `same_space`.
    same_space: Collection[str] = ()
    #: The route that is this machine, with the weights; empty if there is none.
    local_route: str = ""


@dataclass
class SharedReference:
    """Results of the probes in a model's space, shared by its routes.

    They are kept as long as the model is open, so that all its vectors are of one space, whatever routes do later.
    """

    probes: RouteProbes
    known: KnownRoutes
    proofs: SpaceProofs
    #: Routes whose results may be the reference: the first route; or if the catalog lists it, all listed ones.
    reference_routes: tuple[str, ...]
    #: This machine, if it has the weights.
    local: Provider | None = None
    reference: Reference | None = None
    #: The route that the results are from, and its description.
    source: RouteIdentity | None = None
    shown_source: str = ""
    #: Whether no budget was left for the results of the first route.
    is_over_budget: bool = False
    #: Digests of the routes whose results agreed on all texts.
    proved: set[str] = field(default_factory=set)
    #: Routes whose declaration a stored comparison contradicts, as logged.
    warned: set[str] = field(default_factory=set)

    async def compare(self, route: ServiceRoute, send: SendProbe) -> ProofResult:
        """Compare a route with the reference, or make it the reference if it is the first route."""
        own = self.known.identities[route.name]
        await self._find_reference()
        if self.reference is None:
            if route.name in self.reference_routes or await self._is_proved_to_a_reference_route(own):
                return await self._become_reference(route, own, send)
            if (stored := await self._difference_to_a_reference_route(own)) is not None:
                return self._refused_by(stored, own)
            return self._unproved(own)
        assert self.source is not None  # noqa: S101  every reference has a source
        is_proved = own.digest in {self.source.digest, *self.proved}
        if not is_proved and (stored := await self.proofs.between(self.source, own)) is not None:
            if stored.verdict != "same space":
                return self._refused_by(stored, own)
            is_proved = True
        try:
            answered, fault = await self._ask(route, send, is_short=is_proved)
        except BudgetExceededError as error:
            if route.name in self.reference_routes:
                raise
            return ProofResult(
                f"is not proved to answer in the space of {self.shown_source}, and no budget is left for the proof: "
                f"{error}",
                is_lasting=False,
            )
        difference = fault or self._difference(answered)
        if not difference and not is_proved:
            self.proved.add(own.digest)
            await self._keep_proof(self.source, own, answered)
        return ProofResult(self._explained(difference, own))

    async def _is_proved_to_a_reference_route(self, own: RouteIdentity) -> bool:
        stored = [await self.proofs.between(self.known.identities[name], own) for name in self.reference_routes]
        return any(proof is not None and proof.verdict == "same space" for proof in stored)

    async def _difference_to_a_reference_route(self, own: RouteIdentity) -> SpaceProof | None:
        stored = [await self.proofs.between(self.known.identities[name], own) for name in self.reference_routes]
        return next((one for one in stored if one is not None and one.verdict != "same space"), None)

    async def accept(self, route: ServiceRoute, send: SendProbe) -> ProofResult:
        """Use a route that is declared to be of the space; warn once if a stored comparison says otherwise.

        Nothing is sent.
        """
        del send
        own = self.known.identities[route.name]
        for other in self.known.identities.values():
            if other.digest == own.digest or own.name in self.warned:
                continue
            stored = await self.proofs.between(other, own)
            if stored is not None and stored.verdict == "different":
                self.warned.add(own.name)
                _log.warning(
                    "%s is used because of same_space = true, but `embedway models verify` found on %s that its "
                    "vectors are not in the space of %s: %s. Remove the setting if the route is wrong",
                    *(own.name, stored.date, other.name, "; ".join(stored.reasons)),
                )
        return ProofResult()

    async def set_reference(self, route: ServiceRoute, send: SendProbe) -> ProofResult:
        """Use a listed route's results as the reference, unless there is one."""
        await self._find_reference()
        if self.reference is None:
            return await self._become_reference(route, self.known.identities[route.name], send)
        return ProofResult()

    async def _find_reference(self) -> None:
        """Compute the reference on this machine, or read it from the store, if there is none yet."""
        if self.reference is not None:
            return
        if self.local is not None:
            batches, sent = self.probes.batches(self.local), {}
            for batch in batches.values():
                if id(batch) not in sent:
                    sent[id(batch)] = await batch.compute(self.local.declared.max_inputs)
            self.reference = Reference({kind: sent[id(batch)] for kind, batch in batches.items()})
            self.source, self.shown_source = self.known.identities[self.known.local_route], "this machine"
            return
        for name in self.reference_routes:
            await self._read_stored_reference(self.known.identities[name])

    async def _read_stored_reference(self, first: RouteIdentity) -> None:
        """Read the stored results of a route, or of another one that is proved to be in its space."""
        for own in (first, *self.known.identities.values()):
            if self.reference is not None:
                return
            if own != first:
                proof = await self.proofs.between(first, own)
                if proof is None or proof.verdict != "same space":
                    continue
            found = await self.proofs.reference(own, self.probes.digest, self.probes.rows)
            if found is not None and not self._is_sound(found[0], own):
                self.proofs.note_unreadable(reference_name(own))
                found = None
            if found is not None and self.reference is None:
                self.reference, self.source = found[0], first
                self.shown_source = f"{own.name}, stored on {found[1]}"

    def _is_sound(self, reference: Reference, own: RouteIdentity) -> bool:
        """Return whether stored vectors have the model's size and valid numbers."""
        try:
            return not any(self.probes.check(vectors, own.name) for vectors in reference.results.values())
        except BadVectorsError:
            return False

    async def _become_reference(self, route: ServiceRoute, own: RouteIdentity, send: SendProbe) -> ProofResult:
        try:
            answered, fault = await self._ask(route, send)
        except BudgetExceededError:
            # Nothing is mixed yet. Other routes cannot be used until a call pays for the reference.
            self.is_over_budget = True
            return ProofResult(is_lasting=False)
        if fault or self.reference is not None:
            return ProofResult(fault)
        self.reference, self.source, self.shown_source = answered, own, route.name
        await self.proofs.try_to_keep(self.proofs.keep_reference(own, answered, self.probes.digest))
        return ProofResult()

    async def _keep_proof(self, source: RouteIdentity, own: RouteIdentity, answered: Reference) -> None:
        texts = max(len(vectors) for vectors in answered.results.values())
        proof = SpaceProof(
            proof_name(source, own), source, own, "same space", (), texts, self.probes.digest, self.proofs.clock()
        )
        await self.proofs.try_to_keep(self.proofs.keep(proof))
        if self.local is None:
            await self.proofs.try_to_keep(self.proofs.keep_reference(own, answered, self.probes.digest))

    def _unproved(self, own: RouteIdentity) -> ProofResult:
        """Return the refusal of a route that there is nothing to compare with."""
        first = self.known.identities[self.reference_routes[0]]
        declarable = next((one.name for one in (own, first) if one.name.startswith("routes.")), "")
        by_declaration = (
            f", or set same_space = true in [{declarable}] if you know that both run the same model"
            if declarable
            else ""
        )
        why = "no budget was left for a comparison" if self.is_over_budget else f"{first.name} did not answer"
        # `models verify` compares vectors, which rerankers do not return.
        is_reranker = "scores" in self.probes.rows
        verify = "" if is_reranker else f"run `embedway models verify {first.name} {own.name}` once both answer, or "
        return ProofResult(
            f"is not proved to answer in the space of {first.name}, because {why}: {verify}call the model once while "
            f"{first.name} answers, so that its answers are stored for a comparison{by_declaration}",
            is_lasting=False,
        )

    def _refused_by(self, stored: SpaceProof, own: RouteIdentity) -> ProofResult:
        other = stored.a if stored.b.digest == own.digest else stored.b
        return ProofResult(
            f"is {'not in the same space as' if stored.verdict == 'different' else 'close to, but not the same as'} "
            f"{self.shown_source or other.name}, as `embedway models verify` found on {stored.date}: "
            f"{'; '.join(stored.reasons)}. Correct the route and run `embedway models verify {stored.a.name} "
            f"{stored.b.name}` again",
            is_lasting=False,
        )

    def _explained(self, difference: str, own: RouteIdentity) -> str:
        """Return a difference, with advice if the route differs from its own stored vectors."""
        if not difference or self.source is None or own.digest != self.source.digest or self.local is not None:
            return difference
        return (
            f"{difference}. If its model was changed on purpose, run `embedway models verify --remove "
            f"{reference_name(own)}` and embed everything again"
        )

    async def _ask(self, route: ServiceRoute, send: SendProbe, *, is_short: bool = False) -> tuple[Reference, str]:
        """Return a route's results by kind, and its fault in itself."""
        results, sent, is_unordered = {}, {}, False
        for kind, batch in self.probes.batches(route.provider, is_short=is_short).items():
            if id(batch) not in sent:
                sent[id(batch)], unordered = await batch.send(route, send)
                is_unordered |= unordered
            results[kind] = sent[id(batch)]
            if fault := self.probes.check(results[kind], route.name):
                return Reference(results), fault
        return Reference(results, is_unordered), ""

    def _difference(self, answered: Reference) -> str:
        assert self.reference is not None  # noqa: S101  it is compared with
        ours = self.reference.results
        if answered.results.keys() != ours.keys() or any(
            len(vectors) > len(ours[kind]) for kind, vectors in answered.results.items()
        ):
            return f"cannot be compared with {self.shown_source}, which has vectors of other texts"
        differences = (
            self.probes.difference(kind, answered, self.reference, self.shown_source) for kind in answered.results
        )
        return next(filter(None, differences), "")


def with_proofs(
    routes: tuple[ServiceRoute, ...],
    known: KnownRoutes,
    probes: RouteProbes,
    proofs: SpaceProofs,
    *,
    valid_s: float,
    local: Provider | None = None,
) -> tuple[ServiceRoute, ...]:
    """Return the routes of a model with the proofs that they need.

    A single route needs no comparison: nothing is mixed. `local` is this machine, if it has the weights
    (`known.local_route`); it is the reference then.
    """
    compared = [route.name for route in routes if route.name not in {*known.same_space, known.local_route}]
    reference_routes: tuple[str, ...] = ()
    if local is None:
        reference_routes = tuple(compared[:1])
        if compared and compared[0] in known.listed:
            reference_routes = tuple(name for name in compared if name in known.listed)
        if not set(compared) - set(reference_routes):
            compared, reference_routes = [], ()
    reference = SharedReference(probes, known, proofs, reference_routes, local)
    judge = dict.fromkeys(compared, reference.compare)
    judge |= {name: reference.set_reference for name in reference_routes if name in known.listed}
    if len(routes) > 1:
        judge |= dict.fromkeys(known.same_space, reference.accept)

    def proof_of(route: ServiceRoute) -> RouteProof:
        return RouteProof(judge.get(route.name), identity=known.identities[route.name], valid_s=valid_s)

    return tuple(replace(route, proof=proof_of(route)) for route in routes)
