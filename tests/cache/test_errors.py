"""A failing cache says so once: which store, why, that vectors are computed and paid again, and what to do."""

import asyncio
import contextlib
import logging

import pytest
import redis

from embedway import AsyncEmbedder
from embedway.cache.errors import CacheErrors
from embedway.errors import CacheError
from embedway.store_failures import StoreFailure
from faulty_caches import TEXTS, clocked, config_for, embedded
from faulty_servers import answering, make_certificate, silent, with_tls
from inside import on_writer, server_of, set_cache_patience, store_of, writing_connection
from valkey_server import start_valkey

SECRET = "TOPSECRETpw"  # noqa: S105  of a server of this test


@pytest.fixture(scope="module")
def own_server(tmp_path_factory):
    started = start_valkey(tmp_path_factory.mktemp("valkey"))
    yield started
    started.stop()


@pytest.fixture
def client(own_server):
    """Return a client of a server of this module, which is as new afterwards."""
    with contextlib.closing(redis.Redis(port=own_server.port)) as client:
        client.flushall()
        yield client
        client.execute_command("REPLICAOF", "NO", "ONE")
        client.config_set("maxmemory", 0)
        client.config_set("requirepass", "")
        client.execute_command("ACL", "SETUSER", "limited", "off")


@pytest.fixture
def logged(caplog):
    """Return a function that returns the messages of the cache so far."""
    caplog.set_level(logging.INFO, "embedway.cache")

    def messages():
        assert SECRET not in caplog.text
        return [record.getMessage() for record in caplog.records if record.name == "embedway.cache"]

    return messages


async def calls(url, count=2, **cache):
    """Embed the same texts several times, and return the receipts and the message of `cache stats`."""
    async with AsyncEmbedder(config=config_for(backend="redis", url=url, **cache)) as embedder:
        receipts = [await embedded(embedder) for _ in range(count)]
        try:
            await embedder.cache.stats()
        except CacheError as error:
            return receipts, str(error)
    return receipts, ""


def check_message(message, *, place, said, reason, remedy):
    assert message.startswith(f"{place} cannot be {said}: {reason}")
    assert "vectors are computed again, and paid again if they are a service's" in message
    assert remedy in message


@pytest.mark.parametrize(
    ("given", "reason"), [("", "it requires a password"), (f":x{SECRET}@", "it refuses the user or password")]
)
def test_a_wrong_password_is_reported_once_in_the_log_and_in_each_receipt(client, own_server, logged, given, reason):
    client.config_set("requirepass", SECRET)
    try:
        receipts, error = asyncio.run(calls(f"redis://{given}127.0.0.1:{own_server.port}/0"))
    finally:
        client.execute_command("AUTH", SECRET)
    place = f"the cache in Redis at 127.0.0.1:{own_server.port}"
    (message,) = logged()
    check_message(message, place=place, said="read", reason=reason, remedy="the user and password in cache.url")
    note = f"{place} could not be read ({reason}): 40 texts were computed without it"
    assert [receipt.notes for receipt in receipts] == [(note,), (note,)]
    assert error.startswith(f"{place} cannot be read: {reason}")


def test_a_replica_is_reported_although_it_can_be_read(client, own_server, logged):
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    receipts, error = asyncio.run(calls(f"redis://127.0.0.1:{own_server.port}/0"))
    (message,) = logged()
    place = f"the cache in Redis at 127.0.0.1:{own_server.port}"
    check_message(message, place=place, said="written", reason="it is a read-only replica", remedy="to the primary")
    note = f"{place} could not be written (it is a read-only replica): 40 texts were computed, and may not be stored"
    assert [receipt.notes for receipt in receipts] == [(note,), (note,)]
    assert error == ""


def test_a_full_server_is_reported_and_then_that_it_works_again(client, own_server, logged):
    url = f"redis://127.0.0.1:{own_server.port}/0"

    async def main():
        async with AsyncEmbedder(config=config_for(backend="redis", url=url)) as embedder:
            await embedded(embedder, TEXTS[:5])
            client.config_set("maxmemory", 1)
            for _ in range(2):
                await embedded(embedder)
            client.config_set("maxmemory", 0)
            first, second = await embedded(embedder), await embedded(embedder)
            assert (first.cache_hits, second.cache_hits) == (5, 40)
            return first, second

    receipts = asyncio.run(main())
    full, again = logged()
    assert "cannot be written: its memory is full" in full
    assert "works again; 0 reads and" in again
    # When the texts of the first call were claimed, the server worked again.
    assert [receipt.notes for receipt in receipts] == [receipts[0].notes, ()]


@pytest.mark.parametrize(
    ("rights", "said", "reason"),
    [
        (["~*", "+@all", "-mget"], "read", "may not run the command MGET"),
        (["~*", "+@all", "-set"], "written", "may not run the command"),
        (["~*", "+@all", "-eval"], "written", "may not run the command EVAL"),
        (["~other:*", "+@all"], "read", "may not run the command"),
    ],
)
def test_a_missing_permission_is_reported(client, own_server, logged, rights, said, reason):
    client.execute_command("ACL", "SETUSER", "limited", "reset", "on", f">{SECRET}", *rights)
    asyncio.run(calls(f"redis://limited:{SECRET}@127.0.0.1:{own_server.port}/0"))
    messages = logged()
    assert len(messages) == 1
    assert f"cannot be {said}: its user {reason}" in messages[0]
    assert "in cache.url the commands and keys" in messages[0]


