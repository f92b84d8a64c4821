"""Caddy reads the configuration of the load balancer, and serves two replicas with it."""

import contextlib
import hashlib
import http.client
import os
import shutil
import subprocess
import sysconfig
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from containers import DEPLOY, free_port
from prometheus_server import wait_until

CADDY = Path(sysconfig.get_path("scripts")) / "caddy"
CADDYFILE = DEPLOY / "caddy" / "Caddyfile"


class _Replica(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(200 if self.server.is_ready else 503, b"")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.requests += 1
        self.answer(200, hashlib.sha256(body).digest() + body)

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        # Each request needs a connection of its own, so that a replica that ended is noticed.
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def replica(*, is_ready=True):
    """Run a replica on a free port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Replica) as server:
        server.daemon_threads = True
        server.is_ready, server.requests = is_ready, 0
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def balancer(folder, *replicas):
    """Run Caddy before replicas, and return a function that sends a body and returns status and answer."""
    port = free_port()
    config = folder / "Caddyfile"
    config.write_text(CADDYFILE.read_text("utf-8").replace("\n:8081 {", f"\n:{free_port()} {{"))
    environment = {
        **os.environ,
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
        "SITE": f":{port}",
        "REPLICAS": " ".join(f"127.0.0.1:{one.server_port}" for one in replicas),
    }
    command = [CADDY, "run", "--config", str(config), "--adapter", "caddyfile"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def send(body):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with contextlib.closing(connection):
            connection.request("POST", "/v1/embeddings", body)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def is_there():
        with contextlib.suppress(OSError):
            return send(b"first")[0]
        assert process.poll() is None, (folder / "log").read_text()
        return None

    try:
        assert wait_until(is_there) == 200
        yield send
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_the_configuration_is_valid_and_formatted(tmp_path):
    shutil.copy(CADDYFILE, tmp_path)
    environment = {**os.environ, "HOME": str(tmp_path)}
    for command in (["validate", "--adapter", "caddyfile", "--config"], ["fmt", "--overwrite"]):
        subprocess.run([CADDY, *command, "Caddyfile"], check=True, cwd=tmp_path, env=environment)
    assert (tmp_path / "Caddyfile").read_text("utf-8") == CADDYFILE.read_text("utf-8")


def test_large_bodies_pass_unchanged(tmp_path):
    body = os.urandom(2**20) * 40
    with replica() as one, replica() as two, balancer(tmp_path, one, two) as send:
        status, answer = send(body)
    assert status == 200
    assert answer[:32] == hashlib.sha256(body).digest()
    assert answer[32:] == body


def test_both_replicas_get_requests(tmp_path):
    with replica() as one, replica() as two, balancer(tmp_path, one, two) as send:
        assert {send(b"x")[0] for _ in range(40)} == {200}
        assert min(one.requests, two.requests) > 0


def test_a_replica_that_is_not_ready_gets_no_requests(tmp_path):
    with replica() as one, replica(is_ready=False) as two, balancer(tmp_path, one, two) as send:

        def is_avoided():
            before = two.requests
            return {send(b"x")[0] for _ in range(40)} == {200} and two.requests == before

        assert wait_until(is_avoided)
        two.is_ready, one.is_ready = True, False

        def has_changed():
            before = one.requests
            return {send(b"x")[0] for _ in range(40)} == {200} and one.requests == before

        assert wait_until(has_changed)


def test_no_request_fails_when_a_replica_ends(tmp_path):
    with replica() as one, contextlib.ExitStack() as stack:
        two = stack.enter_context(replica())
        with balancer(tmp_path, one, two) as send:
            assert {send(b"x")[0] for _ in range(10)} == {200}
            stack.close()
            assert {send(b"x")[0] for _ in range(40)} == {200}
