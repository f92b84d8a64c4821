"""Reader of one catalog file. It checks every row; errors name file, model, field, value and rule."""

from __future__ import annotations

import datetime as dt
import difflib
import re
import tomllib
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast, get_args

from embedway.catalog.types import ModelFacts, Source, Task, WeightFile, Weights, Wheel
from embedway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from embedway.types import InputType, Pooling

T = TypeVar("T")

#: Encoder architectures that the local runtime supports.
ARCHITECTURES = ("bert", "distilbert", "mpnet", "roberta", "xlm-roberta")
TASKS: tuple[str, ...] = get_args(Task)
# The members of embedway.types.Pooling and InputType, repeated here: that module loads numpy, which readers of the
# catalog (such as `models list`) do not need. A test checks that they are equal.
POOLINGS = ("mean", "cls", "last")
INPUT_TYPES = ("query", "document")

#: Facts that a source can give. A reranker has no vectors, so it has none of `_EMBED_FACTS`.
_SHARED_FACTS = ("task", "architecture", "max_tokens", "languages", "licence", "parameters", "weights")
_EMBED_FACTS = ("dimensions", "matryoshka", "pooling", "normalized", "prompts")
_ROW_FIELDS = ("name", "aliases", *_SHARED_FACTS, *_EMBED_FACTS, "sources")

_HASH = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# A hub name, OWNER/NAME or NAME; never a path, because `get` must distinguish paths from names.
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[A-Za-z0-9]{2,8})*")

_KINDS: dict[type, str] = {
    bool: "true or false",
    int: "an integer",
    str: "a text",
    list: "a list",
    dict: "a table",
    dt.date: "a date (YYYY-MM-DD, without quotes)",
}


def read_rows(text: str, *, where: str) -> tuple[ModelFacts, ...]:
    """Read the models of one TOML file, in its order.

    `where` names the file in errors. Raises `ConfigError` for anything invalid.
    """
    return tuple(_model(row) for row in file_table(text, where=where).rows("model"))


def file_table(text: str, *, where: str) -> Table:
    """Parse a catalog file, in which all tables are called `model`."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not a TOML file: {error}", where=where) from error
    except (ValueError, RecursionError):  # integers of thousands of digits; very deeply nested values
        raise ConfigError("contains a value that is too large or too deeply nested", where=where) from None
    top = Table(document, where=where)
    top.only(("model",))
    return top


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the file and its location, with typed access to its fields."""

    values: Mapping[str, Any]
    where: str
    #: Model name for errors; empty for the file itself.
    row: str = ""
    #: The tables between the row and this one, such as `weights.files[2]`.
    path: str = ""

    def fail(self, field: str, value: object, rule: str) -> NoReturn:
        """Raise the error for a field whose value violates a rule."""
        raise ConfigError(f"{value!r} is not allowed: {rule}", where=self.where, key=self._key(field))

    def only(self, fields: Iterable[str]) -> None:
        """Raise ConfigError for an unknown field, with the nearest known field."""
        known = tuple(fields)
        for field in self.values:
            if field not in known:
                near = difflib.get_close_matches(field, known, n=1, cutoff=0)
                hint = f"; the nearest known field is {near[0]!r}" if near else ""
                raise ConfigError(f"unknown field{hint}", where=self.where, key=self._key(field))

    def has(self, field: str) -> bool:
        """Return whether the field is set."""
        return field in self.values

    def text(self, field: str, *, empty: bool = False) -> str:
        """Return a string; it may be empty only with `empty`."""
        value = self._take(field, str)
        if not value and not empty:
            self.fail(field, value, "it must not be empty")
        return value

    def one_of(self, field: str, choices: tuple[str, ...]) -> str:
        """Return a string that is one of `choices`."""
        value = self.text(field)
        if value not in choices:
            self.fail(field, value, f"it must be one of {', '.join(choices)}")
        return value

    def matching(self, field: str, pattern: re.Pattern[str], rule: str) -> str:
        """Return a string that matches a pattern; `rule` describes the pattern."""
        value = self.text(field)
        if not pattern.fullmatch(value):
            self.fail(field, value, rule)
        return value

    def boolean(self, field: str) -> bool:
        """Return a boolean."""
        return self._take(field, bool)

    def positive(self, field: str) -> int:
        """Return an integer greater than 0."""
        value = self._take(field, int)
        if value <= 0:
            self.fail(field, value, "it must be greater than 0")
        return value

    def date(self, field: str) -> dt.date:
        """Return a date."""
        return self._take(field, dt.date)

    def items(self, field: str, kind: type) -> tuple[Any, ...]:
        """Return a list whose members have the type `kind`."""
        value: list[object] = self._take(field, list)
        for item in value:
            if not _is(item, kind):
                self.fail(field, item, f"each member must be {_KINDS[kind]}")
        return tuple(value)

    def table(self, field: str) -> Table:
        """Return a table within this one."""
        return Table(self._take(field, dict), self.where, self.row, self._dotted(field))

    def tables(self, field: str) -> tuple[Table, ...]:
        """Return a list of tables within this one."""
        return tuple(
            Table(values, self.where, self.row, f"{self._dotted(field)}[{number}]")
            for number, values in enumerate(self.items(field, dict), start=1)
        )

    def rows(self, field: str) -> tuple[Table, ...]:
        """Return a list of tables, which errors identify by their `name`, or by their number without one."""
        made = []
        for number, values in enumerate(self.items(field, dict), start=1):
            name = values.get("name")
            label = repr(name) if isinstance(name, str) and name else str(number)
            made.append(Table(values, self.where, f"{field} {label}"))
        return tuple(made)

    def _take(self, field: str, kind: type[T]) -> T:
        if field not in self.values:
            rule = f"missing; it must be {_KINDS[kind]}"
            raise ConfigError(rule, where=self.where, key=self._key(field))
        value: T = self.values[field]
        if not _is(value, kind):
            self.fail(field, value, f"it must be {_KINDS[kind]}")
        return value

    def _dotted(self, field: str) -> str:
        return f"{self.path}.{field}" if self.path else field

    def _key(self, field: str) -> str:
        return f"{self.row}: {self._dotted(field)}" if self.row else field


