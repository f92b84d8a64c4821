"""The shipped settings start a real gateway beside a real Valkey."""

import contextlib
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from containers import SETTINGS, compose
from prometheus_server import wait_until
from valkey_server import start_valkey


def get(url):
    """Return status and body of an answer."""
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310  it is http
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.fixture
def gateway(tmp_path, default_model_directory):
    """Run the gateway with the settings of the containers, and return its process and URL."""
    server = start_valkey(tmp_path)
    places = {f"EMBEDWAY_{one}__URL": f"redis://127.0.0.1:{server.port}/0" for one in ("LEDGER", "PINS", "CACHE")}
    own = {
        "EMBEDWAY_SERVER__HOST": "127.0.0.1",
        "EMBEDWAY_SERVER__PORT": "0",
        "EMBEDWAY_SERVER__METRICS_HOST": "127.0.0.1",
        "EMBEDWAY_SERVER__METRICS_PORT": "0",
        "EMBEDWAY_SERVER__RUN_DIRECTORY": str(tmp_path),
        "EMBEDWAY_WEIGHTS__DIRECTORY": str(default_model_directory),
    }
    variables = {**os.environ, **compose()["services"]["gateway-1"]["environment"], **places, **own}
    command = [sys.executable, "-m", "embedway", "--config", str(SETTINGS), "serve"]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=variables, stdout=output, stderr=output)
    try:
        found = wait_until(lambda: process.poll() is not None or re.search(r"serving on (\S+)", log.read_text()))
        assert found, log.read_text()
        assert process.poll() is None, log.read_text()
        yield process, found[1]
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        server.stop()


def test_the_gateway_is_live_and_ready_needs_keys_and_ends_within_its_time_to_drain(gateway):
    process, url = gateway
    assert get(f"{url}/health/live")[0] == 200
    status, body = wait_until(lambda: (answer := get(f"{url}/health/ready"))[0] == 200 and answer)
    assert (status, json.loads(body)["status"]) == (200, "ready")
    assert get(f"{url}/metrics")[0] == 401
    process.terminate()
    assert process.wait(timeout=40) == 0
