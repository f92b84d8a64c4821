"""Resident memory of this process."""

from __future__ import annotations

import os
import sys


def resident_bytes() -> int | None:
    """Return the resident memory; without `/proc` its maximum so far; None on systems that report neither."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:  # noqa: PTH123  faster, and called often
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return _peak_bytes()


def _peak_bytes() -> int | None:
    try:
        import resource  # noqa: PLC0415  POSIX only
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
