"""Baseline of a space: reference vectors, noise and retrieval results of each route, as a stored document."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.errors import SourceError, newer_version
from embedway.ledger.records import UnreadableRecordError
from embedway.quality.canaries import CANARIES, CANARY_VERSION
from embedway.quality.noise import Noise
from embedway.quality.pairs import Pair, checked_pairs, digest_of
from embedway.quality.retrieval import QueryResult
from embedway.quality.vector_json import vectors_from_json, vectors_to_json
from embedway.space import INPUT_TYPES, Space, SpaceVersionError
from embedway.text import has_surrogate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedway.types import Vectors

#: Version of the document.
VERSION = 1
#: Maximum of 1 - cosine, with rounding.
_MOST_DISTANCE = 2.1
#: The year 5138, for times that can be shown as dates.
_LATEST = 1e11


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

    def has_texts_of(self, other: Baseline) -> bool:
        """Return whether its routes were measured with the same texts, so that both can be one baseline."""
        mine, theirs = ([(one.name, one.digest) for one in each.sets] for each in (self, other))
        return mine == theirs and self.canary_version == other.canary_version

    @classmethod
    def from_json(cls, text: str) -> Baseline:
        """Read a document. Raises UnreadableRecordError for a newer version, and for anything that no version writes.

        All values are checked, because later code calculates with them.
        """
        try:
            found = json.loads(text)
            version = _whole(found["version"], least=1)
            if version > VERSION:
                otherwise = "replace the baseline with `embedway quality baseline --replace`"
                raise UnreadableRecordError(f"a stored baseline {newer_version(version, VERSION, otherwise=otherwise)}")
            space, sets = Space.from_json(found["space"]), tuple(map(_set_of, _list(found["sets"])))
            routes = [_route_of(one, space.dimensions) for one in _list(found["routes"])]
            baseline = cls(
                _text(found["model"]),
                space,
                _time(found["created"]),
                _text(found["embedway"]),
                _whole(found["canaries"], least=1),
                sets,
                {one.route: one for one in routes},
            )
            _check_whole(baseline, len(routes))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError) as error:
            if isinstance(error, SpaceVersionError):
                raise UnreadableRecordError(f"the space of a stored baseline {error}") from None
            raise UnreadableRecordError(
                "a stored baseline is damaged: create it again with `embedway quality baseline --replace`"
            ) from None
        else:
            return baseline


def _check_whole(baseline: Baseline, count: int) -> None:
    """Raise ValueError if parts of a baseline do not fit together."""
    names = [one.name for one in baseline.sets]
    rows = {len(vectors) for one in baseline.routes.values() for vectors in one.vectors.values()}
    expected = {len(CANARIES)} if baseline.canary_version == CANARY_VERSION else rows
    if (
        not count
        or len(baseline.routes) != count
        or len(set(names)) != len(names)
        or rows != expected
        or len(rows) != 1
    ):
        raise ValueError


def _set_json(one: PairSet) -> dict[str, Any]:
    rows = [[pair.id, pair.group, pair.query, pair.passage] for pair in one.pairs] if one.name == "own" else None
    return {"name": one.name, "version": one.version, "digest": one.digest, "pairs": rows}


def _set_of(found: dict[str, Any]) -> PairSet:
    name, digest = _text(found["name"]), _text(found["digest"])
    pairs: tuple[Pair, ...] = ()
    if name == "own":
        try:
            pairs = checked_pairs([Pair(*row) for row in _list(found["pairs"])])
        except SourceError:
            raise ValueError from None
        if digest_of(pairs) != digest:
            raise ValueError
    return PairSet(name, _whole(found["version"], least=1), digest, pairs)


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


def _route_of(found: dict[str, Any], dimensions: int) -> RouteBaseline:
    price = found["price_nanousd"]
    return RouteBaseline(
        _text(found["route"]),
        _time(found["created"]),
        None if price is None else _whole(price, least=0),
        {kind: _vectors_of(found["vectors"][kind], dimensions) for kind in INPUT_TYPES},
        {kind: _noise_of(found["noise"][kind]) for kind in INPUT_TYPES},
        {
            _text(name): {_text(pair): _result_of(row) for pair, row in results.items()}
            for name, results in found["results"].items()
        },
    )


def _vectors_of(found: dict[str, Any], dimensions: int) -> Vectors:
    rows, width = (_whole(size, least=1) for size in _list(found["shape"]))
    vectors = vectors_from_json(found)
    if vectors.shape != (rows, width) or width != dimensions or not np.isfinite(vectors).all():
        raise ValueError
    return vectors


def _noise_of(found: dict[str, Any]) -> Noise:
    sources = {_text(name): _distance(value) for name, value in found["sources"].items()}
    return Noise(sources, *(_distance(found[name]) for name in ("largest", "q90", "mean")))


def _result_of(row: Any) -> QueryResult:
    group, rank, *top = _list(row)
    return QueryResult(_text(group, empty=True), _whole(rank, least=1), tuple(map(_text, top)))


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _text(value: Any, *, empty: bool = False) -> str:
    if not isinstance(value, str) or not (value or empty) or has_surrogate(value):
        raise TypeError
    return value


def _whole(value: Any, *, least: int) -> int:
    if type(value) is not int or not least <= value < 2**63:
        raise ValueError
    return value


def _number(value: Any, most: float) -> float:
    if type(value) not in (int, float) or not 0 <= value <= most:
        raise ValueError
    return float(value)


def _distance(value: Any) -> float:
    return _number(value, _MOST_DISTANCE)


def _time(value: Any) -> float:
    return _number(value, _LATEST)
