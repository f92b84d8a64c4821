"""A loopback service that answers with real vectors of all-MiniLM-L6-v2, and changes on request."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from drift_faults import WIDTH, unchanged
from embedway import Config
from embedway.providers.fake import vector_of


class DriftingServer:
    """The service. `fault` changes the rows of each answer; with `prompt`, texts get a prompt; with `status`, it fails.

    `requests` contains the texts of each request.
    """

    def __init__(self, vectors):
        self.known, self.fault, self.prompt, self.status = vectors, unchanged, "", 200
        self.requests = []
        self._lock = threading.Lock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_POST(self):
                texts = json.loads(self.rfile.read(int(self.headers["content-length"])))["input"]
                answer = json.dumps(service.answer(texts)).encode()
                with contextlib.suppress(OSError):  # the client may be gone
                    self.send_response(service.status)
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, texts):
        with self._lock:
            self.requests.append(tuple(texts))
        if self.status != 200:
            return {"error": {"message": "down"}}
        rows = np.stack([self._vector_of(text) for text in texts])
        rows = [
            {"index": row, "embedding": vector.tolist()} for row, vector in enumerate(self.fault(rows, tuple(texts)))
        ]
        return {"data": rows, "usage": {"total_tokens": sum(len(text) // 3 + 1 for text in texts)}}

    def _vector_of(self, text):
        known = self.known.get(self.prompt + text)
        return vector_of(text, WIDTH) if known is None else known

    @property
    def texts(self):
        return sum(map(len, self.requests))

    def close(self):
        self._server.shutdown()
        self._server.server_close()


def settings_of(servers, folder):
    """Return settings with a paid model whose routes r0, r1, ... lead to these services."""
    return {
        "models": {
            "m": {
                "name": "acme/m",
                "dimensions": WIDTH,
                "max_tokens": 512,
                "tokenizer": "estimate",
                "price_usd_per_million_tokens": "1",
            }
        },
        "routes": {
            f"r{number}": {
                "model": "acme/m",
                "provider": "openai-compatible",
                "base_url": server.url,
                "api_key": "x",
                "options": {"verify": False},
            }
            for number, server in enumerate(servers)
        },
        "embedding": {"default_model": "acme/m"},
        "ledger": {"path": str(folder / "ledger.sqlite")},
        "cache": {"backend": "none"},
        "upstream": {"max_attempts": 1},
    }


def config_of(servers, folder, **more):
    """Return these settings, with others by dotted name."""
    return Config.load(environ={}, overrides={**settings_of(servers, folder), **more})
