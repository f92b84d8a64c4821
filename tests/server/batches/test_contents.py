"""Contents in chunks: what is written is read, and little of it is in memory."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_tests import in_loop
from embedway.errors import StateError
from embedway.server.batches import base, contents
from embedway.server.batches.base import Content, Segment

SIZE = 8


@pytest.fixture(autouse=True, scope="module")
def small_chunks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contents, "CHUNK_BYTES", SIZE)
        patch.setattr(base, "CHUNK_BYTES", SIZE)
        yield


class Chunks:
    """A store of chunks in memory. Counts the chunks that are read."""

    def __init__(self, room=10_000):
        self.chunks = {}
        self.room = room
        self.read = 0
        self.most_at_once = 0

    async def put_chunks(self, content, chunks, most):
        size = sum(len(one.data) for one in chunks)
        if sum(map(len, self.chunks.values())) + size > self.room:
            return False
        self.most_at_once = max(self.most_at_once, len(chunks))
        for one in chunks:
            self.chunks[content.file_id, one.segment, one.number] = one.data
        return True

    async def get_chunk(self, file_id, segment, number):
        self.read += 1
        return self.chunks[file_id, segment, number]


async def write(store, pieces, name="0"):
    writer = contents.ContentWriter(store, Content("f", "", 0.0), name, None)
    for piece in pieces:
        if not await writer.write(piece):
            return None
    assert writer.size == sum(map(len, pieces))
    return await writer.finish(0)


@given(st.lists(st.binary(max_size=200), max_size=12))
def test_what_is_written_is_read(pieces):
    async def body():
        store = Chunks()
        segment = await write(store, pieces)
        data = b"".join(pieces)
        assert segment.size == len(data)
        assert len(store.chunks) == segment.chunks
        assert [data async for data in contents.read_content(store, [segment])] == [
            data[at : at + SIZE] for at in range(0, len(data), SIZE)
        ]
        assert store.most_at_once <= 8

    asyncio.run(body())


@given(st.lists(st.binary(max_size=60), max_size=6), st.integers(0, 100))
def test_a_full_store_is_told(pieces, room):
    async def body():
        store = Chunks(room)
        fits = sum(map(len, pieces)) <= room
        assert (await write(store, pieces) is not None) is fits
        assert sum(map(len, store.chunks.values())) <= room

    asyncio.run(body())


@given(st.binary(min_size=1, max_size=300), st.lists(st.tuples(st.integers(0, 299), st.integers(1, 50)), max_size=8))
def test_any_part_of_an_upload_is_read(data, parts):
    async def body():
        store = Chunks()
        await write(store, [data], contents.UPLOAD)
        reader = contents.InputReader(store)
        for offset, size in parts:
            offset = min(offset, len(data))  # noqa: PLW2901
            assert await reader.read("f", len(data), offset, size) == data[offset : offset + size]

    asyncio.run(body())


@in_loop
async def test_neighbouring_parts_read_a_chunk_once():
    store = Chunks()
    data = bytes(range(64))
    await write(store, [data], contents.UPLOAD)
    reader = contents.InputReader(store)
    assert b"".join([await reader.read("f", 64, at, 1) for at in range(64)]) == data
    assert store.read == 8


@in_loop
async def test_a_chunk_of_another_size_is_an_error():
    store = Chunks()
    await write(store, [bytes(20)], contents.UPLOAD)
    store.chunks["f", contents.UPLOAD, 1] = b"short"
    with pytest.raises(StateError, match="another size"):
        await contents.InputReader(store).read("f", 20, 0, 20)
    with pytest.raises(StateError, match="another size"):
        [data async for data in contents.read_content(store, [Segment("f", 0, contents.UPLOAD, 20)])]
