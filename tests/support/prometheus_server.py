"""A Prometheus server on a loopback port, and its API."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

#: Time for the server to start, and for data to arrive, on a busy machine.
PATIENCE_S = 40.0


def program(name):
    """Return the path of a program of a Debian package. Without it the tests fail: nothing is skipped."""
    path = shutil.which(name)
    assert path is not None, f"{name} is missing: install it with `make install-prometheus`"
    return path


def promtool(*arguments):
    """Run promtool, and return what it printed. It must succeed."""
    done = subprocess.run([program("promtool"), *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check_metrics(text):
    """Let promtool read and check an exposition. Every remark is a failure."""
    done = subprocess.run(
        [program("promtool"), "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


class Prometheus:
    """The API of a running server."""

    def __init__(self, port):
        self._url = f"http://127.0.0.1:{port}"

    def query(self, expression):
        """Return the series of an instant vector, as labels and values."""
        result = self.api("query", query=expression)["result"]
        return [(series["metric"], float(series["value"][1])) for series in result]

    def firing(self):
        """Return the alerts that are firing, by name."""
        alerts = self.api("alerts")["alerts"]
        return {one["labels"]["alertname"]: one for one in alerts if one["state"] == "firing"}

    def api(self, name, **parameters):
        """Return the data of a call. Raises AssertionError for an invalid expression."""
        url = f"{self._url}/api/v1/{name}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=20) as response:  # noqa: S310  it is http
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from None

    def is_ready(self):
        """Return whether the server answers queries."""
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self._url}/-/ready", timeout=5) as response:  # noqa: S310
            return response.status == 200
        return False


def wait_until(condition):
    """Poll a condition until it returns something true, and return that. The last result is returned at the end."""
    deadline = time.monotonic() + PATIENCE_S
    while not (result := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return result


@contextlib.contextmanager
def running_prometheus(folder, config):
    """Run a server with a configuration file, and stop it."""
    # The server has no option for a free port. Another program may take this one first, which ends the server.
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = [
        f"--config.file={config}",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([program("prometheus"), *options], stdout=log, stderr=log, env={**os.environ})
    try:
        server = Prometheus(port)
        assert wait_until(lambda: process.poll() is not None or server.is_ready())
        assert process.poll() is None, (folder / "prometheus.log").read_text()
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
