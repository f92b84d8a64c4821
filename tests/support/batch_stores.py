"""Values, stores and computations for tests of batches."""

import contextlib
from dataclasses import replace

import redis

from embedway.server.batches.base import CHUNK_BYTES, Chunk, Content, Segment
from embedway.server.batches.redis import PREFIX, RedisBatchStore
from embedway.server.batches.sqlite import SqliteBatchStore
from embedway.server.batches.values import Batch, StoredFile, new_id

FAR = 9e9


def open_stores(kind, folder, url, clock=None, count=1):
    """Return stores of one place, each as another process would open it."""
    if kind == "redis":
        return [RedisBatchStore(url, clock=clock) for _ in range(count)]
    options = {} if clock is None else {"clock": clock}
    return [SqliteBatchStore(folder / "batches.sqlite", **options) for _ in range(count)]


def empty_server(url):
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        for key in client.scan_iter(f"{PREFIX}*"):
            client.delete(key)


async def put_file(store, data=b"line\n", *, tenant="", most=None, created=None, keep_s=1000.0, purpose="batch"):
    """Store a file and return it."""
    now = await store.now() if created is None else created
    file = StoredFile(new_id("file-"), tenant, now, "input.jsonl", purpose, len(data), now + keep_s)
    chunks = [
        Chunk("0", number, data[at : at + CHUNK_BYTES]) for number, at in enumerate(range(0, len(data), CHUNK_BYTES))
    ]
    content = Content(file.id, tenant, now + 100)
    for chunk in chunks:
        if not await store.put_chunks(content, [chunk], most):
            return None
    segments = [Segment(file.id, 0, "0", len(data))] if data else []
    assert await store.add_file(file, segments, 1000)
    return file


def a_batch(file, now, **changes):
    batch = Batch(
        id=new_id("batch_"),
        tenant=file.tenant,
        key_name="k",
        input_file_id=file.id,
        input_size=file.size,
        output_file_id=new_id("file-"),
        error_file_id=new_id("file-"),
        created_at=now,
        expires_at=now + 86_400,
        keep_s=1000,
    )
    return replace(batch, **changes)


async def content_of(store, file_id):
    """Return the content of a file."""
    data = b""
    for segment in await store.segments(file_id):
        for number in range(segment.chunks):
            data += await store.get_chunk(file_id, segment.name, number)
    return data
