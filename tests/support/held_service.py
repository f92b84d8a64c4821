"""Embedding service on loopback that holds every request until a test lets it answer."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from embedway import Config
from embedway.providers.fake import vector_of

WIDTH = 16
#: Limit of each wait in these tests, in seconds; only a fault reaches it.
PATIENCE_S = 60


class HeldService:
    """The service: `arrived` counts received requests; `let_go` answers all, also later ones."""

    def __init__(self):
        self.arrived = threading.Semaphore(0)
        self.going = threading.Event()
        self.texts = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_POST(self):
                texts = json.loads(self.rfile.read(int(self.headers["content-length"])))["input"]
                service.texts.extend(texts)
                service.arrived.release()
                service.going.wait(PATIENCE_S)
                rows = [{"index": row, "embedding": vector_of(text, WIDTH).tolist()} for row, text in enumerate(texts)]
                answer = json.dumps({"data": rows, "usage": {"total_tokens": len(texts)}}).encode()
                with contextlib.suppress(OSError):  # the client may be gone
                    self.send_response(200)
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def wait(self):
        """Wait until one more request has arrived."""
        assert self.arrived.acquire(timeout=PATIENCE_S)

    def close(self):
        """Answer what is held, and stop."""
        self.going.set()
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def held_service():
    """Run the service."""
    service = HeldService()
    try:
        yield service
    finally:
        service.close()


def config_of(url, folder, **more):
    """Return settings with this service as the default model, and with ledger, cache and pins in a folder."""
    return Config.load(
        environ={},
        overrides={
            "models.mine.name": "acme/m",
            "models.mine.dimensions": WIDTH,
            "models.mine.max_tokens": 512,
            "models.mine.tokenizer": "estimate",
            "routes.r.model": "acme/m",
            "routes.r.provider": "openai-compatible",
            "routes.r.base_url": url,
            "embedding.default_model": "acme/m",
            "weights.offline": True,
            "cache.path": folder / "cache.sqlite",
            "ledger.path": folder / "ledger.sqlite",
            "pins.path": folder / "pins.sqlite",
            **more,
        },
    )
