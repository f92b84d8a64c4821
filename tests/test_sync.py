"""The blocking embedder's thread: closing, the end of the process, and forks, while other threads embed."""

import contextlib
import threading

import pytest

from embedway import ClosedError, Embedder
from held_service import PATIENCE_S, config_of, held_service
from scripts import run_script


@pytest.fixture
def service():
    with held_service() as held:
        yield held


@pytest.fixture
def settings(service, tmp_path):
    return config_of(service.url, tmp_path)


class Caller(threading.Thread):
    """Thread that calls a function, and keeps its result or error."""

    def __init__(self, function, *arguments, **options):
        super().__init__(daemon=True)
        self._call = function, arguments, options
        self.result = None
        self.start()

    def run(self):
        function, arguments, options = self._call
        try:
            self.result = function(*arguments, **options)
        except BaseException as error:  # noqa: BLE001  checked by the test
            self.result = error

    def end(self):
        """Return the result or error of the call."""
        self.join(PATIENCE_S)
        assert not self.is_alive()
        return self.result


def test_closing_ends_the_calls_of_other_threads(service, settings):
    embedder = Embedder(config=settings)
    callers = [Caller(embedder.embed, [text], priority=9) for text in "abc"]
    for _ in callers:
        service.wait()
    assert Caller(embedder.close).end() is None
    for caller in callers:
        assert isinstance(caller.end(), ClosedError)
    with pytest.raises(ClosedError):
        embedder.embed("d")


def test_closing_drains_the_calls_of_other_threads_if_asked(service, settings):
    embedder = Embedder(config=settings)
    caller = Caller(embedder.embed, ["a"])
    service.wait()
    closing = Caller(embedder.close, drain=True)
    refused = Caller(later, embedder).end()
    assert isinstance(refused, ClosedError)
    assert closing.is_alive()
    service.going.set()
    assert closing.end() is None
    assert len(caller.end()) == 1


def test_closing_without_drain_ends_a_drain(service, settings):
    embedder = Embedder(config=settings)
    caller = Caller(embedder.embed, ["a"])
    service.wait()
    closing = Caller(embedder.close, drain=True)
    assert isinstance(Caller(later, embedder).end(), ClosedError)
    embedder.close()
    assert closing.end() is None
    assert isinstance(caller.end(), ClosedError)


def later(embedder):
    """Call until the embedder refuses."""
    while True:
        embedder.pins.list()


@pytest.mark.parametrize("name", ["embed", "collection", "select", "available", "pins", "stats", "plan"])
def test_a_call_beside_closing_ends(settings, service, name):
    service.going.set()
    embedder = Embedder(config=settings)
    calls = {
        "embed": lambda: embedder.embed("a"),
        "collection": lambda: embedder.embed("a", collection="docs"),
        "select": lambda: embedder.select(["a"]),
        "available": embedder.models.available,
        "pins": embedder.pins.list,
        "stats": embedder.cache.stats,
        "plan": lambda: embedder.plan("a"),
    }

    def repeat():
        with contextlib.suppress(ClosedError):
            while True:
                calls[name]()

    callers = [Caller(repeat) for _ in range(4)]
    calls[name]()
    assert Caller(embedder.close).end() is None
    for caller in callers:
        assert caller.end() is None


def test_closing_twice_at_once(settings, service):
    service.going.set()
    embedder = Embedder(config=settings)
    embedder.embed("a")
    for closing in [Caller(embedder.close) for _ in range(4)]:
        assert closing.end() is None


def test_an_unused_embedder_is_closed(settings):
    embedder = Embedder(config=settings)
    embedder.close()
    with pytest.raises(ClosedError):
        embedder.embed("a")


def run(code, *arguments):
    """Run Python code in a process, and return its output."""
    modules = "import os, sys, threading", *(f"from {name} import *" for name in ("embedway", "held_service", "inside"))
    return run_script("\n".join([*modules, code]), *arguments)


EXIT = """
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
def say(line):
    os.write(1, f"{line}\\n".encode())  # at once: threads write at the same time
service = HeldService()
embedder = Embedder(config=config_of(service.url, Path(sys.argv[1])))
def work(text):
    for _ in range(2):
        try:
            embedder.embed(text, priority=9)
        except ClosedError as error:
            say(error)
def start_late():
    try:
        while True:
            embedder.pins.list()
    except ClosedError:
        pass
    try:
        Embedder(config=embedder.config).embed("c")
    except ClosedError as error:
        say(error)
threading.Thread(target=work, args=['a']).start()
threading.Thread(target=start_late).start()
pool = ThreadPoolExecutor(1)
pool.submit(work, 'b')
service.wait()
service.wait()
say("end")
"""


def test_the_end_of_the_process_ends_the_calls_of_other_threads(tmp_path):
    ended = "the embedder was closed before this call ended"
    refused = "the embedder is closed; create a new one"
    first, *others = run(EXIT, tmp_path)
    assert first == "end"
    late = "the process is exiting, so no embedder can start"
    assert sorted(others) == sorted([ended, refused, ended, refused, late])


FORK = """
import asyncio, multiprocessing
config = Config.load(environ={}, overrides={
    "weights.directory": sys.argv[1], "weights.offline": True, "cache.path": sys.argv[2] + "/cache.sqlite",
    "ledger.path": sys.argv[2] + "/ledger.sqlite", "pins.path": sys.argv[2] + "/pins.sqlite", "local.precision": "f32",
    "selection.preset": "fast",
})
closed, unused, used = (Embedder(config=config) for _ in range(3))
asynchronous = AsyncEmbedder(config=config)
closed.close()
here = used.embed(["a", "b"], collection="docs").vectors
asyncio.run(asynchronous.embed("a"))

# Another thread is inside the first call of an embedder when the process forks.
held, going = threading.Event(), threading.Event()
def hold():
    with lock_of(unused):
        held.set()
        going.wait()
threading.Thread(target=hold, daemon=True).start()
held.wait()

def child(queue):
    there = [used.embed(["a", "b"], collection="docs").vectors, unused.embed(["a", "b"]).vectors]
    there.append(asyncio.run(asynchronous.embed(["a", "b"])).vectors)
    try:
        closed.embed("a")
    except ClosedError:
        queue.put([bool((abs(vectors - here) < 1e-5).all()) for vectors in there])

queue = multiprocessing.get_context("fork").Queue()
process = multiprocessing.get_context("fork").Process(target=child, args=[queue])
process.start()
print(queue.get())
process.join()
going.set()
print(process.exitcode, len(used.embed(["a", "c"])))

# The parent closes its files while the child uses them.
closing, closed_now = multiprocessing.Pipe()
process = multiprocessing.get_context("fork").Process(
    target=lambda: print("child", len(used.embed("f", collection="docs")), closed_now.recv(),
                         len(used.embed("g", collection="docs")), flush=True))
process.start()
used.close()
closing.send("closed")
process.join()
used = Embedder(config=config)
print(process.exitcode, used.embed(["f", "g"], collection="docs").receipt.cache_hits, flush=True)  # not by both below

# A worker of a server that loads the program first, as gunicorn --preload: it ends as any process.
if os.fork() == 0:
    print("worker", len(used.embed("d")), flush=True)
else:
    print("parent", os.waitstatus_to_exitcode(os.wait()[1]), len(used.embed("e")))
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="this system has no fork")
def test_a_forked_process_starts_afresh(tmp_path, default_model_directory):
    lines = run(FORK, default_model_directory, tmp_path)
    assert lines == ["[True, True, True]", "0 2", "child 1 closed 1", "0 2", "worker 1", "parent 0 1"]