@pytest.mark.parametrize("command", ["scan", "strlen"])
def test_a_size_that_may_not_be_read_is_no_zero(client, own_server, logged, command):
    client.execute_command("ACL", "SETUSER", "limited", "reset", "on", f">{SECRET}", "~*", "+@all", f"-{command}")
    _, error = asyncio.run(calls(f"redis://limited:{SECRET}@127.0.0.1:{own_server.port}/0"))
    assert f"cannot be read: its user may not run the command {command.upper()}" in error
    assert logged() == []


def test_a_database_that_does_not_exist_is_reported(client, own_server, logged):
    asyncio.run(calls(f"redis://127.0.0.1:{own_server.port}/99"))
    (message,) = logged()
    assert f"127.0.0.1:{own_server.port}/99 cannot be read: it has no database of this number" in message


@pytest.mark.parametrize(
    ("kind", "reason", "remedy"),
    [
        ("unknown CA", "its certificate is not trusted", "ssl_ca_certs in cache.url"),
        ("expired", "its certificate is not valid now", "renew the certificate"),
        ("another host", "its certificate is of another host", "use a host name of the certificate"),
        ("plain client", "it closes the connection", "use rediss:// in cache.url"),
        ("plain server", ": no ", "redis:// without TLS"),  # connection or answer in time
        ("missing file", "it cannot be reached", "correct host and port in cache.url"),
        ("right", None, None),
    ],
)
def test_mistakes_with_tls_are_reported(own_server, client, logged, tmp_path, monkeypatch, kind, reason, remedy):
    if kind == "plain server":
        set_cache_patience(monkeypatch, 0.1)
    name = "DNS:other.example" if kind == "another host" else "IP:127.0.0.1"
    certificate = make_certificate(tmp_path, name=name, days=-1 if kind == "expired" else 2)

    async def main():
        async with with_tls(own_server.port, certificate) as port:
            trusted = f"?ssl_ca_certs={certificate}"
            options = {"unknown CA": "", "missing file": "?ssl_ca_certs=/missing"}.get(kind, trusted)
            url = f"rediss://127.0.0.1:{own_server.port if kind == 'plain server' else port}/0{options}"
            return await calls(f"redis://127.0.0.1:{port}/0" if kind == "plain client" else url)

    receipts, _ = asyncio.run(main())
    if reason is None:
        assert (logged(), receipts[1].cache_hits) == ([], 40)
    else:
        (message,) = logged()
        assert reason in message
        assert remedy in message


def test_a_server_that_hangs_costs_a_bounded_wait_and_is_reported(logged, clock, monkeypatch):
    set_cache_patience(monkeypatch, 0.2)

    async def main():
        async with silent() as port:
            url = f"redis://127.0.0.1:{port}/0"
            async with AsyncEmbedder(config=config_for(backend="redis", url=url)) as embedder:
                clocked(embedder, clock)
                for _ in range(20):
                    await embedded(embedder)

    asyncio.run(main())
    (message,) = logged()
    # A slow machine may need longer to connect.
    assert "cannot be read: no answer within 0.2 s" in message or "cannot be read: no connection in time" in message


def test_another_kind_of_failure_is_reported_again_and_the_same_is_not(logged, clock):
    """A server that is loading its data, then refuses the password, then loads again."""
    loading, refused = b"-LOADING data\r\n", b"-WRONGPASS no\r\n"

    async def main():
        async with answering(loading, loading, refused, refused, loading) as port:
            url = f"redis://127.0.0.1:{port}/0?protocol=2"
            async with AsyncEmbedder(config=config_for(backend="redis", url=url)) as embedder:
                cache = clocked(embedder, clock)
                for _ in range(8):
                    clock.now += 10
                    await cache.generation()

    asyncio.run(main())
    loading, refused = logged()
    assert "still loading its data" in loading
    assert "refuses the user or password" in refused


def test_a_cluster_that_was_not_configured_is_reported(valkey_cluster, logged):
    """The lookup of several texts needs keys of several slots."""
    asyncio.run(calls(valkey_cluster.replace("?cluster", "")))
    (message,) = logged()
    assert "it is a node of a cluster" in message
    assert "cache.cluster = true" in message


def test_a_server_without_a_cluster_is_reported(own_server, client, logged):
    asyncio.run(calls(f"redis://127.0.0.1:{own_server.port}", cluster=True))
    (message,) = logged()
    assert "it is not a node of a cluster" in message
    assert "cache.cluster = false" in message


