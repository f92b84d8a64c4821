"""Posts of JSON documents to a webhook, in the background and in limited time."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from embedway.telemetry.json_log import json_line

if TYPE_CHECKING:
    from logging import Logger

#: Timeout of one request, in seconds.
REQUEST_S = 10.0
#: Maximum number of documents that wait for an event loop.
_MAX_WAITING = 100
#: Maximum number of documents that are being posted.
_MAX_POSTING = 1000
#: Maximum wait for pending requests on close, in seconds.
_FLUSH_S = 1.0


class Webhook:
    """Webhook of a URL, which may contain a token and is never logged. Messages name `setting`, and `what` it sends."""

    def __init__(self, url: str, what: str, log: Logger, *, setting: str) -> None:
        self._url = url
        self._setting = setting
        self._what = what
        self._log = log
        self._posting: set[asyncio.Task[None]] = set()
        # Documents are sent one after the other: a cleared alert must not arrive before it is raised.
        self._order = asyncio.Lock()
        #: Loop of the first document that was posted in one.
        self._loop: asyncio.AbstractEventLoop | None = None
        #: Documents of other threads before that.
        self._waiting: list[dict[str, Any]] = []
        #: Documents that were not posted, because too many others were.
        self._lost = 0

    def post(self, document: dict[str, Any]) -> None:
        """Start to post a document; from a thread without an event loop, in the loop of earlier documents.

        If there is none, the document waits for the next one that is posted in a loop, or for `flush`.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            if self._loop is not None:
                with contextlib.suppress(RuntimeError):  # the loop has ended, and with it the embedder
                    self._loop.call_soon_threadsafe(self._start, document)
            elif len(self._waiting) < _MAX_WAITING:
                self._waiting.append(document)
            return
        self._loop = loop
        self._start(document)

    def _start(self, document: dict[str, Any]) -> None:
        waiting, self._waiting = self._waiting, []
        for one in (*waiting, document):
            if len(self._posting) >= _MAX_POSTING:
                self._lost += 1
                continue
            task = asyncio.create_task(self._post_in_order(one))
            self._posting.add(task)
            task.add_done_callback(self._posting.discard)

    async def flush(self) -> None:
        """Wait briefly for pending requests, then cancel them: a webhook must not block."""
        if self._waiting:
            self.post(self._waiting.pop())
        late: set[asyncio.Task[None]] = set()
        if self._posting:
            _, late = await asyncio.wait(self._posting, timeout=_FLUSH_S)
        for task in late:
            task.cancel()
        lost, self._lost = len(late) + self._lost, 0
        if lost:
            self._log.warning(
                "%s: it is too slow: %s was not sent before the end (%d times)", self._setting, self._what, lost
            )
        if late:
            await asyncio.wait(late, timeout=_FLUSH_S)

    async def _post_in_order(self, document: dict[str, Any]) -> None:
        async with self._order:
            await self._post(document)

    async def _post(self, document: dict[str, Any]) -> None:
        try:
            import aiohttp  # noqa: PLC0415  few programs have a webhook

            timeout = aiohttp.ClientTimeout(total=REQUEST_S)
            async with (
                # No cookies and no redirects: the document goes to the address of the settings, and nowhere else.
                aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
                # The body of the answer is not read.
                session.post(
                    self._url,
                    data=json_line(document).encode(),
                    headers={"Content-Type": "application/json"},
                    allow_redirects=False,
                ) as response,
            ):
                if response.status >= 300:
                    self._log.warning("%s: it answered %s with HTTP %d", self._setting, self._what, response.status)
        # Every error is caught, because no code awaits this task. Its message may contain the URL.
        except Exception as error:  # noqa: BLE001
            self._log.warning("%s: %s; %s could not be sent", self._setting, _reason(error), self._what)


def _reason(error: Exception) -> str:
    """Return why a request failed."""
    import aiohttp  # noqa: PLC0415  few programs have a webhook

    cause = getattr(error, "os_error", error)
    kinds: list[tuple[type[Exception] | tuple[type[Exception], ...], str]] = [
        (TimeoutError, f"it did not answer in {REQUEST_S:g} s"),
        (aiohttp.ClientConnectorDNSError, "its host is unknown"),
        (aiohttp.ClientConnectorCertificateError, "its certificate is not trusted"),
        (aiohttp.ClientSSLError, "the TLS handshake failed"),
        (ConnectionRefusedError, "it refuses the connection"),
        (aiohttp.ClientConnectorError, "it is unreachable"),
        ((aiohttp.ClientConnectionError, ConnectionError), "the connection was lost"),
        ((aiohttp.InvalidURL, ValueError), "it is not a valid URL"),
    ]
    found = (reason for kind, reason in kinds if isinstance(error, kind) or isinstance(cause, kind))
    return next(found, f"it failed ({type(error).__name__})")
