"""Identities of routes for stored proofs: the facts that decide on a route's vectors, without keys."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from embedway.config.addresses import is_loopback, redact_address
from embedway.providers.options import LIMITS
from embedway.quality.space_proofs import RouteIdentity, digest_of_facts

if TYPE_CHECKING:
    from embedway.catalog.services import ServiceFacts
    from embedway.local.encoder import Encoder
    from embedway.providers.base import Endpoint

#: Provider name of this machine in routes.
LOCAL = "local"
#: Options of a route that do not change its vectors.
_NEUTRAL = {*LIMITS, "verify", "device"}


def identity_of(provider: str, endpoint: Endpoint, facts: ServiceFacts) -> RouteIdentity:
    """Return the identity of a route to a model."""
    options = sorted((name, value) for name, value in endpoint.options.items() if name not in _NEUTRAL)
    model = [
        *(facts.family or facts.name, facts.revision, facts.normalized, facts.query_prompt, facts.document_prompt),
        *(facts.dimensions, facts.default_dimensions),
    ]
    address = _address(endpoint.base_url)
    return RouteIdentity(endpoint.route, provider, endpoint.model, address, digest_of_facts([options, model]))


def _address(base_url: str) -> str:
    """Return a URL without secrets. One of this machine names the machine, because records may be shared by several."""
    address = redact_address(base_url) if base_url else ""
    if address and is_loopback(urlsplit(address).hostname or ""):
        return f"{address} on {platform.node()}"
    return address


def local_identity(name: str, encoder: Encoder) -> RouteIdentity:
    """Return the identity of a model on this machine: its weights, and what changes the numbers."""
    facts = [encoder.space.to_json(), encoder.variant, encoder.choice.bulk.backend]
    return RouteIdentity(name, LOCAL, encoder.model, facts=digest_of_facts(facts))
