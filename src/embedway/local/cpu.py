"""Facts of this CPU that choose a backend, a precision and a number of threads."""

from __future__ import annotations

import functools
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

#: Linux's names for the instructions that multiply bfloat16 in hardware.
_BF16_FLAGS = {"amx_bf16", "avx512_bf16"}


@dataclass(frozen=True, slots=True)
class CpuFacts:
    """Name, instruction sets and cores of this machine, as far as the system reports them."""

    name: str
    flags: frozenset[str]
    #: Physical cores that this process may use: a second hyper-thread adds nothing to matrix products.
    cores: int
    #: Physical cores that it may be scheduled on; more than `cores` where a container limits time and not place.
    schedulable: int

    @property
    def bf16(self) -> bool:
        """Tell whether matrix products in bfloat16 run in hardware."""
        return bool(self.flags & _BF16_FLAGS)

    @property
    def key(self) -> str:
        """Return the key of stored choices: letters, digits and dashes."""
        return re.sub(r"[^A-Za-z0-9]+", "-", f"{self.name} {self.cores} {'bf16' if self.bf16 else 'f32'}").strip("-")


@functools.cache
def facts() -> CpuFacts:
    """Return the facts, which are read once."""
    # The name where the system has no better one. Only Windows has it without starting `uname`.
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
