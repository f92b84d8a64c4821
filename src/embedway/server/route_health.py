"""Health of the routes of the models that a worker has opened, and of all workers together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from embedway._engine import Engine

#: States of a circuit from the best to the worst.
_CIRCUITS = ("closed", "half-open", "open")


def route_health(engine: Engine | None) -> list[dict[str, Any]]:
    """Return the routes of the open embedding models: state of the circuit, quarantine, and a missing key."""
    if engine is None:
        return []
    quarantines = engine.environment.quarantines
    rows = []
    for model in engine.models.open_embedding_models():
        reasons = {} if quarantines is None else quarantines.of_space(model.baseline_space_id)
        rows += [
            {
                "model": model.name,
                "route": route,
                "circuit": circuit,
                "quarantine": reasons.get(route, ""),
                "blocked": "" if model.blocked is None else "no key",
            }
            for route, circuit in model.circuit_states.items()
        ]
    return rows


def merged_routes(routes: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each model and route, with the worst state that a worker reports."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for one in routes:
        known = found.setdefault((one["model"], one["route"]), dict(one))
        known["circuit"] = max(known["circuit"], one["circuit"], key=_CIRCUITS.index)
        known["quarantine"] = known["quarantine"] or one["quarantine"]
        known["blocked"] = known["blocked"] or one["blocked"]
    return [found[key] for key in sorted(found)]
