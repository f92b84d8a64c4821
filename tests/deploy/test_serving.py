"""The shipped settings start a real gateway beside a real Valkey: from the file through HTTP to vectors."""

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from child_lines import ChildLines
from containers import SETTINGS, compose, free_port
from prometheus_server import wait_until
from valkey_server import start_valkey

COMMAND = [sys.executable, "-m", "embedway", "--config", str(SETTINGS)]


def ask(url, body=None, **headers):
    """Return status and body of an answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json", **headers})  # noqa: S310  http
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.fixture
def variables(tmp_path, default_model_directory):
    """Run Valkey, and return the environment of a container with this machine's addresses and folders."""
    server = start_valkey(tmp_path)
    places = {f"EMBEDWAY_{one}__URL": f"redis://127.0.0.1:{server.port}/0" for one in ("LEDGER", "PINS", "CACHE")}
    own = {
        "EMBEDWAY_SERVER__HOST": "127.0.0.1",
        "EMBEDWAY_SERVER__PORT": "0",
        "EMBEDWAY_SERVER__WORKERS": "1",
        "EMBEDWAY_SERVER__METRICS_HOST": "127.0.0.1",
        "EMBEDWAY_SERVER__METRICS_PORT": str(free_port()),
        "EMBEDWAY_SERVER__RUN_DIRECTORY": str(tmp_path),
        "EMBEDWAY_WEIGHTS__DIRECTORY": str(default_model_directory),
    }
    yield {**os.environ, **compose()["services"]["gateway-1"]["environment"], **places, **own}
    server.stop()


@pytest.fixture
def gateway(variables):
    """Run the gateway, and return its process and URL."""
    with subprocess.Popen(
        [*COMMAND, "serve"], env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        lines = ChildLines(process.stderr)
        try:
            yield process, lines.wait_for(r"serving on (\S+)", 120)
        finally:
            process.kill()
            lines.close()


TEXTS = {"model": "all-MiniLM-L6-v2", "input": ["a text", "another"]}


def test_the_gateway_is_ready_needs_keys_has_metrics_and_drains(gateway, variables):
    process, url = gateway
    assert ask(f"{url}/health/live")[0] == 200
    assert wait_until(lambda: ask(f"{url}/health/ready")[0] == 200)
    assert ask(f"{url}/v1/embeddings", TEXTS)[0] == 401
    # The port for metrics needs no key; the other one does.
    assert ask(f"{url}/metrics")[0] == 401
    status, body = ask(f"http://127.0.0.1:{variables['EMBEDWAY_SERVER__METRICS_PORT']}/metrics")
    assert status == 200
    assert re.search(rb"^embedway_gateway_waiting_requests ", body, re.MULTILINE)
    process.terminate()
    assert process.wait(timeout=40) == 0


def test_the_gateway_returns_vectors_to_a_client_with_a_key(gateway, variables):
    _, url = gateway
    create = subprocess.run([*COMMAND, "keys", "create", "first"], env=variables, check=True, capture_output=True)
    status, body = ask(f"{url}/v1/embeddings", TEXTS, authorization=f"Bearer {create.stdout.decode().strip()}")
    assert status == 200, body
    assert [len(row["embedding"]) for row in json.loads(body)["data"]] == [384, 384]
