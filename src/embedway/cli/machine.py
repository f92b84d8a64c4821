"""Facts about this machine, for `embedway doctor`."""

import os
import platform
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from embedway.local import cpu

#: CPU instructions that decide the speed of matrix multiplication, by their Linux names.
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
    limit = _number(r"^(\d+)$", _read("/sys/fs/cgroup/memory.max"))
    if limit is not None and total is not None and limit < total:
        left = limit - (_number(r"^(\d+)$", _read("/sys/fs/cgroup/memory.current")) or 0)
        total, available = limit, left if available is None else min(available, left)
    return total, available


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that embedway writes to, or would create."""

    path: str
    exists: bool
    writable: bool
    free_bytes: int | None


def inspect_folder(path: Path) -> Folder:
    """Inspect a folder, or its nearest existing parent, without leaving files behind."""
    nearest = path
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    try:
        # Permission bits are wrong for root and on a read-only disk, so try to write.
        with tempfile.TemporaryFile(dir=nearest):
            writable = True
    except OSError:
        writable = False
    try:
        free = shutil.disk_usage(nearest).free
    except OSError:
        free = None
    return Folder(path=str(path), exists=path.is_dir(), writable=writable, free_bytes=free)
