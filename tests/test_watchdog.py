"""The handle of the watchdog process; its work is tested in tests/cli/test_cli_processes.py."""

import os
import subprocess
import sys

import pytest

from embedway.watchdog import Watchdog

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no watchdog")


def test_a_process_that_was_reaped_is_not_killed(monkeypatch):
    """Its number may be another process's by then."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a process was killed"))
    Watchdog(process.pid, -1, -1).close()


def test_a_running_process_is_ended_and_reaped():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    Watchdog(process.pid, -1, -1).close()
    with pytest.raises(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    process.stdin.close()
    process.returncode = -9  # so that its destructor does not wait for it
