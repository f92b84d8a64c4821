"""Supervisor of a gateway: starts its processes, restarts those that ended or hang, and ends them in order.

It has no event loop and no threads, so that it can fork at any time: a new process has the settings and the sockets of
the ended one. Each process ends when its supervisor has ended, which closes the pipe `lifeline`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from embedway.server.heartbeats import FAILED, HANGING, SERVING, read_failure, send_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from embedway.errors import EmbedwayError

_log = logging.getLogger("embedway.server")

#: Time without a heartbeat after which a process is killed, in seconds.
HANG_S = 10.0
#: Maximum time until a process serves, in seconds: a model may be fetched.
START_S = 600.0
#: Waits before a restart, in seconds; each failure doubles the wait.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.2, 15.0
#: A process that lived this long, in seconds, is restarted at once.
_STABLE_S = 60.0
#: Failures of a process that never served, after which the gateway ends.
_MOST_FAILED_STARTS = 3
#: Time for processes to end after the drain, in seconds.
_LATE_S = 5.0
_TICK_S = 0.2


@dataclass(slots=True)
class Child:
    """A process of the gateway. `run` is called in it, with descriptors for heartbeats and of the lifeline."""

    name: str
    run: Callable[[int, int], None]
    #: Processes with a higher number end after those with a lower one, which need them.
    end_order: int = 0
    #: Process id; 0 if it is not running.
    pid: int = 0
    #: Descriptor of its heartbeats; -1 if it is closed.
    heartbeat: int = -1
    started_at: float = 0.0
    heartbeat_at: float = 0.0
    is_serving: bool = False
    has_served: bool = False
    failures: int = 0
    #: Message of an error with which it cannot start; see `heartbeats.send_failure`.
    failure: bytes = b""
    #: Time of the next start, if it is not running.
    start_at: float = 0.0


@dataclass(slots=True)
class Supervisor:
    """Runs processes until SIGTERM, SIGINT or SIGHUP. Its exit code is 0, or 1 if they cannot be started.

    An error that another start would not heal, such as a wrong setting, is raised instead, once for all processes.
    """

    children: Sequence[Child]
    drain_s: float
    #: Called once, when every process serves.
    on_ready: Callable[[], None]
    #: Called in the supervisor when the end begins. It closes the sockets: nothing accepts their connections any more.
    on_end: Callable[[], None]
    clock: Callable[[], float] = time.monotonic
    _ending: bool = False
    _ready: bool = False
    #: Pipe that is closed when the supervisor has ended; its processes read that.
    _lifeline: tuple[int, int] = (-1, -1)
    #: Pipe with the numbers of signals, which end a wait.
    _wakeup: tuple[int, int] = (-1, -1)
    #: Name of the process whose failed starts end the gateway.
    _failed: str = ""
    #: Error that another start would not heal.
    _error: EmbedwayError | None = None
    _poll: select.poll = field(default_factory=select.poll)

    def run(self) -> int:
        """Start the processes and watch them. Return the exit code. Raises the error of a process that cannot start."""
        self._lifeline = os.pipe()
        self._wakeup = os.pipe()
        for descriptor in self._wakeup:
            os.set_blocking(descriptor, False)
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
        before = [signal.signal(number, self._handle) for number in numbers]
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        self._poll.register(self._wakeup[0], select.POLLIN)
        try:
            while not self._ending:
                self._step()
            code = self._end()
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)
            for descriptor in (*self._lifeline, *self._wakeup):
                os.close(descriptor)
        if self._error is not None:
            raise self._error
        return code

    def _handle(self, number: int, _frame: object) -> None:
        if number != signal.SIGCHLD:
            self._ending = True

    def _step(self) -> None:
        now = self.clock()
        for child in self.children:
            if not child.pid and now >= child.start_at and not self._ending:
                self._start(child)
        for descriptor, _ in self._poll.poll(_TICK_S * 1000):
            self._read(descriptor)
        self._reap()
        for child in self.children:
            self._check(child)
        if not self._ready and all(child.is_serving for child in self.children):
            self._ready = True
            self.on_ready()

    def _start(self, child: Child) -> None:
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            self._run_child(child, reading, writing)
        os.close(writing)
        os.set_blocking(reading, False)
        self._poll.register(reading, select.POLLIN)
        child.pid, child.heartbeat, child.is_serving = pid, reading, False
        child.started_at = child.heartbeat_at = self.clock()

    def _run_child(self, child: Child, reading: int, writing: int) -> NoReturn:
        """Run a process, and end it without the clean-up of the supervisor's program."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            os.close(reading)
            os.close(self._lifeline[1])
            for descriptor in self._wakeup:
                os.close(descriptor)
            for other in self.children:
                if other.heartbeat >= 0:
                    os.close(other.heartbeat)
            child.run(writing, self._lifeline[0])
            code = 0
        except BaseException as error:  # noqa: BLE001  a forked process never returns
            if not send_failure(writing, error):
                _log.error("%s ended: %s: %s", child.name, type(error).__name__, error)
        finally:
            logging.shutdown()
            os._exit(code)

    def _read(self, descriptor: int) -> None:
        """Read heartbeats, or the numbers of signals, which are not needed."""
        try:
            data = os.read(descriptor, 4096)
        except BlockingIOError:
            return
        child = next((one for one in self.children if one.heartbeat == descriptor), None)
        if child is None:
            return
        if not data:  # it closed the pipe, and will be reaped
            self._close_heartbeat(child)
            return
        child.heartbeat_at = self.clock()
        if child.failure or FAILED in data:
            child.failure += data
            return
        if data[-1:] == HANGING:
            _log.error("%s makes no progress; it is killed", child.name)
            self._signal(child, signal.SIGKILL)
        child.is_serving = data[-1:] == SERVING
        child.has_served = child.has_served or child.is_serving

    def _close_heartbeat(self, child: Child) -> None:
        if child.heartbeat >= 0:
            self._poll.unregister(child.heartbeat)
            os.close(child.heartbeat)
            child.heartbeat = -1

    def _reap(self) -> None:
        """Note processes that ended, and when to start them again."""
        for child in self.children:
            if not child.pid:
                continue
            ended, status = os.waitpid(child.pid, os.WNOHANG)
            if ended:
                self._note_end(child, os.waitstatus_to_exitcode(status))

    def _note_end(self, child: Child, code: int) -> None:
        lived_s = self.clock() - child.started_at
        child.pid, child.is_serving = 0, False
        error, child.failure = read_failure(child.failure + _unread(child.heartbeat)), b""
        self._close_heartbeat(child)
        if self._ending:
            return
        if error is not None and not child.has_served:
            self._error, self._ending = error, True
            return
        child.failures = 1 if lived_s >= _STABLE_S else child.failures + 1
        if not child.has_served and child.failures >= _MOST_FAILED_STARTS:
            self._failed = child.name
            self._ending = True
            return
        wait_s = 0.0 if child.failures == 1 else min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** (child.failures - 2))
        child.start_at = self.clock() + wait_s
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        _log.error("%s ended (%s) after %.1f s; it is started again", child.name, how, lived_s)

    def _check(self, child: Child) -> None:
        """Kill a process that sends no heartbeat."""
        limit_s = HANG_S if child.is_serving else START_S
        if child.pid and self.clock() - child.heartbeat_at > limit_s:
            _log.error("%s sent no heartbeat for %.0f s; it is killed", child.name, limit_s)
            child.heartbeat_at = self.clock()
            self._signal(child, signal.SIGKILL)

    def _signal(self, child: Child, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, number)

    def _end(self) -> int:
        """End all processes: the workers finish what they have accepted; then those that workers need end."""
        self.on_end()
        code = 1 if self._failed else 0
        if self._failed:
            _log.error("%s could not be started %d times; the gateway ends", self._failed, _MOST_FAILED_STARTS)
        for order in sorted({child.end_order for child in self.children}):
            self._end_group([child for child in self.children if child.end_order == order])
        return code

    def _end_group(self, group: Sequence[Child]) -> None:
        for child in group:
            if child.pid:
                self._signal(child, signal.SIGTERM)
        limit = self.clock() + self.drain_s + _LATE_S
        while any(child.pid for child in group) and self.clock() < limit:
            self._poll.poll(_TICK_S * 250)
            self._drop_wakeups()
            self._reap()
        for child in group:
            if child.pid:
                _log.warning("%s did not end in time; it is killed", child.name)
                self._signal(child, signal.SIGKILL)
                os.waitpid(child.pid, 0)
                child.pid = 0

    def _drop_wakeups(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wakeup[0], 4096)
        for child in self.children:
            if child.heartbeat >= 0:
                with contextlib.suppress(BlockingIOError):
                    os.read(child.heartbeat, 4096)


def _unread(descriptor: int) -> bytes:
    """Return what an ended process has written and nobody has read."""
    parts: list[bytes] = []
    with contextlib.suppress(BlockingIOError):  # a process that it has left behind may hold the pipe
        while descriptor >= 0 and (data := os.read(descriptor, 2**16)):
            parts.append(data)
    return b"".join(parts)
