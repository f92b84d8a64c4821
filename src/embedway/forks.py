"""Native libraries and forked processes: what a child cannot use, and what it must not free.

A forked process has only the thread that forked. The other threads of a library do not exist there, and their
unfinished work is never completed.
"""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

#: Native objects with threads. Their destructors end these threads.
_native: weakref.WeakSet[Any] = weakref.WeakSet()
#: Libraries whose threads serve all their objects, and which this process or a parent has used.
_used: set[str] = set()
#: Those that a parent process used before the fork.
_unusable: set[str] = set()


def at_fork(**functions: Callable[[], object]) -> None:
    """Register functions as `os.register_at_fork` does, by `before`, `after_in_parent` and `after_in_child`."""
    if hasattr(os, "register_at_fork"):  # Windows has no fork
        os.register_at_fork(**functions)


def never_free(thing: object) -> None:
    """Keep an object until the process ends. Unlike a global reference, it is also kept while Python finalizes."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def never_free_in_forked_processes(native: Any) -> None:
    """Never free an object, such as a session of a model, in a process that is forked while the object exists.

    Its destructor would wait forever for threads that do not exist there (ONNX Runtime), or detach one whose stack
    another thread has got, which aborts the process ("pthread_detach has failed", oneTBB).
    """
    _native.add(native)


def mark_unusable_after_fork(library: str) -> None:
    """Record that this process uses a library. Later forks cannot use it, even after all its objects are freed."""
    _used.add(library)


def is_unusable(library: str) -> bool:
    """Return whether a parent process used a library before the fork. A call of it may then hang or crash."""
    return library in _unusable


def _after_fork_in_child() -> None:
    _unusable.update(_used)
    for native in list(_native):
        never_free(native)
    # The thread pool of the tokenizers library does not exist here, and a parallel call would wait for it. After a
    # fork, the library uses none unless this variable is set.
    if "tokenizers" in sys.modules and os.environ.get("TOKENIZERS_PARALLELISM"):
        os.environ["TOKENIZERS_PARALLELISM"] = "false"


at_fork(after_in_child=_after_fork_in_child)
