"""Sessions of models that a forked process inherits."""

import os
import subprocess
import sys

import pytest

CODE = """
import gc, os, sys, threading
from pathlib import Path
import numpy as np
from embedway.local.backend import SessionOptions, open_session
from embedway.local.recipe import read_recipe

recipe = read_recipe(Path(sys.argv[2]), name="m", weights_sha256="0" * 64, facts=None)
options = SessionOptions(sys.argv[1], "f32", 1, 2)
session, ones = open_session(recipe, options), np.ones((4, 64), np.int32)
here = session.run(ones, ones)
if os.fork() == 0:
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
    print(os.waitstatus_to_exitcode(os.wait()[1]), (session.run(ones, ones) == here).all())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_forked_process_can_close_sessions_of_its_parent(backend, tokenizer):
    done = subprocess.run(
        [sys.executable, "-c", CODE, backend, tokenizer.parent], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.split("\n"), done.stderr) == (["True", "closed", "0 True", ""], "")
