"""Objects of a parent process that a forked process must not free."""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Any

#: Native objects with threads. Their destructors end these threads.
_native: weakref.WeakSet[Any] = weakref.WeakSet()


def never_free(thing: object) -> None:
    """Keep an object until the process ends. Unlike a global reference, it is also kept while Python finalizes."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def keep_in_forked_processes(native: Any) -> None:
    """Never free an object, such as a session of a model, in a process that is forked while it exists.

    Its threads do not exist there. Their stacks are reused, so its destructor would wait for other threads, or abort
    the process ("pthread_detach has failed", oneTBB).
    """
    _native.add(native)


def _after_fork() -> None:
    for native in list(_native):
        never_free(native)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
