"""An interrupt during the download of weights ends the command at once."""

import signal
import socket
import subprocess
import sys

import pytest


@pytest.fixture
def silent_hub():
    """Run a hub that accepts every connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        yield server


@pytest.mark.parametrize("arguments", [("embed", "a text"), ("models", "pull", "all-MiniLM-L6-v2")], ids=" ".join)
def test_a_download_can_be_interrupted(environment, place, silent_hub, arguments):
    address = f"http://127.0.0.1:{silent_hub.getsockname()[1]}"
    with subprocess.Popen(
        [sys.executable, "-m", "embedway", *arguments],
        cwd=place,
        env={**environment, "HF_ENDPOINT": address},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        connection, _ = silent_hub.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=8)
    assert process.returncode == 130
    assert b"Traceback" not in stderr
