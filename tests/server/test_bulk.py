"""Bulk requests, which a worker forwards to another process."""

import asyncio
import contextlib
import json
import os
import signal
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.config.server import ServerSettings
from embedway.errors import OverloadedError
from embedway.server.bulk import BulkProxy
from embedway.server.listening import listen, listen_at
from embedway.server.worker import make_server
from gateways import gateway_process

LEAST, MOST = 1_000, 10_000_000


@contextlib.asynccontextmanager
async def served(app, listening):
    server = make_server(app, ServerSettings())
    task = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started:  # noqa: ASYNC110  uvicorn has no event
        await asyncio.sleep(0.005)
    try:
        yield
    finally:
        server.should_exit = True
        await task
        listening.close()


@contextlib.asynccontextmanager
async def forwarding(far, folder, problems=None):
    """Serve `far` at a Unix socket, and before it a server that forwards bulk requests. Yield its address."""
    listening = listen_at(folder / "bulk")
    async with served(far, listening), worker(folder / "bulk", problems) as address:
        yield address


@contextlib.asynccontextmanager
async def worker(path, problems=None):
    bulk = BulkProxy(path, least_bytes=LEAST, most_bytes=MOST, read_timeout_s=60)

    async def app(scope, receive, send):
        try:
            if bulk.is_bulk(scope) and await bulk.forward(scope, receive, send):
                return
        except OverloadedError as error:
            problems.append(error)
            await reply(send, b"overloaded", 503)
            return
        await read(receive)
        await reply(send, b"here")

    (own,) = listen("127.0.0.1", 0, 1)
    async with served(app, own):
        yield own.getsockname()[:2]
    await bulk.aclose()


async def read(receive):
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def reply(send, body, status=200, headers=()):
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def echo(scope, receive, send):
    """Answer with the request as this application received it."""
    told = {
        "method": scope["method"],
        "path": scope["raw_path"].decode(),
        "query": scope["query_string"].decode(),
        "headers": [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]],
        "body": (await read(receive)).decode(),
    }
    await reply(send, json.dumps(told).encode(), 201, [(b"x-one", b"1"), (b"x-one", b"2")])


def request(body=b"", *, head=b"POST /v1/a%20b?c=%2F HTTP/1.1", headers=(), length=None):
    lines = [head, b"host: 127.0.0.1", b"content-length: %d" % (len(body) if length is None else length), *headers]
    return b"\r\n".join([*lines, b"", b""]) + body


