"""CPU facts that decide the backend, the precision and the number of threads."""

from __future__ import annotations

import functools
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

#: Linux flags of the instructions that multiply bfloat16 in hardware.
_BF16_FLAGS = {"amx_bf16", "avx512_bf16"}


@dataclass(frozen=True, slots=True)
class CpuFacts:
    """Name, instruction sets and cores of this machine, as reported by the system."""

    name: str
    flags: frozenset[str]
    #: Physical cores that this process may use. A second hyper-thread does not speed up matrix products.
    cores: int
    #: Physical cores that it may be scheduled on. More than `cores` if a container limits CPU time but not CPUs.
    schedulable: int

    @property
    def bf16(self) -> bool:
        """Whether the CPU multiplies bfloat16 matrices in hardware."""
        return bool(self.flags & _BF16_FLAGS)

    @property
    def key(self) -> str:
        """Key of stored choices: letters, digits and dashes."""
        return re.sub(r"[^A-Za-z0-9]+", "-", f"{self.name} {self.cores} {'bf16' if self.bf16 else 'f32'}").strip("-")


@functools.cache
def facts() -> CpuFacts:
    """Return the CPU facts, which are read once."""
    # Fallback name. Only Windows reports the processor without starting `uname`.
    name, flags = platform.processor() if sys.platform == "win32" else platform.machine(), frozenset[str]()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        pairs = (line.split(":", 1) for line in reversed(lines) if ":" in line)
        fields = {key.strip(): value.strip() for key, value in pairs}
        name = fields.get("model name", name)
        flags = frozenset(fields.get("flags", "").split())
    schedulable = _schedulable_cores()
    return CpuFacts(name, flags, cores=max(1, min(schedulable, _quota() or schedulable)), schedulable=schedulable)


def _schedulable_cores() -> int:
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    return len({_core_of(number) for number in os.sched_getaffinity(0)})


def _core_of(number: int) -> str:
    siblings = Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list")
    try:
        return siblings.read_text(encoding="ascii").strip()
    except OSError:
        return str(number)


def _quota() -> int | None:
    """Return the container's CPU limit (cgroup v2), rounded up; None without a limit."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(1, -(-int(limit) // int(period)))
