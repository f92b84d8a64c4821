"""Merge benchmarks of several layers, under canonical model names, over the shipped ones."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from embedway.catalog.benchmarks import default_benchmarks
from embedway.config.benchmarks import ModelBenchmark
from embedway.config.layers import BENCHMARKS, Layer, Problem, SettingSource, overlay
from embedway.config.plain_values import plain_table
from embedway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def get_benchmarks(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the benchmarks in settings; empty if the settings have no table of them."""
    embedding = values.get("embedding")
    benchmarks = embedding.get("model_benchmarks") if isinstance(embedding, dict) else None
    return benchmarks if isinstance(benchmarks, dict) else {}


def _with_benchmarks(values: Mapping[str, Any], benchmarks: Mapping[str, Any]) -> dict[str, Any]:
    return {**values, "embedding": {**values["embedding"], "model_benchmarks": benchmarks}}


def with_known_spellings(layers: Sequence[Layer]) -> tuple[list[Layer], list[Problem]]:
    """Return layers with each benchmark under its model's canonical spelling; names are case-insensitive.

    The spelling is the catalog's, else that of a model in the settings, else the first one.
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
        for name, fields in get_benchmarks(layer.values).items():
            known = spellings.setdefault(name.casefold(), name)
            if known in tables:
                problems.append(Problem(layer.where, f"{BENCHMARKS}{name}", "is set twice, in different case"))
            tables[known] = _rename(fields, known)
        found.append(replace(layer, values=_with_benchmarks(layer.values, tables)) if tables else layer)
    return found, problems


def _rename(fields: Any, known: str) -> Any:
    name = fields.get("model_name") if isinstance(fields, dict) else None
    same = isinstance(name, str) and name.casefold() == known.casefold()
    return {**fields, "model_name": known} if same else fields


def drop_stale_confirmations(under: Mapping[str, Any], over: Mapping[str, Any]) -> Mapping[str, Any]:
    """Remove the price confirmation of each benchmark in the lower settings if the upper layer changes its price."""
    below = get_benchmarks(under)
    changed = {
        name: drop_stale_confirmation(below[name], fields)
        for name, fields in get_benchmarks(over).items()
        if isinstance(fields, dict) and isinstance(below.get(name), dict)
    }
    return _with_benchmarks(under, {**below, **changed}) if changed else under


def drop_stale_confirmation(table: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a benchmark without its price confirmation if `fields` change the price."""
    price = "cost_per_million_tokens"
    same = price not in fields or ("cost_confirmed" in fields) or str(fields[price]) == str(table.get(price))
    return {name: value for name, value in table.items() if same or name != "cost_confirmed"}


def merge_with_shipped(
    values: Mapping[str, Any], own: Mapping[str, Any], sources: Mapping[str, SettingSource]
) -> dict[str, Any]:
    """Return the settings with their benchmarks merged over the shipped ones, field by field."""
    tables = {
        name: with_sources(fields, sources[f"{BENCHMARKS}{name}"].layer) if isinstance(fields, dict) else fields
        for name, fields in own.items()
    }
    shipped = {name: dict(fields) for name, fields in default_benchmarks().items()}
    return _with_benchmarks(values, overlay(shipped, tables))


def with_sources(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Record `where` as the source of the numbers that these fields replace."""
    named = dict(fields)
    if "quality_score" in fields:
        named = {"quality_source": f"settings: {where}", "quality_comparable": True, **named}
    if {"avg_latency_ms", "tokens_per_second"} & set(fields):
        named = {"speed_source": f"settings: {where}", "measured_on": None, **named}
    return named


def find_misnamed(own: Mapping[str, Any], sources: Mapping[str, SettingSource]) -> list[Problem]:
    """Return errors of benchmarks whose name differs from their key; pydantic checks it only if all else is valid."""
    return [
        Problem(sources[key].layer, key, f"is {fields['model_name']!r}; must be the table's name, {name!r}")
        for name, fields in own.items()
        if isinstance(fields, dict) and isinstance(fields.get("model_name", name), str)
        if fields.get("model_name", name) != name and (key := f"{BENCHMARKS}{name}.model_name") in sources
    ]


def check_changes(changes: object) -> dict[str, ModelBenchmark | dict[str, Any]]:
    """Return a mapping of model names to benchmarks or to their fields, with plain values. Raises ConfigError."""
    rule = "must be a mapping of model names to ModelBenchmark, or to a mapping of its fields"
    checked = plain_table(changes, rule, where="benchmarks")
    if not all(isinstance(change, (ModelBenchmark, dict)) for change in checked.values()):
        raise ConfigError(rule, where="benchmarks")
    return checked