def _is(value: object, kind: type) -> bool:
    # In Python, bool is a subclass of int, and datetime of date; neither is valid here.
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is dt.date:
        return isinstance(value, dt.date) and not isinstance(value, dt.datetime)
    return isinstance(value, kind)


def _model(row: Table) -> ModelFacts:
    row.only(_ROW_FIELDS)
    task = cast("Task", row.one_of("task", TASKS))
    embeds = task == "embed"
    known = (*_SHARED_FACTS, *(_EMBED_FACTS if embeds else ()))
    if not embeds:
        refuse_vectors(row, _EMBED_FACTS)
    name, aliases = names(row)
    facts = ModelFacts(
        name=name,
        aliases=aliases,
        task=task,
        architecture=row.one_of("architecture", ARCHITECTURES),
        dimensions=row.positive("dimensions") if embeds else None,
        matryoshka=matryoshka(row) if embeds else (),
        max_tokens=row.positive("max_tokens"),
        pooling=cast("Pooling", row.one_of("pooling", POOLINGS)) if embeds else None,
        normalized=row.boolean("normalized") if embeds else None,
        prompts=_prompts(row) if embeds else MappingProxyType({}),
        languages=languages(row),
        licence=row.text("licence"),
        parameters=row.positive("parameters"),
        weights=_weights(row.table("weights")),
        sources=tuple(source(table, known=known) for table in row.tables("sources")),
    )
    check_sources(row, facts.sources, known)
    return facts


def names(row: Table) -> tuple[str, tuple[str, ...]]:
    """Return the name and the aliases of a row."""
    name = row.matching("name", _NAME, "it must be NAME or OWNER/NAME")
    aliases: tuple[str, ...] = row.items("aliases", str)
    seen: set[str] = set()
    for alias in aliases:
        if not _NAME.fullmatch(alias):
            row.fail("aliases", alias, "an alias must be NAME or OWNER/NAME")
        if alias.casefold() in seen:
            row.fail("aliases", alias, "it is a duplicate (case-insensitive)")
        seen.add(alias.casefold())
    return name, aliases


def matryoshka(row: Table) -> tuple[int, ...]:
    """Return the sizes below `dimensions`, descending."""
    sizes: tuple[int, ...] = row.items("matryoshka", int)
    dimensions = row.positive("dimensions")
    for size in sizes:
        if not 0 < size < dimensions:
            row.fail("matryoshka", size, f"a size must be between 1 and {dimensions - 1}, below `dimensions`")
    if list(sizes) != sorted(set(sizes), reverse=True):
        row.fail("matryoshka", list(sizes), "sizes must descend")
    return sizes


