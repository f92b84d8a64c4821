"""Tokens of Microsoft Entra ID for Azure OpenAI, from azure-identity's DefaultAzureCredential.

Scopes: https://learn.microsoft.com/azure/ai-foundry/openai/how-to/managed-identity (read 2026-11-26). The credential
tries the variables of a service principal, a workload identity, a managed identity, and the login of `az` and others.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import re
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from embedway.errors import AuthenticationError, ConfigError, UnavailableError
from embedway.providers.delivery import of_attempt
from embedway.third_party import must_pass

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway.errors import UpstreamError

#: Scope by the end of the service's host: the clouds of the US government and of China have their own.
_SCOPES = {
    ".azure.us": "https://cognitiveservices.azure.us/.default",
    ".azure.cn": "https://cognitiveservices.azure.cn/.default",
}
_SCOPE = "https://cognitiveservices.azure.com/.default"
#: Time before its end at which a token is renewed, in seconds. Tokens are valid for an hour or more.
_MARGIN_S = 300.0
#: Maximum time for which a request waits for a token, in seconds; and the time after which a cancelled wait means that
#: the credential hangs, which is also the maximum wait while the old token is still valid.
TOKEN_WAIT_S, _SLOW_S = 10.0, 1.0
SERVICE = "Microsoft Entra ID"
_Failure: TypeAlias = "tuple[type[UpstreamError], str]"
_LATE: _Failure = (UnavailableError, "gave no token in time")
#: Messages of failed connections, which azure-identity repeats inside errors of other classes.
_UNREACHABLE = re.compile(
    r"Failed to resolve|Failed to establish a new connection|Max retries exceeded|ConnectTimeout|timed out"
    r"|Connection (?:refused|reset|aborted)|Name or service not known|ProxyError|SSLError"
)


class _Renewal:
    """One request for a token, in a daemon thread, so that a credential that hangs delays no exit of the process.

    Callers of all event loops wait for it. It is not cancelled with them.
    """

    def __init__(self, ask: Callable[[], Any]) -> None:
        self._ask: Callable[[], Any] | None = ask
        self._done: Future[Any] = Future()
        #: Whether a caller waited in vain. Later callers do not wait for it.
        self.is_late = False
        threading.Thread(target=self._run, name="embedway-entra", daemon=True).start()

    @property
    def is_running(self) -> bool:
        return not self._done.done()

    def result(self) -> Any:
        """Return the token of azure-identity, or raise the credential's error."""
        return self._done.result()

    async def wait(self, most_s: float) -> bool:
        """Wait until the request ends, for at most this time, and return whether it ended."""
        loop = asyncio.get_running_loop()
        woken, since = asyncio.Event(), loop.time()

        def wake(_: object) -> None:
            with suppress(RuntimeError):  # the caller's loop is closed
                loop.call_soon_threadsafe(woken.set)

        self._done.add_done_callback(wake)
        delivery = of_attempt()
        delivery.awaited = SERVICE
        try:
            async with asyncio.timeout(most_s):
                await woken.wait()
        except TimeoutError:
            self.is_late = True
        except asyncio.CancelledError:
            # Maybe by the deadline: the next caller uses another route at once.
            self.is_late |= loop.time() - since >= _SLOW_S
            raise
        delivery.awaited = ""
        return not self.is_running

    def _run(self) -> None:
        ask, self._ask = self._ask, None
        if ask is None:
            return
        try:
            self._done.set_result(ask())
        except BaseException as error:  # noqa: BLE001  passed to the callers, whatever it is
            self._done.set_exception(error)


