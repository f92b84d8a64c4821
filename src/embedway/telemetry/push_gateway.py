"""Pushes of the metrics to a Prometheus push gateway, in the background and in limited time."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import platform
import socket
import threading
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from embedway.forks import at_fork
from embedway.telemetry.exposition import CONTENT_TYPE, own_exposition
from embedway.telemetry.hooks import BaseHook

if TYPE_CHECKING:
    from collections.abc import Callable
    from http.client import HTTPConnection

_log = logging.getLogger("embedway.metrics")
#: Maximum time of one push, and of waiting for the last one, in seconds. It is within the time for a hook's end.
PUSH_S = 4.0
_REMEDY = "metrics could not be pushed; start the gateway, correct telemetry.push_gateway, or remove it"


class PushHook(BaseHook):
    """Hook that pushes the metrics of this process, also when its embedder is closed.

    Embedders with the same gateway and job share one thread.
    """

    def __init__(self, url: str, job: str, every_s: float) -> None:
        self.pusher = _share(url, job, every_s)

    async def flush(self) -> None:
        """Push a last time, unless another embedder goes on pushing.

        The push is in a thread that does not keep the program from ending.
        """
        if not self.pusher.leave():
            return
        loop, pushed = asyncio.get_running_loop(), asyncio.Event()

        def push() -> None:
            self.pusher.push()
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(pushed.set)

        threading.Thread(target=push, name="embedway-last-push", daemon=True).start()
        try:
            async with asyncio.timeout(PUSH_S):
                await pushed.wait()
        except TimeoutError:
            self.pusher.note_failure(TimeoutError())


class Pusher:
    """Thread that pushes metrics to one gateway. The URL may contain a password and is never logged."""

    def __init__(self, url: str, job: str, every_s: float, *, render: Callable[[], bytes] = own_exposition) -> None:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        self._path = f"{parts.path.rstrip('/')}/metrics{_group('job', job)}{_group('instance', platform.node())}"
        self._host, self._is_encrypted = host, parts.scheme == "https"
        self._headers = {"Content-Type": CONTENT_TYPE}
        if parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
        self._every_s = every_s
        self._render = render
        self._users = 0
        #: Class of the error of the last push; None if it had none.
        self._failure: type[Exception] | None = None
        self._ended = threading.Event()
        self._pushing = threading.Lock()
        self._sharing = threading.Lock()

    def join(self) -> None:
        """Start to push for one more embedder."""
        with self._sharing:
            self._users += 1
            if self._users == 1:
                self._ended = threading.Event()
                threading.Thread(target=self._run, args=(self._ended,), name="embedway-push", daemon=True).start()

    def leave(self) -> bool:
        """End pushing for one embedder. Return whether a last push is due.

        It is not if another embedder goes on, or if the gateway did not answer the last one in time.
        """
        with self._sharing:
            self._users -= 1
            if self._users:
                return False
            self._ended.set()
            return self._failure is not TimeoutError

    def push(self) -> None:
        """Push once. An error is logged, if the last push had none."""
        with self._pushing:
            try:
                self._send(self._render())
            # Every error is caught: metrics must not fail a program. Its message may contain the URL.
            except Exception as error:  # noqa: BLE001
                self.note_failure(error)
            else:
                if self._failure is not None:
                    _log.warning("telemetry.push_gateway: it works again")
                self._failure = None

    def note_failure(self, error: Exception) -> None:
        """Log a failure, if the last push had none."""
        if self._failure is None:
            _log.warning("telemetry.push_gateway: %s; %s", _reason(error), _REMEDY)
        self._failure = type(error)

    def _run(self, ended: threading.Event) -> None:
        while not ended.wait(self._every_s):
            self.push()

    def _send(self, data: bytes) -> None:
        """Replace the metrics of the group. Neither proxies nor redirects: they go to the address of the settings."""
        import http.client  # noqa: PLC0415  few programs push

        connect = http.client.HTTPSConnection if self._is_encrypted else http.client.HTTPConnection
        connection = connect(self._host, timeout=PUSH_S)
        # The timeout of the connection is that of each read or write, so a slow gateway is cut off.
        late = threading.Event()
        timer = threading.Timer(PUSH_S, _cut_off, (connection, late))
        timer.daemon = True
        timer.start()
        try:
            connection.request("PUT", self._path, data, self._headers)
            status = connection.getresponse().status
        except Exception:
            if late.is_set():
                raise TimeoutError from None
            raise
        finally:
            timer.cancel()
            connection.close()
        if late.is_set():  # what was read is not all of the answer
            raise TimeoutError
        if status >= 300:
            raise _RefusedError(status)


def _cut_off(connection: HTTPConnection, late: threading.Event) -> None:
    late.set()
    with contextlib.suppress(OSError, AttributeError):  # it is not connected yet, or not any more
        connection.sock.shutdown(socket.SHUT_RDWR)


class _RefusedError(Exception):
    """Answer of a gateway that is not a success."""


def _reason(error: Exception) -> str:
    """Return why a push failed."""
    if isinstance(error, _RefusedError):
        return f"it answered with HTTP {error.args[0]}"
    if isinstance(error, TimeoutError):
        return f"it did not answer in {PUSH_S:g} s"
    if isinstance(error, ConnectionRefusedError):
        return "it refuses the connection"
    return f"it is unreachable ({type(error).__name__})"


def _group(name: str, value: str) -> str:
    """Return a label of the group as a part of the path. An empty value, or one with a slash, needs base64."""
    if value and "/" not in value:
        return f"/{name}/{quote(value, safe='')}"
    return f"/{name}@base64/{base64.urlsafe_b64encode(value.encode()).decode() or '='}"


_pushers: dict[tuple[str, str, float, int], Pusher] = {}
_opening = threading.Lock()


def _share(url: str, job: str, every_s: float) -> Pusher:
    with _opening:
        key = url, job, every_s, os.getpid()
        pusher = _pushers.get(key)
        if pusher is None:
            pusher = _pushers[key] = Pusher(url, job, every_s)
        pusher.join()
        return pusher


def _forget() -> None:
    """Forget the pushers of the parent: their threads do not exist here."""
    _pushers.clear()
    _opening.release()


at_fork(before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_forget)
