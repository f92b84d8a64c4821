"""Python code that is run in a process of its own."""

import contextlib
import os
import signal
import subprocess
import sys

from held_service import PATIENCE_S
from inside import variables


def run_script(code, *arguments, **environment):
    """Run code with arguments, and return the lines of its output. Its process group is always ended afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        env={**variables(), **environment},
    )
    try:
        output, errors = process.communicate(timeout=2 * PATIENCE_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, errors) == (0, "")
    return output.splitlines()
