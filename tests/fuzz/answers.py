"""Answers of services and hubs that misbehave: mutated JSON, odd headers, sizes and times, broken connections."""

import gzip
import hashlib
import http.client
import json
import random as randoms
import shutil
import socketserver
import threading
import time

import numpy as np
from cases import SECRET, TEXT, Case, WrongResultError
from folders import mutate_bytes, mutate_json

from calls import WORDS, settings, tiny_tokenizer
from embedway import Config, Embedder
from embedway.weights.store import StoreSettings, WeightsStore
from tiny_models import tiny_encoder

WIDE = 8
COMMIT = "1234567890abcdef1234567890abcdef12345678"
TEXTS = [f"{TEXT} {number}" for number in range(3)]
#: Longest time of a call whose deadline is 1.5 s: the machine may be busy.
_LONGEST_S = 15
EMBED = ("openai-compatible", "cohere", "voyage", "jina", "mistral", "gemini", "openai")
RERANK = ("cohere", "voyage", "jina", "openai-compatible")
NUMBERS = [
    "0", "1", "-1", "1.5", "9" * 30, "9" * 400, "9" * 5000, "1764100000", "1e400", "nan", "inf", "-inf", "", " ", "a",
    "1s", "9" * 20 + "d", "1m1s", "1.1.1s", "٣", "0x10", "Wed, 21 Oct 2099 07:28:00 GMT",
    "Mon, 01 Jan 0001 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 -2359", "Thu, 01 Jan 1970 00:00:00", "x" * 7000,
]  # fmt: skip
HEADERS = [
    "Retry-After", "retry-after-ms", "Content-Length", "Content-Type", "Content-Encoding", "Transfer-Encoding",
    "x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens",
    "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests", "Location",
    "Set-Cookie", "ETag", "X-Linked-Etag", "X-Linked-Size", "X-Repo-Commit", "Content-Range", "Connection", "Upgrade",
]  # fmt: skip
WORDS_OF_HEADERS = [
    "gzip", "br", "deflate", "chunked", "identity", "close", "text/html; charset=", "application/json; charset=utf-99",
    "../../x", "http://[", "https://127.0.0.1:99999/", "//", "bytes */5", "bytes 0-", '"' + "0" * 64 + '"',
    '"' + "0" * 40 + '"', 'W/"a"', "\x80\xff", "a\tb", SECRET, TEXT,
]  # fmt: skip


STATUSES = [
    *(f"{status} X" for status in (400, 401, 402, 403, 404, 408, 409, 413, 416, 422, 429, 500, 501, 503, 504, 999, 42)),
    *("200", "204 No Content", "206 Part", "100 Continue", "abc"),
]


class Handler(socketserver.StreamRequestHandler):
    """One connection: read a request, then send what the server's script returns."""

    timeout = 30

    def handle(self):
        try:
            line = self.rfile.readline(65537).decode("latin-1")
            headers = http.client.parse_headers(self.rfile)
            method, path, _ = line.split(" ", 2)
            body = self._body(headers)
            self.server.seen.append((path, dict(headers)))
            for part in self.server.script(method, path, body):
                if isinstance(part, (int, float)):
                    time.sleep(part)
                else:
                    self.wfile.write(part)
        except (OSError, ValueError, http.client.HTTPException):
            return

    def _body(self, headers):
        if headers.get("transfer-encoding"):
            data = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(headers.get("content-length") or 0))


