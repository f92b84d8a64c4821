"""`embedway serve`: its processes start, are replaced when they end, and end together."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from embedway.config import Config
from embedway.errors import ConfigError, UsageError
from embedway.server.serve import serve
from gateways import gateway_process


@pytest.fixture
def environment(default_model_directory):
    return {"EMBEDWAY_WEIGHTS__DIRECTORY": str(default_model_directory), "EMBEDWAY_WEIGHTS__OFFLINE": "true"}


def embed(url, text, timeout=60):
    body = json.dumps({"model": "all-MiniLM-L6-v2", "input": text}).encode()
    asked = urllib.request.Request(f"{url}/v1/embeddings", body, {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(asked, timeout=timeout) as answer:  # noqa: S310
        return json.loads(answer.read())["data"][0]["embedding"]


def wait_until(condition, seconds=60):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def is_running(pid):
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_workers_share_an_address_and_end_with_a_signal(environment):
    with gateway_process("--workers", "2", environment=environment) as gateway:
        vectors = [embed(gateway.url, "a cat") for _ in range(6)]
        children = gateway.children
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(60) == 0
    assert gateway.lines[0].startswith("embedway: starting;")
    assert gateway.lines[-1] == "embedway: ending; accepted requests are finished\n"
    assert all(vector == vectors[0] for vector in vectors)
    assert not any(map(is_running, children))


def test_a_killed_worker_is_replaced_and_no_connection_is_refused(environment):
    with gateway_process(environment=environment) as gateway:
        before = embed(gateway.url, "a cat")
        killed = gateway.children
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        assert embed(gateway.url, "a cat") == before  # it waits in the socket, which the supervisor keeps open
        assert set(gateway.children).isdisjoint(killed)


def test_processes_end_with_a_killed_supervisor(environment):
    with gateway_process(environment=environment) as gateway:
        children = gateway.children
        gateway.process.kill()
        gateway.process.wait(60)
        wait_until(lambda: not any(map(is_running, children)))


def test_a_port_in_use_is_an_error(environment):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = [sys.executable, "-m", "embedway", "serve", "--port", str(taken.getsockname()[1])]
        ended = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=60, check=False
        )
    assert ended.returncode == 2
    assert "choose another --port" in ended.stderr


def test_settings_are_checked_before_the_start():
    config, lines = Config.load(environ={}, overrides={"server": {"models": ("no-such-model",)}}), []
    with pytest.raises(ConfigError, match=r"^server\.models"):
        serve(config, lines.append)
    assert lines == []


def test_a_wrong_setting_that_only_a_worker_finds_is_an_error_at_once(environment, tmp_path):
    file = tmp_path / "embedway.toml"
    file.write_text('[models.m]\nname = "all-MiniLM-L6-v2"\ndimensions = 5\nmax_tokens = 5\n')
    command = [sys.executable, "-m", "embedway", "--config", str(file), "serve", "--port", "0", "--workers", "2"]
    ended = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.count("belongs to another model") == 1
    assert ended.stderr.splitlines()[-1].startswith("embedway: error: models.m: name: the name 'all-MiniLM-L6-v2'")
    assert "ERROR" not in ended.stderr


def test_a_port_in_use_for_metrics_names_its_setting():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = Config.load(environ={}, overrides={"server": {"port": 0, "metrics_port": taken.getsockname()[1]}})
        with pytest.raises(UsageError, match=r"choose another server\.metrics_port"):
            serve(config, print)


def test_a_gateway_that_needs_keys_and_has_none_says_how_to_create_one(environment, tmp_path):
    environment = {**environment, "EMBEDWAY_LEDGER__PATH": str(tmp_path / "ledger.sqlite")}
    with gateway_process("--auth", "keys", environment=environment) as gateway:
        assert any("`embedway keys create NAME`" in line for line in gateway.lines)


def memory(processes):
    """Return the resident memory of processes, in bytes."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in processes)
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_metrics_of_all_workers_on_their_own_port(environment):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**environment, "EMBEDWAY_SERVER__METRICS_PORT": str(port)}

    def read(name):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        return {line.split()[0]: float(line.split()[-1]) for line in lines if line.startswith(name)}

    with gateway_process("--workers", "2", environment=environment) as gateway:
        for number in range(12):
            embed(gateway.url, f"text {number}")
        counted = read("embedway_gateway_requests_total")
        wait_until(lambda: sum(read("embedway_resident_memory_bytes").values()) > 0.8 * memory(gateway.children))
        started = read("embedway_gateway_process_starts_total")
        for pid in gateway.children:
            os.kill(pid, signal.SIGKILL)
        embed(gateway.url, "a text")  # with a worker and an inference process that were started again
        started_again = read("embedway_gateway_process_starts_total")
    assert sum(value for name, value in counted.items() if "embeddings" in name) == 12
    processes = ("inference", "worker0", "worker1", "worker2")  # the last one is for bulk requests
    assert sorted(started) == [f'embedway_gateway_process_starts_total{{process="{name}"}}' for name in processes]
    assert set(started.values()) == {1}
    assert started_again['embedway_gateway_process_starts_total{process="inference"}'] == 2
