"""Connections to the inference process: wrong data, wrong calls, and bounds."""

import asyncio
import struct

import numpy as np
import pytest

from async_tests import in_loop
from embedway.errors import UnavailableError, UsageError
from embedway.server.inference import frames
from embedway.server.inference.client import InferenceClient
from embedway.server.inference.frames import FrameReader, Kind
from embedway.types import Batch, TokenizedTexts
from embedway.urgency import Urgency
from inference_service import serving, spec_of, until, worker


async def receive(reader):
    """Return the next frame of a raw connection."""
    frames_of = FrameReader()
    while data := await reader.read(1 << 16):
        for frame in frames_of.feed(data):
            return frame
    return None


@in_loop
async def test_the_process_survives_data_that_is_no_protocol(small):
    async with serving(small) as (service, path), worker(small, path) as there:
        await there.embed("a")
        huge = struct.pack("<3sBIQ", b"EW1", Kind.JOB, frames.MOST_BYTES + 1, 1)
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100, huge, b"".join(frames.pack(Kind.OPEN, 1, b"{}"))):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(data)
            kind, number, body = await receive(reader)
            assert (kind, number) == (Kind.ERROR, 0)
            assert frames.unpack_json(body)["kind"] == "UsageError"
            assert await reader.read() == b""  # cut off
            writer.close()
        await there.embed("b")
        await until(lambda: service.health()["clients"] == 1)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Kind.JOB, b""),
        (Kind.JOB, b"\0" * 64),
        (Kind.WARM, b"[]"),
        (Kind.WARM, b"99"),
        (Kind.KEEP, b"{}"),
        (Kind.KEEP, b'["a", -1]'),
        (Kind.ROWS, b""),
        (99, b""),
    ],
)
@in_loop
async def test_a_wrong_call_is_answered_with_an_error_and_the_connection_goes_on(small, kind, body):
    async with serving(small) as (_, path):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"".join(frames.pack(kind, 5, body)))
        answer = await receive(reader)
        assert answer[:2] == (Kind.ERROR, 5)
        writer.write(b"".join(frames.pack(Kind.PING, 6)))
        assert (await receive(reader))[:2] == (Kind.VALUE, 6)
        writer.close()


@pytest.mark.parametrize("ids", [[-1], [10**6], [2**31 - 1], [1] * 600])
@in_loop
async def test_token_ids_that_the_model_does_not_have_are_refused(plain, ids):
    async with serving(plain) as (_, path):
        client = InferenceClient(path)
        model = client.model(spec_of("auto", plain))
        row = np.array(ids, np.int32)
        batch = Batch(np.zeros(1, np.int64), len(row))
        with pytest.raises(UsageError, match=r"does not have|reads"):
            await model.run(TokenizedTexts((row,), np.array([len(row)], np.int32)), batch, Urgency(), 0.0)
        good = TokenizedTexts((np.array([101, 102], np.int32),), np.array([2], np.int32))
        assert (await model.run(good, Batch(np.zeros(1, np.int64), 2), Urgency(), 0.0)).shape == (1, 384)
        await client.aclose()


@in_loop
async def test_a_client_that_does_not_read_its_answers_is_not_read_either(small):
    async with serving(small) as (service, path), worker(small, path) as there:
        _reader, writer = await asyncio.open_unix_connection(path, limit=1)
        state = b"".join(frames.pack(Kind.STATE, 1))
        # The stream's reader stops at its limit, and the buffers of the sockets fill.
        writer.write(state * 200_000)
        await there.embed("a")
        assert writer.transport.get_write_buffer_size() > 0
        assert service.health()["clients"] == 2
        writer.transport.abort()
        await until(lambda: service.health()["clients"] == 1)


@in_loop
async def test_too_many_jobs_are_refused_with_a_wait(small, held):
    async with serving(small, max_jobs=2) as (service, path), worker(small, path) as there:
        await there.embed("first")
        held.hold()
        calls = [asyncio.create_task(there.embed(f"text {number}")) for number in range(2)]
        await until(lambda: service.jobs == 2)
        with pytest.raises(UnavailableError, match="too many jobs"):
            await there.embed("a third")
        held.open.set()
        await asyncio.gather(*calls)


@in_loop
async def test_many_clients(small):
    async with serving(small) as (service, path):
        clients = [InferenceClient(path) for _ in range(200)]
        found = await asyncio.gather(*(client.ping() for client in clients))
        assert len(found) == 200
        assert not any(one["hanging"] for one in found)
        for client in clients:
            await client.aclose()
        await until(lambda: not service.health()["clients"])
