"""The contract of the stores of files and batches, for each store."""

import asyncio
import functools
from dataclasses import replace

import pytest

from async_tests import in_loop
from batch_stores import FAR, a_batch, content_of, open_stores, put_file
from embedway.errors import StateError
from embedway.server.batches.base import CHUNK_BYTES, Change, Chunk, Content, Listing, OpenBatch, Segment
from embedway.server.batches.sqlite import SqliteBatchStore
from embedway.server.batches.values import StoredFile


def with_stores(count=1):
    """Pass stores of one place to a test that is a coroutine, and close them."""

    def decorate(test):
        @functools.wraps(test)
        def run(place, clock):
            async def body():
                stores = open_stores(*place, clock, count)
                try:
                    await test(*stores, clock)
                finally:
                    for store in stores:
                        await store.aclose()

            asyncio.run(body())

        del run.__wrapped__  # pytest would ask for fixtures with the names of the stores
        return run

    return decorate


@with_stores(2)
async def test_a_file_is_seen_by_all_and_only_by_its_tenant(one, other, clock):
    data = bytes(range(256)) * 5000
    file = await put_file(one, data, tenant="a")
    assert await other.get_file("a", file.id) == file
    assert await other.get_file("b", file.id) is None
    assert await other.get_file("", file.id) is None
    assert await other.get_batch("a", file.id) is None
    assert await content_of(other, file.id) == data
    assert await other.delete_file("b", file.id) == "missing"
    assert await other.delete_file("a", file.id) == "deleted"
    assert await one.get_file("a", file.id) is None
    assert await one.segments(file.id) == []
    assert await one.used_bytes("a") == 0


@with_stores()
async def test_an_unfinished_upload_is_no_file_and_is_deleted(store, clock):
    content = Content("file-x", "a", clock.now + 10)
    assert await store.put_chunks(content, [Chunk("0", 0, b"abc")], None)
    assert await store.get_file("a", "file-x") is None
    assert (await store.list_files(Listing("a", 10))).items == ()
    assert await store.used_bytes("a") == 3
    assert await store.sweep(10) == 0
    clock.now += 11
    assert await store.sweep(10) == 1
    assert await store.used_bytes("a") == 0
    with pytest.raises(StateError):
        await store.get_chunk("file-x", "0", 0)


@with_stores()
async def test_content_is_dropped(store, clock):
    await store.put_chunks(Content("file-x", "a", FAR), [Chunk("0", 0, b"abc")], None)
    await store.drop_content("file-x")
    assert await store.used_bytes("a") == 0


@with_stores()
async def test_a_repeated_chunk_counts_once(store, clock):
    for data in (b"abc", b"abcd"):
        await store.put_chunks(Content("file-x", "a", FAR), [Chunk("0", 0, data)], None)
    assert await store.used_bytes("a") == 4
    assert await store.get_chunk("file-x", "0", 0) == b"abcd"


@with_stores()
async def test_bytes_and_files_of_a_tenant_are_bounded(store, clock):
    assert await put_file(store, b"x" * 10, tenant="a", most=15)
    assert await put_file(store, b"x" * 6, tenant="a", most=15) is None
    assert await put_file(store, b"x" * 5, tenant="a", most=15)
    assert await put_file(store, b"x" * 6, tenant="b", most=15)
    file = await put_file(store, b"x", tenant="a")
    assert not await store.add_file(replace(file, id="file-other", size=0), [], 3)


@with_stores()
async def test_a_file_with_an_expired_part_is_not_added(store, clock):
    now = clock.now
    file = StoredFile("file-x", "a", now, "f", "batch", 6, now + 100)
    await store.put_chunks(Content(file.id, "a", now + 10), [Chunk("0", 0, b"abc")], None)
    clock.now += 11
    assert await store.sweep(10) == 1
    await store.put_chunks(Content(file.id, "a", now + 20), [Chunk("0", 1, b"def")], None)
    with pytest.raises(StateError, match="upload it again"):
        await store.add_file(file, [Segment(file.id, 0, "0", 6)], 10)
    assert await store.get_file("a", file.id) is None


@with_stores(2)
async def test_a_deleted_file_frees_all_its_chunks(one, other, clock):
    file = await put_file(one, bytes(CHUNK_BYTES * 20 + 1), tenant="a")
    assert await one.delete_file("a", file.id) == "deleted"
    for number in range(21):
        with pytest.raises(StateError):
            await other.get_chunk(file.id, "0", number)


@with_stores()
async def test_files_are_listed_by_time(store, clock):
    files = [await put_file(store, created=clock.now + n, tenant="a") for n in range(5)]
    await put_file(store, created=clock.now + 9, tenant="b")
    output = await put_file(store, created=clock.now + 7, tenant="a", purpose="batch_output")
    newest = [output, *files[::-1]]
    page = await store.list_files(Listing("a", 4))
    assert list(page.items) == newest[:4]
    assert page.has_more
    page = await store.list_files(Listing("a", 4, after=newest[3].id))
    assert list(page.items) == newest[4:]
    assert not page.has_more
    page = await store.list_files(Listing("a", 10, ascending=True, after=files[1].id))
    assert list(page.items) == newest[::-1][2:]
    page = await store.list_files(Listing("a", 2, purpose="batch"))
    assert list(page.items) == newest[1:3]
    assert page.has_more
    assert (await store.list_files(Listing("a", 1, purpose="batch_output"))).items == (output,)
    assert await store.list_files(Listing("a", 10, after="file-unknown")) is None
    assert await store.list_files(Listing("b", 10, after=files[0].id)) is None


