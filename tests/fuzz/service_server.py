"""A service on the loopback that plays the behaviours of a mix, and keeps its own bill.

The bill is what the server did: which texts arrived, which rows it computed, which answers it sent completely, and the
tokens that it reported. It is not what a client may conclude from that.
"""

import asyncio
import base64
import contextlib
import functools
import gzip
import hashlib
import json
import math
from dataclasses import dataclass, field

import numpy as np
from service_behaviours import (
    BAD,
    BAD_ROWS,
    BAD_SCORES,
    EMBEDDING,
    FAILING_TEXT,
    FINAL,
    INDEX,
    INDEXES,
    LOADING,
    MANY_TEXTS,
    MANY_TOKENS,
    PASSING,
    RATES,
    REFUSED_TEXT,
    SPOILING_ROWS,
    USAGES,
    Fault,
)

WIDTH = 8
#: Wires on which the client receives a complete answer.
_COMPLETE = frozenset(
    {"whole", "chunks", "byte-order mark", "gzip", "text/plain", "no content type", "spaces", "close", "slow"}
)
#: Gemini's provider puts them before the texts.
_GEMINI_PROMPTS = ("title: none | text: ", "task: search result | query: ")


@functools.lru_cache(100_000)
def vector_of(text, space="right"):
    """Return the vector of a text, of length 1, in one of two spaces."""
    seed = list(hashlib.sha256(f"{space}:{text}".encode()).digest())
    numbers = np.random.default_rng(seed).normal(size=WIDTH)
    return (numbers / np.linalg.norm(numbers)).astype(np.float32)


def score_of(query, document):
    """Return the score of a document, between 0 and 1."""
    return int.from_bytes(hashlib.sha256(f"{query}|{document}".encode()).digest()[:4], "big") / 2**32


def tokens_of(text):
    """Estimate tokens as docs/providers.md says: a digit, or three other bytes, are one token."""
    others = [byte for byte in text.encode() if not 48 <= byte <= 57]
    return len(text.encode()) - len(others) + math.ceil(len(others) / 3)


@dataclass
class Served:
    """One received request, and what became of it."""

    number: int
    route: str
    texts: tuple[str, ...]
    #: Our own estimate of its tokens, and that of the query for each document.
    tokens: int
    #: Name of the behaviour, and how it may be booked: `free`, `maybe`, `computed`, or a usage's effect.
    fate: str = "unanswered"
    money: str = "computed"
    #: Tokens that were reported in an answer whose vectors can be used.
    reported: int = 0
    #: Texts whose right rows were sent in a complete answer.
    good: frozenset[str] = frozenset()
    #: Requests that had arrived when the answer was complete. Later ones must not repeat the good texts.
    answered_before: int | None = None
    #: Whether the client closed the connection before or after the answer, as it does when a request is cancelled.
    dropped: bool = False
    #: Whether the answer was written, and the server then closed the connection: the client may not have read it.
    written: bool = False
    ended: bool = False


@dataclass
class Bill:
    """All requests of a mix, in the order of arrival."""

    served: list[Served] = field(default_factory=list)
    #: Credentials that did not belong to the route.
    strange_keys: list[str] = field(default_factory=list)


