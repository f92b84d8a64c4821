"""Merge benchmarks of several layers, under canonical model names, over the shipped ones."""

from __future__ import annotations

import decimal
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from embedway.catalog import default_catalog
from embedway.catalog.benchmarks import OWN_SCALE, default_benchmarks
from embedway.catalog.services import default_services
from embedway.config.benchmarks import ModelBenchmark, shipped_benchmarks, unit_error
from embedway.config.layers import BENCHMARKS, Layer, Problem, SettingSource, overlay
from embedway.config.plain_values import plain_table
from embedway.config.types import LONGEST_SOURCE
from embedway.config.units import drop_stale_confirmations
from embedway.errors import ConfigError
from embedway.text import has_surrogate, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from embedway.config.load import Config

#: Maximum characters of a location in a source.
_LONGEST_WHERE = 500
#: Fields that `speed_source` describes.
_SPEEDS = ("avg_latency_ms", "tokens_per_second")
#: Numbers of a benchmark, each with the fields that describe its source.
_SOURCES = (
    (("quality_score",), ("quality_source", "quality_scale")),
    (("strengths",), ("strengths_source",)),
    (_SPEEDS, ("speed_source", "measured_on")),
)


def get_benchmarks(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the benchmarks in settings; empty if the settings have no table of them."""
    embedding = values.get("embedding")
    benchmarks = embedding.get("model_benchmarks") if isinstance(embedding, dict) else None
    return benchmarks if isinstance(benchmarks, dict) else {}


def _with_benchmarks(values: Mapping[str, Any], benchmarks: Mapping[str, Any]) -> dict[str, Any]:
    return {**values, "embedding": {**values["embedding"], "model_benchmarks": benchmarks}}


def canonical_names(own: Iterable[str]) -> dict[str, str]:
    """Return canonical names of models by their case-folded names and aliases. `own` are those of the settings."""
    shipped = default_benchmarks()
    names = {name.casefold(): name for name in shipped}
    for name in own:
        names.setdefault(name.casefold(), name)
    for facts in (*default_catalog(), *default_services().values()):
        for alias in facts.aliases if facts.name in shipped else ():
            names.setdefault(alias.casefold(), facts.name)
    return names


def with_known_spellings(layers: Sequence[Layer]) -> tuple[list[Layer], list[Problem]]:
    """Return layers with each benchmark under its model's canonical name; names and aliases are case-insensitive.

    The name is the catalog's, else that of a model in the settings, else the first spelling.
    """
    models = [model for layer in layers for model in _tables_of(layer.values.get("models"))]
    spellings = canonical_names(name for model in models if isinstance(name := model.get("name"), str))
    found, problems = [], []
    for layer in layers:
        tables: dict[str, Any] = {}
        variables = dict(layer.variables)
        for name, fields in get_benchmarks(layer.values).items():
            known = spellings.setdefault(name.casefold(), name)
            if known in tables:
                how = "in different case" if name.casefold() == known.casefold() else f"as it is an alias of {known}"
                problems.append(Problem(layer.where, f"{BENCHMARKS}{name}", f"is set twice, {how}"))
            tables[known] = _rename(fields, name, known)
            written = f"{BENCHMARKS}{name}."
            below = {key: variable for key, variable in layer.variables.items() if f"{key}.".startswith(written)}
            variables |= {f"{BENCHMARKS}{known}.{key[len(written) :]}".rstrip("."): below[key] for key in below}
        values = _with_benchmarks(layer.values, tables) if tables else layer.values
        found.append(replace(layer, values=values, variables=variables))
    return found, problems


def _tables_of(tables: Any) -> list[dict[str, Any]]:
    return [table for table in tables.values() if isinstance(table, dict)] if isinstance(tables, dict) else []


def _rename(fields: Any, written: str, known: str) -> Any:
    name = fields.get("model_name") if isinstance(fields, dict) else None
    same = isinstance(name, str) and name.casefold() in {written.casefold(), known.casefold()}
    return {**fields, "model_name": known} if same else fields


def overlay_benchmarks(under: Mapping[str, Any], layer: Layer) -> dict[str, Any]:
    """Merge a layer's benchmarks into those of lower layers; the layer becomes the source of its numbers."""
    merged = dict(under)
    for name, fields in get_benchmarks(layer.values).items():
        below = merged.get(name)
        if not isinstance(fields, dict):
            merged[name] = fields
            continue
        table = below if isinstance(below, dict) else {}
        wheres = {
            field: str(SettingSource(layer.where, layer.variables.get(f"{BENCHMARKS}{name}.{field}", "")))
            for field in fields
        }
        base = {**default_benchmarks().get(name, {}), **table}
        merged[name] = {**drop_stale_confirmations(table, fields), **with_sources(fields, wheres, base)}
    return merged


def merge_with_shipped(values: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with their benchmarks merged over the shipped ones, field by field."""
    shipped = {name: dict(fields) for name, fields in default_benchmarks().items()}
    return _with_benchmarks(values, overlay(shipped, own))


def complete_benchmarks(given: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return benchmarks that were passed to a constructor, merged over the shipped ones as those of a file are."""
    spellings = canonical_names(name for name in given if isinstance(name, str))
    merged: dict[Any, Any] = dict(shipped_benchmarks())
    for asked, fields in given.items():
        name = spellings[asked.casefold()] if isinstance(asked, str) else asked
        if not isinstance(fields, dict):
            merged[name] = fields
            continue
        shipped = default_benchmarks().get(name, {})
        own = with_sources(_rename(fields, asked, name), dict.fromkeys(fields, "arguments"), shipped)
        merged[name] = {**shipped, **own}
    return merged


def with_sources(fields: Mapping[str, Any], wheres: Mapping[str, str], base: Mapping[str, Any]) -> dict[str, Any]:
    """Record the source of the numbers that these fields set: `wheres` by field, over those of `base`.

    The scale of a score of the settings is `own`, unless its fields name another.
    """
    named = dict(fields)
    if "quality_score" in fields:
        named = {"quality_source": _setting(wheres["quality_score"]), "quality_scale": OWN_SCALE, **named}
    if "strengths" in fields:
        named = {"strengths_source": _setting(wheres["strengths"]) if fields["strengths"] else "", **named}
    changed = [field for field in _SPEEDS if field in fields]
    if changed and "speed_source" not in fields:
        before = str(base.get("speed_source") or "")
        parts = {field: _source_of(before, field) for field in _SPEEDS}
        parts |= {field: _setting(wheres[field]) for field in changed}
        same = len(set(parts.values())) == 1 or not before
        text = parts[changed[0]] if same else "; ".join(f"{field}: {part}" for field, part in parts.items())
        named["speed_source"] = text[:LONGEST_SOURCE]
    return {"measured_on": None, **named} if changed else named


def _setting(where: str) -> str:
    """Return the source of a number of the settings, valid as one: a path may have any length and characters."""
    return f"settings: {printable(where)[:_LONGEST_WHERE]}"


def stated_fields(change: ModelBenchmark, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that a complete benchmark states, to replace the fields `before`.

    A copy of a benchmark with other numbers still has the sources of the former ones. They are not stated.
    """
    stated = {field: getattr(change, field) for field in change.model_fields_set}
    for numbers, sources in _SOURCES:
        is_copied = all(stated.get(field) == before.get(field) for field in sources)
        same = {field for field in numbers if stated.get(field) == before.get(field)}
        if is_copied and len(same) < len(numbers):
            stated = {field: value for field, value in stated.items() if field not in {*same, *sources}}
    return stated


def _source_of(text: str, field: str) -> str:
    """Return the part of a `speed_source` for a field, or all of it if it is not divided by fields."""
    rest = text.partition(f"{field}: ")[2]
    for other in _SPEEDS:
        rest = rest.partition(f"; {other}: ")[0]
    return rest or text


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
    for name, change in checked.items():
        if has_surrogate(name) or not isinstance(change, (ModelBenchmark, dict)):
            raise ConfigError(rule, where="benchmarks")
    return checked


def model_problems(config: Config, sources: Mapping[str, SettingSource]) -> list[Problem]:
    """Return errors of benchmarks that contradict their model in the settings: another size, or a price's unit."""
    found = []
    for name, model in config.models.items():
        benchmark = config.embedding.model_benchmarks.get(model.name)
        if benchmark is None or model.name in default_benchmarks():
            continue  # another check rejects a name of the catalog
        size, sizes = benchmark.embedding_dimensions, (model.dimensions, *model.matryoshka)
        if model.dimensions is not None and size not in sizes:
            rule = f"is {size}; must be a size of models.{name}: {', '.join(map(str, sizes))}"
            found.append(("embedding_dimensions", model.name, rule))
        price = benchmark.cost_per_million_tokens
        if benchmark.cost_confirmed or price is None or model.price_usd_per_million_tokens is None:
            continue
        listed = decimal.Decimal(model.price_usd_per_million_tokens)
        wrong = unit_error(price, listed, f"models.{name} has {listed}")
        if wrong:
            found.append(("cost_per_million_tokens", model.name, f"is {price}; {wrong}"))
    keys = [(f"{BENCHMARKS}{model}.{field}", rule) for field, model, rule in found]
    return [Problem(sources.get(key, SettingSource()).layer, key, rule) for key, rule in keys]
