"""Files and batches, as their stores keep them.

Stored documents are JSON. They are read strictly, because a store may be damaged, or written by another program.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

Status: TypeAlias = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]
#: Reasons to stop a batch: the client, its window, or the tenant's bytes.
Stop: TypeAlias = Literal["", "cancelled", "expired", "storage"]
#: Statuses of batches that have ended.
_ENDED: frozenset[Status] = frozenset({"failed", "completed", "expired", "cancelled"})
#: Stored values are of these types exactly, and have no other fields.
_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
#: Endpoint of the lines of a batch.
ENDPOINT = "/v1/embeddings"
#: Time for a batch, in seconds; the API's only window.
WINDOW_S = 86_400
MIB = 2**20
#: The API's limits of metadata: pairs, and characters of a key and of a value.
MOST_PAIRS, KEY_LENGTH, VALUE_LENGTH = 16, 64, 512
#: The API's limits of the time that a file is kept, in seconds.
SHORTEST_S, LONGEST_S = 3600, 30 * 86_400
#: The API's maximum items of a list of files, and of a list of batches.
MOST_FILES, MOST_BATCHES = 10_000, 100


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Limits of files and batches. Sizes are bytes, times seconds."""

    #: Maximum size of an uploaded file; the default is the API's.
    file_bytes: int = 200 * MIB
    #: Maximum requests, and maximum embedding inputs of all its requests; the defaults are the API's.
    lines: int = 50_000
    inputs: int = 50_000
    line_bytes: int = 8 * MIB
    #: Maximum size of a tenant's files together, also of results.
    tenant_bytes: int = 10 * 2**30
    #: Maximum files and maximum batches of a tenant.
    tenant_files: int = 10_000
    #: Time after which files and ended batches are deleted.
    retention_s: int = 30 * WINDOW_S
    window_s: int = WINDOW_S


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file: an upload, or the results of a batch."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    id: str
    tenant: str
    created_at: float
    name: str
    purpose: Literal["batch", "batch_output"]
    size: int
    #: Time of its deletion.
    expires_at: float


@dataclass(frozen=True, slots=True)
class LineError:
    """Error of an input file. `line` counts from 1; None for the whole file."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """Neighbouring lines of an input file that are computed together.

    `worker` computes it until `until`, unless it renews this lease; without a worker, it waits until then.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    id: str
    #: Position and size in the input file, in bytes.
    offset: int
    size: int
    #: Number of its lines, and those that are not finished, from 0.
    lines: int
    todo: tuple[int, ...]
    worker: str = ""
    until: float = 0.0
    #: Computations of its lines that have failed temporarily, one after another.
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch, and the progress of its computation. Times are seconds since 1970."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    id: str
    tenant: str
    #: API key that created the batch, and is charged.
    key_name: str
    input_file_id: str
    #: Size of the input file in bytes.
    input_size: int
    output_file_id: str
    error_file_id: str
    created_at: float
    expires_at: float
    #: Time from the end of the batch to the deletion of its results, in seconds.
    keep_s: int
    metadata: dict[str, str] | None = None
    status: Status = "validating"
    #: Times of the statuses after `validating`, by status.
    times: dict[str, int] = field(default_factory=dict)
    errors: tuple[LineError, ...] = ()
    model: str = ""
    #: Lines of the input file, and those that ended.
    total: int = 0
    completed: int = 0
    failed: int = 0
    #: Tokens of all answers.
    tokens: int = 0
    #: Lease of the worker that validates the input file.
    validator: str = ""
    validator_until: float = 0.0
    #: Position of the first line that belongs to no part yet, in bytes.
    cursor: int = 0
    #: Parts that are computed, or wait to be computed again.
    parts: tuple[Part, ...] = ()
    #: Why no line is computed any more.
    stop: Stop = ""
    #: Segments of the results.
    segments: int = 0
    output_size: int = 0
    error_size: int = 0
    #: No part is computed before this time. So many parts, one after another, have failed temporarily as a whole.
    paused_until: float = 0.0
    failures: int = 0

    @property
    def has_ended(self) -> bool:
        """Whether nothing of the batch changes any more."""
        return self.status in _ENDED


_Value = TypeVar("_Value", StoredFile, Batch)
_ADAPTERS: dict[type, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in (StoredFile, Batch)}


def new_id(kind: Literal["file-", "batch_", "part_"]) -> str:
    """Return an ID that cannot be guessed."""
    return kind + secrets.token_hex(16)


def pack(value: StoredFile | Batch) -> bytes:
    """Return the stored form of a value."""
    packed: bytes = _ADAPTERS[type(value)].dump_json(value)
    return packed


def unpack(kind: type[_Value], packed: object) -> _Value:
    """Return a value from its stored form. Raises ValueError, which repeats nothing of it."""
    if isinstance(packed, bytes):
        try:
            value: _Value = _ADAPTERS[kind].validate_json(packed)
        except ValidationError:
            pass
        else:
            return value
    raise ValueError("not a stored value")
