"""Process that ends this one after a signal if the interpreter cannot: code in C may hold its lock (GIL) for long.

It is a fork of the program, made before other modules are imported. It waits for unread signals, and for events of
`unfinished` on a pipe: it removes the temporary files, too.
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

#: Pause between two checks after a signal, in seconds.
_CHECK_S = 0.05
#: Maximum wait for the end of the program, before SIGKILL, in seconds.
_END_S = 0.2
#: SIGEV_THREAD of POSIX: a notification runs a function in a new thread.
_IN_A_THREAD = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds: for the end after a signal, between two signals that are one request, and for a commit."""

    end_s: float
    same_s: float
    commit_s: float


@dataclass(frozen=True, slots=True)
class Watchdog:
    """The process, and the pipe to it."""

    process: int
    pipe: int

    def tell(self, event: str, value: str = "") -> None:
        """Send an event; without effect if the process has ended."""
        with contextlib.suppress(OSError):
            os.write(self.pipe, os.fsencode(f"{event}{value}\0"))

    def close(self) -> None:
        """End the process and wait for it, so that it is no zombie."""
        with contextlib.suppress(OSError):
            os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)


def start(signals: int, numbers: Mapping[int, str], limits: Limits) -> Watchdog | None:
    """Start the process; return None if that is impossible.

    `signals` is the read end of the interpreter's wakeup pipe. `numbers` are the signals that end the program, with
    names. They must be blocked.
    """
    queues = _MessageQueues(128 + number for number in numbers)
    events, pipe = os.pipe()
    os.set_blocking(pipe, False)
    parent = os.getpid()
    try:
        process = os.fork()
    except OSError:
        return None
    if process:
        os.close(events)
        queues.listen()
        return Watchdog(process, pipe)
    try:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        _close_all_except({2, signals, events, *queues.descriptors})
        _Loop(parent, signals, events, numbers, limits, queues).run()
    finally:
        os._exit(0)


@dataclass(eq=False, slots=True)
class _Loop:
    parent: int
    signals: int
    events: int
    numbers: Mapping[int, str]
    limits: Limits
    queues: _MessageQueues
    #: Time of the first signal.
    began: float | None = None
    #: Signal that the program has read.
    number: int = 0
    paths: set[str] = field(default_factory=set)
    commits: int = 0
    rest: bytes = b""

    def run(self) -> None:
        """Read events until the program ends, or end it."""
        while True:
            waiting = [self.events] if self.began is not None else [self.events, self.signals]
            ready = select.select(waiting, [], [], None if self.began is None else _CHECK_S)[0]
            if self.events in ready and not self._read_events():
                return
            if self.began is None and self.signals in ready:
                self.began = time.monotonic()
            if self.began is not None and self._is_due(time.monotonic() - self.began):
                self._end()
                return

    def _read_events(self) -> bool:
        """Apply all events; return False at the end of the program."""
        data = os.read(self.events, 1 << 16)
        *events, self.rest = (self.rest + data).split(b"\0")
        for event in map(os.fsdecode, events):
            kind, value = event[0], event[1:]
            if kind == "s":
                self.number = int(value)
                self.began = self.began or time.monotonic()
            elif kind in "+-":
                (self.paths.add if kind == "+" else self.paths.discard)(value)
            else:
                self.commits += 1 if kind == "c" else -1
        return bool(data)

    def _is_due(self, waited_s: float) -> bool:
        unread = self._unread()
        if not (unread or self.number):
            self.began = None  # the program has read it, and it was another signal
            return False
        limit_s = self.limits.commit_s if self.commits else self.limits.end_s
        return waited_s > limit_s or (unread >= 2 and waited_s > self.limits.same_s and not self.commits)

    def _unread(self) -> int:
        """Return the number of unread signals."""
        import array  # noqa: PLC0415  only after a signal
        import fcntl  # noqa: PLC0415
        import termios  # noqa: PLC0415

        size = array.array("i", [0])
        fcntl.ioctl(self.signals, termios.FIONREAD, size)
        return size[0]

    def _end(self) -> None:
        if not self.number and self._unread():
            self.number = next((one for one in os.read(self.signals, 16) if one in self.numbers), 0)
        if not self.number or os.getppid() != self.parent:
            return
        if not self.commits:
            for path in self.paths:
                with contextlib.suppress(OSError):
                    unfinished.remove(Path(path))
        lines = (f"stopped by {self.numbers[self.number]} while it did not respond", "temporary files were removed")
        with contextlib.suppress(OSError):
            os.write(2, "".join(f"embedway: {line}\n" for line in lines).encode())
        if self.queues.send(128 + self.number):
            until = time.monotonic() + _END_S
            while os.getppid() == self.parent and time.monotonic() < until:
                time.sleep(_CHECK_S / 10)
        if os.getppid() == self.parent:
            os.kill(self.parent, signal.SIGKILL)


def _close_all_except(kept: set[int]) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    for descriptor in map(int, os.listdir("/dev/fd")):  # noqa: PTH208  names only
        if descriptor not in {0, 1, *kept}:
            with contextlib.suppress(OSError):
                os.close(descriptor)


class _MessageQueues:
    """Message queues of POSIX whose first message ends this process with a status, without the interpreter.

    The C library runs `_exit` in a thread of its own. Only on Linux; elsewhere there are no queues.
    """

    def __init__(self, statuses: Iterable[int]) -> None:
        self._queues: dict[int, int] = {}
        if sys.platform != "linux":
            return
        import ctypes  # noqa: PLC0415  only here

        self._libc = ctypes.CDLL(None)
        for status in statuses:
            name = f"/embedway-{os.getpid()}-{status}".encode()
            queue = self._libc.mq_open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NONBLOCK, 0o600, None)
            if queue >= 0:
                self._libc.mq_unlink(name)
                self._queues[status] = queue

    @property
    def descriptors(self) -> set[int]:
        return set(self._queues.values())

    def listen(self) -> None:
        """Let messages end this process from now on."""
        import ctypes  # noqa: PLC0415  see above

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

        for status, queue in self._queues.items():
            end = ctypes.cast(getattr(self._libc, "_exit"), ctypes.c_void_p)  # noqa: B009  not private
            self._libc.mq_notify(queue, ctypes.byref(Event(status, 0, _IN_A_THREAD, end, None)))

    def send(self, status: int) -> bool:
        """Send a message; return whether that was possible."""
        return status in self._queues and self._libc.mq_send(self._queues[status], b"", 0, 0) == 0
