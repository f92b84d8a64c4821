"""Base of hooks that name models and routes of the settings."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from embedway.telemetry.hooks import BaseHook
from embedway.telemetry.request_tracker import RequestTracker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from embedway.telemetry.route_facts import RouteFacts


class SettingsHook(BaseHook):
    """Hook that receives the names of models and the facts of routes when an embedder is opened.

    Until then it knows none. A hook of several embedders knows those of all.
    """

    def __init__(self) -> None:
        self._finds: list[Callable[[], Mapping[str, str]]] = []
        self._names: frozenset[str] = frozenset()
        self.routes: Mapping[str, RouteFacts] = MappingProxyType({})
        self.tracker = RequestTracker()

    @property
    def models(self) -> frozenset[str]:
        """Names and aliases of models, in lower case."""
        while self._finds:
            self._names |= self._finds.pop()().keys()
        return self._names

    def use_settings(self, models: Callable[[], Mapping[str, str]], routes: Mapping[str, RouteFacts]) -> None:
        """Add names of models, which are found at the first use, and routes by their name in operations."""
        self._finds.append(models)
        self.routes = MappingProxyType({**self.routes, **routes})