def test_a_file_that_cannot_be_written_is_reported_and_then_that_it_works_again(tmp_path, clock, logged):
    path = tmp_path / "v.sqlite"

    async def main():
        async with AsyncEmbedder(config=config_for(backend="sqlite", path=str(path))) as embedder:
            cache = clocked(embedder, clock)
            await embedded(embedder, TEXTS[:5])
            await on_writer(cache, lambda connection: connection.execute("PRAGMA query_only = 1"))
            for _ in range(3):
                clock.now += 10
                receipt = await embedded(embedder)
            writing_connection(cache).execute("PRAGMA query_only = 0")
            clock.now += 10
            await embedded(embedder)
            assert (await embedded(embedder)).cache_hits == 40
            return receipt

    receipt = asyncio.run(main())
    told, again = logged()
    check_message(
        told, place=f"the cache {path}", said="written", reason="the file is read-only", remedy="set cache.path"
    )
    assert f"the cache {path} works again" in again
    assert receipt.notes == (
        f"the cache {path} could not be written (the file is read-only): 35 texts were computed, and may not be stored",
    )


def test_a_folder_that_cannot_be_made_is_reported_and_noted(tmp_path, logged):
    (tmp_path / "file").write_text("no folder")
    path = tmp_path / "file" / "v.sqlite"

    async def main():
        async with AsyncEmbedder(config=config_for(backend="sqlite", path=str(path))) as embedder:
            return await embedded(embedder, ["one"]), await embedded(embedder)

    receipts = asyncio.run(main())
    assert len(logged()) == 1
    reason = "a part of its path is a file, not a folder"
    assert [receipt.notes for receipt in receipts] == [
        (f"the cache {path} could not be read ({reason}): {some} computed without it",)
        for some in ("1 text was", "40 texts were")
    ]


def test_a_damaged_file_needs_no_remedy(tmp_path, logged):
    path = tmp_path / "v.sqlite"

    async def main():
        async with AsyncEmbedder(config=config_for(backend="sqlite", path=str(path))) as embedder:
            await embedded(embedder)
        with path.open("r+b") as file:
            file.seek(2000)
            file.write(b"\xff" * 30_000)
        async with AsyncEmbedder(config=config_for(backend="sqlite", path=str(path))) as embedder:
            await embedded(embedder)
            assert (await embedded(embedder)).cache_hits == 40

    asyncio.run(main())
    assert "the file is damaged" in logged()[0]
    assert "none is needed: the file was renamed, and a new one is created" in logged()[0]


def test_a_lookup_that_succeeds_has_no_note_although_another_failed(valkey, logged):
    """Another caller's lookup fails while this one is answered."""

    async def main():
        async with AsyncEmbedder(config=config_for(backend="redis", url=valkey)) as embedder:
            cache = store_of(embedder)
            right, failed = server_of(cache).client.mget, asyncio.Event()

            async def fail_first(names):
                if not failed.is_set():
                    failed.set()
                    raise redis.exceptions.ResponseError("OOM")
                return await right(names)

            server_of(cache).client.mget = fail_first
            first, second = await asyncio.gather(embedded(embedder, ["first one"]), embedded(embedder, ["second one"]))
            return first.notes, second.notes

    assert sorted(map(len, asyncio.run(main()))) == [0, 1]


# ---------------------------------------------------------------- the log

OLD, NEW = StoreFailure("old", "an old reason", "wait"), StoreFailure("new", "a new reason", "wait")


@pytest.fixture
def errors(clock):
    return CacheErrors(name="the cache", clock=clock)


def test_each_kind_is_logged_once_until_the_store_works_again(errors, clock, logged):
    for failure in (OLD, OLD, NEW, OLD, NEW, None):
        errors.count("write", failure)
    assert len(logged()) == 2
    errors.note_success("read")
    assert len(logged()) == 2
    errors.note_success("write")
    assert logged()[2] == "the cache works again; 0 reads and 6 writes failed so far"
    errors.note_success("write")
    assert len(logged()) == 3


def test_a_store_that_is_reached_again_works_although_not_all_is_tried(errors, logged):
    down = StoreFailure("down", "it is down", "start it", whole=True)
    for action in ("read", "write", "delete"):
        errors.count(action, down)
    errors.note_success("read")
    assert "works again" in logged()[1]


def test_all_that_failed_must_work_again(errors, logged):
    errors.count("read", OLD)
    errors.count("write", OLD)
    errors.note_success("read")
    assert len(logged()) == 1
    errors.note_success("write")
    assert "works again; 1 reads and 1 writes" in logged()[1]


def test_a_store_that_fails_and_works_in_turn_is_logged_once_in_ten_minutes(errors, clock, logged):
    for _ in range(100):
        errors.count("read", OLD)
        errors.note_success("read")
        clock.now += 5
    assert len(logged()) == 2
    clock.now += 600
    errors.count("read", OLD)
    assert len(logged()) == 3


def test_what_the_caller_reports_is_not_logged(errors, logged):
    with errors.unlogged():
        errors.count("read", OLD)
    assert (logged(), errors.last) == ([], OLD)
    errors.count("read", OLD)
    assert len(logged()) == 1