class Server(socketserver.ThreadingTCPServer):
    """Server on the loopback. `script(method, path, body)` yields bytes to send, and seconds to wait."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, request, client_address):
        pass


def vector(text):
    """Return the vector of a text, of length 1."""
    numbers = np.random.default_rng(list(hashlib.sha256(text.encode()).digest())).normal(size=WIDE)
    return numbers / np.linalg.norm(numbers)


def good_answer(kind, request):
    """Return a good answer to a request."""
    texts = request.get("input") or request.get("texts") or request.get("documents")
    if "query" in request:
        results = [{"index": row, "relevance_score": 1 / (row + 2)} for row in range(len(texts))]
        name = "data" if kind == "voyage" else "results"
        return {name: results, "usage": {"total_tokens": 9}, "meta": {"billed_units": {"search_units": 1}}}
    if kind == "gemini":
        texts = [one["content"]["parts"][0]["text"] for one in request["requests"]]
        return {"embeddings": [{"values": vector(text).tolist()} for text in texts]}
    vectors = [vector(text).tolist() for text in texts]
    if kind == "cohere":
        listed = {"float": vectors, "base64": vectors}
        return {"embeddings": listed, "meta": {"billed_units": {"input_tokens": 9}}}
    rows = [{"index": row, "embedding": one, "object": "embedding"} for row, one in enumerate(vectors)]
    return {"object": "list", "data": rows, "model": "m", "usage": {"prompt_tokens": 9, "total_tokens": 9}}


def odd_response(random, body, elsewhere, request):
    """Return the parts of an HTTP response: `body` with a fault."""
    status, headers, wait = "200 OK", {"Content-Type": "application/json"}, 0
    fault = random.choice(
        ["json"] * 6 + ["headers"] * 4 + ["bytes", "status", "size", "time", "encoding", "redirect", "echo"]
    )
    if fault == "json":
        text, _ = mutate_json(random, json.loads(body))
        body = text.encode("utf-8", "surrogatepass")
    elif fault == "bytes":
        body, _ = mutate_bytes(random, body)
        body = random.choice([b"\xef\xbb\xbf", b"", b"\xff\xfe"]) + body
    elif fault in {"status", "echo"}:
        status = random.choice(STATUSES)
        error = {"message": TEXT, "code": random.choice(["insufficient_quota", "a", None, 5, [], SECRET + TEXT])}
        odd = [
            {"error": error},
            error,
            [error],
            {"error": [error]},
            {"detail": TEXT},
            {"error": {"details": [error, 5]}},
        ]
        body = request if fault == "echo" else json.dumps(random.choice(odd)).encode()
    elif fault == "redirect":
        status = random.choice(["301 M", "302 F", "303 S", "307 T", "308 P", "300 M", "304 N"])
        headers["Location"] = random.choice(
            [elsewhere + "/x", "/", "", "ftp://a/", "http://[", "//a:b@c/", "\x80", elsewhere]
        )
    elif fault == "encoding":
        headers["Content-Encoding"] = random.choice(["gzip", "deflate", "br", "zstd", "x", "gzip, gzip"])
        packed = gzip.compress(body)
        bomb = _bomb() if random.random() < 0.1 else packed
        body = random.choice([packed, packed[:-9], body, bomb, packed + b"more", b""])
    for _ in range(random.choice([1, 1, 2, 5]) if fault == "headers" else random.choice([0, 0, 0, 1])):
        headers[random.choice(HEADERS)] = random.choice([*NUMBERS, *WORDS_OF_HEADERS])
    if fault == "headers" and random.random() < 0.3:
        status = random.choice(["429 Many", "503 U", "200 OK"])
    headers.setdefault("Content-Length", str(len(body)))
    if fault == "size":
        return _sizes(random, body, headers)
    head = f"HTTP/1.1 {status}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    data = head.encode("utf-8", "surrogatepass") + body
    if fault == "time":
        cut = random.randrange(len(data))
        drip = [part for at in range(cut, len(data)) for part in (data[at : at + 1], 0.05)]
        return random.choice([[data[:cut], 4], [4, data], [data[:cut]], [data[:cut], *drip], []])
    return [data, wait]


def _sizes(random, body, headers):
    """Return a response whose declared size is wrong, or endless."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    garbage = [
        b"5\r\nabcde\r\n",
        b"zz\r\n",
        b"-5\r\n",
        b"9" * 30 + b"\r\na",
        b"5;" + b"x" * 9000 + b"\r\nabcde\r\n",
        b"\r\n",
    ]
    return random.choice(
        [
            [head, b"\r\n", body],
            [head, b"Content-Length: 5\r\n\r\n", body],
            [head, b"Content-Length: 999999\r\n\r\n", body],
            [head, b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", body],
            [head, b"Content-Length: 99999999999999\r\n\r\n", body],
            [head, b"Content-Length: -1\r\n\r\n", body],
            [head, b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", body],
            [head, b"Transfer-Encoding: chunked\r\n\r\n", random.choice(garbage)],
            [
                head,
                b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
                b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
            ],
            [b"HTTP/1.1 200 OK\r\n", *(b"X-%d: a\r\n" % number for number in range(20_000)), b"\r\n", body],
            [b"HTTP/1.1 200 OK\r\nX: ", b"a" * 2**20, b"\r\n\r\n", body],
            [b"HTTP/1.1 100 Continue\r\n\r\n"] * 5000,
            [random.randbytes(3000)],
            [head, b"\r\n", *([b" " * 2**20] * 60)],
        ]
    )


def _bomb():
    return gzip.compress(bytes(600 * 2**20), 1)


def cases(seed, place):
    """Yield cases without end."""
    random = randoms.Random(seed)
    server, elsewhere = Server(), Server()
    elsewhere.script = lambda method, path, body: [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"]
    tokenizer = tiny_tokenizer(place / "tokenizer")
    repository = tiny_encoder(place / "repository", tokenizer, layers=1, vocab_size=len(WORDS))
    files = {
        path.relative_to(repository).as_posix(): path.read_bytes() for path in repository.rglob("*") if path.is_file()
    }
    number = 0
    while True:
        number += 1
        step = random.getrandbits(64)
        kind = random.choice(["embed", "embed", "embed", "rerank", "hub", "hub"])
        if kind == "hub":
            # A hub receives no texts, and its own words may be repeated.
            yield Case("hub", str(number), lambda s=step: _pull(s, server, elsewhere, place, files), repeats=True)
        else:
            name = random.choice(EMBED if kind == "embed" else RERANK)
            yield Case(
                f"{kind} {name}",
                str(number),
                lambda s=step, k=kind, n=name: _ask(s, k, n, server, elsewhere, place),
            )


def _check_elsewhere(elsewhere):
    told = [path for path, headers in elsewhere.seen if SECRET in str(headers)]
    elsewhere.seen.clear()
    if told:
        raise WrongResultError("credentials were sent to another host")


def _ask(step, task, provider, server, elsewhere, place):
    """Embed or rerank twice: limits that the first answer sets must not stop the second for long."""
    random = randoms.Random(step)
    good = random.choice([0.0, 0.5])

    def script(method, path, body):
        answer = json.dumps(good_answer(provider, json.loads(body))).encode()
        if random.random() < good:
            return [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer), answer]
        return odd_response(random, answer, elsewhere.url, body)

    server.script = script
    model = {
        "models.m.name": "acme/m",
        "models.m.max_tokens": 512,
        "models.m.task": task,
        "models.m.tokenizer": "estimate",
    }
    route = {"model": "acme/m", "provider": provider, "base_url": server.url, "api_key": SECRET}
    limits = {"deadline_s": 1.5, "timeout_s": 0.7, "max_attempts": 2, "first_wait_s": 0.01, "longest_wait_s": 0.02}
    own = {
        **settings(place),
        **model,
        **({"models.m.dimensions": WIDE} if task == "embed" else {}),
        **{f"routes.r.{name}": value for name, value in route.items()},
        **{f"upstream.{name}": value for name, value in limits.items()},
        "ledger.backend": "none",
    }
    partial = random.random() < 0.3
    with Embedder(config=Config.load(environ={}, overrides=own)) as embedder:
        failure = None
        for _ in range(2):
            started = time.monotonic()
            try:
                if task == "embed":
                    _check_rows(provider, embedder.embed(TEXTS, model="acme/m", partial=partial))
                else:
                    embedder.rerank("a", TEXTS, model="acme/m", partial=partial)
            except Exception as error:
                failure = error
            if time.monotonic() - started > _LONGEST_S:
                raise WrongResultError("it ran past its deadline") from failure
        _check_elsewhere(elsewhere)
        if failure is not None:
            raise failure


def _check_rows(provider, result):
    """Raise WrongResultError if a row is the vector of another text."""
    texts = [f"title: none | text: {text}" for text in TEXTS] if provider == "gemini" else TEXTS
    expected = np.array([vector(text) for text in texts])
    for row, found in enumerate(result.vectors):
        # A mutation may change numbers, but no row may have the vector of another text.
        near = set(np.flatnonzero(expected @ found > 0.99))
        if row not in result.errors and near - {row}:
            raise WrongResultError(f"row {row} of {provider}")


def _pull(step, server, elsewhere, place, files):
    """Pull a repository from the hub, which sends good and odd answers."""
    random = randoms.Random(step)
    odd = random.choice([0.1, 0.3, 1.0])
    siblings = [
        {"rfilename": name, "size": len(data), "lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}}
        for name, data in files.items()
    ]
    listing = json.dumps({"sha": COMMIT, "siblings": siblings}).encode()

    def script(method, path, body):
        data = listing if path.startswith("/api/") else files.get(path.partition(COMMIT + "/")[2], b"{}")
        if random.random() > odd:
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Repo-Commit: %s\r\n\r\n" % (len(data), COMMIT.encode())
            return [head, b"" if method == "HEAD" else data]
        if not path.startswith("/api/") and not data.startswith((b"{", b"[")):
            data = b'{"a": [1]}'
        return odd_response(random, data, elsewhere.url, path.encode())

    server.script = script
    root = place / f"store-{step}"
    own = StoreSettings(
        root, hub_endpoint=server.url, hub_token=SECRET, places=("hub",), timeout_s=0.5, retry_wait_s=0.001
    )
    started = time.monotonic()
    try:
        folder = WeightsStore(own).pull_repository("acme/tiny", random.choice([None, COMMIT, "v1"]))
        wrong = [name for name, data in files.items() if name in siblings and (folder.path / name).read_bytes() != data]
        if wrong:
            raise WrongResultError(f"wrong bytes in {wrong}")
    finally:
        shutil.rmtree(root, ignore_errors=True)
    _check_elsewhere(elsewhere)
    if time.monotonic() - started > 120:
        raise WrongResultError("the pull took minutes")
