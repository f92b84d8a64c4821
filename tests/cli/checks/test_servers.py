"""Servers of the cache, the ledger and the pins: what prevents or endangers their use, with real servers."""

import contextlib
import http.server
import socket
import sys
import threading

import pytest
import redis

from embedway.cli.checks import servers
from embedway.cli.checks.base import Setup
from embedway.cli.checks.servers import check_servers
from embedway.config import Config
from valkey_server import start_valkey


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Return a server of its own, because the tests change its configuration."""
    started = start_valkey(tmp_path_factory.mktemp("valkey"), config={"save": "3600 1"})
    yield f"redis://127.0.0.1:{started.port}/0"
    started.stop()


@pytest.fixture
def client(server):
    """Return a client of the server, whose configuration is restored afterwards."""
    with contextlib.closing(redis.Redis.from_url(server)) as client:
        yield client
        client.execute_command("REPLICAOF", "NO", "ONE")
        client.config_set("save", "3600 1")
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 0)
        client.config_set("requirepass", "")
        client.flushall()


def check(*parts, default="auto", settings=None, **urls):
    """Return the lines for servers of these parts of the settings."""
    overrides = {f"{part}.backend": "redis" for part in urls}
    overrides |= {f"{part}.url": url for part, url in urls.items()}
    config = Config.load(environ={}, overrides={**overrides, **(settings or {}), "embedding.default_model": default})
    return check_servers(Setup(config, is_loaded=True)).lines


def only(lines):
    (line,) = lines
    return line


def test_no_server_is_skipped():
    assert only(check()).status == "skipped"


def test_a_good_server_is_one_line_for_all_its_parts(client, server):
    line = only(check(ledger=server, pins=server))
    assert (line.name, line.status) == ("redis of ledger, pins", "ok")
    assert "Valkey" in line.detail


def test_a_cache_on_the_ledgers_server_is_a_warning_also_under_another_address(client, server):
    others = [server, server.replace("127.0.0.1", "localhost"), server[:-1] + "1"]
    for url in others:
        lines = check(cache=url, ledger=server)
        assert [line.status for line in lines] == ["ok"] * (len(lines) - 1) + ["warning"]
        assert lines[-1].name == "redis of cache, ledger"
        assert "the cache and the ledger use the same server" in lines[-1].detail
        assert "cache.url" in lines[-1].remedy


@pytest.mark.parametrize(
    ("policy", "settings", "said"),
    [
        ("noeviction", {}, "set cache.redis_mib to 256 or less"),
        ("noeviction", {"cache.redis_mib": 256}, None),
        ("volatile-lru", {}, None),
        ("volatile-lru", {"cache.ttl_s": "never"}, "set cache.redis_mib to 256 or less"),
        ("allkeys-lru", {}, "or to volatile-lru if the cache shares the server"),
    ],
)
def test_the_advice_on_a_shared_server_ends_its_warning(client, server, policy, settings, said):
    client.config_set("maxmemory", "512mb")
    client.config_set("maxmemory-policy", policy)
    remedies = [line.remedy for line in check(cache=server, ledger=server, settings=settings) if line.status != "ok"]
    assert len(remedies) == (said is not None)
    assert said is None or said in remedies[0]


def test_servers_are_checked_one_by_one(client, server):
    lines = check(cache=server, ledger="redis://127.0.0.1:1/0")
    assert [(line.name, line.status) for line in lines] == [("redis of cache", "ok"), ("redis of ledger", "warning")]


def test_checking_writes_nothing(client, server):
    before = client.info("commandstats")
    check(cache=server, ledger=server, pins=server)
    assert client.dbsize() == 0
    used = {name for name, stats in client.info("commandstats").items() if stats != before.get(name)}
    assert used <= {f"cmdstat_{name}" for name in ("ping", "info", "hget", "get", "hello", "config|get")} | {
        "cmdstat_client|setinfo",
        "cmdstat_dbsize",
    }


def test_eviction_endangers_the_ledger_and_not_the_cache(client, server):
    client.config_set("maxmemory-policy", "allkeys-lru")
    line = only(check(ledger=server, pins=server))
    assert line.status == "warning"
    assert "maxmemory-policy is allkeys-lru, so a full server may delete the ledger and the pins" in line.detail
    assert only(check(cache=server)).status == "ok"


def test_persistence_that_is_off_is_a_warning(client, server):
    client.config_set("save", "")
    line = only(check(pins=server))
    assert (line.status, line.remedy) == ("warning", "set appendonly to yes")
    assert "a restart deletes the pins" in line.detail
    assert only(check(cache=server)).status == "ok"


@pytest.mark.parametrize(("default", "status"), [("auto", "warning"), ("text-embedding-3-small", "problem")])
def test_a_replica_cannot_be_the_ledger(client, server, default, status):
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    line = only(check(ledger=server, default=default))
    assert (line.status, line.remedy) == (status, "set ledger.url to the primary")


@pytest.mark.parametrize(
    ("password", "said"), [("", "it requires a password"), (":wrong@", "it refuses the user or password")]
)
def test_a_wrong_password_is_named_and_not_shown(client, server, password, said):
    client.config_set("requirepass", "right")
    line = only(check(ledger=server.replace("//", f"//{password}")))
    assert f"{said}, so calls of services are refused" in line.detail
    assert "ledger.url" in line.remedy
    assert "wrong" not in line.detail
    assert only(check(ledger=server.replace("//", "//:right@"))).status == "ok"


def test_a_user_without_rights_is_reported(client, server):
    client.execute_command("ACL", "SETUSER", "limited", "on", ">password", "~*", "+ping", "+get", "+hget")
    line = only(check(ledger=server.replace("//", "//limited:password@")))
    assert "INFO is not allowed" in line.detail
    client.execute_command("ACL", "SETUSER", "limited", "-ping")
    assert "may not run the command PING" in only(check(ledger=server.replace("//", "//limited:password@"))).detail


@pytest.mark.parametrize(
    ("part", "write"),
    [
        ("cache", lambda client: client.hset("embedway:format", "cache", 99)),
        ("ledger", lambda client: client.set("{embedway:ledger}:format", 99)),
        ("pins", lambda client: client.set("{embedway:pins}:format", 99)),
    ],
)
def test_data_of_a_newer_version_is_reported(client, server, part, write):
    write(client)
    line = only(check(**{part: server}))
    assert f"the {part} has version 99" in line.detail
    assert line.status == ("problem" if part == "cache" else "warning")


def test_a_stamp_of_another_type_is_no_error(client, server):
    client.lpush("{embedway:ledger}:format", "x")
    assert only(check(ledger=server)).status == "ok"


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({"redis_version": "4.0.9", "role": "master"}, "Redis 4.0.9 is too old"),
        ({"redis_version": "7.2.4", "role": "slave"}, "it is a replica"),
        ({"redis_version": "odd", "maxmemory_policy": "allkeys-random"}, "maxmemory-policy is allkeys-random"),
    ],
)
def test_the_answer_of_info_is_judged(info, said):
    (found,) = servers._judge(info, servers._Server("", ("ledger",)), "warning")  # noqa: SLF001  no old server is here
    assert said in found[1]


def test_a_port_that_is_closed(client):
    line = only(check(pins="redis://127.0.0.1:1/0"))
    assert "it cannot be reached" in line.detail
    assert "start the server" in line.remedy


def test_a_name_that_does_not_exist():
    assert "it cannot be reached" in only(check(pins="redis://no-such-host.invalid/0")).detail


def test_a_server_that_says_nothing_is_bounded(monkeypatch):
    monkeypatch.setattr(servers, "ANSWER_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for scheme, said in (("redis", "no answer within"), ("rediss", "no TLS connection in time")):
            line = only(check(pins=f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/0"))
            assert said in line.detail
            assert "rediss:// with TLS" in line.remedy


def test_a_web_server_is_not_redis():
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        line = only(check(pins=f"redis://127.0.0.1:{web.server_port}/0"))
        secure = only(check(pins=f"rediss://127.0.0.1:{web.server_port}/0"))
        web.shutdown()
        thread.join()
    assert "it does not answer as Redis does" in line.detail
    assert "it does not speak TLS on this port" in secure.detail
    assert "use redis://" in secure.remedy


def test_without_the_library_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    line = only(check(ledger="redis://127.0.0.1:1/0"))
    assert (line.status, line.remedy) == ("problem", "pip install 'embedway[redis]'")
