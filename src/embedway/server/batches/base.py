"""Contract of the stores of files and batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from embedway.server.batches.values import Batch, StoredFile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Size of the chunks of a content, in bytes; the last one of a segment may be smaller.
CHUNK_BYTES = 2**19

#: Reason of the StateError for a file of which parts are missing.
INCOMPLETE = "a part of the file was deleted before the upload ended; upload it again"

Item = TypeVar("Item", StoredFile, Batch)


class Segment(NamedTuple):
    """Consecutive bytes of a file, stored as chunks. Chunks that belong to no segment are not part of the file."""

    file_id: str
    #: Order of the segments in the file.
    position: int
    #: Name of its chunks.
    name: str
    size: int

    @property
    def chunks(self) -> int:
        """Number of its chunks."""
        return -(-self.size // CHUNK_BYTES)


class Chunk(NamedTuple):
    """A chunk of a segment, by its number from 0."""

    segment: str
    number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Content:
    """Content of a file that is being written. Without `add_file`, it is deleted at `keep_until`."""

    file_id: str
    tenant: str
    keep_until: float


@dataclass(frozen=True, slots=True)
class Change:
    """Change of a batch. Files and segments are added in the same step, so that a crash leaves all or none of them."""

    batch: Batch
    segments: tuple[Segment, ...] = ()
    files: tuple[StoredFile, ...] = ()


#: Computes a change from a batch and the time; None for no change. It may be called several times, in any thread.
Changing: TypeAlias = "Callable[[Batch, float], Change | None]"


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Part of a list, and whether more follow."""

    items: tuple[Item, ...]
    has_more: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """Query for a part of a tenant's files or batches, by their time. `after` is the ID before the first one."""

    tenant: str
    limit: int
    after: str = ""
    ascending: bool = False
    #: Only files of this purpose; empty for all.
    purpose: str = ""


class OpenBatch(NamedTuple):
    """A batch that has not ended."""

    id: str
    tenant: str


class BatchStore(Protocol):
    """Files and batches, shared by processes. What a method has written survives the end of the process at once.

    An item of another tenant is treated as an unknown one. Methods raise StateError if the store cannot be used, or
    contains values that it never writes; otherwise nothing.
    """

    async def now(self) -> float:
        """Return the time of the store, in seconds since 1970: all processes share it."""

    async def put_chunks(self, content: Content, chunks: Sequence[Chunk], most: int | None) -> bool:
        """Store chunks; False if the tenant's files would exceed `most` bytes. None is no limit."""

    async def get_chunk(self, file_id: str, segment: str, number: int) -> bytes:
        """Return a chunk."""

    async def segments(self, file_id: str) -> list[Segment]:
        """Return the segments of a file, in order."""

    async def drop_content(self, file_id: str) -> None:
        """Delete the content of a file that was not added."""

    async def used_bytes(self, tenant: str) -> int:
        """Return the size of a tenant's files, also of those that are being written."""

    async def add_file(self, file: StoredFile, segments: Sequence[Segment], most: int) -> bool:
        """Add a file, whose chunks are stored; False if the tenant has `most` files.

        Raises StateError if a part of its content has expired meanwhile.
        """

    async def get_file(self, tenant: str, file_id: str) -> StoredFile | None:
        """Return a file that has not expired."""

    async def list_files(self, listing: Listing) -> Page[StoredFile] | None:
        """Return files that have not expired; None if there is no file `after`."""

    async def delete_file(self, tenant: str, file_id: str) -> Literal["deleted", "missing", "in use"]:
        """Delete a file, unless a batch that has not ended reads it."""

    async def add_batch(self, batch: Batch, most: int) -> Literal["added", "no file", "too many"]:
        """Add a batch; its input file is in use until its end."""

    async def get_batch(self, tenant: str, batch_id: str) -> Batch | None:
        """Return a batch."""

    async def list_batches(self, listing: Listing) -> Page[Batch] | None:
        """Return batches; None if there is no batch `after`."""

    async def change(self, tenant: str, batch_id: str, changing: Changing) -> Batch | None:
        """Change a batch in one step and return it; the unchanged one if `changing` returns None; None if unknown.

        The end of a batch releases its input file.
        """

    async def open_batches(self) -> list[OpenBatch]:
        """Return the batches that have not ended."""

    async def sweep(self, most: int) -> int:
        """Delete up to `most` expired files, contents and ended batches. Returns their number."""

    async def aclose(self) -> None:
        """Close connections and files; a later call opens them again."""