class OddServer:
    """An HTTP server that plays one mix at a time. `play` is called before each mix; the bill is that of the mix."""

    def __init__(self):
        self.bill = Bill()
        self.mix = None
        self.connections = set()
        self.on_request = lambda number: None
        self.on_refused_key = lambda route: None
        #: Whether the client closes all connections now.
        self.closing = False
        self._routes = {}
        self._keys = {}
        self._server = None

    @contextlib.asynccontextmanager
    async def running(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**24)
        self.port = self._server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self._server.close()
            for task in tuple(self.connections):
                task.cancel()
            await asyncio.gather(*self.connections, return_exceptions=True)

    def play(self, mix, keys):
        """Play a mix from now on, with the keys of its routes."""
        self.mix, self.bill, self.closing = mix, Bill(), False
        self._routes = {route.name: route for route in mix.routes}
        self._keys = dict(keys)
        self._left = {route.name: list(route.faults) for route in mix.routes}
        self._loading = {route.name: route.loading_for for route in mix.routes}
        self._once = {(route.name, text) for route in mix.routes for text, _, kind in route.poison if kind == "once"}

    def close(self):
        """Note that the client closes all connections now."""
        self.closing = True
        for served in self.bill.served:
            served.dropped |= not served.written

    def url(self, route):
        """Return the base URL of a route, also of one that cannot be reached."""
        plain = f"//127.0.0.1:{self.port}/{route.name}/v1"
        return {
            "": f"http:{plain}",
            "closed port": f"http://127.0.0.1:1/{route.name}/v1",
            "TLS on a plain port": f"https:{plain}",
        }.get(route.unreachable, "https://embeddings.example.com/v1")

    async def _serve(self, reader, writer):
        task = asyncio.current_task()
        self.connections.add(task)
        own = []
        try:
            while await self._serve_one(reader, writer, own):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            if own and not self.closing:
                own[-1].dropped = True
        finally:
            self.connections.discard(task)
            writer.close()

    async def _serve_one(self, reader, writer, own):
        """Answer a request, and add it to those of the connection; return whether the connection stays open."""
        first = await reader.readexactly(1)
        if first == b"\x16":  # the start of TLS
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            return False
        head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        if head[0].startswith("CONNECT"):
            kinds = {route.unreachable for route in self._routes.values()}
            for status in ("403", "407"):
                if f"proxy {status}" in kinds:
                    writer.write(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())
            return False
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        headers["key"] = headers.get("x-goog-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        name = head[0].split(" ")[1].split("/")[1]
        if name not in self._routes:
            return False
        route, body = self._routes[name], json.loads(body)
        query, texts = body.get("query", ""), _texts_of(body)
        each = tokens_of(query) if query else 0
        served = Served(len(self.bill.served), route.name, texts, sum(tokens_of(text) + each for text in texts))
        self.bill.served.append(served)
        own.append(served)
        self.on_request(served.number)
        await asyncio.sleep(0)
        return await self._answer(route, headers, query, served, writer)

    async def _answer(self, route, headers, query, served, writer):
        served.fate, fault = self._fault(route, headers, served)
        answer = None
        if fault.body is None and fault.wire not in {"reset", "closed"}:
            answer = self._good(route, query, served)
        served.money = fault.money if fault.money != "good" else USAGES[route.usage].effect
        is_open = await self._send(fault, answer, headers, served.texts, writer)
        served.written, served.ended = True, not is_open
        if served.fate == "good":
            self._note_good(route, served)
        return is_open

    def _note_good(self, route, served):
        poison = dict(self._poison_now(route, served))
        served.good = frozenset(text for text in served.texts if text not in poison)
        wrong = INDEXES[route.index].effect == "wrong" and (len(served.texts) > 1 or "from" in route.index)
        if wrong or route.space != "right" or any(kind in SPOILING_ROWS for kind in poison.values()):
            # The client may refuse the answer as a whole.
            served.good, served.money = frozenset(), "bad"
        self._once -= {(route.name, text) for text in served.texts}
        served.answered_before = len(self.bill.served)

    def _poison_now(self, route, served):
        """Return the texts whose rows are bad in this answer, with the kinds."""
        return [
            (text, kind)
            for text, kind, times in route.poison
            if text in served.texts and (times == "always" or (route.name, text) in self._once)
            if kind in BAD_ROWS or kind in SPOILING_ROWS or kind in BAD_SCORES
        ]

    def _fault(self, route, headers, served):
        """Return the name and the fault of this request; a good answer is a fault without a body."""
        if headers["key"] != self._keys[route.name]:
            self.bill.strange_keys.append(headers["key"])
            self.on_refused_key(route.name)
            return "401", FINAL["401"]
        if route.final:
            return route.final, FINAL[route.final]
        if route.loading and self._loading[route.name] > 0:
            self._loading[route.name] -= 1
            return "loading", LOADING[route.loading]
        found = self._refusal(route, served) or self._fault_of_text(route, served)
        if found is None and self._left[route.name]:
            name = self._left[route.name].pop(0)
            found = (name, {**PASSING, **BAD}[name]) if name else None
        return found or ("good", Fault(headers=RATES[route.rates], wire=route.wire, money="good"))

    def _refusal(self, route, served):
        """Return the refusal of a request over the server's limits, or None."""
        if route.max_texts and len(served.texts) > route.max_texts:
            return "many texts", _filled(MANY_TEXTS[route.many_texts], len(served.texts), route.max_texts)
        if route.max_tokens and served.tokens > route.max_tokens and len(served.texts) > 1:
            return "many tokens", _filled(MANY_TOKENS[route.many_tokens], served.tokens, route.max_tokens)
        return None

    def _fault_of_text(self, route, served):
        """Return the fault of the whole request because of one of its texts, or None."""
        kinds = {**FAILING_TEXT, **REFUSED_TEXT}
        for text, kind, times in route.poison:
            is_now = times == "always" or (route.name, text) in self._once
            if text in served.texts and kind in kinds and is_now:
                self._once.discard((route.name, text))
                return f"text: {kind}", kinds[kind]
        return None

    def _good(self, route, query, served):
        """Return the good answer, with the odd rows and the odd usage of the route."""
        texts = served.texts
        rerank = self.mix.task == "rerank"
        bad = dict(self._poison_now(route, served))
        if rerank:
            rows = [{INDEX: row, "relevance_score": score_of(query, text)} for row, text in enumerate(texts)]
            for row in rows:
                kind = bad.get(texts[row[INDEX]])
                if kind:
                    row["relevance_score"] = BAD_SCORES[kind]
        else:
            rows = [self._row(route, number, text, bad.get(text)) for number, text in enumerate(texts)]
        rows = INDEXES[route.index].change(rows)
        served.reported = round(served.tokens * route.usage_factor)
        usage = USAGES[route.usage]
        report = usage.report(served.reported)
        served.reported = usage.booked(served.reported)
        if self.mix.provider in {"cohere", "gemini"}:
            return _listed(self.mix.provider, rows, (report or {}).get("total_tokens"))
        answer = {"object": "list", "model": "m", _list_name(self.mix): rows}
        return answer if report is None else {**answer, "usage": report}

    def _row(self, route, number, text, bad):
        vector = vector_of(text, route.space)
        written = base64.b64encode(vector.tobytes()).decode() if route.base64 else [float(one) for one in vector]
        if bad:
            written = {**BAD_ROWS, **SPOILING_ROWS}[bad](vector, written)
        return {"object": "embedding", INDEX: number, EMBEDDING: written}

    async def _send(self, fault, answer, headers, texts, writer):
        """Send an answer in the form of its wire; return whether the connection stays open."""
        if fault.wire == "reset":
            writer.transport.abort()
            return False
        if fault.wire == "closed":
            return False
        words = {"{text}": texts[0] if texts else "", "{key}": headers["key"], "{word}": self.mix.word}

        def fill(text):
            for name, value in words.items():
                text = text.replace(name, value)
            return text

        body = _spoiled(answer, fault.wire) if answer is not None else fault.body
        data = body if isinstance(body, bytes) else fill(body if isinstance(body, str) else json.dumps(body)).encode()
        own = {"Content-Type": "application/json"} | {name: fill(value) for name, value in fault.headers.items()}
        for part in _written(fault, own, data):
            writer.write(part)
            await writer.drain()
            if fault.wire == "slow":
                await asyncio.sleep(0.002)
        return fault.wire in _COMPLETE and fault.wire != "close"


def _texts_of(body):
    """Return the texts of a request, without the prompts of a provider."""
    parts = [one["content"]["parts"][0]["text"] for one in body.get("requests", ())]
    for prompt in _GEMINI_PROMPTS:
        parts = [text.removeprefix(prompt) for text in parts]
    return tuple(parts or body.get("input") or body.get("texts") or body.get("documents") or ())


def _list_name(mix):
    return "results" if mix.task == "rerank" and mix.provider != "voyage" else "data"


def _listed(provider, rows, tokens):
    """Return an answer without indexes, whose rows are in the order of the texts."""
    values = [row[EMBEDDING] for row in rows]
    if provider == "gemini":
        usage = {} if tokens is None else {"usageMetadata": {"promptTokenCount": tokens}}
        return {"embeddings": [{"values": value} for value in values], **usage}
    usage = {} if tokens is None else {"meta": {"billed_units": {"input_tokens": tokens}}}
    return {"embeddings": {"float": values}, **usage}


def _filled(fault, given, limit):
    body = fault.body
    if not isinstance(body, bytes):
        text = json.dumps(body).replace("{given}", str(given)).replace("{limit}", str(limit))
        body = json.loads(text)
    return Fault(fault.status, body, fault.headers, fault.wire, fault.money)


def _spoiled(answer, wire):
    """Return the answer with a fault of the whole answer."""
    if wire not in {"a row less", "a row more", "zeros", "NaN literals"}:
        return answer
    number = 0.0 if wire == "zeros" else float("nan")

    def spoil(value):
        if not isinstance(value, list) or not value:
            return {key: spoil(inner) for key, inner in value.items()} if isinstance(value, dict) else value
        if wire == "a row less":
            return value[:-1]
        if wire == "a row more":
            return [*value, value[-1]]
        return [_with_number(row, number) for row in value]

    return {key: spoil(value) for key, value in answer.items()}


def _with_number(row, number):
    """Return a row whose numbers are replaced."""
    if not isinstance(row, dict):
        return [number] * WIDTH
    changed = {key: [number] * WIDTH for key in (EMBEDDING, "values") if key in row}
    return {**row, **(changed or {"relevance_score": float("nan")})}


def _written(fault, headers, data):
    """Return the parts of the response, in the form of its wire."""
    wire = fault.wire
    if wire == "byte-order mark":
        data = b"\xef\xbb\xbf" + data
    elif wire == "spaces":
        data = b" \r\n" + data + b"\n\n"
    elif wire == "text/plain":
        headers["Content-Type"] = "text/plain; charset=utf-8"
    elif wire == "no content type":
        del headers["Content-Type"]
    elif wire in {"gzip", "cut gzip", "lying gzip"}:
        headers["Content-Encoding"] = "gzip"
        data = data if wire == "lying gzip" else gzip.compress(data, 1)
        data = data[: len(data) // 2] if wire == "cut gzip" else data
    chunked = wire in {"chunks", "cut chunks", "no last chunk"}
    headers |= {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(len(data))}
    if wire == "close":
        headers["Connection"] = "close"
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {fault.status} Odd\r\n{lines}\r\n".encode()
    middle = len(data) // 2
    if wire == "cut":
        return [head + data[:middle]]
    if not chunked:
        return [head, data[:middle], data[middle:]] if wire == "slow" else [head + data]
    whole = b"%x\r\n%b\r\n" % (len(data), data)
    return [
        head + {"chunks": whole + b"0\r\n\r\n", "cut chunks": whole[: len(whole) // 2], "no last chunk": whole}[wire]
    ]
