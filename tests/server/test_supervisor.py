"""Processes that cannot start: an error that another start would not heal ends the gateway at once, once."""

import json
import os
import subprocess
import sys

import pytest

from embedway.errors import ConfigError, LedgerError, RuntimeUnavailableError, UsageError
from embedway.server.heartbeats import FAILED, read_failure, send_failure

PROGRAM = """
import json, os, sys
from embedway import errors
from embedway.server.supervisor import Child, Supervisor

kind, message, count = json.loads(sys.argv[1])

def run(heartbeat, lifeline):
    os.write(1, b"run\\n")  # whole: the supervisor may end this process between two writes
    raise getattr(errors, kind)(message)

children = [Child(f"worker {number}", run) for number in range(count)]
try:
    sys.exit(Supervisor(children, 1.0, lambda: print("ready"), lambda: print("end")).run())
except errors.EmbedwayError as error:
    print(type(error).__name__, error)
    sys.exit(error.exit_code)
"""


def supervised(kind, message="no", count=1):
    """Run processes that raise an error at their start; return exit code, output and log."""
    command = [sys.executable, "-c", PROGRAM, json.dumps([kind, message, count])]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return ended.returncode, ended.stdout.splitlines(), ended.stderr


@pytest.mark.parametrize("kind", ["ConfigError", "UsageError"])
def test_a_wrong_setting_ends_the_gateway_with_its_error_once(kind):
    code, lines, log = supervised(kind, "a setting is wrong", count=3)
    assert code == 2
    assert lines.count(f"{kind} a setting is wrong") == 1
    assert 1 <= lines.count("run") <= 3  # none twice
    assert "ready" not in lines
    assert log == ""


def test_an_error_longer_than_a_read_of_the_pipe_is_whole():
    message = "x" * 20_000
    assert supervised("ConfigError", message)[1][-1] == f"ConfigError {message}"


def test_an_error_that_may_pass_is_tried_again():
    code, lines, log = supervised("LedgerError", "no connection")
    assert (code, lines.count("run")) == (1, 3)
    assert log.count("LedgerError: no connection") == 3


def test_only_errors_that_another_start_does_not_heal_are_sent():
    reading, writing = os.pipe()
    try:
        assert not send_failure(writing, LedgerError("no connection"))
        assert not send_failure(writing, ValueError("a fault"))
        assert send_failure(writing, RuntimeUnavailableError("a library is missing"))
        assert str(read_failure(os.read(reading, 4096))) == "a library is missing"
        assert send_failure(writing, ConfigError("wrong", where="a.toml", key="server.port"))
        error = read_failure(b"ss" + os.read(reading, 4096))
    finally:
        os.close(reading)
        os.close(writing)
    assert isinstance(error, ConfigError)
    assert str(error) == "a.toml: server.port: wrong"


@pytest.mark.parametrize("message", [b"", b"ssr", FAILED, FAILED + b"cut"])
def test_what_is_no_error_is_none(message):
    assert read_failure(message) is None


def test_an_error_that_was_cut_is_none():
    reading, writing = os.pipe()
    try:
        send_failure(writing, UsageError("wrong"))
        whole = os.read(reading, 4096)
    finally:
        os.close(reading)
        os.close(writing)
    assert all(read_failure(whole[:size]) is None for size in range(len(whole)))
