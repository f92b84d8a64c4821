"""Errors of settings, combined into one error: each with its location, key and rule."""

from __future__ import annotations

import difflib
import json
import math
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, get_args, get_origin

from pydantic import BaseModel, SecretStr

from embedway.catalog.benchmarks import default_benchmarks
from embedway.config.layers import BENCHMARKS, Problem, SettingSource, is_among, leaves, pattern_and_name
from embedway.config.request_headers import known_part
from embedway.errors import ConfigError
from embedway.text import has_surrogate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from embedway.config.layers import Layer

#: Options of providers, which are often written as keys of their route.
_OPTIONS = frozenset(
    {"api_version", "append_eos", "batch_dependent", "batch_size", "cache_dir", "device", "dialect", "dimensions"}
    | {"dtype", "encoding", "input_type", "max_inputs", "max_request_tokens", "max_seq_length", "max_tokens_per_doc"}
    | {"model_file", "padding_side", "path", "pooling", "revision", "threads", "trust_remote_code", "verify"}
)
#: Former keys, with what to write instead.
_REPLACED = {
    "quality_comparable": "instead of true, write quality_scale = 'mteb-en'; instead of false, nothing",
}


class ContradictionError(ValueError):
    """Fields of one section contradict one another: a validator of the section raises it with their names."""

    def __init__(self, message: str, *fields: str) -> None:
        self.fields = fields
        super().__init__(message)


def key_types(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, frozenset[type]]]:
    """Iterate over dotted keys and their allowed plain types; `*` replaces a user's name."""
    for name, field in model.model_fields.items():
        named = get_args(field.annotation)[-1:] if get_origin(field.annotation) is dict else ()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from key_types(field.annotation, f"{prefix}{name}.")
        elif named and isinstance(named[0], type) and issubclass(named[0], BaseModel):
            yield from key_types(named[0], f"{prefix}{name}.*.")
        else:
            yield f"{prefix}{name}", frozenset(_types(field.annotation))


def _types(annotation: Any) -> Iterator[type]:
    origin = get_origin(annotation)
    if isinstance(origin, type):
        yield origin
    if isinstance(annotation, type):
        yield annotation
    for argument in get_args(annotation):
        yield from _types(argument)


@dataclass(frozen=True, slots=True)
class KnownKeys:
    """Known keys of settings: all keys, tables within sections, keys of secrets, sections, and keys of paths."""

    all: tuple[str, ...]
    tables: tuple[str, ...]
    secrets: frozenset[str]
    sections: tuple[str, ...]
    paths: frozenset[str]

    @classmethod
    def of(cls, model: type[BaseModel]) -> Self:
        """Collect the keys of a model of settings."""
        kinds = dict(key_types(model))
        within = (known.partition(".*.")[0] for known in kinds if ".*." in known and known.count(".") > 2)
        return cls(
            tuple(kinds),
            tuple(dict.fromkeys(within)),
            frozenset(key for key, kind in kinds.items() if SecretStr in kind),
            tuple(model.model_fields),
            frozenset(key for key, kind in kinds.items() if Path in kind),
        )

    def nearest(self, key: str) -> str:
        """Suggest the known key that an unknown one most likely means, as the end of a sentence."""
        if key == "config":
            return "; pass settings files with --config"
        section, _, name = key.rpartition(".")
        if name in _REPLACED:
            return f"; {_REPLACED[name]}"
        if section == "routes.*" and name in _OPTIONS:
            return f"; it is an option: write options = {{ {name} = … }}"
        tables = [table for table in self.tables if table.rpartition(".")[2] == name]
        if tables:
            return f"; the nearest is {tables[0]}"
        siblings = [known for known in self.all if known.rpartition(".")[0] == section]
        # Names alone: the names of their tables would make all of them similar.
        names = {known.rpartition(".")[2]: known for known in siblings}
        close = [names[match] for match in difflib.get_close_matches(name, names, n=1, cutoff=0.75)]
        within = [known for word, known in names.items() if f"_{name}_" in f"_{word}_"]
        if not close and len(within) == 1:
            close = within
        if not close and not section:
            # Before complete keys: a short key of the section may be more similar than its name.
            close = difflib.get_close_matches(key, self.sections, n=1, cutoff=0.75)
        if not close:
            same = [known for known in self.all if known.rpartition(".")[2] == name]
            close = same or ([] if within else difflib.get_close_matches(key, self.all, n=1, cutoff=0.6))
        if not close and not section:
            close = difflib.get_close_matches(key, self.sections, n=1, cutoff=0.6)
        if not close:
            return f"; `{section}` has {', '.join(known.rpartition('.')[2] for known in siblings)}" if siblings else ""
        return f"; the nearest is {close[0]}"


def unicode_problems(layer: Layer, paths: frozenset[str]) -> Iterator[Problem]:
    """Return errors of texts that are not valid Unicode, which no file, server or hash accepts; not of `paths`."""
    for key, value in leaves(layer.values):
        texts = [key, *(value if isinstance(value, (list, tuple)) else [value])]
        is_path = is_among(pattern_and_name(key)[0], paths) and not has_surrogate(key)
        if not is_path and any(isinstance(text, str) and has_surrogate(text) for text in texts):
            yield Problem(
                layer.where, key, f"must be valid Unicode{_set_by(SettingSource('', layer.variables.get(key, '')))}"
            )