def _prompts(row: Table) -> Mapping[InputType, str]:
    table = row.table("prompts")
    table.only(INPUT_TYPES)
    prompts = {cast("InputType", name): table.text(name, empty=True) for name in INPUT_TYPES}
    return MappingProxyType(prompts)


def languages(row: Table) -> tuple[str, ...]:
    """Return BCP 47 tags, or only `mul`."""
    tags: tuple[str, ...] = row.items("languages", str)
    for language in tags:
        if not _LANGUAGE.fullmatch(language):
            row.fail("languages", language, "a language must be a BCP 47 tag, such as en or pt-BR")
    if not tags or ("mul" in tags and len(tags) > 1):
        row.fail("languages", list(tags), "name the languages, or only `mul` if no list is known")
    return tags


def _weights(table: Table) -> Weights:
    table.only(("repository", "revision", "files", "wheels", "tokenizer", "config"))
    files = tuple(_file(file) for file in table.tables("files"))
    paths = [file.path for file in files]
    for path in paths:
        if paths.count(path) > 1:
            table.fail("files", path, "it is a duplicate")
    if not any(is_weights(path) for path in paths):
        table.fail("files", paths, "at least one file must contain weights (.safetensors or .onnx)")
    revision = None
    if table.has("revision"):
        revision = table.matching("revision", _COMMIT, "it must be a commit hash of 40 hex digits")
    return Weights(
        repository=table.matching("repository", _NAME, "it must be OWNER/NAME"),
        revision=revision,
        files=files,
        wheels=tuple(_wheel(wheel) for wheel in table.tables("wheels")) if table.has("wheels") else (),
        tokenizer=_hash(table, "tokenizer"),
        config=_hash(table, "config"),
    )


def _hash(table: Table, field: str) -> str | None:
    return table.matching(field, _HASH, "it must be 64 hex digits, lower case") if table.has(field) else None


def is_weights(path: str) -> bool:
    """Return whether a file of a repository contains weights."""
    return path.endswith((".safetensors", ".onnx", ".onnx_data"))


def _file(table: Table) -> WeightFile:
    table.only(("path", "sha256", "size"))
    return WeightFile(
        path=_inside(table, "path"),
        sha256=table.matching("sha256", _HASH, "it must be 64 hex digits, lower case") if table.has("sha256") else None,
        size=table.positive("size") if table.has("size") else None,
    )


def _wheel(table: Table) -> Wheel:
    table.only(("name", "version", "prefix"))
    return Wheel(name=table.text("name"), version=table.text("version"), prefix=_inside(table, "prefix"))


def _inside(table: Table, field: str) -> str:
    path = table.text(field)
    # A catalog file may be untrusted; its paths must stay within the store.
    if "\\" in path or ":" in path or any(part in {"", ".", ".."} for part in path.split("/")):
        table.fail(field, path, "it must be a relative path with / between its parts, without . or ..")
    return path


def refuse_vectors(row: Table, fields: Iterable[str]) -> None:
    """Raise ConfigError for vector fields in the row of a reranker."""
    for field in fields:
        if row.has(field):
            row.fail(field, row.values[field], "a reranker has no vectors, so it does not have this field")


def check_sources(row: Table, sources: Iterable[Source], facts: Iterable[str]) -> None:
    """Raise ConfigError for a fact of the row that none of its sources lists."""
    given = {fact for one in sources for fact in one.facts}
    for fact in facts:
        if row.has(fact) and fact not in given:
            row.fail(fact, row.values[fact], "no source of this row lists it among its facts")


def source(table: Table, *, known: tuple[str, ...]) -> Source:
    """Return the source of facts; each fact must be one of `known`."""
    table.only(("url", "date", "facts"))
    facts: tuple[str, ...] = table.items("facts", str)
    for fact in facts:
        if fact not in known:
            near = difflib.get_close_matches(fact, known, n=1, cutoff=0)
            table.fail("facts", fact, f"unknown fact; the nearest is {near[0]!r}")
    url = table.text("url")
    if not url.startswith("https://"):
        table.fail("url", url, "it must begin with https://")
    return Source(url=url, date=table.date("date"), facts=facts)
