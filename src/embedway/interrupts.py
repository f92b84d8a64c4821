"""Signals that end the program: SIGINT (Ctrl-C), SIGTERM and SIGHUP.

The first signal cancels the running task, or raises `Interrupted` in the main thread, so that work is cleaned up in
order. A thread ends the process if that takes too long, or at a second signal. It reads signals from the interpreter's
wakeup descriptor, because no handler runs while the main thread is in C code.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from embedway import unfinished, watchdog
from embedway.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

T = TypeVar("T")

#: Maximum time for a clean end, in seconds.
GRACE_S = 1.2
#: Time after the first signal in which others are the same request, in seconds: `timeout` sends each twice.
SAME_S = 0.1
#: Maximum wait for a commit, in seconds.
COMMIT_S = 10.0
#: Times of the watchdog, slightly longer, because it acts only if the thread cannot.
_LIMITS = watchdog.Limits(GRACE_S + 0.3, SAME_S, COMMIT_S + 0.3)

_NAMES = {"SIGINT": "Ctrl-C", "SIGTERM": "SIGTERM", "SIGHUP": "SIGHUP"}
#: Signals that end the program, with their names in messages.
_SIGNALS = {getattr(signal, name): shown for name, shown in _NAMES.items() if hasattr(signal, name)}


class Interrupted(BaseException):
    """A signal ends the program. It is no Exception and no KeyboardInterrupt, so that no library catches it."""


@dataclass(eq=False, slots=True)
class _Program:
    """State of the program: at most one per process."""

    #: First signal.
    received: int | None = None
    #: Returns what is stored and how to continue.
    explain: Callable[[], str] = lambda: "nothing was done yet"
    #: Whether the work is complete, so that the exit code is 0.
    is_complete: Callable[[], bool] = lambda: False
    cancel: Callable[[], object] | None = None
    #: Whether the command has ended, so that a signal need not wait for anything.
    ended: bool = False
    watchdog: watchdog.Watchdog | None = None
    leaving: threading.Lock = field(default_factory=threading.Lock)
    #: Held after the task was cancelled.
    cancelling: threading.Lock = field(default_factory=threading.Lock)

    def handle(self, number: int, _frame: object = None) -> None:
        """Begin to end the program, at the first signal. Called in the main thread; `watch` handles later signals."""
        if self.received is not None:
            return
        self.received = number
        if self.ended:
            self.leave()
        # An exception in a finalizer or callback would be printed.
        sys.unraisablehook = lambda _: None
        if self.cancel is not None:
            self.cancel_once()
        elif not unfinished.is_committing():
            raise Interrupted

    def cancel_once(self) -> None:
        """Cancel the running task, if there is one. Any thread may call it."""
        cancel = self.cancel
        if cancel is not None and self.cancelling.acquire(blocking=False):
            with contextlib.suppress(RuntimeError):  # its loop has ended
                cancel()

    def raise_if_received(self) -> None:
        """Raise `Interrupted` after a signal."""
        if self.received is not None and self.cancel is None:
            raise Interrupted

    def watch(self, *descriptors: int) -> None:
        """End the process `GRACE_S` after the first signal, or at the second one. Runs in a thread.

        The next descriptor is read if one has ended, such as that of a watchdog that was killed.
        """
        number, descriptor = next((found, one) for one in descriptors if (found := _first_signal(one)))
        began = time.monotonic()
        # The main thread may have begun to wait for its event loop just before the signal; its handler runs after that.
        if self.cancel is not None:
            self.received = number
            self.cancel_once()
        while (left := began + GRACE_S - time.monotonic()) > 0 and select.select([descriptor], [], [], left)[0]:
            if not os.read(descriptor, 1):
                time.sleep(max(0.0, began + GRACE_S - time.monotonic()))
            elif time.monotonic() - began > SAME_S:
                break
        self.received = number
        self.leave()

    def leave(self) -> NoReturn:
        """Clean up, print what is stored, and end the process without waiting for threads."""
        self.leaving.acquire()  # never released: another thread that leaves waits until the process has ended
        number = self.received or signal.SIGTERM
        code = 128 + number
        with contextlib.suppress(BaseException):
            unfinished.wait_for_commits(COMMIT_S)
            unfinished.clean_up()
            code = 0 if self.is_complete() else code
            _write_message(f"stopped by {_SIGNALS[number]}", self.explain())
        # The watchdog is not ended here: until the process ends, another thread may take the interpreter's lock.
        os._exit(code)


_program = _Program()


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Handle signals in the block, which is the whole program. After a signal, the end of the block ends the process.

    A signal that is ignored stays ignored, as with `nohup`. Use it in the main thread only.
    """
    if not _is_installed():
        _install()
    try:
        yield
    finally:
        _program.ended = True
        if _program.received is None and _program.watchdog is not None:
            _program.watchdog.close()
        if _program.received is not None:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
            _program.leave()