def validation_problems(
    error: ValidationError, sources: Mapping[str, SettingSource], keys: KnownKeys, under: str = ""
) -> list[Problem]:
    """Return all errors of a validation; a table's missing fields are one error. `under` prefixes every key."""
    found: list[Problem] = []
    lacking: dict[str, list[str]] = {}
    for details in error.errors(include_url=False):
        if details["type"] == "missing":
            parent = under + ".".join(map(str, details["loc"][:-1]))
            if parent not in lacking:
                found.append(Problem(sources.get(parent, SettingSource()).layer, parent, ""))
            lacking.setdefault(parent, []).append(str(details["loc"][-1]))
        else:
            found.append(_problem(details, sources, keys, under))
    return [
        problem if problem.message else _lacks(problem, lacking[problem.key], sources.get(problem.key, SettingSource()))
        for problem in found
    ]


def _lacks(problem: Problem, fields: list[str], source: SettingSource) -> Problem:
    new = ""
    if problem.key.startswith(BENCHMARKS):
        near = _nearest_model(problem.key.removeprefix(BENCHMARKS))
        new = "; a new model needs every field" + (f"; the nearest known model is {near}" if near else "")
    return replace(problem, message=f"lacks {', '.join(fields)}{new}{_set_by(source)}")


def _nearest_model(name: str) -> str:
    """Return the known model that a name most likely means, with or without its owner; empty if none is near."""
    known = {short.casefold(): full for full in default_benchmarks() for short in (full, full.rpartition("/")[2])}
    near = difflib.get_close_matches(name.casefold(), known, n=1, cutoff=0.85)
    return known[near[0]] if near else ""


def _set_by(source: SettingSource) -> str:
    return f" (set by {source.variable})" if source.variable else ""


def _source_of(details: ErrorDetails, key: str, sources: Mapping[str, SettingSource]) -> SettingSource:
    """Return the source of a value; for fields that contradict one another, all sources of those that are set."""
    error = details.get("ctx", {}).get("error")
    fields = error.fields if isinstance(error, ContradictionError) else ()
    found = [sources[f"{key}.{name}"] for name in fields if f"{key}.{name}" in sources]
    if not found:
        return sources.get(key, SettingSource())
    layers, variables = (dict.fromkeys(filter(None, names)) for names in zip(*map(astuple, found), strict=True))
    return SettingSource(", ".join(layers), " and ".join(variables))


def _problem(details: ErrorDetails, sources: Mapping[str, SettingSource], keys: KnownKeys, under: str) -> Problem:
    """Convert an error of pydantic to plain words, with the source of the value."""
    parts = [part for part in under.split(".") if part] + [str(part) for part in details["loc"]]
    while sources and parts and ".".join(parts) not in sources:
        parts.pop()  # for an item of a list, the list is what was set
    key = ".".join(parts)
    source = _source_of(details, key, sources)
    key = known_part(key.removesuffix(".[key]"))
    where, suffix = source.layer, _set_by(source)
    pattern, name = pattern_and_name(key)
    if details["type"] == "extra_forbidden":
        if "." in str(details["loc"][-1]):
            above, _, last = key.rpartition(".")
            return Problem(where, key, f"is one key with a dot in its name; write {last} in the table {above}{suffix}")
        return Problem(where, key, f"is not a setting{keys.nearest(pattern).replace('*', name)}{suffix}")
    table = details["type"] in {"model_type", "model_attributes_type", "dict_type"}
    # The options and headers of a route that is created directly have no prefix.
    own = pattern.removeprefix("routes.*.")
    # A key may have been pasted in place of the name of its variable.
    private = pattern in keys.secrets or own.startswith(("options", "headers")) or own == "api_key_env"
    hidden = private or (table and bool(details["input"]) and not f"{key}.".startswith(BENCHMARKS))
    shown = "" if hidden else _describe_value(details["input"], is_url=pattern.endswith("url"))
    return Problem(where, key, f"{shown}{_rule(details)}{suffix}")


#: Replacements for pydantic messages that use Python terms.
_RULES = {
    "model_type": "must be a table of settings",
    "model_attributes_type": "must be a table of settings",
    "dict_type": "must be a table of settings",
    "tuple_type": "must be a list",
    "path_type": "must be a path",
    "int_type": "must be an integer",
    "bool_type": "must be true or false",
    "string_type": "must be a string",
    "string_too_short": "must not be empty",
    "string_unicode": "must be valid Unicode",
    "too_short": "must not be empty",
    "float_type": "must be a number",
    "date_type": "must be a date, such as 2026-11-23",
    "finite_number": "must be a finite number",
}


def _rule(details: ErrorDetails) -> str:
    message = details["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return _RULES.get(details["type"], message)


def _describe_value(value: Any, *, is_url: bool = False) -> str:
    """Return the value unless it may contain a secret: a table, or a URL with a user, a password or a query."""
    if value is None:
        return "is null; "
    if not isinstance(value, (str, int, float, list, tuple)) or "@" in str(value):
        return ""
    if (is_url or "://" in str(value)) and {"?", "#"} & set(str(value)):
        return ""
    # NaN and infinity as settings files spell them.
    text = json.dumps(value) if isinstance(value, float) and not math.isfinite(value) else repr(value)
    return f"is {text}; " if len(text) <= 80 else f"is {text[:77]}...; "


def combine_errors(problems: Sequence[Problem]) -> ConfigError:
    """Combine all problems into one error."""
    if len(problems) == 1:
        return ConfigError(problems[0].message, where=problems[0].where, key=problems[0].key)
    lines = [ConfigError(item.message, where=item.where, key=item.key) for item in problems]
    return ConfigError("\n".join([f"{len(problems)} settings are invalid:", *(f"  - {line}" for line in lines)]))
