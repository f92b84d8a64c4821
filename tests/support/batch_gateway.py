"""A small gateway with files and batches, and a computation whose answers are known."""

import asyncio
import contextlib
import hashlib
import json
import threading
import time

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from embedway.server.batches.api import BatchApi
from embedway.server.batches.computing import Answer
from embedway.server.batches.runner import BatchRunner, RunnerSettings
from embedway.server.batches.values import BatchLimits
from embedway.server.caller import Caller

QUICK = RunnerSettings(lines_at_once=8, part_lines=4, poll_s=0.05, watch_s=0.05)


def caller_named(name):
    return Caller(key_name=name, tenant=name)


def answer_to(body):
    """Return the answer to a body: a function of the body alone, as the online API's is."""
    written = json.dumps(body, sort_keys=True)
    digest = hashlib.sha256(written.encode()).hexdigest()
    return json.dumps({"object": "list", "data": [digest], "model": body.get("model"), "usage": {"total_tokens": 3}})


class FakeCompute:
    """Counts the computations of each input. `behave(body)` may return another answer, wait, or raise."""

    def __init__(self, behave=None):
        self.behave = behave
        self.inputs = []
        self.callers = set()
        self.running = self.most_running = 0

    async def __call__(self, caller, body):
        self.inputs.append(body["input"])
        self.callers.add(caller)
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        try:
            await asyncio.sleep(0)
            found = self.behave and await self.behave(body)
            return found or Answer(200, answer_to(body).encode(), None, 3)
        finally:
            self.running -= 1


def request_line(number, text=None, **changes):
    body = {"model": "m", "input": text or f"text {number}"}
    line = {"custom_id": f"id-{number}", "method": "POST", "url": "/v1/embeddings", "body": body}
    return json.dumps({**line, **changes}).encode() + b"\n"


def results_of(content):
    """Return the lines of a file by custom ID; each is there once."""
    lines = [json.loads(line) for line in content.splitlines()]
    found = {line["custom_id"]: line for line in lines}
    assert len(found) == len(lines)
    return found


def expected_results(count):
    return {f"id-{n}": json.loads(answer_to({"model": "m", "input": f"text {n}"})) for n in range(count)}


async def find_caller(name):
    return caller_named(name)


def make_app(store, compute, *, limits=None, settings=QUICK, find=find_caller, runs=True):
    """Return an application whose callers are named by their key."""
    limits = limits or BatchLimits()
    runners = []

    @contextlib.asynccontextmanager
    async def lifespan(app):
        runner = BatchRunner(store, compute, find, limits=limits, settings=settings)
        runners.append(runner)
        if runs:
            runner.start()
        yield
        await runner.aclose()
        await store.aclose()

    def mounted(handler):
        async def endpoint(request):
            key = request.headers.get("authorization", "").removeprefix("Bearer ")
            return await handler(request, caller_named(key))

        return endpoint

    def wake():
        runners[0].wake()

    api = BatchApi(store, limits, wake)
    routes = [Route(one.path, mounted(one.handler), methods=[one.method]) for one in api.routes()]
    return Starlette(routes=routes, lifespan=lifespan)


@contextlib.contextmanager
def serving_batches(app):
    """Run an application in a thread, and yield its URL."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="on", loop="asyncio"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
