"""Native code and forked processes: calls that a fork waits for, and objects that a child must not free.

A forked process has only the thread that forked. What other threads did inside a native library stays half done there.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from typing import Any

#: Maximum time for which a fork waits for native calls, in seconds. Loading a large model takes longer.
_LONGEST_S = 10.0


class NativeCalls:
    """Context manager of native calls. A fork waits until none is running, and later calls wait for the fork."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = self._forks = 0

    def __enter__(self) -> None:
        with self._changed:
            while self._forks:
                self._changed.wait()
            self._running += 1

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._running -= 1
            self._changed.notify_all()

    def before_fork(self) -> None:
        """Let no call begin, and wait for those that run, up to a limit."""
        with self._changed:
            self._forks += 1
            self._changed.wait_for(lambda: not self._running, _LONGEST_S)

    def after_fork(self) -> None:
        """Let calls begin again."""
        with self._changed:
            self._forks -= 1
            self._changed.notify_all()

    def restart(self) -> None:
        """Forget the calls of threads that do not exist in this process."""
        self.__init__()  # type: ignore[misc]  # also the lock, which such a thread may hold


#: Calls of libraries whose threads work for all sessions. A child crashes if it is forked during one (oneTBB).
native_calls = NativeCalls()
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


def _after_fork_in_child() -> None:
    native_calls.restart()
    for native in list(_native):
        never_free(native)
    # The parent's threads of the tokenizers library do not exist here. It uses none unless this variable requests them.
    if os.environ.get("TOKENIZERS_PARALLELISM"):
        os.environ["TOKENIZERS_PARALLELISM"] = "false"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=native_calls.before_fork,
        after_in_parent=native_calls.after_fork,
        after_in_child=_after_fork_in_child,
    )
