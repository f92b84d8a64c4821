"""Facts about this machine, for `embedway doctor`."""

import os
import platform
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from embedway.local import cpu

#: The instructions that decide how fast a CPU multiplies matrices, by the names that Linux gives them.
_X86_FLAGS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX512_VNNI",
    "avx512_bf16": "AVX512_BF16",
    "amx_bf16": "AMX_BF16",
    "amx_int8": "AMX_INT8",
}


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine as this process sees it. What cannot be read is None or empty."""

    system: str
    architecture: str
    cpu: str
    #: The flags that matter, each with whether the CPU has it; empty where the system does not tell.
    flags: dict[str, bool]
    #: Physical cores that this process may use.
    cores: int
    memory_bytes: int | None
    available_bytes: int | None


def inspect_machine() -> Machine:
    """Look at this machine."""
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
    """Bytes of memory in all and free for use; a container's limit counts as all."""
    info = _read("/proc/meminfo")
    total, available = (_number(rf"^{name}:\s*(\d+) kB$", info) for name in ("MemTotal", "MemAvailable"))
    total = total * 1024 if total is not None else None
    available = available * 1024 if available is not None else None
    if total is None and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _number(r"^(\d+)$", _read("/sys/fs/cgroup/memory.max"))
    if limit is not None and total is not None and limit < total:
        left = limit - (_number(r"^(\d+)$", _read("/sys/fs/cgroup/memory.current")) or 0)
        total, available = limit, left if available is None else min(available, left)
    return total, available


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that we write into, or would make."""

    path: str
    exists: bool
    writable: bool
    free_bytes: int | None


def inspect_folder(path: Path) -> Folder:
    """Look at a folder, or at the nearest one above it that exists. Nothing is left behind."""
    nearest = path
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    try:
        # Permission bits do not tell the truth for root, nor on a disk mounted read-only: write and see.
        with tempfile.TemporaryFile(dir=nearest):
            writable = True
    except OSError:
        writable = False
    try:
        free = shutil.disk_usage(nearest).free
    except OSError:
        free = None
    return Folder(path=str(path), exists=path.is_dir(), writable=writable, free_bytes=free)
