"""Files and batches in Redis or Valkey, shared by the replicas of a gateway.

Every call is one script, which the server runs atomically. All keys start with `{embedway:batches}`, so that they are
in one slot of a cluster. Times are the server's, so that the clocks of the machines need not agree. Contents are chunks
of bounded size in one hash for each file.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from embedway.errors import StateError, newer_version
from embedway.files import read_package_text
from embedway.ledger.redis import ANSWER_S, read_script, redis_client
from embedway.server.batches.base import INCOMPLETE, OpenBatch, Page, Segment
from embedway.server.batches.values import Batch, StoredFile, pack, unpack
from embedway.store_failures import explain_server, server_address
from embedway.third_party import INVALID_VALUE_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from embedway.server.batches.base import Change, Changing, Chunk, Content, Item, Listing

PREFIX = "{embedway:batches}:"
_VERSION = 1
_SCRIPT = (
    f"local known = {_VERSION}\n{read_script('check')}\n{read_package_text('embedway.server.batches', 'lua/store.lua')}"
)
#: Maximum tries of a change: each fails only if another process has changed the batch meanwhile.
_TRIES = 100
_PAUSE_S = 0.02
#: Items of a list that are read at once.
_PAGE = 200


class RedisBatchStore:
    """Store on a server, shared by several machines. Without `clock`, the server's time is used."""

    def __init__(self, url: str, *, cluster: bool = False, clock: Callable[[], float] | None = None) -> None:
        """Create the store; it connects at its first use. Raises MissingExtraError without the library."""
        self._url = url
        self._clock = clock
        self._client = redis_client(url, cluster=cluster, what="ledger.backend = 'redis'", decode=False)

    async def now(self) -> float:
        with self._values():
            return float(await self._call("now"))

    async def put_chunks(self, content: Content, chunks: Sequence[Chunk], most: int | None) -> bool:
        fields = [part for one in chunks for part in (f"{one.segment}:{one.number}", one.data)]
        bound = "" if most is None else most
        answer = await self._call("put", content.file_id, content.tenant, content.keep_until, bound, *fields)
        return bool(answer)

    async def get_chunk(self, file_id: str, segment: str, number: int) -> bytes:
        data = await self._call("chunk", file_id, f"{segment}:{number}")
        if not isinstance(data, bytes):
            self._damaged()
        return data

    async def segments(self, file_id: str) -> list[Segment]:
        with self._values():
            found = []
            for position, segment in _pairs(await self._call("segments", file_id)):
                name, size = segment.decode().split()
                found.append(Segment(file_id, int(position), name, int(size)))
            return sorted(found)

    async def drop_content(self, file_id: str) -> None:
        await self._call("drop", file_id)

    async def used_bytes(self, tenant: str) -> int:
        with self._values():
            return int(await self._call("used", tenant))

    async def add_file(self, file: StoredFile, segments: Sequence[Segment], most: int) -> bool:
        fields = [part for one in segments for part in (one.position, f"{one.name} {one.size}")]
        times = (repr(file.created_at), repr(file.expires_at))
        answer = await self._call("add_file", file.id, file.tenant, pack(file), *times, most, file.size, *fields)
        if answer == -1:
            raise StateError(INCOMPLETE, file=self._where)
        return bool(answer)

    async def get_file(self, tenant: str, file_id: str) -> StoredFile | None:
        found = await self._get(StoredFile, tenant, file_id)
        return found and found[0]

    async def list_files(self, listing: Listing) -> Page[StoredFile] | None:
        return await self._list(StoredFile, listing, lambda file: listing.purpose in {"", file.purpose})

    async def delete_file(self, tenant: str, file_id: str) -> Literal["deleted", "missing", "in use"]:
        answer: Literal["deleted", "missing", "in use"] = (await self._call("delete_file", tenant, file_id)).decode()
        return answer

    async def add_batch(self, batch: Batch, most: int) -> Literal["added", "no file", "too many"]:
        created = repr(batch.created_at)
        fields = (batch.id, batch.tenant, pack(batch), created, batch.input_file_id, most)
        answer: Literal["added", "no file", "too many"] = (await self._call("add_batch", *fields)).decode()
        return answer

    async def get_batch(self, tenant: str, batch_id: str) -> Batch | None:
        found = await self._get(Batch, tenant, batch_id)
        return found and found[0]

    async def list_batches(self, listing: Listing) -> Page[Batch] | None:
        return await self._list(Batch, listing, lambda _: True)

    async def change(self, tenant: str, batch_id: str, changing: Changing) -> Batch | None:
        for _ in range(_TRIES):
            found = await self._get(Batch, tenant, batch_id)
            if found is None:
                return None
            batch, version, now = found
            change = changing(batch, now)
            if change is None:
                return batch
            if await self._call("change", *_fields(change, version, now)) == 1:
                return change.batch
            await asyncio.sleep(random.uniform(0, _PAUSE_S))  # noqa: S311  only spreads the tries
        raise StateError("too many processes change one batch; try again", file=self._where)

    async def open_batches(self) -> list[OpenBatch]:
        with self._values():
            found = _pairs(await self._call("open"))
            return sorted(OpenBatch(batch_id.decode(), tenant.decode()) for batch_id, tenant in found)

    async def sweep(self, most: int) -> int:
        return int(await self._call("sweep", most))

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _get(self, kind: type[Item], tenant: str, item_id: str) -> tuple[Item, bytes, float] | None:
        name = "file" if kind is StoredFile else "batch"
        answer = await self._call("get", name, tenant, item_id)
        if not answer:
            return None
        with self._values():
            document, version, now = answer
            return unpack(kind, document), version, float(now)

    async def _list(self, kind: type[Item], listing: Listing, is_wanted: Callable[[Item], bool]) -> Page[Item] | None:
        name = "file" if kind is StoredFile else "batch"
        items: list[Item] = []
        after, size = listing.after, min(_PAGE, listing.limit + 1)
        while len(items) <= listing.limit:
            answer = await self._call("list", name, listing.tenant, after, size, int(listing.ascending))
            if answer == b"NOAFTER":
                return None
            with self._values():
                pairs = _pairs(answer)
                # Those of expired files are empty.
                items += filter(is_wanted, [unpack(kind, document) for _, document in pairs if document])
                if len(pairs) < size:
                    break
                after = pairs[-1][0].decode()
        return Page(tuple(items[: listing.limit]), len(items) > listing.limit)

    async def _call(self, operation: str, *arguments: Any) -> Any:
        import redis.exceptions  # noqa: PLC0415  already loaded by the client

        now = "" if self._clock is None else repr(self._clock())
        key = f"{PREFIX}format"
        try:
            return await self._client.eval(_SCRIPT, 1, key, operation, PREFIX, now, *arguments)
        except (redis.exceptions.RedisError, OSError, TimeoutError, ValueError) as error:
            text = str(error)
            if "EMBEDWAYFORMAT" in text:
                version = text.split("EMBEDWAYFORMAT", 1)[1].strip()
                raise StateError(newer_version(version, _VERSION), file=self._where) from None
            if any(code in text for code in ("WRONGTYPE", "not an integer", "not a valid float")):
                self._damaged()
            why = explain_server(error, self._url, setting="ledger.url", answer_s=ANSWER_S)
            raise StateError(f"the files and batches cannot be used: {why}", file=self._where) from None

    @property
    def _where(self) -> str:
        return f"Redis at {server_address(self._url)}"

    @contextlib.contextmanager
    def _values(self) -> Iterator[None]:
        try:
            yield
        except StateError:
            raise
        except INVALID_VALUE_ERRORS:
            self._damaged()

    def _damaged(self) -> NoReturn:
        what = f"the files and batches contain values that no version writes; delete the keys {PREFIX}*"
        raise StateError(what, file=self._where) from None


def _pairs(answer: Any) -> list[tuple[bytes, bytes]]:
    """Return pairs from a list of names and values by turns, as protocol 2 sends it, or from a mapping."""
    if isinstance(answer, dict):
        return list(answer.items())
    return list(zip(answer[::2], answer[1::2], strict=True))


def _fields(change: Change, version: bytes, now: float) -> list[Any]:
    """Return the arguments of the script for a change."""
    batch = change.batch
    ends = repr(now + batch.keep_s) if batch.has_ended else ""
    fields: list[Any] = [batch.id, version, pack(batch), ends, batch.input_file_id, len(change.segments)]
    for segment in change.segments:
        fields += (segment.file_id, segment.position, f"{segment.name} {segment.size}")
    for file in change.files:
        fields += (file.id, file.tenant, pack(file), repr(file.created_at), repr(file.expires_at))
    return fields
