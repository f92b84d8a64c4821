"""Benchmarks of several files: under their models' own names, laid over what is shipped, and what that may break."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from embedway.catalog.benchmarks import default_benchmarks
from embedway.config.layers import BENCHMARKS, Layer, Problem, overlay

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def benchmarks_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """What settings say of models; empty where they say nothing, or no table."""
    embedding = values.get("embedding")
    benchmarks = embedding.get("model_benchmarks") if isinstance(embedding, dict) else None
    return benchmarks if isinstance(benchmarks, dict) else {}


def _with_benchmarks(values: Mapping[str, Any], benchmarks: Mapping[str, Any]) -> dict[str, Any]:
    return {**values, "embedding": {**values["embedding"], "model_benchmarks": benchmarks}}


def as_known(layers: Sequence[Layer]) -> tuple[list[Layer], list[Problem]]:
    """Layers with each benchmark under its model's own spelling, for names are the same in any case.

    The spelling is the catalog's, that of a model of the settings, or the first one.
    """
    spellings = {name.casefold(): name for name in default_benchmarks()}
    for layer in layers:
        models = layer.values.get("models")
        for model in models.values() if isinstance(models, dict) else ():
            name = model.get("name") if isinstance(model, dict) else None
            if isinstance(name, str):
                spellings.setdefault(name.casefold(), name)
    found, problems = [], []
    for layer in layers:
        tables: dict[str, Any] = {}
        for name, fields in benchmarks_of(layer.values).items():
            known = spellings.setdefault(name.casefold(), name)
            if known in tables:
                problems.append(Problem(layer.where, f"{BENCHMARKS}{name}", "is there twice, in other letters"))
            tables[known] = _renamed(fields, known)
        found.append(replace(layer, values=_with_benchmarks(layer.values, tables)) if tables else layer)
    return found, problems


def _renamed(fields: Any, known: str) -> Any:
    name = fields.get("model_name") if isinstance(fields, dict) else None
    same = isinstance(name, str) and name.casefold() == known.casefold()
    return {**fields, "model_name": known} if same else fields


def unconfirmed(under: Mapping[str, Any], over: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings without the confirmations of prices that the layer over them changes: those are of other prices."""
    below = benchmarks_of(under)
    changed = {
        name: table_unconfirmed(below[name], fields)
        for name, fields in benchmarks_of(over).items()
        if isinstance(fields, dict) and isinstance(below.get(name), dict)
    }
    return _with_benchmarks(under, {**below, **changed}) if changed else under


def table_unconfirmed(table: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """A benchmark without its confirmation where other fields change its price."""
    price = "cost_per_million_tokens"
    same = price not in fields or ("cost_confirmed" in fields) or str(fields[price]) == str(table.get(price))
    return {name: value for name, value in table.items() if same or name != "cost_confirmed"}


def over_shipped(
    values: Mapping[str, Any], own: Mapping[str, Any], origins: Mapping[str, tuple[str, str]]
) -> dict[str, Any]:
    """The settings with their benchmarks laid over the shipped ones, field by field."""
    told = {
        name: with_sources(fields, origins[f"{BENCHMARKS}{name}"][0]) if isinstance(fields, dict) else fields
        for name, fields in own.items()
    }
    shipped = {name: dict(fields) for name, fields in default_benchmarks().items()}
    return _with_benchmarks(values, overlay(shipped, told))


def with_sources(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A number that is replaced is no longer of the source that the shipped one names."""
    named = dict(fields)
    if "quality_score" in fields:
        named = {"quality_source": f"settings: {where}", "quality_comparable": True, **named}
    if {"avg_latency_ms", "tokens_per_second"} & set(fields):
        named = {"speed_source": f"settings: {where}", "measured_on": None, **named}
    return named


def misnamed_in(own: Mapping[str, Any], origins: Mapping[str, tuple[str, str]]) -> list[Problem]:
    """Benchmarks whose own name is not their key's, which pydantic looks at only where all else is right."""
    return [
        Problem(origins[key][0], key, f"is {fields['model_name']!r}; must be the table's own name, {name!r}")
        for name, fields in own.items()
        if isinstance(fields, dict) and isinstance(fields.get("model_name", name), str)
        if fields.get("model_name", name) != name and (key := f"{BENCHMARKS}{name}.model_name") in origins
    ]
