"""Values of labels: names of the settings and the catalog, classes of errors, and fixed words, in bounded number."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

from embedway import errors
from embedway.telemetry.route_facts import MODEL_NAME, OTHER, provider_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from embedway.telemetry.route_facts import RouteFacts

#: Value for a model in a local folder whose name is not a plain one: a path may name a user or a customer.
FOLDER = "folder"
#: Maximum number of different models, of routes and of budgets in the labels of one process.
MOST_NAMES = 200
#: Maximum number of results that are remembered. A name from a caller must not fill the memory.
_MOST_REMEMBERED = 1024
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_ -]{0,39}", re.ASCII)


class NameLimit:
    """Names that have become labels in this process: the first `MOST_NAMES` of each kind."""

    def __init__(self, most: int = MOST_NAMES) -> None:
        self._most = most
        self._admitted: dict[str, set[str]] = {}

    def admit(self, kind: str, name: str) -> str:
        """Return the name, or `other` if there are too many."""
        admitted = self._admitted.setdefault(kind, set())
        if name not in admitted:
            if len(admitted) >= self._most:
                return OTHER
            admitted.add(name)
        return name


class Labels:
    """Labels of one embedder's operations.

    `known` returns canonical names by lower-case name and alias; it is called once, at the first use. `routes` are
    the routes of the settings.
    """

    def __init__(
        self, known: Callable[[], Mapping[str, str]] = dict, routes: Mapping[str, RouteFacts] | None = None
    ) -> None:
        self._find_known = known
        self._routes = {} if routes is None else routes
        self._opened: set[str] = set()
        #: Labels that were found under `_limit`, by kind and name.
        self._found: dict[tuple[str, str], str] = {}
        self._limit: NameLimit | None = None

    def open(self, model: str) -> bool:
        """Record the canonical name of a model that was opened. Return whether it is a new one."""
        if model in self._opened or len(self._opened) >= _MOST_REMEMBERED:
            return False
        self._opened.add(model)
        self._found = {}  # its label was `other`
        return True

    def model(self, name: str, limit: NameLimit) -> str:
        """Return the label of a model: its canonical name, `folder` or `other`."""
        return self._remembered("model", name, limit)

    def route(self, name: str, limit: NameLimit) -> str:
        """Return the label of a route: its name in the settings, or provider and model."""
        return self._remembered("route", name, limit)

    def _remembered(self, kind: str, name: str, limit: NameLimit) -> str:
        if limit is not self._limit:  # a forked process has other metrics
            self._found, self._limit = {}, limit
        label = self._found.get((kind, name))
        if label is None:
            label = self._model(name, limit) if kind == "model" else self._route(name, limit)
            if len(self._found) < _MOST_REMEMBERED:
                self._found[kind, name] = label
        return label

    def _model(self, name: str, limit: NameLimit) -> str:
        canonical = self._known.get(name.casefold())
        if canonical is None:
            if name not in self._opened:
                return OTHER
            canonical = name
        if not MODEL_NAME.fullmatch(canonical):
            return FOLDER
        return limit.admit("model", canonical)

    def _route(self, name: str, limit: NameLimit) -> str:
        if name == "":
            return ""
        if not MODEL_NAME.fullmatch(name):
            return f"local:{FOLDER}" if name.startswith("local:") else OTHER
        return limit.admit("route", name)

    def provider(self, route: str) -> str:
        """Return the provider of a route."""
        provider = provider_of(route, self._routes)
        return provider if _WORD.fullmatch(provider) else OTHER

    @functools.cached_property
    def _known(self) -> Mapping[str, str]:
        return self._find_known()


def budget_label(name: str, limit: NameLimit) -> str:
    """Return the label of a budget: its name."""
    return limit.admit("budget", name) if len(name) <= 100 and name.isprintable() else OTHER


def word_label(word: str) -> str:
    """Return a word of this library as label, such as the name of a check."""
    return word if _WORD.fullmatch(word) else OTHER


def outcome_of(error: str | None, *, partial: bool = False) -> str:
    """Return `ok`, `partial` if some texts failed, `cancelled`, or `error`."""
    if error is None:
        return "partial" if partial else "ok"
    return "cancelled" if error == "CancelledError" else "error"


def outcome_label(error: str | None, *, partial: bool = False) -> str:
    """Return the label of an outcome: as `outcome_of`, but for errors a class of `embedway.errors`, or `other`."""
    outcome = outcome_of(error, partial=partial)
    if outcome != "error" or error is None:
        return outcome
    return error if error in _error_names() else OTHER


@functools.cache
def _error_names() -> frozenset[str]:
    kinds = (value for value in vars(errors).values() if isinstance(value, type))
    return frozenset(kind.__name__ for kind in kinds if issubclass(kind, errors.EmbedwayError))
