"""Pushes of the metrics to a Prometheus push gateway, in the background and in limited time."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import platform
import threading
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from embedway.forks import at_fork
from embedway.telemetry.exposition import CONTENT_TYPE, own_exposition
from embedway.telemetry.hooks import FLUSH_S, BaseHook

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger("embedway.metrics")
#: Timeout of one push, in seconds. The last one is within the time for a hook's end.
PUSH_S = 4.0


class PushHook(BaseHook):
    """Hook that pushes the metrics of this process, also when its embedder is closed.

    Embedders with the same gateway and job share one thread.
    """

    def __init__(self, url: str, job: str, every_s: float) -> None:
        self._pusher = _share(url, job, every_s)

    async def flush(self) -> None:
        """Push a last time."""
        await asyncio.wait_for(asyncio.to_thread(self._pusher.leave), FLUSH_S)


class Pusher:
    """Thread that pushes metrics to one gateway. The URL may contain a password and is never logged."""

    def __init__(self, url: str, job: str, every_s: float, *, render: Callable[[], bytes] = own_exposition) -> None:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        path = f"{parts.path.rstrip('/')}/metrics{_group('job', job)}{_group('instance', platform.node())}"
        self._url = urlunsplit((parts.scheme, host, path, "", ""))
        self._headers = {"Content-Type": CONTENT_TYPE}
        if parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
        self._every_s = every_s
        self._render = render
        self._users = 0
        self._has_failed = False
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

    def leave(self) -> None:
        """End pushing for one embedder, with a last push."""
        with self._sharing:
            self._users -= 1
            if self._users == 0:
                self._ended.set()
        self.push()

    def push(self) -> None:
        """Push once. An error is logged, if the last push had none."""
        with self._pushing:
            try:
                self._send(self._render())
            # Every error is caught: metrics must not fail a program. Its message may contain the URL.
            except Exception as error:  # noqa: BLE001
                if not self._has_failed:
                    _log.warning("telemetry.push_gateway: %s; metrics could not be pushed", _reason(error))
                self._has_failed = True
            else:
                if self._has_failed:
                    _log.warning("telemetry.push_gateway: it works again")
                self._has_failed = False

    def _run(self, ended: threading.Event) -> None:
        while not ended.wait(self._every_s):
            self.push()

    def _send(self, data: bytes) -> None:
        """Replace the metrics of the group. Neither proxies nor redirects: they go to the address of the settings."""
        import urllib.request  # noqa: PLC0415  few programs push

        request = urllib.request.Request(self._url, data, self._headers, method="PUT")  # noqa: S310  checked by the settings
        opener = urllib.request.OpenerDirector()
        for handler in (urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
            opener.add_handler(handler())
        with opener.open(request, timeout=PUSH_S) as answer:
            if answer.status >= 300:
                raise _RefusedError(answer.status)


class _RefusedError(Exception):
    """Answer of a gateway that is not a success."""


def _reason(error: Exception) -> str:
    """Return why a push failed."""
    cause = getattr(error, "reason", error)
    if isinstance(error, _RefusedError):
        return f"it answered with HTTP {error.args[0]}"
    if isinstance(cause, TimeoutError):
        return f"it did not answer in {PUSH_S:g} s"
    if isinstance(cause, ConnectionRefusedError):
        return "it refuses the connection"
    return f"it is unreachable ({type(cause).__name__})"


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


def push_all() -> None:
    """Push once more to each gateway that this process has used, such as the end of a command."""
    with _opening:
        pushers = list(_pushers.values())
    for pusher in pushers:
        pusher.push()


def _forget() -> None:
    """Forget the pushers of the parent: their threads do not exist here."""
    _pushers.clear()
    _opening.release()


at_fork(before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_forget)
