"""What a destination is given, and the contract that every sink keeps."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from embedway._version import __version__
from embedway.errors import SinkError, newer_version
from embedway.space import Space, SpaceVersionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from embedway.types import Vectors

#: Names of our own columns; no kept column may stand in their place.
RESERVED_COLUMNS = frozenset(
    {"id", "document_id", "source", "start_line", "title", "text", "vector", "space", "_distance"}
)

#: The format of what `run` writes, and its version. 1 does not name itself; 2 holds spaces with all their facts.
FORMAT = "embedway collection"
FORMAT_VERSION = 2
FORMAT_KEY = "embedway.format"
SPACE_KEY = "embedway.space"
SETTINGS_KEY = "embedway.settings"
VERSION_KEY = "embedway.version"


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document, as it is embedded and written.

    `text` is `document.text[start_char:end_char]`; `start_line` counts from 1 in the source.
    """

    id: str
    document_id: str
    text: str = field(repr=False)
    start_char: int
    end_char: int
    start_line: int
    title: str | None
    source: str
    metadata: Mapping[str, str | None] = field(repr=False)


class Sink(Protocol):
    """Somewhere to write rows to. The destination shows nothing until `commit`, and then everything.

    Calls come from one thread at a time, in this order: `open`, `write` any number of times, then `commit` or
    `abort`. `abort` may come at any time, also twice, and leaves nothing behind. All raise `SinkError`.
    """

    destination: str
    overwrite: bool

    def open(self, space: Space, settings: Mapping[str, object], keep: Sequence[str]) -> None:
        """Begin: `space` is what every vector belongs to, `keep` names the metadata that each row carries."""

    def write(self, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """Add rows: `vectors` is float32 (n, d), row i of chunk i."""

    def commit(self) -> None:
        """Let the destination appear, whole."""

    def abort(self) -> None:
        """Give up and remove what was written."""


def collection_metadata(space: Space, settings: Mapping[str, object]) -> dict[str, str]:
    """The facts that a collection states about itself: its format, its space and settings as JSON, and our version."""
    return {
        FORMAT_KEY: str(FORMAT_VERSION),
        SPACE_KEY: json.dumps(space.to_json(), ensure_ascii=False),
        SETTINGS_KEY: json.dumps(dict(settings), ensure_ascii=False),
        VERSION_KEY: __version__,
    }


def space_from_json(facts: object, *, destination: str) -> Space:
    """The space that a collection names. Raises `SinkError` where the facts are not a space's."""
    try:
        return Space.from_json(facts)
    except SpaceVersionError as error:
        raise SinkError(f"its vector space {error}", destination=destination) from None
    except ValueError:
        message = "names a vector space in a way that this version cannot read"
        raise SinkError(message, destination=destination) from None


def check_format(version: object, *, destination: str) -> None:
    """Raise `SinkError` for a collection of a newer format; None stands for the first, which does not name itself."""
    try:
        found = 1 if version is None else int(str(version))
    except ValueError:
        found = 0
    if found < 1:
        raise SinkError("names no version of its format; it was damaged, or not written by us", destination=destination)
    if found > FORMAT_VERSION:
        raise SinkError(newer_version(found, FORMAT_VERSION, of="collections"), destination=destination)


def space_from_metadata(metadata: Mapping[bytes, bytes] | None, *, destination: str) -> Space:
    """The space in the schema metadata of a Parquet file or LanceDB table."""
    named = metadata or {}
    raw = named.get(SPACE_KEY.encode())
    if raw is None:
        raise SinkError(
            "does not say which vector space it holds; it was not written by `embedway run`",
            destination=destination,
        )
    version = named.get(FORMAT_KEY.encode())
    check_format(None if version is None else version.decode("ascii", "replace"), destination=destination)
    try:
        facts = json.loads(raw)
    except (ValueError, RecursionError):
        facts = None
    return space_from_json(facts, destination=destination)


@contextmanager
def sink_errors(destination: str, doing: str) -> Iterator[None]:
    """Turn the faults of disks and of Arrow into `SinkError`."""
    import pyarrow as pa  # noqa: PLC0415 - heavy

    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SinkError(f"{doing} failed: {reason}", destination=destination) from error
    except pa.ArrowException as error:
        raise SinkError(f"{doing} failed: {type(error).__name__}", destination=destination) from error


def arrow_schema(space: Space, keep: Sequence[str], metadata: Mapping[str, str]) -> Any:
    """The Arrow schema of a collection: vectors are float32 lists of fixed size."""
    import pyarrow as pa  # noqa: PLC0415 - heavy

    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("document_id", pa.string(), nullable=False),
            pa.field("source", pa.string(), nullable=False),
            pa.field("start_line", pa.int64(), nullable=False),
            pa.field("title", pa.string()),
            pa.field("text", pa.string(), nullable=False),
            *(pa.field(name, pa.string()) for name in keep),
            pa.field("vector", pa.list_(pa.float32(), space.dimensions), nullable=False),
        ],
        metadata=dict(metadata),
    )


def arrow_batch(chunks: Sequence[Chunk], vectors: Vectors, schema: Any, keep: Sequence[str]) -> Any:
    """Chunks and vectors as one Arrow record batch."""
    import numpy as np  # noqa: PLC0415
    import pyarrow as pa  # noqa: PLC0415 - heavy

    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
    columns = [
        pa.array([chunk.id for chunk in chunks], pa.string()),
        pa.array([chunk.document_id for chunk in chunks], pa.string()),
        pa.array([chunk.source for chunk in chunks], pa.string()),
        pa.array([chunk.start_line for chunk in chunks], pa.int64()),
        pa.array([chunk.title for chunk in chunks], pa.string()),
        pa.array([chunk.text for chunk in chunks], pa.string()),
        *(pa.array([chunk.metadata.get(name) for chunk in chunks], pa.string()) for name in keep),
        pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
