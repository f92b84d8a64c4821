"""Record of a collection: how its rows were made. It is stored with the rows and checked by every write and search."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args

from embedway._version import __version__
from embedway.collections.values import ColumnType, VectorType

if TYPE_CHECKING:
    from embedway.space import Space

#: Version of the format of collections. Version 1 has no version field; 3 has a record, and can be changed.
FORMAT_VERSION = 3

VECTOR_TYPES: tuple[VectorType, ...] = get_args(VectorType)
#: Version of parsers and of the rules that split documents; a change splits documents of older versions again.
CHUNKING_VERSION = 1


@dataclass(frozen=True, slots=True)
class ChunkSettings:
    """Settings that decide on the chunks of a document. Token counts include special tokens, prompt and context."""

    chunk: bool = True
    chunk_tokens: int | None = None
    overlap_tokens: int | None = None
    #: `headings`, `none`, or a pattern with fields in braces, such as `{title}: {headings}`.
    context: str = "headings"
    max_tokens: int | None = None
    #: Handling of texts over the model's limit.
    on_overflow: str = "truncate"
    version: int = CHUNKING_VERSION

    def fingerprint(self, content_hash: str) -> str:
        """Return the fingerprint of a document with this content: 32 hexadecimal digits."""
        facts = f"[{json.dumps(content_hash)}, {_as_json(self)}]"
        return hashlib.blake2b(facts.encode(), digest_size=16).hexdigest()


@lru_cache(maxsize=8)
def _as_json(settings: ChunkSettings) -> str:
    """Return the facts of settings as JSON; cached, because it is part of each document's fingerprint."""
    return json.dumps(asdict(settings), sort_keys=True)


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """A source of a collection: its name in the column `source`, and its path as it was given, made absolute."""

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """Options of the readers, as in `ReadOptions`."""

    text_field: str = "text"
    id_field: str = "id"
    format: str = "auto"
    encoding: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    follow_links: bool = False
    #: Types of kept columns that the user declared: texts of a source are parsed by them. Those in `Record.keep` may be
    #: inferred, and parse no texts.
    keep_types: dict[str, ColumnType] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MadeBy:
    """Software and hardware that computed the vectors.

    `runtime` names the backend and its precision; `libraries` are versions by name; `cpu` is the name of the processor.
    """

    embedway: str = __version__
    runtime: str = ""
    libraries: dict[str, str] = field(default_factory=dict)
    cpu: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """Settings and provenance of the rows of a collection.

    `keep` maps kept columns to their types; `facts` are the catalog's facts about the model. `revision` changes with
    every commit, so that indexes of the collection know whether they are current.
    """

    space: Space
    chunking: ChunkSettings = ChunkSettings()
    keep: dict[str, ColumnType] = field(default_factory=dict)
    sources: tuple[SourceRecord, ...] = ()
    reading: ReadRecord = ReadRecord()
    made_by: MadeBy = MadeBy()
    vector_type: VectorType = "float32"
    facts: dict[str, Any] = field(default_factory=dict)
    revision: str = ""
    #: Version of the collection's format. Collections of versions before 3 can be read and searched, not changed.
    format_version: int = FORMAT_VERSION

    def to_json(self) -> dict[str, Any]:
        """Return all facts but the space, which has its own JSON form."""
        return {
            "chunking": asdict(self.chunking),
            "keep": dict(self.keep),
            "sources": [asdict(source) for source in self.sources],
            "reading": asdict(self.reading),
            "made_by": asdict(self.made_by),
            "vector_type": self.vector_type,
            "facts": self.facts,
            "revision": self.revision,
        }

    @classmethod
    def from_json(cls, facts: object, space: Space) -> Record:
        """Read the output of `to_json`. Raises ValueError for anything else."""
        if not isinstance(facts, dict):
            raise ValueError("is not a record")  # noqa: TRY004  one error type for every invalid record
        keep, vector_type = _type_table(facts.get("keep", {})), facts.get("vector_type", "float32")
        own, revision, sources = facts.get("facts", {}), facts.get("revision", ""), facts.get("sources", [])
        valid = isinstance(own, dict) and isinstance(revision, str) and isinstance(sources, list)
        if not valid or vector_type not in VECTOR_TYPES:
            raise ValueError("is not a record")
        return cls(
            space=space,
            chunking=_read(ChunkSettings, facts.get("chunking", {})),
            keep=keep,
            sources=tuple(_read(SourceRecord, source) for source in sources),
            reading=_read(ReadRecord, facts.get("reading", {})),
            made_by=_read(MadeBy, facts.get("made_by", {})),
            vector_type=vector_type,
            facts=own,
            revision=revision,
        )

    @classmethod
    def of_settings(cls, space: Space, settings: object, keep: dict[str, ColumnType], version: int) -> Record:
        """Return the record of a collection of version 1 or 2, which has a table of settings."""
        found = settings if isinstance(settings, dict) else {}
        chunking = ChunkSettings(
            chunk=found.get("chunk") is not False,
            chunk_tokens=_size(found.get("chunk_tokens")),
            overlap_tokens=_size(found.get("overlap_tokens")),
            context="none",
            max_tokens=_size(found.get("max_tokens")),
            version=0,
        )
        made_by = MadeBy(embedway="", runtime=str(found.get("runtime", "")))
        return cls(space, chunking, keep, made_by=made_by, format_version=version)

    def with_space(self, space: Space) -> Record:
        """Return the record with a space that has more facts."""
        return replace(self, space=space)


_Part = TypeVar("_Part", ChunkSettings, SourceRecord, ReadRecord, MadeBy)
_KINDS: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "str": (str,),
    "int": (int,),
    "int | None": (int, type(None)),
    "str | None": (str, type(None)),
}


def _read(kind: type[_Part], facts: object) -> _Part:
    """Return a part of a record. Raises ValueError; fields of newer versions are ignored."""
    if not isinstance(facts, dict):
        raise ValueError("is not a record")  # noqa: TRY004  as in `Record.from_json`
    values: dict[str, Any] = {}
    for one in fields(kind):
        if one.name not in facts:
            continue
        value = facts[one.name]
        if one.type == "tuple[str, ...]":
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise ValueError("is not a record")
            value = tuple(value)
        elif one.type == "dict[str, str]":
            value = _text_table(value)
        elif one.type == "dict[str, ColumnType]":
            value = _type_table(value)
        elif type(value) not in _KINDS[str(one.type)]:
            raise ValueError("is not a record")
        values[one.name] = value
    try:
        return kind(**values)
    except TypeError:  # a field without default is missing
        raise ValueError("is not a record") from None


def _text_table(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise ValueError("is not a record")
    return value


def _type_table(value: object) -> dict[str, ColumnType]:
    table = _text_table(value)
    if not set(table.values()) <= set(get_args(ColumnType)):
        raise ValueError("is not a record")
    return cast("dict[str, ColumnType]", table)


def _size(value: object) -> int | None:
    return value if type(value) is int else None
