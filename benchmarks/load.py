"""Load on a server of OpenAI's embeddings API: closed and open loops, each text only once.

A closed loop keeps a number of requests under way. An open loop sends at fixed moments, whether or not earlier
requests are answered, and measures the time of an answer from the moment at which its request was due, so that a slow
server does not slow down the measurement. `wrk` runs the closed loops of the smallest requests, because it needs less
CPU than Python. The texts consist of 18 words, each of which is one token of cl100k_base and of BERT's tokenizer.
"""

import asyncio
import gc
import itertools
import json
import random
import secrets
import selectors
import shutil
import subprocess
import tempfile
from collections import deque
from typing import NamedTuple

import httptools

_WORDS = (
    "about above after again all and any are as back been before being below between both but by can come could day "
    "did do down each even find first for from get give go good great had has have he her here him his how if in into "
    "is it its just know like line long look made make many may"
)
WORDS = _WORDS.split()
BEGINNING = "how does the server keep its work in order when many people"
#: Words of a text that make it unique: WORDS to this power.
UNIQUE = 6

WRK = """
local words, number, pool = {%(words)s}, 0, 0
local start, head, tail
function init(args)
  start, pool, head, tail = tonumber(args[1]), tonumber(args[2]), args[3], args[4]
  number = 0
  wrk.method = "POST"
  wrk.headers["content-type"] = "application/json"
  for row = 5, #args, 2 do wrk.headers[args[row]] = args[row + 1] end
end
function request()
  local rest = start + (pool > 0 and number %% pool or number)
  number = number + 1
  local parts = {}
  for place = 1, %(unique)d do
    parts[place] = words[rest %% #words + 1]
    rest = math.floor(rest / #words)
  end
  return wrk.format(nil, nil, nil, head .. table.concat(parts, " ") .. tail)
end
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('\\nRESULT {"answers": %%d, "failed": %%d, "seconds": %%.6f, "p50": %%.6f, "p99": %%.6f}\\n',
    summary.requests, errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    summary.duration / 1e6, latency:percentile(50) / 1e6, latency:percentile(99) / 1e6))
end
"""


class Target(NamedTuple):
    """Address of a server, and what each request to it contains."""

    port: int
    headers: tuple[tuple[str, str], ...] = ()
    model: str = "text-embedding-3-small"
    path: str = "/v1/embeddings"


class Answer(NamedTuple):
    """One request: when it was due, how long its answer took, its status (0: none) and whether it says when to retry.

    Times are seconds; `due` is since the start of the run.
    """

    due: float
    seconds: float
    status: int
    retry_after: bool


def new_start():
    """Return a number from which on no other run makes its texts."""
    return secrets.randbelow(2**35)


def text(number):
    """Return the text of a number, as the script of `wrk` makes it."""
    words = []
    for _ in range(UNIQUE):
        number, place = divmod(number, len(WORDS))
        words.append(WORDS[place])
    return f"{BEGINNING} {' '.join(words)}"


def texts(start=None):
    """Yield different texts without end."""
    return map(text, itertools.count(new_start() if start is None else start))


def body(given, model, **more):
    return json.dumps({"model": model, "input": given, "encoding_format": "base64", **more}).encode()


def request(target, content):
    """Return the bytes of a request."""
    lines = (
        f"POST {target.path} HTTP/1.1",
        f"host: 127.0.0.1:{target.port}",
        "content-type: application/json",
        f"content-length: {len(content)}",
        *(f"{name}: {value}" for name, value in target.headers),
    )
    return "\r\n".join((*lines, "", "")).encode() + content


def requests(target, given=None, **more):
    """Yield requests of one new text each, or of the given texts or lists of texts."""
    for one in texts() if given is None else given:
        yield request(target, body(one, target.model, **more))


