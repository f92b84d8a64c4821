"""The machine: memory, limits of containers, clock and terminal."""

import datetime as dt
import types

import pytest

from embedway.cli.checks import machine
from embedway.local.cpu import CpuFacts

NOW = dt.datetime(2027, 1, 15, 12, tzinfo=dt.UTC).timestamp()
GB = 2**30


@pytest.fixture
def files(monkeypatch):
    """Replace the files of the system."""
    content = {"/proc/meminfo": "MemTotal:  8388608 kB\nMemAvailable:  4194304 kB\n"}
    monkeypatch.setattr(machine, "_read", lambda path: content.get(path, ""))
    return content


def by_name(findings):
    return {line.name: line for line in findings.lines}


def test_the_memory_of_a_machine_without_limit(files):
    found = machine.inspect_machine()
    assert (found.memory_bytes, found.available_bytes) == (8 * GB, 4 * GB)
    assert machine.memory_limit() == (None, 0)


@pytest.mark.parametrize(
    ("limit", "used"),
    [
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ],
    ids=["v2", "v1"],
)
def test_a_container_limits_memory(files, limit, used):
    files |= {limit: f"{GB}\n", used: f"{GB // 2}\n"}
    found = machine.inspect_machine()
    assert (found.memory_bytes, found.available_bytes) == (GB, GB // 2)
    assert "limited to 1.1 GB of memory, 536.9 MB used" in machine.check_container(None).lines[0].detail
    line = by_name(machine.check_machine(None))["memory"]
    assert line.status == "warning"
    assert "local.token_budget" in line.remedy


def test_no_limit_is_reported(files):
    files["/sys/fs/cgroup/memory.max"] = "max\n"
    assert "no limit" in machine.check_container(None).lines[0].detail


def test_a_container_limits_cores(files, monkeypatch):
    monkeypatch.setattr(machine.cpu, "facts", lambda: CpuFacts("x", frozenset(), cores=2, schedulable=16))
    assert "limited to 2 of 16 cores" in machine.check_container(None).lines[0].detail
    assert "2 usable cores" in by_name(machine.check_machine(None))["cpu"].detail


@pytest.mark.parametrize(
    ("now", "status", "said"),
    [
        (NOW, "ok", "2027-01-15 12:00+00:00"),
        (0.0, "warning", "is before this version was built"),
        (NOW + 60 * 365 * 86_400, "warning", "in a distant future"),
        (1e30, "warning", "1e+30 seconds since 1970"),
    ],
)
def test_an_implausible_clock_is_a_warning(now, status, said):
    line = machine.judge_clock(now)
    assert line.status == status
    assert said in line.detail
    assert (line.remedy != "") == (status == "warning")


def test_the_clock_of_this_machine_is_checked(monkeypatch):
    monkeypatch.setattr(machine.time, "time", lambda: 0.0)
    assert machine.check_clock(None).lines[0].status == "warning"


@pytest.mark.parametrize(
    ("output", "locale", "status"),
    [("utf-8", "UTF-8", "ok"), ("ascii", "UTF-8", "warning"), ("utf-8", "cp1252", "warning"), (None, "UTF-8", "ok")],
)
def test_an_encoding_other_than_utf_8_is_a_warning(monkeypatch, output, locale, status):
    monkeypatch.setattr(machine.sys, "__stdout__", types.SimpleNamespace(encoding=output) if output else None)
    monkeypatch.setattr(machine.sys, "getfilesystemencoding", lambda: "utf-8")
    monkeypatch.setattr(machine.locale, "getpreferredencoding", lambda **_: locale)
    line = machine.check_terminal(None).lines[0]
    assert line.status == status
    assert ("PYTHONUTF8" in line.remedy) == (status == "warning")


def test_python_is_reported():
    assert machine.check_python(None).lines[0].status == "ok"
