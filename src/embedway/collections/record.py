"""Record of a collection: how its rows were made. It is stored with the rows and checked by every write and search."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from embedway._version import __version__

if TYPE_CHECKING:
    from embedway.collections.values import ColumnType
    from embedway.space import Space

#: Number format of stored vectors. `bits` keeps only the signs.
VectorType: TypeAlias = Literal["float32", "float16", "int8", "bits"]
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
        facts = json.dumps([content_hash, asdict(self)], sort_keys=True)
        return hashlib.blake2b(facts.encode(), digest_size=16).hexdigest()


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


@dataclass(frozen=True, slots=True)
class MadeBy:
    """What computed the vectors: versions of embedway and the runtime, CPU, backend and precision."""

    embedway: str = __version__
    runtime: str = ""
    libraries: dict[str, str] = field(default_factory=dict)
    cpu: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """How the rows of a collection were made.

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

    def with_space(self, space: Space) -> Record:
        """Return the record with a space that has more facts."""
        return replace(self, space=space)
