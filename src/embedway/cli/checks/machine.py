"""The machine: Python, CPU, memory, limits of containers, clock and terminal."""

from __future__ import annotations

import datetime as dt
import functools
import locale
import os
import platform
import re
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from embedway.cli.checks.base import Finding, Findings
from embedway.cli.output import size
from embedway.local import cpu
from embedway.text import count_of

if TYPE_CHECKING:
    from embedway.cli.checks.base import Setup

#: CPU instructions that decide the speed of matrix multiplication, by their Linux names.
_X86_FLAGS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX512_VNNI",
    "avx512_bf16": "AVX512_BF16",
    "amx_bf16": "AMX_BF16",
    "amx_int8": "AMX_INT8",
}
#: Available memory, in bytes, below which the default model and a batch may not fit.
LITTLE_MEMORY_BYTES = 700_000_000
#: Maximum days by which a correct clock may be after the newest date in the catalog.
_MOST_DAYS = 20 * 365
#: Files that container runtimes create.
_CONTAINER_FILES = ("/.dockerenv", "/run/.containerenv")


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine as this process sees it. Unknown facts are None or empty."""

    system: str
    architecture: str
    cpu: str
    #: Whether the CPU has each relevant flag; empty if the system does not report flags.
    flags: dict[str, bool]
    #: Physical cores that this process may use.
    cores: int
    memory_bytes: int | None
    available_bytes: int | None


def inspect_machine() -> Machine:
    """Return facts about this machine."""
    facts = cpu.facts()
    total, available = _memory()
    return Machine(
        system=f"{platform.system()} {platform.release()}".strip(),
        architecture=platform.machine(),
        cpu=facts.name or "unknown",
        flags={shown: name in facts.flags for name, shown in _X86_FLAGS.items()} if facts.flags else {},
        cores=facts.cores,
        memory_bytes=total,
        available_bytes=available,
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", errors="replace")
    except OSError:
        return ""


def _number(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text, re.MULTILINE)
    return int(found[1]) if found else None


def _memory() -> tuple[int | None, int | None]:
    """Return total and available memory in bytes; a container's limit counts as total."""
    info = _read("/proc/meminfo")
    total, available = (_number(rf"^{name}:\s*(\d+) kB$", info) for name in ("MemTotal", "MemAvailable"))
    total = total * 1024 if total is not None else None
    available = available * 1024 if available is not None else None
    if total is None and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit, used = memory_limit()
    if limit is not None and total is not None and limit < total:
        left = limit - used
        total, available = limit, left if available is None else min(available, left)
    return total, available


def memory_limit() -> tuple[int | None, int]:
    """Return the memory limit of this process's container (cgroup v2 or v1) and the used bytes; None for no limit."""
    limit = _number(r"^(\d+)$", _read("/sys/fs/cgroup/memory.max"))
    if limit is not None:
        return limit, _number(r"^(\d+)$", _read("/sys/fs/cgroup/memory.current")) or 0
    old = "/sys/fs/cgroup/memory/memory"
    return (
        _number(r"^(\d+)$", _read(f"{old}.limit_in_bytes")),
        _number(r"^(\d+)$", _read(f"{old}.usage_in_bytes")) or 0,
    )


# ---------------------------------------------------------------- checks


def check_python(setup: Setup) -> Findings:
    """Report the interpreter."""
    del setup
    shown = f"{platform.python_version()} ({platform.python_implementation()}, {sys.executable})"
    facts = {"python": shown}
    return Findings((Finding("python", "ok", shown),), facts)


def check_machine(setup: Setup) -> Findings:
    """Report system, CPU and memory."""
    del setup
    machine = inspect_machine()
    flags = ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in machine.flags.items())
    cores = count_of(machine.cores, "usable core")
    lines = [
        Finding("system", "ok", f"{machine.system}, {machine.architecture}"),
        Finding("cpu", "ok", f"{machine.cpu}, {cores}" + (f" ({flags})" if flags else "")),
    ]
    total, available = machine.memory_bytes, machine.available_bytes
    shown = "unknown" if total is None else size(total)
    if available is not None:
        shown += f", {size(available)} free"
    if available is not None and available < LITTLE_MEMORY_BYTES:
        detail = f"{shown}: little memory is available"
        lines.append(Finding("memory", "warning", detail, "a smaller local.token_budget uses less"))
    else:
        lines.append(Finding("memory", "ok", shown))
    return Findings(tuple(lines), {"machine": asdict(machine)})


def check_container(setup: Setup) -> Findings:
    """Report the limits of a container, which are below what the machine has."""
    del setup
    facts, (limit, used) = cpu.facts(), memory_limit()
    limits = []
    if facts.cores < facts.schedulable:
        limits.append(f"{facts.cores} of {facts.schedulable} cores")
    total = _number(r"^MemTotal:\s*(\d+) kB$", _read("/proc/meminfo"))
    if limit is not None and (total is None or limit < total * 1024):
        limits.append(f"{size(limit)} of memory, {size(used)} used")
    inside = any(Path(name).exists() for name in _CONTAINER_FILES)
    detail = f"limited to {' and '.join(limits)}" if limits else "no limit of CPU or memory"
    return Findings((Finding("container", "ok", f"{'in a container, ' if inside else ''}{detail}"),))


def check_clock(setup: Setup) -> Findings:
    """Compare the clock with the newest date in the catalog, because budgets and certificates depend on the date."""
    del setup
    return Findings((judge_clock(time.time()),))


def judge_clock(now: float) -> Finding:
    """Return the finding for a time of the clock, in seconds since 1970."""
    try:
        today = dt.datetime.fromtimestamp(now, dt.UTC)
    except (OverflowError, ValueError, OSError):
        return Finding("clock", "warning", f"the clock shows {now:g} seconds since 1970", "set the clock")
    shown = today.isoformat(sep=" ", timespec="minutes")
    days = (today.date() - _newest_date()).days
    if -1 <= days <= _MOST_DAYS:
        return Finding("clock", "ok", shown)
    when = f"before this version was built ({_newest_date()})" if days < 0 else "in a distant future"
    remedy = "set the clock: budgets by day and month are wrong, and certificates seem invalid"
    return Finding("clock", "warning", f"{shown} is {when}", remedy)


@functools.cache
def _newest_date() -> dt.date:
    """Return the newest date in the catalog. This version of the package was built on that day or later."""
    from embedway.catalog import default_catalog
    from embedway.catalog.services import default_services

    sources = [one.sources for one in default_catalog()] + [one.sources for one in default_services().values()]
    return max(source.date for listed in sources for source in listed)


def check_terminal(setup: Setup) -> Findings:
    """Report encodings, because texts and names of files with non-ASCII characters need UTF-8."""
    del setup
    found = {
        "output": getattr(sys.__stdout__, "encoding", None) or "none",
        "file names": sys.getfilesystemencoding(),
        "locale": locale.getpreferredencoding(do_setlocale=False),
    }
    detail = ", ".join(f"{name} {encoding}" for name, encoding in found.items())
    if all(encoding.lower().replace("-", "") == "utf8" for encoding in found.values() if encoding != "none"):
        return Findings((Finding("encoding", "ok", detail),))
    remedy = "set PYTHONUTF8=1, or LANG to a UTF-8 locale such as C.UTF-8"
    return Findings((Finding("encoding", "warning", f"{detail}: some characters cannot be shown or read", remedy),))
