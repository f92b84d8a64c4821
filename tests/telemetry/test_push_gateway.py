"""Pushes to a gateway: to a loopback server, and to Debian's prometheus-pushgateway if it is installed."""

import asyncio
import contextlib
import http.server
import logging
import re
import shutil
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest

from embedway.config import Config
from embedway.errors import ConfigError
from embedway.telemetry import push_gateway
from embedway.telemetry.push_gateway import Pusher, PushHook

REMEDY = "metrics could not be pushed; start the gateway, correct telemetry.push_gateway, or remove it"
TEXT = b"# TYPE embedway_x counter\nembedway_x_total 3.0\n"


@contextlib.contextmanager
def gateway(status=200):
    """Run a server that records requests."""
    received = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_PUT(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append((self.path, self.headers, body))
            self.send_response(status)
            self.send_header("location", "/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port, received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_push_replaces_the_group_of_job_and_instance():
    with gateway() as (port, received):
        Pusher(f"http://user:p%40ss@127.0.0.1:{port}/prefix/", "my job", 60, render=lambda: TEXT).push()
    ((path, headers, body),) = received
    assert re.fullmatch(r"/prefix/metrics/job/my%20job/instance/[^/]+", path)
    assert body == TEXT
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    assert headers["authorization"] == "Basic dXNlcjpwQHNz"


def test_a_job_with_a_slash_is_encoded():
    with gateway() as (port, received):
        Pusher(f"http://127.0.0.1:{port}", "a/b", 60, render=lambda: TEXT).push()
    assert received[0][0].startswith("/metrics/job@base64/YS9i/instance/")


@pytest.mark.parametrize("status", [302, 400, 500])
def test_a_failure_is_logged_once_without_the_url(status, caplog):
    caplog.set_level(logging.WARNING, "embedway.metrics")
    with gateway(status) as (port, received):
        pusher = Pusher(f"http://user:secret@127.0.0.1:{port}", "job", 60, render=lambda: TEXT)
        pusher.push()
        pusher.push()
    pusher.push()
    assert len(received) == 2
    assert [record.getMessage() for record in caplog.records] == [
        f"telemetry.push_gateway: it answered with HTTP {status}; {REMEDY}"
    ]
    assert "secret" not in caplog.text


def test_a_gateway_that_is_silent_is_left(monkeypatch, caplog):
    monkeypatch.setattr(push_gateway, "PUSH_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        Pusher(url, "job", 60, render=lambda: TEXT).push()
    assert "it did not answer in 0.05 s" in caplog.text


@contextlib.contextmanager
def slow_gateway():
    """Run a server that sends a line of its header whenever it is let, and yield its port and its requests."""
    connections, ended = [], threading.Event()

    def answer(connection):
        with contextlib.suppress(OSError), connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            while not ended.wait(0.01):
                connection.sendall(b"X-A: b\r\n")

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connections.append(server.accept()[0])
                threading.Thread(target=answer, args=(connections[-1],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        try:
            yield server.getsockname()[1], connections
        finally:
            ended.set()


def test_a_gateway_that_answers_slowly_is_cut_off_and_not_asked_again_at_the_end(monkeypatch, caplog):
    """Each of its lines is in time, but not its answer."""
    monkeypatch.setattr(push_gateway, "PUSH_S", 0.2)

    async def main(port):
        hook = PushHook(f"http://127.0.0.1:{port}", "slow", 60)
        await asyncio.wait_for(asyncio.to_thread(hook.pusher.push), 10)
        await hook.flush()

    with slow_gateway() as (port, connections):
        asyncio.run(main(port))
        assert len(connections) == 1
    assert [record.getMessage() for record in caplog.records] == [
        f"telemetry.push_gateway: it did not answer in 0.2 s; {REMEDY}"
    ]


END = """
import asyncio, socket, sys, threading
from embedway.telemetry import push_gateway
push_gateway.PUSH_S = 0.2
never = threading.Event()
push_gateway.Pusher._send = lambda self, data: never.wait(600)
async def main():
    await push_gateway.PushHook("http://127.0.0.1:9", "job", 60).flush()
asyncio.run(main())
"""


def test_a_push_that_hangs_does_not_keep_the_program_from_ending():
    """Not even one that no timeout ends, such as a look-up of the gateway's name."""
    done = subprocess.run([sys.executable, "-c", END], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert "it did not answer in 0.2 s" in done.stderr


def test_it_pushes_in_the_background_and_at_the_end():
    """Two hooks share a thread; the last one that is closed ends it."""

    async def main(port):
        one, two = (PushHook(f"http://127.0.0.1:{port}", "job", 0.01) for _ in range(2))
        while len(received) < 3:  # noqa: ASYNC110  the server is in a thread
            await asyncio.sleep(0)
        await one.flush()
        assert [thread.name for thread in threading.enumerate()].count("embedway-push") == 1
        await two.flush()

    with gateway() as (port, received):
        asyncio.run(main(port))
    for thread in threading.enumerate():
        if thread.name == "embedway-push":
            thread.join(10)
            assert not thread.is_alive()
    assert b"embedway_resident_memory_bytes" in received[-1][2]


@pytest.mark.skipif(shutil.which("prometheus-pushgateway") is None, reason="needs prometheus-pushgateway")
def test_the_real_gateway_shows_the_metrics():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["prometheus-pushgateway", f"--web.listen-address=127.0.0.1:{port}"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            opened = False
            while not opened and process.poll() is None:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    opened = True
            Pusher(f"http://127.0.0.1:{port}", "nightly", 60).push()
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                shown = answer.read().decode()
        finally:
            process.terminate()
    assert re.search(r'embedway_resident_memory_bytes\{instance="[^"]+",job="nightly"\}', shown)


@pytest.mark.parametrize(
    ("url", "is_good"),
    [
        ("http://gateway:9091", True),
        ("https://user:secret@gateway/prefix", True),
        ("http://user:secret@127.0.0.1:9091", True),
        ("http://user:secret@gateway:9091", False),
        ("http://gateway:9091/?a=secret", False),
        ("ftp://gateway", False),
    ],
)
def test_a_password_needs_tls(url, is_good):
    def load():
        return Config.load(environ={}, overrides={"telemetry.push_gateway": url})

    if is_good:
        assert "secret" not in repr(load().telemetry)
        return
    with pytest.raises(ConfigError) as caught:
        load()
    assert "secret" not in str(caught.value)
