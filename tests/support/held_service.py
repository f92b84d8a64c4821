"""Embedding service on loopback that holds requests until a test lets it answer."""

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
    """The service: `arrived` counts received requests; `going` lets it answer all, also later ones.

    The first `free` requests are answered at once, and later ones with the status `fault`, if one is given. `texts` are
    those of all requests, `answered` those of good answers.
    """

    def __init__(self, free=0, fault=None):
        self.free, self.fault = free, fault
        self.arrived = threading.Semaphore(0)
        self.going = threading.Event()
        self.texts, self.answered = [], []
        lock = threading.Lock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_POST(self):
                texts = json.loads(self.rfile.read(int(self.headers["content-length"])))["input"]
                with lock:
                    service.texts.extend(texts)
                    service.free -= 1
                    is_free = service.free >= 0
                service.arrived.release()
                if not is_free and service.fault:
                    self.send_error(service.fault)
                    return
                if not is_free:
                    service.going.wait(PATIENCE_S)
                if is_free or not service.is_closed:
                    service.answered.extend(texts)
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
        self.is_closed = False
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def wait(self):
        """Wait until one more request has arrived."""
        assert self.arrived.acquire(timeout=PATIENCE_S)

    def close(self):
        """Answer what is held, and stop."""
        self.is_closed = True
        self.going.set()
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def held_service(free=0, fault=None):
    """Run the service."""
    service = HeldService(free, fault)
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
