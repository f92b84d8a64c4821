"""Checks of a benchmark's numbers for mistakes of units: scores of 0 to 1 or 0 to 10, seconds, thousands of tokens."""

from __future__ import annotations

import functools
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from embedway.catalog.benchmarks import default_benchmarks

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Flag of a benchmark, by the numbers that it confirms.
CONFIRMED_BY: Mapping[str, str] = MappingProxyType(
    {
        "cost_per_million_tokens": "cost_confirmed",
        "quality_score": "quality_confirmed",
        "avg_latency_ms": "speed_confirmed",
        "tokens_per_second": "speed_confirmed",
    }
)
#: Scores up to this one may be on a scale of 0 to 10. The catalog's are above 50.
_SCALE_OF_TEN = 10.0
#: Part of the catalog's score below which a score counts as one of another scale.
_SCORE_PART = 4
#: Factor from the catalog's speed at which a speed counts as a mistake of units. A wrong unit is 1,000 times off; a
#: fast machine or a near server may be 100 times faster than the catalog's.
_SPEED_FACTOR = 300
#: Plausible speeds of a model that is not in the catalog, with the unit.
_SPEEDS = {"avg_latency_ms": (0.5, 60_000.0, "milliseconds"), "tokens_per_second": (20.0, 1e8, "tokens per second")}


def score_error(score: float, model: str) -> str:
    """Return the error of a score that is probably not on a scale of 0 to 100; empty if none."""
    listed = _listed(model).get("quality_score")
    sure = f"; if it is correct, set {CONFIRMED_BY['quality_score']} = true beside it"
    if 0 < score <= 1:
        return f"must be on a scale of 0 to 100: is it {round(score * 100, 12):g}?{sure}"
    if 0 < score <= _SCALE_OF_TEN or (score and listed and score * _SCORE_PART < listed):
        known = f"; the catalog's is {listed:g}" if listed else ""
        meant = f": is it {round(score * 10, 12):g}?" if score <= _SCALE_OF_TEN else ""
        return f"must be on a scale of 0 to 100{meant}{known}{sure}"
    return ""


def speed_error(field: str, value: float, model: str) -> str:
    """Return the error of a latency or throughput that is probably in another unit; empty if none."""
    least, most, unit = _SPEEDS[field]
    listed = _listed(model).get(field)
    if listed is not None:
        least, most = listed / _SPEED_FACTOR, listed * _SPEED_FACTOR
    low, high = value < least, value > most
    if not low and not high:
        return ""
    meant = value * 1000 if low else value / 1000
    known = f" the catalog has {listed:,g};" if listed is not None else ""
    sure = f"if it is correct, set {CONFIRMED_BY[field]} = true beside it"
    return f"must be in {unit}: is it {meant:,.6g}?{known} {sure}"


def drop_stale_confirmations(table: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a benchmark without the confirmations of numbers that `fields` change."""
    stale = {
        flag
        for number, flag in CONFIRMED_BY.items()
        if number in fields and flag not in fields and str(fields[number]) != str(table.get(number))
    }
    return {name: value for name, value in table.items() if name not in stale}


def _listed(model: str) -> Mapping[str, Any]:
    return _shipped().get(model.casefold(), {})


@functools.cache
def _shipped() -> dict[str, Mapping[str, Any]]:
    return {name.casefold(): fields for name, fields in default_benchmarks().items()}
