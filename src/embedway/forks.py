"""Native libraries and forked processes: what a child cannot use, and what it must not free.

A forked process has only the thread that forked. The other threads of a library do not exist there, and what they did
stays half done.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

#: Native objects with threads. Their destructors end these threads.
_native: weakref.WeakSet[Any] = weakref.WeakSet()
#: Libraries whose threads work for all their objects: those in use here, and those that were in use before a fork.
_used: set[str] = set()
_lost: set[str] = set()


def at_fork(**functions: Callable[[], object]) -> None:
    """Register functions as `os.register_at_fork` does, by `before`, `after_in_parent` and `after_in_child`."""
    if hasattr(os, "register_at_fork"):  # Windows has no fork
        os.register_at_fork(**functions)


def never_free(thing: object) -> None:
    """Keep an object until the process ends. Unlike a global reference, it is also kept while Python finalizes."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def keep_in_forked_processes(native: Any) -> None:
    """Never free an object, such as a session of a model, in a process that is forked while it exists.

    Its threads do not exist there. Their stacks are reused, so its destructor would wait for other threads, or abort
    the process ("pthread_detach has failed", oneTBB).
    """
    _native.add(native)


def mark_used(library: str) -> None:
    """Remember that a library is in use, and lost to processes that are forked from now on."""
    _used.add(library)


def is_lost(library: str) -> bool:
    """Return whether a library was in use when this process was forked. Its next call may hang or crash."""
    return library in _lost


def _after_fork_in_child() -> None:
    _lost.update(_used)
    for native in list(_native):
        never_free(native)
    # The parent's threads of the tokenizers library do not exist here. It uses none unless this variable requests them.
    if os.environ.get("TOKENIZERS_PARALLELISM"):
        os.environ["TOKENIZERS_PARALLELISM"] = "false"


at_fork(after_in_child=_after_fork_in_child)
