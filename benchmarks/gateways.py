"""Servers as processes of their own: embedway's gateway, other gateways, and the loopback service behind them.

`--peers FOLDER` names a folder with the other gateways:

    python -m venv FOLDER/litellm && FOLDER/litellm/bin/pip install 'litellm[proxy]'
    python -m venv FOLDER/ferro && FOLDER/ferro/bin/pip install ferrogw
    python -m venv FOLDER/smg && FOLDER/smg/bin/pip install smg
    mkdir FOLDER/portkey && echo '{"overrides":{"@hono/node-server":"1.13.8"}}' >FOLDER/portkey/package.json
    npm install --prefix FOLDER/portkey @portkey-ai/gateway
    python -m venv FOLDER/infinity && FOLDER/infinity/bin/pip install torch==2.13.0 'infinity-emb[server,torch]'

A peer that is not there is left out, and the output says so.
"""

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from load import Target

HOST = "127.0.0.1"
_TICKS = os.sysconf("SC_CLK_TCK")
#: Seconds in which a server must be ready, and in which it must end after SIGTERM.
START_S, STOP_S = 180, 30


def free_port():
    with socket.socket() as found:
        found.bind((HOST, 0))
        return found.getsockname()[1]


def fetch(port, path, headers=None, timeout=5):
    """Return status and body of a GET; status 0 without an answer."""
    asked = urllib.request.Request(f"http://{HOST}:{port}{path}", headers=headers or {})
    try:
        with urllib.request.urlopen(asked, timeout=timeout) as answer:  # noqa: S310  loopback
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


def post(target, content, timeout=60):
    """Return status, headers and parsed body of a request with this body."""
    headers = {"content-type": "application/json", **dict(target.headers)}
    asked = urllib.request.Request(f"http://{HOST}:{target.port}{target.path}", content, headers)
    try:
        with urllib.request.urlopen(asked, timeout=timeout) as answer:  # noqa: S310  loopback
            return answer.status, answer.headers, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode(errors="replace")


def vectors(answer):
    """Return the vectors of an answer, in base64 or as numbers, as float32 by index."""
    rows = [row["embedding"] for row in sorted(answer["data"], key=lambda row: row["index"])]
    decode = lambda row: np.frombuffer(base64.b64decode(row), "<f4") if isinstance(row, str) else row  # noqa: E731
    return np.array([decode(row) for row in rows], np.float32)


def tree(root):
    """Return the ids of a process and its descendants."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text("ascii", "replace").rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
    found = [root]
    for one in found:
        found.extend(pid for pid, parent in parents.items() if parent == one)
    return found


def _cpu(pid):
    """Return the CPU seconds of a process and of its children that ended."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def _proportional_mb(pid):
    """Return the resident memory of a process; of shared pages its part alone."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


@dataclass
class Server:
    """A command that serves HTTP on a port of loopback."""

    name: str
    command: list
    port: int
    ready: str = "/health"
    headers: tuple = ()
    model: str = "text-embedding-3-small"
    path: str = "/v1/embeddings"
    environment: dict = field(default_factory=dict)
    process: subprocess.Popen | None = None

    def start(self):
        """Start the process, without waiting for it."""
        self.log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self.process = subprocess.Popen(
            list(map(str, self.command)),
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **self.environment},
            start_new_session=True,
        )
        return self

    def wait_ready(self, seconds=START_S):
        end = time.monotonic() + seconds
        while fetch(self.port, self.ready, dict(self.headers))[0] != 200:
            if self.process.poll() is not None or time.monotonic() > end:
                state = f"ended with {self.process.poll()}" if self.process.poll() is not None else "is not ready"
                self.stop()
                raise SystemExit(f"{self.name} {state}:\n{self.log_tail()}")
            time.sleep(0.1)
        return self

    def log_tail(self):
        self.log.seek(0)
        return self.log.read()[-3000:]

    def stop(self):
        """Stop the process and its children: SIGTERM, and SIGKILL after a while."""
        pids = self.pids()
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_S)
        for pid in pids:
            if self.process.poll() is None or pid != self.process.pid:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def kill(self, pids=None):
        """Kill all processes, or those that were listed before, with SIGKILL at once."""
        for pid in self.pids() if pids is None else pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def pids(self):
        return tree(self.process.pid)

    def total(self, measure):
        found = 0.0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                found += measure(pid)
        return found

    def cpu_seconds(self):
        return self.total(_cpu)

    def resident_mb(self):
        return self.total(_proportional_mb)

    def descriptors(self):
        return int(self.total(lambda pid: len(os.listdir(f"/proc/{pid}/fd"))))  # noqa: PTH208  only their number

    def target(self, **headers):
        return Target(self.port, (*self.headers, *headers.items()), self.model, self.path)


@contextlib.contextmanager
def running(servers):
    """Start servers, wait until all are ready, and stop them at the end."""
    started = []
    try:
        started.extend(server.start() for server in servers)
        for server in servers:
            server.wait_ready()
        yield servers
    finally:
        for server in started:
            if server.process.poll() is None:
                server.stop()


def loopback(**options):
    """Return the loopback service; options as on its command line."""
    port = free_port()
    command = [sys.executable, Path(__file__).with_name("loopback.py"), "--port", port]
    for name, value in options.items():
        command += [f"--{name}", value]
    return Server("direct", command, port)


def own_folders(folder):
    """Return variables that keep state, cache and weights of a process below a folder of its own."""
    names = ("XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")
    return {name: str(Path(folder) / name) for name in names}


def embedway(name, folder, settings, *, workers=1, model="text-embedding-3-small", environment=None, headers=()):
    """Return embedway's gateway with a settings file of this content; its state is below the folder."""
    place = Path(folder) / name.replace(" ", "-")
    place.mkdir(parents=True, exist_ok=True)
    file = place / "embedway.toml"
    file.write_text(settings, encoding="utf-8")
    port = free_port()
    command = [sys.executable, "-m", "embedway", "-c", file, "serve", "--host", HOST, "--port", port]
    variables = {**own_folders(place), **(environment or {})}
    return Server(
        name,
        [*command, "--workers", workers],
        port,
        "/health/ready",
        tuple(headers),
        model,
        environment=variables,
    )


def command(server, *arguments):
    """Run another command of embedway with the settings and the state of a gateway. Returns its standard output."""
    program = [*map(str, server.command[: server.command.index("serve")]), *arguments]
    environment = {**os.environ, **server.environment}
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout


def create_key(server, name):
    """Create an API key for a gateway and return it."""
    return command(server, "keys", "create", name).strip()


def route_settings(upstream_port, *, ledger="none", cache="none", more=""):
    """Return settings of one route to the loopback service."""
    return f"""
[embedding]
default_model = "text-embedding-3-small"
[cache]
backend = "{cache}"
[ledger]
backend = "{ledger}"
[upstream]
concurrency = 64
[routes.loopback]
model = "text-embedding-3-small"
provider = "openai-compatible"
base_url = "http://{HOST}:{upstream_port}/v1"
options = {{ encoding = "base64", max_inputs = 2048 }}
{more}
"""


def machine_line():
    """Return the CPU and the date, for the heading of results."""
    from embedway.local import cpu

    facts = cpu.facts()
    return f"{facts.name}, {facts.cores} cores; {time.strftime('%Y-%m-%d')}"
