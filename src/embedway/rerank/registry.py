"""Rerankers by name: entry points, ours and others' alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.providers.registry import RERANKERS, load_entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway.providers.base import Endpoint
    from embedway.rerank.base import RerankProvider


def make_reranker(name: str, endpoint: Endpoint) -> RerankProvider:
    """Make the reranker of that name. Raises ConfigError with the nearest name where there is none."""
    make: Callable[[Endpoint], RerankProvider] = load_entry(RERANKERS, name, endpoint)
    return make(endpoint)
