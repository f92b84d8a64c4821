"""Addresses of endpoints. A path may contain one parameter in braces, whose value may contain slashes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from embedway.server.endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class _Template:
    """A path with a parameter: the parts before and after it."""

    path: str
    before: str
    after: str

    def value(self, path: str) -> str:
        """Return the value of the parameter in a path; empty if the path is another one."""
        if not path.startswith(self.before) or not path.endswith(self.after):
            return ""
        return path[len(self.before) : len(path) - len(self.after)]


class Routes:
    """The endpoints by method and path."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._endpoints: dict[tuple[str, str], Endpoint] = {(one.method, one.path): one for one in endpoints}
        self._methods: dict[str, list[str]] = {}
        for method, path in self._endpoints:
            self._methods.setdefault(path, []).append(method)
        #: The first endpoint of each first part of a path.
        self._families: dict[str, Endpoint] = {}
        for one in self._endpoints.values():
            self._families.setdefault(_first_part(one.path), one)
        templates = [_template(path) for path in self._methods if "{" in path]
        #: The most specific first: `/models/{name}/facts` before `/models/{name}`.
        self._templates = sorted(templates, key=lambda one: -len(one.before + one.after))

    def find(self, method: str, path: str) -> tuple[Endpoint | None, str]:
        """Return the endpoint of a request and the value of its path's parameter; None if there is none."""
        endpoint = self._endpoints.get((method, path))
        if endpoint is not None:
            return endpoint, ""
        template, value = self._match(path)
        return self._endpoints.get((method, template)), value

    def methods(self, path: str) -> list[str]:
        """Return the methods of a path; empty for an unknown one."""
        return self._methods.get(path) or self._methods.get(self._match(path)[0], [])

    def family(self, path: str) -> Endpoint | None:
        """Return an endpoint of the API that an unknown path belongs to, by its first part; None if there is none."""
        return self._families.get(_first_part(path))

    def _match(self, path: str) -> tuple[str, str]:
        for template in self._templates:
            value = template.value(path)
            if value:
                return template.path, value
        return "", ""


def _first_part(path: str) -> str:
    return path.split("/", 2)[1] if path.startswith("/") else ""


def _template(path: str) -> _Template:
    before, _, rest = path.partition("{")
    return _Template(path, before, rest.partition("}")[2])