def open_missing_descriptors() -> None:
    """Open the null device on descriptors 0, 1 and 2 that are closed.

    Otherwise, the next file that is opened, such as the cache, gets the number, and output is written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number
            if opened == number:
                os.set_inheritable(opened, True)
            else:
                os.close(opened)


def hand_over() -> None:
    """Leave signals to the command for the rest of the program: a server ends in its own way."""
    if not _is_installed():
        return
    signal.set_wakeup_fd(-1)
    if _program.watchdog is not None:
        _program.watchdog.close()
        _program.watchdog = None
    _restore_handlers()


def explain(kept: str | Callable[[], str], *, is_complete: Callable[[], bool] = lambda: False) -> None:
    """Set the text, or a function that returns it, about what is stored and how to continue after a signal.

    `is_complete` returns whether all work is done, so that a stopped program has the exit code 0.
    """
    _program.explain = (lambda: kept) if isinstance(kept, str) else kept
    _program.is_complete = is_complete


async def cancellable(work: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine that a signal cancels. If it then ends early, the process ends."""
    import asyncio  # noqa: PLC0415  heavy, and not needed for every command

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is not None and _is_installed():
        _program.cancel = lambda: loop.call_soon_threadsafe(task.cancel)
    try:
        return await work
    except asyncio.CancelledError:
        if _program.received is not None:
            # Not by return to `asyncio.run`, which waits for the threads of the default executor.
            _program.leave()
        raise
    finally:
        _program.cancel = None


def _first_signal(descriptor: int) -> int:
    """Wait for a signal that ends the program; return 0 at the end of the file."""
    while data := os.read(descriptor, 1):
        # Other signals that have a handler are sent to the interpreter's wakeup descriptor, too.
        if data[0] in _SIGNALS:
            return data[0]
    return 0


def _is_installed() -> bool:
    return any(signal.getsignal(number) == _program.handle for number in _SIGNALS)


def _install() -> None:
    numbers = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    unfinished.call_after_commits(_program.raise_if_received)
    if os.name == "nt":  # pipes cannot be wakeup descriptors there
        for number in numbers:
            signal.signal(number, _program.handle)
        return
    open_missing_descriptors()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        _program.watchdog = watchdog.start(reading, {number: _SIGNALS[number] for number in numbers}, _LIMITS)
        if _program.watchdog is not None:
            unfinished.listen(_program.watchdog.send_event)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, _program.handle)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.register_at_fork(after_in_child=_uninstall)
    descriptors = (reading,) if _program.watchdog is None else (_program.watchdog.signals, reading)
    threading.Thread(target=_program.watch, args=descriptors, name="embedway-signals", daemon=True).start()


def _uninstall() -> None:
    """Restore the default handlers in a forked child: a signal to the child must not end its parent."""
    signal.set_wakeup_fd(-1)
    if _program.watchdog is not None:
        os.close(_program.watchdog.pipe)
        _program.watchdog = None
    _restore_handlers()


def _restore_handlers() -> None:
    for number in _SIGNALS:
        if signal.getsignal(number) == _program.handle:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _write_message(*lines: str) -> None:
    """Write lines to standard error, unless that would block."""
    try:
        terminal = os.isatty(2)
        if not select.select([], [2], [], 0)[1]:
            return
        text = "".join(f"embedway: {printable(line)}\n" for line in "\n".join(lines).splitlines() if line)
        # After the terminal's `^C`, and a progress bar that hid the cursor.
        start = "\r\x1b[2K\x1b[?25h" if terminal and "rich.live" in sys.modules else "\n" if terminal else ""
        os.write(2, (start + text).encode("utf-8", "replace"))
    except OSError:
        pass  # the terminal is gone
