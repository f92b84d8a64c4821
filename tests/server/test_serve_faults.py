"""A gateway whose processes are killed, stopped or ended under load: callers get answers, and it works again."""

import concurrent.futures
import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gateways import gateway_process


@pytest.fixture
def environment(default_model_directory):
    return {"EMBEDWAY_WEIGHTS__DIRECTORY": str(default_model_directory), "EMBEDWAY_WEIGHTS__OFFLINE": "true"}


def ask(url, path, body=None, timeout=90):
    """Return the status of a request; 0 if the connection ended."""
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(asked, timeout=timeout) as answer:  # noqa: S310
            answer.read()
            return answer.status
    except urllib.error.HTTPError as error:
        told = error.headers["retry-after"] or path.startswith("/health")
        return error.code if told or error.code != 503 else "503 without a time to come back"


def embed(url, text):
    return ask(url, "/v1/embeddings", {"model": "all-MiniLM-L6-v2", "input": text})


def wait_for_status(url, path, status, seconds=60):
    limit = time.monotonic() + seconds
    while ask(url, path) != status:
        assert time.monotonic() < limit
        time.sleep(0.1)


def inference_process(gateway):
    """Return the number of the process that computes: it has the largest memory."""

    def memory(pid):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])

    return max(gateway.children, key=memory)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_callers_are_answered_while_the_inference_process_is_replaced(environment, number):
    with gateway_process(environment=environment) as gateway, concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert embed(gateway.url, "before") == 200
        asked = [pool.submit(embed, gateway.url, f"text {one}") for one in range(40)]
        ended = inference_process(gateway)
        os.kill(ended, number)
        if number == signal.SIGSTOP:
            assert ask(gateway.url, "/health/live") == 200
            wait_for_status(gateway.url, "/health/ready", 503)
        found = [one.result(120) for one in asked]
        assert set(found) <= {200, 503}
        wait_for_status(gateway.url, "/health/ready", 200)
        assert embed(gateway.url, "after") == 200
        assert ended not in gateway.children


class SlowService(BaseHTTPRequestHandler):
    """Answers embeddings when the test allows it."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.set()
        self.server.allowed.wait(60)
        data = [{"index": row, "embedding": [1.0] + [0.0] * 1535} for row in range(len(body["input"]))]
        answer = json.dumps({"data": data, "model": body["model"], "usage": {"prompt_tokens": 2, "total_tokens": 2}})
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *arguments):
        pass


def test_accepted_requests_are_finished_after_sigterm(environment, tmp_path):
    service = ThreadingHTTPServer(("127.0.0.1", 0), SlowService)
    service.asked, service.allowed = threading.Event(), threading.Event()
    serving = threading.Thread(target=service.serve_forever)
    serving.start()
    settings = tmp_path / "embedway.toml"
    settings.write_text(
        f"""
        [embedding]
        default_model = "text-embedding-3-small"
        [quality]
        check_diversity = false
        [routes.slow]
        provider = "openai-compatible"
        model = "text-embedding-3-small"
        base_url = "http://127.0.0.1:{service.server_address[1]}/v1"
        """
    )
    body = {"model": "text-embedding-3-small", "input": "a text"}
    try:
        with (
            gateway_process(environment=environment, files=[settings]) as gateway,
            concurrent.futures.ThreadPoolExecutor(1) as pool,
        ):
            asked = pool.submit(ask, gateway.url, "/v1/embeddings", body)
            assert service.asked.wait(60)
            gateway.process.send_signal(signal.SIGTERM)
            with pytest.raises((urllib.error.URLError, ConnectionError)):
                wait_for_status(gateway.url, "/health/live", "never")
            service.allowed.set()
            assert asked.result(60) == 200
            assert gateway.process.wait(60) == 0
    finally:
        service.allowed.set()
        service.shutdown()
        serving.join()
        service.server_close()
