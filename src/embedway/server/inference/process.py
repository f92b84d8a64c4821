"""Supervision of the inference process: it is started, pinged, killed if it hangs, and restarted."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from embedway import unfinished
from embedway.errors import RuntimeUnavailableError
from embedway.isolation import start_module
from embedway.server.inference import frames
from embedway.server.inference.frames import FrameError, FrameReader, Kind
from embedway.server.inference.settings import WatchLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_log = logging.getLogger("embedway.server.inference")

_MODULE = "embedway.server.inference"
_SOCKET = "inference.sock"
#: Connections that wait while the process is being started.
_BACKLOG = 512
#: Maximum length of a socket's path on Linux; macOS has 104.
_MOST_PATH_BYTES = 100
#: Time for a killed process to end, and pause between two looks at it, in seconds.
_KILL_S, _LOOK_S = 10.0, 0.01


class _Child(Protocol):
    """A child process."""

    pid: int
    returncode: int | Any
    stdin: IO[bytes] | None

    def poll(self) -> int | None:
        """Return its exit status; None while it runs."""

    def wait(self) -> int:
        """Wait for its end."""

    def terminate(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """End it at once."""


@dataclass(frozen=True, slots=True)
class InferenceStart:
    """Start of the inference process: its settings, as the workers read them, and the models to load at the start."""

    files: Sequence[str] = ()
    #: Overrides of `Config.load`, as JSON values.
    overrides: Mapping[str, Any] = field(default_factory=dict)
    warm: Sequence[str] = ()
    #: Time to answer accepted jobs after SIGTERM, in seconds.
    drain_s: float = 30.0
    log_level: str = "WARNING"


class InferenceProcess:
    """The inference process and its replacements. Thread-safe; one thread of its own watches the process.

    The supervisor's socket stays open while a process is replaced, so that clients wait instead of failing.
    """

    def __init__(
        self,
        start: InferenceStart,
        *,
        directory: Path,
        limits: WatchLimits | None = None,
        on_change: Callable[[str], None] | None = None,
    ) -> None:
        """Create it. `directory` is the folder for its private folder with the socket.

        `on_change` is called by the watching thread with each new state.
        """
        self._start = start
        self._directory = directory
        self._limits = WatchLimits() if limits is None else limits
        self._on_change = on_change
        self._folder: Path | None = None
        self._listener: socket.socket | None = None
        self._process: _Child | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._ready = threading.Event()
        #: `starting`, `ready`, `restarting` or `stopped`.
        self.state = "stopped"
        #: Processes that were started after the first.
        self.restarts = 0

    @property
    def path(self) -> Path:
        """Path of the socket, after `start`."""
        assert self._folder is not None  # noqa: S101  started
        return self._folder / _SOCKET

    @property
    def pid(self) -> int | None:
        """Number of the current process; None if there is none."""
        process = self._process
        return None if process is None else process.pid

    def start(self) -> None:
        """Create the socket, and start the process and its supervision. Does not wait until it is ready.

        Raises OSError, and RuntimeUnavailableError for a directory whose path is too long for a socket.
        """
        self._folder = unfinished.track(Path(tempfile.mkdtemp(prefix="embedway-", dir=self._directory)))  # mode 0700
        if len(os.fsencode(self.path)) > _MOST_PATH_BYTES:
            unfinished.remove(self._folder)
            raise RuntimeUnavailableError(
                f"the path of a socket must have at most {_MOST_PATH_BYTES} bytes, and {self.path} has more: set "
                "server.run_directory to a shorter one"
            )
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen(_BACKLOG)
        self._change("starting")
        self._thread = threading.Thread(target=self._watch, name="embedway-inference", daemon=True)
        self._thread.start()

    def wait_until_ready(self, timeout_s: float) -> bool:
        """Wait until the process answers; return whether it does."""
        return self._ready.wait(timeout_s)

    def stop(self, *, drain_s: float | None = None) -> None:
        """End the process after its accepted jobs, after `drain_s` at the latest, and remove the socket.

        The workers must have ended, or their calls fail.
        """
        drain_s = self._start.drain_s if drain_s is None else drain_s
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        process = self._process
        if process is not None:
            with contextlib.suppress(OSError):
                process.terminate()
            self._reap(process, drain_s)
        if self._listener is not None:
            self._listener.close()
        if self._folder is not None:
            unfinished.remove(self._folder)
        self._change("stopped")

    def _change(self, state: str) -> None:
        if state == self.state:
            return
        self.state = state
        (self._ready.set if state == "ready" else self._ready.clear)()
        if self._on_change is not None:
            self._on_change(state)

    def _watch(self) -> None:
        """Start the process, and replace it whenever it ends or hangs. Runs in a thread."""
        pause_s = self._limits.first_pause_s
        while not self._stopping.is_set():
            began = time.monotonic()
            reason = self._run_one()
            if self._stopping.is_set():
                return
            self._change("restarting")
            self.restarts += 1
            lived_s = time.monotonic() - began
            is_stable = lived_s >= self._limits.stable_s
            pause_s = self._limits.first_pause_s if is_stable else min(2 * pause_s, self._limits.longest_pause_s)
            _log.error("the inference process %s after %.1f s; it is restarted in %.1f s", reason, lived_s, pause_s)
            self._stopping.wait(pause_s)

    def _run_one(self) -> str:
        """Start a process and wait until it ends or hangs. Return the reason, in words."""
        try:
            process = self._process = self._spawn()
        except OSError as error:
            return f"cannot be started ({error.strerror})"
        with unfinished.child(process):
            pings = _Pings(self.path)
            try:
                reason = self._ping_until_bad(process, pings)
            finally:
                pings.close()
            if not reason:
                return reason  # it stops
            if process.poll() is None:
                process.kill()
            self._reap(process, _KILL_S)
        return reason

    def _spawn(self) -> _Child:
        assert self._listener is not None  # noqa: S101  started
        start, listener = self._start, self._listener.fileno()
        process = start_module(_MODULE, descriptors=[listener])
        given = {
            "files": [str(file) for file in start.files],
            "overrides": dict(start.overrides),
            "warm": list(start.warm),
            "drain_s": start.drain_s,
            "log_level": start.log_level,
            "listener": listener,
        }
        assert process.stdin is not None  # noqa: S101  a pipe
        with contextlib.suppress(OSError):  # it has ended, which the watch finds
            process.stdin.write(json.dumps(given).encode() + b"\n")
            process.stdin.flush()
        return process

    def _ping_until_bad(self, process: _Child, pings: _Pings) -> str:
        limits, heard = self._limits, time.monotonic()
        allowed_s = limits.start_s
        while not self._stopping.is_set():
            if process.poll() is not None:
                return f"ended with status {process.returncode}"
            health = pings.ask(limits.ping_every_s)
            now = time.monotonic()
            if health is not None:
                if health.get("hanging"):
                    return "makes no progress with a batch"
                heard, allowed_s = now, limits.ping_timeout_s
                self._change("ready")
                self._stopping.wait(limits.ping_every_s)
            elif now - heard > allowed_s:
                return "does not answer"
        return ""

    def _reap(self, process: _Child, timeout_s: float) -> None:
        """Wait for a process, and kill it if it does not end in time."""
        until = time.monotonic() + timeout_s
        while process.poll() is None and time.monotonic() < until:
            time.sleep(_LOOK_S)
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        self._process = None


class _Pings:
    """Connection of the supervisor to the process. Blocking, with a time limit."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._reader = FrameReader()
        self._number = 0

    def ask(self, timeout_s: float) -> dict[str, Any] | None:
        """Return the health of the process, or None if it does not answer in time."""
        until = time.monotonic() + timeout_s
        try:
            connection = self._connected()
            self._number += 1
            connection.settimeout(timeout_s)
            connection.sendall(b"".join(frames.pack(Kind.PING, self._number)))
            while (left_s := until - time.monotonic()) > 0:
                connection.settimeout(left_s)
                data = connection.recv(1 << 16)
                if not data:
                    raise ConnectionError
                for kind, number, body in self._reader.feed(data):
                    if kind == Kind.VALUE and number == self._number:
                        health = frames.unpack_json(body)
                        return health if isinstance(health, dict) else None
        except TimeoutError:
            return None
        except (OSError, FrameError):
            self.close()
            time.sleep(min(0.05, timeout_s))
        return None

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.settimeout(1.0)
            self._socket.connect(str(self._path))
            self._reader = FrameReader()
        return self._socket

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