async def exchange(address, sent):
    """Send bytes on a new connection, and return the head and body of the answer."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(sent)
    try:
        async with asyncio.timeout(60):
            head = await reader.readuntil(b"\r\n\r\n")
            while head.startswith(b"HTTP/1.1 100"):
                head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.partition(b":")[2]) for line in head.lower().splitlines() if line.startswith(b"content-length")
            )
            return head, await reader.readexactly(length)
    finally:
        writer.close()


def run(main):
    return asyncio.run(asyncio.wait_for(main(), 120))


@given(
    method=st.sampled_from(["GET", "POST", "HEAD"]),
    path=st.sampled_from(["/v1/embeddings", "/embed", "/v1/files", "/v1/batches/batch_1/cancel"]),
    length=st.one_of(st.none(), st.integers(0, 10**30)),
)
def test_large_bodies_that_are_allowed_and_changes_of_files_and_batches_are_bulk(method, path, length):
    async def main():
        bulk = BulkProxy(Path("nowhere"), least_bytes=LEAST, most_bytes=MOST, read_timeout_s=60)
        headers = [] if length is None else [(b"content-length", b"%d" % length)]
        found = bulk.is_bulk({"method": method, "path": path, "headers": headers})
        await bulk.aclose()
        return found

    large = length is not None and LEAST <= length <= MOST
    assert run(main) == (method == "POST" and (large or path.startswith(("/v1/files", "/v1/batches"))))


def test_a_request_and_its_answer_are_forwarded_unchanged(tmp_path):
    body = b"x" * 3 * LEAST
    sent = (b"authorization: Bearer \xe4\xff", b"x-two: a", b"x-two: b", b"expect: 100-continue", b"te: trailers")

    async def main():
        async with forwarding(echo, tmp_path) as address:
            return await exchange(address, request(body, headers=sent)), await exchange(address, request(b"small"))

    (head, answer), small = run(main)
    told = json.loads(answer)
    assert head.startswith(b"HTTP/1.1 201 ")
    assert head.lower().count(b"\r\nx-one: ") == 2
    assert head.lower().count(b"\r\ndate: ") == 1
    assert (told["method"], told["path"], told["query"]) == ("POST", "/v1/a%20b", "c=%2F")
    assert told["body"] == body.decode()
    names = [name for name, _ in told["headers"]]
    assert names.count("x-two") == 2
    assert sorted(names) == ["authorization", "connection", "content-length", "host", "x-two", "x-two"]
    assert small[1] == b"here"


def test_a_request_without_a_host_gets_none(tmp_path):
    sent = request(b"x" * LEAST, head=b"POST /v1 HTTP/1.0").replace(b"host: 127.0.0.1\r\n", b"")

    async def main():
        async with forwarding(echo, tmp_path) as address:
            return json.loads((await exchange(address, sent))[1])

    assert dict(run(main)["headers"])["host"] == ""


def test_a_body_in_chunks_of_a_file_is_forwarded(tmp_path):
    head = b"POST /v1/files HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\n"
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in (b"a" * 5_000, b"b" * 70_000, b"c"))

    async def main():
        async with forwarding(echo, tmp_path) as address:
            return json.loads((await exchange(address, head + chunks + b"0\r\n\r\n"))[1])

    assert run(main)["body"] == "a" * 5_000 + "b" * 70_000 + "c"


def test_a_large_answer_arrives_whole(tmp_path):
    whole = os.urandom(1 << 20) * 20

    async def large(_, receive, send):
        await read(receive)
        await reply(send, whole)

    async def main():
        async with forwarding(large, tmp_path) as address:
            found = await asyncio.gather(*(exchange(address, request(b"x" * LEAST)) for _ in range(3)))
            return [body == whole for _, body in found]

    assert run(main) == [True] * 3


def test_an_answer_before_the_body_is_complete_arrives(tmp_path):
    async def refuse(_scope, _receive, send):
        await reply(send, b"too large", 413, [(b"connection", b"close")])

    async def main():
        async with forwarding(refuse, tmp_path) as address:
            return await exchange(address, request(b"x" * LEAST, length=MOST))

    head, body = run(main)
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in head.lower()
    assert body == b"too large"


def test_after_an_answer_to_an_incomplete_body_the_connection_can_be_used(tmp_path):
    async def refuse(_scope, _receive, send):
        await reply(send, b"no", 401)

    async def main():
        async with forwarding(refuse, tmp_path) as address:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(request(b"x" * LEAST, length=MOST))
            refused = await reader.readuntil(b"\r\n\r\nno")
            writer.write(b"x" * (MOST - LEAST) + request(b"small"))
            answered = await reader.readuntil(b"\r\n\r\nhere")
            writer.close()
            return refused, answered

    refused, answered = run(main)
    assert refused.startswith(b"HTTP/1.1 401 ")
    assert b"connection" not in refused.lower()
    assert answered.startswith(b"HTTP/1.1 200 ")


def test_without_a_process_the_worker_answers(tmp_path):
    async def main():
        async with worker(tmp_path / "none") as address:
            return await exchange(address, request(b"x" * LEAST))

    assert run(main)[1] == b"here"


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n"])
def test_a_process_that_ends_before_its_answer_is_an_error_that_says_when_to_come_back(tmp_path, part):
    async def end(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(part)
        writer.close()

    async def main():
        problems = []
        far = await asyncio.start_unix_server(end, tmp_path / "bulk")
        async with worker(tmp_path / "bulk", problems) as address:
            answer = await exchange(address, request(b"x" * LEAST))
        far.close()
        return answer, problems

    (head, _), problems = run(main)
    assert head.startswith(b"HTTP/1.1 503 ")
    assert problems[0].retry_after_s == 1


def test_an_answer_that_is_cut_stays_cut(tmp_path):
    async def end(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345")
        writer.close()

    async def main():
        far = await asyncio.start_unix_server(end, tmp_path / "bulk")
        async with worker(tmp_path / "bulk") as address:
            try:
                return await exchange(address, request(b"x" * LEAST))
            except (asyncio.IncompleteReadError, ConnectionError):
                return "cut"
            finally:
                far.close()

    assert run(main) == "cut"


@pytest.mark.parametrize("complete", [True, False], ids=["waiting for the answer", "sending the body"])
def test_a_client_that_leaves_is_seen_by_the_process(tmp_path, complete):
    async def main():
        begun, left = asyncio.Event(), asyncio.Event()

        async def wait(_scope, receive, _send):
            begun.set()
            while (await receive())["type"] != "http.disconnect":
                pass
            left.set()

        async with forwarding(wait, tmp_path) as address:
            _, writer = await asyncio.open_connection(*address)
            writer.write(request(b"x" * 2 * LEAST, length=(2 if complete else 3) * LEAST))
            await begun.wait()
            writer.close()
            await left.wait()
            return (await exchange(address, request(b"small")))[1]

    assert run(main) == b"here"


def test_a_client_that_leaves_before_its_body_is_an_error_of_the_worker(tmp_path):
    async def main():
        bulk = BulkProxy(tmp_path / "bulk", least_bytes=LEAST, most_bytes=MOST, read_timeout_s=60)
        left = asyncio.get_running_loop().create_future()

        async def app(scope, receive, send):
            try:
                left.set_result(await bulk.forward(scope, receive, send))
            except ConnectionError as error:
                left.set_result(type(error))

        (own,) = listen("127.0.0.1", 0, 1)
        with listen_at(tmp_path / "bulk"):
            async with served(app, own):
                _, writer = await asyncio.open_connection(*own.getsockname()[:2])
                writer.write(request(length=LEAST))
                writer.close()
                found = await left
            await bulk.aclose()
        return found

    assert run(main) is ConnectionError


@pytest.fixture
def environment(default_model_directory):
    return {"EMBEDWAY_WEIGHTS__DIRECTORY": str(default_model_directory), "EMBEDWAY_WEIGHTS__OFFLINE": "true"}


def embed(url, texts, **headers):
    body = json.dumps({"model": "all-MiniLM-L6-v2", "input": texts}).encode()
    asked = urllib.request.Request(f"{url}/v1/embeddings", body, {"content-type": "application/json", **headers})  # noqa: S310
    with urllib.request.urlopen(asked, timeout=90) as answer:  # noqa: S310
        rows = json.loads(answer.read())["data"]
        return np.array([one["embedding"] for one in rows], np.float32), answer.headers


def priority(pid):
    return os.getpriority(os.PRIO_PROCESS, pid)


def process_of(headers):
    """Return the part of the ID of a request that differs between processes."""
    return headers["x-embedway-request-id"].partition("-")[0]


def test_a_gateway_answers_bulk_in_a_process_of_lower_priority(environment):
    texts = [f"{number} texts about a subject of which there are many" for number in range(400)]
    with gateway_process(environment=environment) as gateway:
        vectors, headers = embed(gateway.url, texts)
        alone, of_one = embed(gateway.url, texts[7])
        assert process_of(headers) != process_of(of_one)
        worker, own = gateway.children[-2:]  # in the order of their start
        assert priority(worker) == priority(gateway.process.pid)
        assert priority(own) == min(19, priority(worker) + 5)
        assert headers["x-embedway-cache"] == "0/400"
        assert vectors.shape == (400, 384)
        assert float(vectors[7] @ alone[0]) > 0.9999
        os.kill(own, signal.SIGKILL)
        again, headers = embed(gateway.url, texts[:399])
        assert headers["x-embedway-cache"] == "399/399"
        assert np.allclose(again, vectors[:399], atol=1e-3)
        assert own not in gateway.children
    assert gateway.process.returncode == 0


def test_without_processes_for_bulk_the_worker_answers(environment):
    with gateway_process(environment={**environment, "EMBEDWAY_SERVER__BULK_WORKERS": "0"}) as gateway:
        assert len(gateway.children) == 2
        vectors, _ = embed(gateway.url, [f"text {number} of a long request" for number in range(800)])
    assert vectors.shape == (800, 384)