@with_stores()
async def test_files_of_one_moment_have_an_order(store, clock):
    files = [await put_file(store, tenant="a") for _ in range(7)]
    found, after = [], ""
    while len(found) < 7:
        page = await store.list_files(Listing("a", 2, after=after))
        found += page.items
        after = found[-1].id
    assert sorted(found, key=lambda file: file.id, reverse=True) == found
    assert {file.id for file in found} == {file.id for file in files}


@with_stores()
async def test_files_expire(store, clock):
    file = await put_file(store, keep_s=50.0)
    batch = a_batch(file, clock.now)
    assert await store.add_batch(batch, 10) == "added"
    clock.now += 51
    assert await store.get_file("", file.id) is None
    assert (await store.list_files(Listing("", 10))).items == ()
    await store.sweep(10)
    assert await content_of(store, file.id) == b"line\n", "a batch reads it"
    await store.change("", batch.id, lambda batch, _: Change(replace(batch, status="failed")))
    clock.now += 3601
    await store.sweep(10)
    assert await store.segments(file.id) == []
    assert await store.used_bytes("") == 0


@with_stores(2)
async def test_a_batch_uses_its_input_until_its_end(one, other, clock):
    file = await put_file(one, tenant="a")
    assert await one.add_batch(a_batch(replace(file, tenant="b"), clock.now), 10) == "no file"
    batch = a_batch(file, clock.now, metadata={"a": "ü"})
    assert await one.add_batch(batch, 1) == "added"
    assert await one.add_batch(a_batch(file, clock.now), 1) == "too many"
    assert await other.get_batch("a", batch.id) == batch
    assert await other.get_batch("b", batch.id) is None
    assert await other.delete_file("a", file.id) == "in use"
    assert await other.open_batches() == [OpenBatch(batch.id, "a")]
    ended = replace(batch, status="completed")
    assert await one.change("a", batch.id, lambda *_: Change(ended)) == ended
    assert await one.change("a", batch.id, lambda *_: Change(ended)) == ended, "also if its answer was lost"
    assert await other.open_batches() == []
    assert await other.delete_file("a", file.id) == "deleted"
    clock.now += 1001
    assert await one.sweep(10) == 1
    assert await other.get_batch("a", batch.id) is None


@with_stores(2)
async def test_a_change_adds_segments_and_files_with_it(one, other, clock):
    file = await put_file(one, tenant="a")
    batch = a_batch(file, clock.now)
    await one.add_batch(batch, 10)
    parts = {"x": b"first\n" * 100_000, "y": b"second\n"}
    for name, data in parts.items():
        chunks = [Chunk(name, n, data[at : at + CHUNK_BYTES]) for n, at in enumerate(range(0, len(data), CHUNK_BYTES))]
        await one.put_chunks(Content(batch.output_file_id, "a", clock.now + 10), chunks, None)
    # An attempt that was killed before its change leaves chunks that are not part of the file.
    await one.put_chunks(Content(batch.output_file_id, "a", clock.now + 10), [Chunk("z", 0, b"lost")], None)
    for position, (name, data) in enumerate(parts.items()):
        segment = Segment(batch.output_file_id, position, name, len(data))
        await one.change("a", batch.id, lambda batch, _, segment=segment: Change(batch, (segment,)))
    size = sum(map(len, parts.values()))
    output = replace(file, id=batch.output_file_id, purpose="batch_output", size=size)
    assert await other.get_file("a", output.id) is None
    await one.change("a", batch.id, lambda batch, _: Change(replace(batch, status="completed"), (), (output,)))
    assert await other.get_file("a", output.id) == output
    assert await content_of(other, output.id) == b"".join(parts.values())
    clock.now += 20
    await other.sweep(10)
    assert await other.get_file("a", output.id) == output, "it is kept as long as the file"
    assert await other.delete_file("a", output.id) == "deleted"
    assert await other.used_bytes("a") == 5


@with_stores(3)
async def test_no_change_is_lost(one, two, three, clock):
    file = await put_file(one)
    batch = a_batch(file, clock.now)
    await one.add_batch(batch, 10)

    def add(batch, now):
        return Change(replace(batch, total=batch.total + 1))

    await asyncio.gather(*(store.change("", batch.id, add) for store in (one, two, three) for _ in range(20)))
    assert (await one.get_batch("", batch.id)).total == 60
    unchanged = await one.change("", batch.id, lambda *_: None)
    assert unchanged.total == 60
    assert await one.change("other", batch.id, add) is None
    assert await one.change("", "batch_unknown", add) is None


@with_stores()
async def test_batches_are_listed_the_latest_first(store, clock):
    file = await put_file(store, tenant="a")
    batches = [a_batch(file, clock.now + n) for n in range(3)]
    for batch in batches:
        await store.add_batch(batch, 10)
    page = await store.list_batches(Listing("a", 2))
    assert list(page.items) == batches[:0:-1]
    assert page.has_more
    page = await store.list_batches(Listing("a", 2, after=batches[1].id))
    assert list(page.items) == batches[:1]
    assert await store.list_batches(Listing("b", 2, after=batches[1].id)) is None


@with_stores(2)
async def test_closed_stores_open_again(one, other, clock):
    file = await put_file(one)
    await one.aclose()
    assert await other.get_file("", file.id) == file
    assert await one.get_file("", file.id) == file


@with_stores()
async def test_the_clock_is_that_of_the_store(store, clock):
    assert await store.now() == clock.now


@in_loop
async def test_a_folder_that_cannot_be_used_is_a_state_error(tmp_path):
    (tmp_path / "file").write_text("")
    store = SqliteBatchStore(tmp_path / "file" / "batches.sqlite")
    with pytest.raises(StateError, match=r"server\.state_directory"):
        await store.open_batches()
    await store.aclose()
