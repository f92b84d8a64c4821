"""Baseline of a space: reference vectors, noise and retrieval results of each route, as a stored document."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedway.errors import LedgerError, newer_version
from embedway.quality.noise import Noise
from embedway.quality.pairs import Pair
from embedway.quality.retrieval import QueryResult
from embedway.quality.vector_json import vectors_from_json, vectors_to_json
from embedway.space import Space

if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedway.types import Vectors

#: Version of the document.
VERSION = 1


@dataclass(frozen=True, slots=True)
class PairSet:
    """Pairs of a baseline. `name` is `built-in` or `own`. The texts of own pairs are stored in the baseline."""

    name: str
    version: int
    digest: str
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class RouteBaseline:
    """Part of a baseline for one route; vectors are float32 (canaries, d)."""

    route: str
    created: float
    #: Price in nano-dollars per million tokens; None if it is unknown.
    price_nanousd: int | None
    vectors: Mapping[str, Vectors]
    noise: Mapping[str, Noise]
    #: Results by set of pairs and id.
    results: Mapping[str, Mapping[str, QueryResult]]


@dataclass(frozen=True, slots=True)
class Baseline:
    """Stored state of a space, with which later answers of its routes are compared. `created` is since 1970."""

    model: str
    space: Space
    created: float
    embedway: str
    canary_version: int
    sets: tuple[PairSet, ...]
    routes: Mapping[str, RouteBaseline]

    def to_json(self) -> str:
        """Return the document. Built-in pairs are stored by version and digest only."""
        return json.dumps(
            {
                "version": VERSION,
                "model": self.model,
                "space": self.space.to_json(),
                "created": self.created,
                "embedway": self.embedway,
                "canaries": self.canary_version,
                "sets": [_set_json(one) for one in self.sets],
                "routes": [_route_json(one) for one in self.routes.values()],
            },
            ensure_ascii=False,
        )

    @classmethod
    def from_json(cls, text: str) -> Baseline:
        """Read a document. Raises LedgerError for a newer version, and for anything that no version writes."""
        try:
            found = json.loads(text)
            if found["version"] > VERSION:
                raise LedgerError(f"a baseline {newer_version(found['version'], VERSION)}")
            routes = [_route_of(one) for one in found["routes"]]
            return cls(
                found["model"],
                Space.from_json(found["space"]),
                float(found["created"]),
                found["embedway"],
                found["canaries"],
                tuple(_set_of(one) for one in found["sets"]),
                {one.route: one for one in routes},
            )
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            raise LedgerError(
                "a stored baseline is damaged: create it again with `embedway quality baseline --replace`"
            ) from None


def _set_json(one: PairSet) -> dict[str, Any]:
    rows = [[pair.id, pair.group, pair.query, pair.passage] for pair in one.pairs] if one.name == "own" else None
    return {"name": one.name, "version": one.version, "digest": one.digest, "pairs": rows}


def _set_of(found: dict[str, Any]) -> PairSet:
    pairs = tuple(Pair(*row) for row in found["pairs"] or ())
    return PairSet(found["name"], found["version"], found["digest"], pairs)


def _route_json(one: RouteBaseline) -> dict[str, Any]:
    return {
        "route": one.route,
        "created": one.created,
        "price_nanousd": one.price_nanousd,
        "vectors": {kind: vectors_to_json(vectors) for kind, vectors in one.vectors.items()},
        "noise": {
            kind: {"sources": dict(noise.sources), "largest": noise.largest, "q90": noise.q90, "mean": noise.mean}
            for kind, noise in one.noise.items()
        },
        "results": {
            name: {pair: [result.group, result.rank, *result.top] for pair, result in results.items()}
            for name, results in one.results.items()
        },
    }


def _route_of(found: dict[str, Any]) -> RouteBaseline:
    return RouteBaseline(
        found["route"],
        float(found["created"]),
        found["price_nanousd"],
        {kind: vectors_from_json(packed) for kind, packed in found["vectors"].items()},
        {kind: Noise(**noise) for kind, noise in found["noise"].items()},
        {
            name: {pair: QueryResult(group, rank, tuple(top)) for pair, (group, rank, *top) in results.items()}
            for name, results in found["results"].items()
        },
    )
