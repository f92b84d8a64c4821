"""Watchdog process, which ends this one after a signal if no thread of it can run: code in C may hold the GIL for long.

It is forked before other modules are imported. It reads the signals first and forwards them. Events of `unfinished`
name the temporary files, which it removes.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from embedway import unfinished

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Time that the program has after a second signal, and for its end before SIGKILL, in seconds.
_SHORT_S = 0.2
#: SIGEV_THREAD of Linux: a notification runs a function in a new thread.
_SIGEV_THREAD = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds: for the end after a signal, between two signals that are one request, and for a commit."""

    end_s: float
    same_s: float
    commit_s: float


@dataclass(frozen=True, slots=True)
class Watchdog:
    """The watchdog process. It reads events from `pipe`, and forwards signals to `signals`, one per byte."""

    process: int
    pipe: int
    signals: int

    def send_event(self, event: str, value: str = "") -> None:
        """Send an event of `unfinished`; without effect if the process has ended."""
        with contextlib.suppress(OSError):
            os.write(self.pipe, os.fsencode(f"{event}{value}\0"))

    def close(self) -> None:
        """End the process and wait for it, so that it is no zombie."""
        with contextlib.suppress(OSError):
            # Fails if it has ended and was reaped, so that its number may be another process's.
            if os.waitpid(self.process, os.WNOHANG)[0] == 0:
                os.kill(self.process, signal.SIGKILL)
                os.waitpid(self.process, 0)


def start(signals: int, names: Mapping[int, str], limits: Limits) -> Watchdog | None:
    """Start the process; return None if that is impossible.

    `signals` is the read end of the interpreter's wakeup pipe. `names` contains the signals that end the program. They
    must be blocked.
    """
    queues = _MessageQueues(128 + number for number in names)
    events, pipe = os.pipe()
    forwarded, forwarding = os.pipe()
    os.set_blocking(pipe, False)
    parent = os.getpid()
    try:
        process = os.fork()
    except OSError:
        return None
    if process:
        os.close(events)
        os.close(forwarding)
        queues.listen()
        return Watchdog(process, pipe, forwarded)
    try:
        for number in names:
            signal.signal(number, signal.SIG_IGN)
        _close_all_except({2, signals, events, forwarding, *queues.descriptors})
        _Loop(parent, signals, events, forwarding, names, limits, queues).run()
    finally:
        os._exit(0)


@dataclass(eq=False, slots=True)
class _Loop:
    """The watchdog's own loop: its descriptors, the signal, and the program's temporary files and commits."""

    parent: int
    signals: int
    events: int
    forwarding: int
    names: Mapping[int, str]
    limits: Limits
    queues: _MessageQueues
    #: First signal, its time, and the program's deadline to end.
    first_signal: int = 0
    began: float = 0.0
    due: float = float("inf")
    paths: set[str] = field(default_factory=set)
    commits: int = 0
    partial_event: bytes = b""

    def run(self) -> None:
        """Read signals and events until the program ends, or end it."""
        while True:
            left = max(0.0, self.due - time.monotonic()) if self.first_signal else None
            ready = select.select([self.events, self.signals], [], [], left)[0]
            if self.signals in ready:
                self._read_signals()
            if self.events in ready and not self._read_events():
                return
            if time.monotonic() >= self.due:
                if not self.commits or time.monotonic() >= self.began + self.limits.commit_s:
                    self._end()
                    return
                self.due += _SHORT_S

    def _read_signals(self) -> None:
        """Read and forward signals. Those that do not end the program, but have a handler, are ignored."""
        for number in os.read(self.signals, 1 << 10):
            if number not in self.names:
                continue
            now = time.monotonic()
            if not self.first_signal:
                self.first_signal, self.began, self.due = number, now, now + self.limits.end_s
            elif now - self.began > self.limits.same_s:
                self.due = min(self.due, now + _SHORT_S)
            with contextlib.suppress(OSError):
                os.write(self.forwarding, bytes([number]))

    def _read_events(self) -> bool:
        """Apply all events; return False at the end of the program."""
        data = os.read(self.events, 1 << 16)
        *events, self.partial_event = (self.partial_event + data).split(b"\0")
        for event in map(os.fsdecode, events):
            kind, value = event[0], event[1:]
            if kind in "+-":
                (self.paths.add if kind == "+" else self.paths.discard)(value)
            else:
                self.commits += 1 if kind == "c" else -1
        return bool(data)

    def _end(self) -> None:
        if os.getppid() != self.parent:
            return
        if not self.commits:
            for path in self.paths:
                with contextlib.suppress(OSError):
                    unfinished.remove(Path(path))
        lines = (f"stopped by {self.names[self.first_signal]} while it did not respond", "temporary files were removed")
        with contextlib.suppress(OSError):
            os.write(2, "".join(f"embedway: {line}\n" for line in lines).encode())
        if self.queues.send(128 + self.first_signal):
            until = time.monotonic() + _SHORT_S
            while os.getppid() == self.parent and time.monotonic() < until:
                time.sleep(_SHORT_S / 100)
        if os.getppid() == self.parent:
            os.kill(self.parent, signal.SIGKILL)


class _MessageQueues:
    """POSIX message queues: a message to one ends this process with the queue's exit status.

    The C library calls `_exit` in a new thread, without the interpreter. On other systems than Linux there is no queue.
    """

    def __init__(self, statuses: Iterable[int]) -> None:
        self._queues: dict[int, int] = {}
        if sys.platform != "linux":
            return
        import ctypes  # noqa: PLC0415  not needed on other systems

        self._libc = ctypes.CDLL(None)
        # struct mq_attr: flags, one message, of one byte. The defaults would soon exceed the user's limit.
        attributes = (ctypes.c_long * 8)(0, 1, 1)
        for status in statuses:
            name = f"/embedway-{os.getpid()}-{status}".encode()
            flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
            queue = self._libc.mq_open(name, flags, 0o600, ctypes.byref(attributes))
            if queue >= 0:
                self._libc.mq_unlink(name)
                self._queues[status] = queue

    @property
    def descriptors(self) -> set[int]:
        return set(self._queues.values())

    def listen(self) -> None:
        """From now on, end this process at the first message."""
        if not self._queues:
            return
        import ctypes  # noqa: PLC0415

        class Event(ctypes.Structure):
            # struct sigevent of Linux, 64 bytes.
            _fields_ = (
                ("value", ctypes.c_void_p),
                ("signal", ctypes.c_int),
                ("notify", ctypes.c_int),
                ("function", ctypes.c_void_p),
                ("attributes", ctypes.c_void_p),
                ("rest", ctypes.c_char * 32),
            )

        end = ctypes.cast(getattr(self._libc, "_exit"), ctypes.c_void_p)  # noqa: B009  not a private name
        for status, queue in self._queues.items():
            self._libc.mq_notify(queue, ctypes.byref(Event(status, 0, _SIGEV_THREAD, end, None)))

    def send(self, status: int) -> bool:
        """Send a message; return whether that was possible."""
        return status in self._queues and self._libc.mq_send(self._queues[status], b"", 0, 0) == 0


def _close_all_except(kept: set[int]) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    for descriptor in map(int, os.listdir("/dev/fd")):  # noqa: PTH208  names only
        if descriptor not in {0, 1, *kept}:
            with contextlib.suppress(OSError):
                os.close(descriptor)