class EntraToken:
    """Token of Microsoft Entra ID, renewed before it expires and when the service refuses it.

    Concurrent requests, also of several event loops, share one renewal. `open_credential` returns an object with
    azure-identity's `get_token`; `wait_s` is the maximum time for which a request waits for a token.
    """

    def __init__(
        self,
        base_url: str,
        *,
        route: str,
        open_credential: Callable[[], Any] | None = None,
        clock: Callable[[], float] = time.time,
        wait_s: float = TOKEN_WAIT_S,
    ) -> None:
        if open_credential is None and not _is_installed():
            raise ConfigError("\"entra\" needs azure-identity: pip install 'embedway[azure]'", where=route, key="auth")
        host = urlsplit(base_url).hostname or ""
        self._scope = next((scope for end, scope in _SCOPES.items() if host.endswith(end)), _SCOPE)
        self._route = route
        self._open = open_credential or _default_credential
        self._clock = clock
        self._wait_s = wait_s
        self._credential: Any = None
        self._token = ""
        self._expires_at = 0.0
        #: The renewal under way, or the last one until its result is taken.
        self._renewal: _Renewal | None = None
        self._lock = threading.Lock()

    async def current(self) -> str:
        """Return the token; get a new one if it is about to expire."""
        if self._clock() >= self._expires_at - _MARGIN_S:
            await self._renew()
        return self._token

    async def renewed(self, refused: str) -> str:
        """Return a token in place of a refused one, without the tokens that azure-identity keeps."""
        if self._token == refused:
            await self._renew(refused)
        return self._token

    async def _renew(self, refused: str | None = None) -> None:
        """Start or join a renewal and take its token. An old token that is still valid, and not refused, is enough."""
        before = self._expires_at
        renewal = self._start(refused)
        has_old = refused is None and self._clock() < before
        has_ended = not renewal.is_running
        if not has_ended and not renewal.is_late:
            has_ended = await renewal.wait(min(_SLOW_S, self._wait_s) if has_old else self._wait_s)
        failure = self._take(renewal) if has_ended else _LATE
        # Outside of `except`: azure-identity's messages may contain tenants, users and answers of its servers.
        if failure is None or (refused is None and self._clock() < self._expires_at):
            return  # an old token that is still valid; the next request tries again
        raise failure[0](f"{SERVICE} {failure[1]}", route=self._route)

    def _start(self, refused: str | None) -> _Renewal:
        """Return the renewal under way, or start one. Raises UnavailableError."""
        with self._lock:
            renewal = self._renewal
            if renewal is None:
                if refused is not None and self._token == refused:
                    self._credential = None
                try:
                    renewal = self._renewal = _Renewal(self._ask)
                except RuntimeError:
                    message = f"{SERVICE} gave no token: the system allows no more threads"
                    raise UnavailableError(message, route=self._route) from None
            return renewal

    def _take(self, renewal: _Renewal) -> _Failure | None:
        """Keep the token of a renewal that ended, once; return the failure if it has none."""
        with self._lock:
            is_first = self._renewal is renewal
            if is_first:
                self._renewal = None
            try:
                found = renewal.result()
                if is_first:
                    self._token, self._expires_at = str(found.token), float(found.expires_on)
            except ConfigError:
                raise
            except BaseException as error:
                if must_pass(error):
                    raise
                return _explain(error)
        return None

    def _ask(self) -> Any:
        if self._credential is None:
            self._credential = self._open()
        return self._credential.get_token(self._scope)


def _explain(error: BaseException) -> _Failure:
    """Return the class and the message of our error for one of azure-identity, by its cause."""
    kind, text = type(error).__name__, ""
    with suppress(Exception):
        text = str(error)
    if kind == "ServiceRequestError" or _UNREACHABLE.search(text):
        return UnavailableError, f"cannot be reached ({kind}): if this network needs a proxy, set HTTPS_PROXY"
    if kind in {"ClientAuthenticationError", "CredentialUnavailableError"}:
        why = "a credential was refused" if "uthentication failed" in text else "no credential was found"
        return AuthenticationError, (
            f"returned no token: {why} ({kind}): run `az login`, or set the variables of a service principal, or give "
            "the machine an identity with the role Cognitive Services OpenAI User"
        )
    return UnavailableError, f"returned no token ({kind})"


def _is_installed() -> bool:
    try:
        return importlib.util.find_spec("azure.identity") is not None
    except ModuleNotFoundError:  # not even the namespace `azure`
        return False


def _default_credential() -> Any:
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415  an extra, and half a second of imports

    # Its warnings repeat messages of servers, which our error replaces. A level that the program sets is kept.
    log = logging.getLogger("azure.identity")
    if log.level == logging.NOTSET:
        log.setLevel(logging.ERROR)
    return DefaultAzureCredential()
