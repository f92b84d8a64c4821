"""Forks beside native libraries, SQLite files and other threads."""

import os

import pytest

from embedway import Config, Embedder
from embedway.errors import RuntimeUnavailableError
from scripts import run_script

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

IMPORTS = """
import contextlib, gc, os, sys, threading
from pathlib import Path
import numpy as np
from embedway import Config, Embedder
from embedway.errors import RuntimeUnavailableError
from embedway.local.backend import SessionOptions, open_session
from embedway.local.recipe import read_recipe

def code(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""

INHERITED = """
recipe = read_recipe(Path(sys.argv[2]), name="m", weights_sha256="0" * 64, facts=None)
options = SessionOptions(sys.argv[1], "f32", 1, 2)
other = SessionOptions("onnxruntime", "f32", 1, 2)
session, ones = open_session(recipe, options), np.ones((4, 64), np.int32)
here = session.run(ones, ones)
if (child := os.fork()) == 0:
    # These threads get the stacks of the threads that do not exist here.
    blocked = threading.Event()
    for _ in range(60):
        threading.Thread(target=blocked.wait, daemon=True).start()
    own = open_session(recipe, other)
    print(np.allclose(own.run(ones, ones), here, atol=1e-5), flush=True)
    own.close()
    with contextlib.suppress(RuntimeUnavailableError):
        print(open_session(recipe, options).options.backend, flush=True)
    session.close()
    gc.collect()
    print("closed", flush=True)
else:
    print(code(child), (session.run(ones, ones) == here).all())
"""

BUSY = """
recipe = read_recipe(Path(sys.argv[2]), name="m", weights_sha256="0" * 64, facts=None)
options = SessionOptions(sys.argv[1], "f32", 1, 2)
session, ones = open_session(recipe, options), np.ones((4, 64), np.int32)
here, done, codes = session.run(ones, ones), threading.Event(), []

def compute():
    while not done.is_set():
        session.run(ones, ones)

threads = [threading.Thread(target=compute) for _ in range(2)]
for thread in threads:
    thread.start()
for _ in range(8):
    if (child := os.fork()) == 0:
        own = open_session(recipe, SessionOptions("onnxruntime", "f32", 1, 2))
        os._exit(0 if np.allclose(own.run(ones, ones), here, atol=1e-5) else 7)
    codes.append(code(child))
done.set()
for thread in threads:
    thread.join()
print(codes == [0] * 8 or codes)
"""

AT_ONCE = """
config = Config.load(environ={}, overrides={
    "weights.directory": sys.argv[1], "weights.offline": True, "cache.path": sys.argv[2] + "/cache.sqlite",
    "ledger.path": sys.argv[2] + "/ledger.sqlite", "pins.path": sys.argv[2] + "/pins.sqlite",
})
embedders, done, codes = [Embedder(config=config) for _ in range(2)], threading.Event(), []

def embed(embedder):
    number = 0
    while not done.is_set():
        number += 1
        embedder.embed([f"{number} {id(embedder)}"])

def fork():
    for _ in range(25):
        if (child := os.fork()) == 0:
            os._exit(0)
        codes.append(code(child))

working = [threading.Thread(target=embed, args=[embedder]) for embedder in embedders]
forking = [threading.Thread(target=fork) for _ in range(2)]
for thread in working + forking:
    thread.start()
for thread in forking:
    thread.join()
done.set()
for thread in working:
    thread.join()
print(codes == [0] * 50, [len(embedder.embed("a")) for embedder in embedders])
"""

PARALLEL = """
config = Config.load(environ={}, overrides={
    "weights.directory": sys.argv[1], "weights.offline": True, "cache.backend": "none",
    "ledger.path": sys.argv[2] + "/ledger.sqlite", "pins.path": sys.argv[2] + "/pins.sqlite",
})
texts, embedder = [f"text {number} " * 5 for number in range(64)], Embedder(config=config)
here = embedder.embed(texts).vectors
if (child := os.fork()) == 0:
    print(np.allclose(embedder.embed(texts).vectors, here, atol=1e-2), flush=True)
else:
    print(code(child), os.environ["TOKENIZERS_PARALLELISM"])
"""


def run(script, *arguments, **environment):
    """Run a script in a process, and return its output."""
    return run_script(IMPORTS + script, *arguments, **environment)


@pytest.mark.parametrize(("backend", "opened"), [("openvino", []), ("onnxruntime", ["onnxruntime"])])
def test_a_forked_process_can_close_sessions_of_its_parent(backend, opened, tokenizer):
    assert run(INHERITED, backend, tokenizer.parent) == ["True", *opened, "closed", "0 True"]


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_process_forks_while_it_computes(backend, tokenizer):
    assert run(BUSY, backend, tokenizer.parent) == ["True"]


@pytest.mark.parametrize("choice", [{"local.backend": "openvino"}, {"local.precision": "bf16"}])
def test_openvino_that_was_in_use_before_a_fork_is_refused(choice, monkeypatch, tmp_path, default_model_directory):
    monkeypatch.setattr("embedway.forks._unusable", {"openvino"})
    places = {"weights.directory": default_model_directory, "cache.backend": "none", "ledger.backend": "none"}
    with (
        Embedder(config=Config.load(environ={}, overrides=places | choice)) as embedder,
        pytest.raises(RuntimeUnavailableError, match="its parent used OpenVINO before the fork: load models only"),
    ):
        embedder.embed("a text")


def test_two_threads_fork_at_once(default_model_directory, tmp_path):
    assert run(AT_ONCE, default_model_directory, tmp_path) == ["True [1, 1]"]


def test_a_parallel_tokenizer_works_in_a_forked_process(default_model_directory, tmp_path):
    lines = run(PARALLEL, default_model_directory, tmp_path, TOKENIZERS_PARALLELISM="true")
    assert lines == ["True", "0 true"]