def percentile(values, share):
    """Return the value below which this share of the values is, the nearest rank; infinite without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("inf")


def wrk(target, connections, seconds, *, pool=0, start=None):
    """Run `wrk` with new texts, or with the same `pool` texts again and again. Returns its summary."""
    if shutil.which("wrk") is None:
        raise SystemExit("this benchmark needs wrk: apt-get install wrk")
    script = WRK % {"words": ", ".join(f'"{word}"' for word in WORDS), "unique": UNIQUE}
    head, _, tail = body(f"{BEGINNING} *", target.model).decode().partition("*")
    url = f"http://127.0.0.1:{target.port}{target.path}"
    headers = itertools.chain.from_iterable(target.headers)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", file.name, url, "--"]
        numbers = (str(new_start() if start is None else start), str(pool))
        done = subprocess.run([*command, *numbers, head, tail, *headers], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.partition("RESULT ")[2])


class _Connection(asyncio.Protocol):
    """One connection with at most one request under way."""

    def __init__(self, finished):
        self.finished = finished
        self.parser = httptools.HttpResponseParser(self)
        self.due = self.content = None
        self.body = []
        self.retry_after = self.closed = False

    def connection_made(self, transport):
        self.transport = transport

    def send(self, content, due):
        self.due, self.content, self.body, self.retry_after = due, content, [], False
        self.transport.write(content)

    def data_received(self, data):
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def on_header(self, name, _):
        self.retry_after = self.retry_after or name.lower() == b"retry-after"

    def on_body(self, data):
        self.body.append(data)

    def on_message_complete(self):
        self.closed = not self.parser.should_keep_alive()
        self._finish(self.parser.get_status_code())

    def connection_lost(self, _):
        self.closed = True
        self._finish(0)

    def _finish(self, status):
        if self.due is not None:
            due, self.due = self.due, None
            self.finished(self, due, status)


class _Run:
    """The connections and answers of one run."""

    def __init__(self, port, limit):
        self.port, self.limit = port, limit
        self.loop = asyncio.get_running_loop()
        self.start = self.loop.time() + 0.02
        self.idle, self.waiting, self.opening, self.open = [], deque(), set(), set()
        self.answers = []
        self.more = self.keep = None

    async def connect(self):
        try:
            _, made = await self.loop.create_connection(lambda: _Connection(self.finished), "127.0.0.1", self.port)
        except OSError:
            if self.waiting:
                self.note(self.waiting.popleft()[1], 0)
            return
        self.open.add(made)
        self.release(made)

    def begin(self, content, due):
        """Send a request on a free connection, a new one, or the next one that is free."""
        while self.idle:
            connection = self.idle.pop()
            if not connection.closed:
                connection.send(content, due)
                return
            self.open.discard(connection)  # the server closed it meanwhile
        self.waiting.append((content, due))
        if len(self.open) + len(self.opening) < self.limit:
            task = self.loop.create_task(self.connect())
            self.opening.add(task)
            task.add_done_callback(self.opening.discard)

    def release(self, connection):
        if connection.closed:
            self.open.discard(connection)
            if self.waiting:
                self.begin(*self.waiting.popleft())
        elif self.waiting:
            connection.send(*self.waiting.popleft())
        else:
            self.idle.append(connection)

    def note(self, due, status, retry_after=False):
        self.answers.append(Answer(due - self.start, self.loop.time() - due, status, retry_after))

    def finished(self, connection, due, status):
        self.note(due, status, connection.retry_after)
        if self.keep is not None:
            self.keep[connection.content] = b"".join(connection.body)
        if connection.closed:
            connection.transport.close()
        self.release(connection)
        if self.more is not None:
            self.more()

    async def drain(self, seconds):
        """Wait for the answers under way; a request that has none in this time is noted with status 0."""
        self.more = None
        end = self.loop.time() + seconds
        while self.loop.time() < end and (  # noqa: ASYNC110  nothing is measured any more
            self.waiting or any(one.due is not None for one in self.open)
        ):
            await asyncio.sleep(0.02)
        for due in [one.due for one in self.open if one.due is not None] + [due for _, due in self.waiting]:
            self.note(due, 0)
        self.waiting.clear()
        for one in self.open:
            one.due = None
            one.transport.abort()


def run(coroutine, *, precise=True):
    """Run a loop of load. Timers are exact to microseconds, or, for more than 900 connections, to milliseconds."""
    selector = selectors.SelectSelector() if precise else selectors.DefaultSelector()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
            return runner.run(coroutine)
    finally:
        gc.enable()
        gc.unfreeze()


async def open_loop(target, contents, rate, seconds, *, poisson=False, limit=900, drain_s=30):
    """Send `rate` requests per second, evenly spaced or at random moments. Returns the answers."""
    state = _Run(target.port, limit)
    over = asyncio.Event()
    pause = random.Random(1)  # noqa: S311  moments of requests
    due = state.start

    def send_due():
        nonlocal due
        while due <= state.loop.time():
            if due - state.start >= seconds:
                over.set()
                return
            state.begin(next(contents), due)
            due += pause.expovariate(rate) if poisson else 1 / rate
        state.loop.call_at(due, send_due)

    state.loop.call_at(due, send_due)
    await over.wait()
    await state.drain(drain_s)
    return state.answers


async def closed_loop(target, contents, connections, seconds=None, *, keep=None, drain_s=60):
    """Keep `connections` requests under way until the time is over or all are sent. Returns answers and seconds.

    A dictionary `keep` gets the body of the answer to each request.
    """
    contents = iter(contents)
    state = _Run(target.port, connections)
    state.start, state.keep = state.loop.time(), keep
    ended = asyncio.Event()

    def more():
        now = state.loop.time()
        content = next(contents, None) if seconds is None or now - state.start < seconds else None
        if content is None:
            ended.set()
        else:
            state.begin(content, now)

    state.more = more
    for _ in range(connections):
        more()
    await ended.wait()
    await state.drain(drain_s)
    return state.answers, max(answer.due + answer.seconds for answer in state.answers)
