"""OpenAI's embeddings API on loopback, which answers at once: the service behind the measured gateways.

    python benchmarks/loopback.py --port 8100 [--dimensions 1536] [--rate 100] [--delay 0.05]

Vectors depend on their text alone, have length 1, and differ between texts. Usage counts the words of the texts, which
are tokens of cl100k_base for the texts of `load.py`. `GET /stats` tells what was computed: requests, texts, different
texts and tokens. With `--rate` at most that many texts are answered in a second, in their order, and with `--delay`
and `--each` an answer waits. A request costs about 25 microseconds of CPU.
"""

import argparse
import asyncio
import base64
import math
import struct
from dataclasses import dataclass, field

import httptools
import numpy as np
import orjson
import uvloop
import xxhash

#: Prepared vectors. The first three numbers depend on the text; they are a point on a sphere of this radius.
ROWS, RADIUS = 64, 0.6
MODEL = "text-embedding-3-small"


@dataclass
class Service:
    """Prepared vectors, and counts of what was computed."""

    dimensions: int
    rate: float = 0
    delay: float = 0
    each: float = 0
    requests: int = 0
    texts: int = 0
    tokens: int = 0
    seen: set = field(default_factory=set)
    free_at: float = 0

    def __post_init__(self):
        rest = np.random.default_rng(1).standard_normal((ROWS, self.dimensions - 3)).astype(np.float32)
        rest *= math.sqrt(1 - RADIUS**2) / np.linalg.norm(rest, axis=1, keepdims=True)
        self.encoded = [base64.b64encode(row.astype("<f4").tobytes()) for row in rest]
        self.floats = [b"," + orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)[1:] for row in rest]

    def answer(self, body):
        """Return the JSON of the answer to a request, and the number of its texts."""
        given = orjson.loads(body)
        texts = given["input"] if isinstance(given["input"], list) else [given["input"]]
        encoded = given.get("encoding_format") == "base64"
        parts, tokens = [], 0
        for index, text in enumerate(texts):
            number = xxhash.xxh3_64_intdigest(text.encode())
            self.seen.add(number)
            tokens += text.count(" ") + 1
            parts.append(b'{"object":"embedding","index":%d,"embedding":' % index)
            parts.extend(self._vector(number, encoded=encoded))
            parts.append(b"},")
        parts[-1] = b"}"
        self.requests += 1
        self.texts += len(texts)
        self.tokens += tokens
        end = b'],"model":"%s","usage":{"prompt_tokens":%d,"total_tokens":%d}}' % (MODEL.encode(), tokens, tokens)
        return b'{"object":"list","data":[' + b"".join(parts) + end, len(texts)

    def _vector(self, number, *, encoded):
        height = RADIUS * ((number >> 32) / 2**31 - 1)
        angle, radius = (number & 0xFFFFFFFF) * (math.tau / 2**32), math.sqrt(max(0.0, RADIUS**2 - height**2))
        point = radius * math.cos(angle), radius * math.sin(angle), height
        if encoded:
            return b'"', base64.b64encode(struct.pack("<3f", *point)), self.encoded[number % ROWS], b'"'
        return b"[%.9g,%.9g,%.9g" % point, self.floats[number % ROWS]

    def wait(self, texts, now):
        """Return the seconds until an answer with this number of texts is due."""
        if self.rate:
            self.free_at = max(now, self.free_at) + texts / self.rate
        return self.delay + texts * self.each + max(0.0, self.free_at - now)

    def stats(self):
        counts = {"requests": self.requests, "texts": self.texts, "unique": len(self.seen), "tokens": self.tokens}
        return orjson.dumps(counts)


class Connection(asyncio.Protocol):
    """One connection: answers each request on it."""

    def __init__(self, service, loop):
        self.service, self.loop = service, loop
        self.parser = httptools.HttpRequestParser(self)
        self.url, self.body = b"", []

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            print(f"{error!r}: {error.__context__!r}", flush=True)
            self.transport.close()

    def on_url(self, url):
        self.url += url

    def on_body(self, data):
        self.body.append(data)

    def on_message_complete(self):
        url, body = self.url, b"".join(self.body)
        self.url, self.body = b"", []
        if self.parser.get_method() == b"POST" and url.endswith(b"/embeddings"):
            try:
                answer, texts = self.service.answer(body)
            except (KeyError, AttributeError, ValueError) as error:
                self.reply(b'{"error":{"message":"bad request"}}', b"400 Bad Request")
                print(f"bad request: {error!r}", flush=True)
                return
            wait = self.service.wait(texts, self.loop.time())
            if wait:
                self.loop.call_later(wait, self.reply, answer)
            else:
                self.reply(answer)
        elif url == b"/stats":
            self.reply(self.service.stats())
        elif url.endswith(b"/models"):
            self.reply(b'{"object":"list","data":[{"id":"%s","object":"model","owned_by":"x"}]}' % MODEL.encode())
        else:
            self.reply(b"{}")

    def reply(self, body, status=b"200 OK"):
        head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (status, len(body))
        self.transport.write(head + body)


async def serve(options):
    loop = asyncio.get_running_loop()
    service = Service(options.dimensions, options.rate, options.delay, options.each)
    server = await loop.create_server(lambda: Connection(service, loop), "127.0.0.1", options.port, backlog=4096)
    async with server:
        await server.serve_forever()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--dimensions", type=int, default=1536)
    parser.add_argument("--rate", type=float, default=0, help="maximum texts per second")
    parser.add_argument("--delay", type=float, default=0, help="seconds before each answer")
    parser.add_argument("--each", type=float, default=0, help="further seconds for each text of the request")
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
