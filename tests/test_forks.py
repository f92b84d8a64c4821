"""Forks beside native libraries, SQLite files and other threads."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

IMPORTS = """
import contextlib, gc, os, sys, threading
from pathlib import Path
import numpy as np
from embedway import Config, Embedder
from embedway.local.backend import SessionOptions, open_session
from embedway.local.recipe import read_recipe

def code(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""

INHERITED = """
recipe = read_recipe(Path(sys.argv[2]), name="m", weights_sha256="0" * 64, facts=None)
options = SessionOptions(sys.argv[1], "f32", 1, 2)
session, ones = open_session(recipe, options), np.ones((4, 64), np.int32)
here = session.run(ones, ones)
if (child := os.fork()) == 0:
    # These threads get the stacks of the threads that do not exist here.
    blocked = threading.Event()
    for _ in range(60):
        threading.Thread(target=blocked.wait, daemon=True).start()
    own = open_session(recipe, options)
    print(np.allclose(own.run(ones, ones), here, atol=1e-5), flush=True)
    own.close()
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
        own = open_session(recipe, options)
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


def run(script, *arguments, **variables):
    """Run a script in a process, and return its output. A hang ends it."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS + script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **variables},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_forked_process_can_close_sessions_of_its_parent(backend, tokenizer):
    assert run(INHERITED, backend, tokenizer.parent) == ["True", "closed", "0 True"]


def test_a_process_forks_while_it_computes(tokenizer):
    assert run(BUSY, "openvino", tokenizer.parent) == ["True"]


def test_two_threads_fork_at_once(default_model_directory, tmp_path):
    assert run(AT_ONCE, default_model_directory, tmp_path) == ["True [1, 1]"]


def test_a_parallel_tokenizer_works_in_a_forked_process(default_model_directory, tmp_path):
    lines = run(PARALLEL, default_model_directory, tmp_path, TOKENIZERS_PARALLELISM="true")
    assert lines == ["True", "0 true"]
