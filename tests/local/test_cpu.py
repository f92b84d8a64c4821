"""Facts of a CPU, read from a simulated system."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.local import cpu


def started():
    """`platform.processor` starts `uname` here."""
    raise AssertionError("a process was started to inspect the CPU")


XEON = "processor\t: 0\nmodel name\t: Xeon(R) @ 2.1GHz\nflags\t\t: fpu avx512f amx_bf16\npower management:\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Read the facts of a system with these files, on which this process may use these logical CPUs."""
    monkeypatch.setattr(cpu, "Path", lambda path: tmp_path / path.removeprefix("/"))
    monkeypatch.setattr(cpu.platform, "processor", started)
    monkeypatch.setattr(cpu.platform, "machine", lambda: "riscv64")

    def read(cpus=(0, 1), **files):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(cpus), raising=False)
        for name, text in files.items():
            path = tmp_path / {"cpuinfo": "proc/cpuinfo", "quota": "sys/fs/cgroup/cpu.max"}[name]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return cpu.facts.__wrapped__()

    return read


@pytest.fixture
def siblings(tmp_path):
    """Return the sibling lists of Linux, by CPU number."""

    def put(lists):
        for number, text in enumerate(lists):
            folder = tmp_path / f"sys/devices/system/cpu/cpu{number}/topology"
            folder.mkdir(parents=True)
            (folder / "thread_siblings_list").write_text(f"{text}\n")

    return put


def facts(*flags, name="x", cores=1):
    return cpu.CpuFacts(name, frozenset(flags), cores=cores, schedulable=cores)


def test_name_and_flags_are_those_of_the_first_cpu(machine):
    second = XEON.replace("Xeon(R) @ 2.1GHz", "Other").replace("amx_bf16", "sse")
    found = machine(cpuinfo=f"{XEON}\n{second}")
    assert (found.name, found.flags) == ("Xeon(R) @ 2.1GHz", {"fpu", "avx512f", "amx_bf16"})


def test_a_system_without_facts_is_named_by_its_machine(machine):
    assert machine() == cpu.CpuFacts("riscv64", frozenset(), cores=2, schedulable=2)
    assert machine(cpuinfo="hart: 0\nno colon here\n").name == "riscv64"


@pytest.mark.parametrize(
    ("flag", "bf16"), [("amx_bf16", True), ("avx512_bf16", True), ("avx512f", False), ("amx_int8", False)]
)
def test_what_multiplies_bfloat16(flag, bf16):
    assert facts("fpu", flag).bf16 == bf16


@pytest.mark.parametrize(
    ("cpus", "lists", "cores"),
    [
        ((0, 1, 2, 3), ("0,2", "1,3", "0,2", "1,3"), 2),
        ((0, 2), ("0,2", "1,3", "0,2", "1,3"), 1),
        ((0, 1), ("0,2", "1,3", "0,2", "1,3"), 2),
        ((0, 1, 2), (), 3),
    ],
    ids=["all", "one core", "two cores", "unknown"],
)
def test_a_second_thread_of_a_core_does_not_count(machine, siblings, cpus, lists, cores):
    siblings(lists)
    assert machine(cpus).cores == machine(cpus).schedulable == cores


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", 4),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("1000 100000", 1),
        ("800000 100000", 4),
        ("", 4),
        ("max", 4),
    ],
)
def test_a_containers_limit_bounds_cores_and_not_where_they_are(machine, quota, cores):
    found = machine((0, 1, 2, 3), quota=f"{quota}\n")
    assert (found.cores, found.schedulable) == (cores, 4)


@pytest.mark.parametrize(("count", "cores"), [(6, 6), (None, 1)])
def test_systems_that_know_no_affinity(machine, monkeypatch, count, cores):
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    machine()
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cpu.facts.__wrapped__().cores == cores


@given(name=st.text(max_size=40), cores=st.integers(1, 256))
def test_a_key_is_a_plain_folder_name(name, cores):
    key = facts(name=name, cores=cores).key
    assert Path(key).name == key
    assert key.isascii()
    assert set(key) <= set("-") | {letter for letter in key if letter.isalnum()}
    assert not key.startswith("-")


def test_keys_differ_by_what_a_choice_depends_on():
    keys = {facts().key, facts(cores=2).key, facts("amx_bf16").key, facts(name="y").key}
    assert len(keys) == 4
    assert facts(name="Xeon(R) @ 2.1GHz", cores=4).key == "Xeon-R-2-1GHz-4-f32"
