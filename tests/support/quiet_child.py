"""Process without Internet access: `quiet_child.py [--no-ipv6] REPORT SCRIPT ARGUMENT…` runs a script.

A seccomp filter kills the process, and every child of it, if any code in any language makes an IPv4 or IPv6 socket.
With `--no-ipv6`, an IPv6 socket fails with EAFNOSUPPORT instead, as on a machine without IPv6. Audit hooks write the
processes that Python code starts to REPORT, one per line.
"""

import ctypes
import errno
import os
import platform
import runpy
import signal
import socket
import struct
import sys
from pathlib import Path

#: Exit code of a process that the filter killed.
KILLED = -signal.SIGSYS
#: From linux/audit.h, and the number of the system call `socket`.
_ARCHITECTURES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 22, 38, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_KILL_PROCESS, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
#: Offsets in seccomp_data.
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_STARTS = ("subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system")


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def supported():
    """Return whether this system has filters that kill."""
    actions = Path("/proc/sys/kernel/seccomp/actions_avail")
    try:
        return "kill_process" in actions.read_text("ascii").split() and platform.machine() in _ARCHITECTURES
    except OSError:
        return False


def forbid_internet(*, no_ipv6=False):
    """Install the filter for this thread and for all threads and processes that it starts."""
    architecture, number = _ARCHITECTURES[platform.machine()]
    for_ipv6 = _ERRNO | errno.EAFNOSUPPORT if no_ipv6 else _KILL_PROCESS
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_IF_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_IF_EQUAL, 0, 5, number),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_JUMP_IF_EQUAL, 0, 1, socket.AF_INET),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_JUMP_IF_EQUAL, 0, 1, socket.AF_INET6),
        (_RETURN, 0, 0, for_ipv6),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = b"".join(struct.pack("=HBBI", *step) for step in steps)
    program = _Program(len(steps), code)
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    zero = ctypes.c_ulong(0)
    if prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero) or prctl(
        _PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(program), zero, zero
    ):
        raise OSError(ctypes.get_errno(), "no seccomp filter can be installed")


def tell_of_processes(path):
    """Write each process that Python code starts to a file."""
    # Written to a descriptor: a hook that opens files would call itself.
    report = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def hook(event, arguments):
        if event in _STARTS:
            os.write(report, f"{event} {str(arguments)[:200]}\n".encode())

    sys.addaudithook(hook)


def main():
    no_ipv6 = sys.argv[1] == "--no-ipv6"
    report, script, *arguments = sys.argv[1 + no_ipv6 :]
    forbid_internet(no_ipv6=no_ipv6)
    tell_of_processes(report)
    sys.argv = [script, *arguments]
    # Remove this file's folder, so that it does not change the script's imports.
    del sys.path[0]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
