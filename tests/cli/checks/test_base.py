"""A check runs alone: whatever it raises, and however long it takes, is one line."""

import threading

import pytest

from embedway.cli.checks.base import Check, Finding, Findings, describe, start


class PanicError(BaseException):
    """Error of a library that is not an `Exception`, as the panic of a Rust library is."""


class UnprintableError(Exception):
    def __str__(self):
        raise RecursionError


def raising(error):
    def run(_):
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ImportError("libfoo.so.1: cannot open shared object file"), "ImportError: libfoo.so.1: cannot open"),
        (ImportError(), "ImportError"),
        (PanicError("called `Option::unwrap()`"), "PanicError: called"),
        (RecursionError("maximum recursion depth exceeded"), "RecursionError: maximum"),
        (MemoryError(), "MemoryError"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (UnprintableError(), "UnprintableError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_error_is_a_line_with_a_remedy(error, said):
    running = start(Check("x", "machine", raising(error), remedy="do this"), None)
    (line,) = running.result().lines
    assert (line.name, line.status, line.remedy) == ("x", "failed", "do this")
    assert line.detail.startswith(f"check x failed: {said}")
    assert type(error).__name__ in running.traceback


def test_a_real_recursion_is_a_line():
    def run(_):
        return run(_)

    (line,) = start(Check("x", "machine", run), None).result().lines
    assert line.detail.startswith("check x failed: RecursionError")


def test_a_check_that_hangs_is_a_line_and_delays_the_report_only_for_its_time():
    never = threading.Event()

    def hang(_):
        never.wait()
        return Findings()

    running = start(Check("x", "machine", hang, limit_s=0.01), None)
    (line,) = running.result().lines
    assert line.detail == "check x failed: no result within 0.01 s"
    assert running.thread.daemon, "a thread that is waited for would keep the process alive"
    assert running.traceback == ""
    never.set()
    running.thread.join()


def test_without_a_thread_a_check_runs_all_the_same(monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    found = Findings((Finding("x", "ok", "fine"),))
    assert start(Check("x", "machine", lambda _: found), None).result() is found
    (line,) = start(Check("y", "machine", raising(OSError("no"))), None).result().lines
    assert line.detail == "check y failed: OSError: no"


def test_no_error_is_described():
    assert describe(None) == "it ended without a result"
