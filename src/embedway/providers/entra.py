"""Tokens of Microsoft Entra ID for Azure OpenAI, from azure-identity's DefaultAzureCredential.

Scopes: https://learn.microsoft.com/azure/ai-foundry/openai/how-to/managed-identity (read 2026-11-26). The credential
tries the variables of a service principal, a workload identity, a managed identity, and the login of `az` and others.
"""

from __future__ import annotations

import asyncio
import importlib.util
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from embedway.errors import AuthenticationError, ConfigError, UnavailableError
from embedway.third_party import must_pass

if TYPE_CHECKING:
    from collections.abc import Callable

#: Scope by the end of the service's host: the clouds of the US government and of China have their own.
_SCOPES = {
    ".azure.us": "https://cognitiveservices.azure.us/.default",
    ".azure.cn": "https://cognitiveservices.azure.cn/.default",
}
_SCOPE = "https://cognitiveservices.azure.com/.default"
#: Time before its end at which a token is renewed, in seconds. Tokens are valid for an hour or more.
_MARGIN_S = 300.0


class EntraToken:
    """Token of Microsoft Entra ID, renewed before it expires and when the service refuses it.

    Concurrent requests share one renewal. `open_credential` returns an object with azure-identity's `get_token`.
    """

    def __init__(
        self,
        base_url: str,
        *,
        route: str,
        open_credential: Callable[[], Any] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if open_credential is None and not _is_installed():
            raise ConfigError("\"entra\" needs azure-identity: pip install 'embedway[azure]'", where=route, key="auth")
        host = urlsplit(base_url).hostname or ""
        self._scope = next((scope for end, scope in _SCOPES.items() if host.endswith(end)), _SCOPE)
        self._route = route
        self._open = open_credential or _default_credential
        self._clock = clock
        self._credential: Any = None
        self._token = ""
        self._expires_at = 0.0
        self._lock = asyncio.Lock()

    async def current(self) -> str:
        """Return the token; get a new one if it is about to expire."""
        async with self._lock:
            if self._clock() >= self._expires_at - _MARGIN_S:
                await self._get()
            return self._token

    async def renewed(self, refused: str) -> str:
        """Return a token in place of a refused one, without the tokens that azure-identity keeps."""
        async with self._lock:
            if self._token == refused:
                self._credential = None
                await self._get()
            return self._token

    async def _get(self) -> None:
        reason, is_certain = "", False
        try:
            # Blocking: it may ask a server, or run `az`.
            found = await asyncio.to_thread(self._ask)
            self._token, self._expires_at = str(found.token), float(found.expires_on)
        except ConfigError:
            raise
        except BaseException as error:
            if must_pass(error):
                raise
            reason = type(error).__name__
            is_certain = reason in {"ClientAuthenticationError", "CredentialUnavailableError"}
        # Outside of `except`: azure-identity's messages may contain tenants, users and answers of its servers.
        if reason and self._clock() < self._expires_at:
            return  # the token is still valid; the next request tries again
        if is_certain:
            raise AuthenticationError(
                f"Microsoft Entra ID returned no token ({reason}): run `az login`, or set the variables of a service "
                "principal, or give the machine an identity with the role Cognitive Services OpenAI User",
                route=self._route,
            )
        if reason:
            raise UnavailableError(f"no token could be requested from Microsoft Entra ID ({reason})", route=self._route)

    def _ask(self) -> Any:
        if self._credential is None:
            self._credential = self._open()
        return self._credential.get_token(self._scope)


def _is_installed() -> bool:
    try:
        return importlib.util.find_spec("azure.identity") is not None
    except ModuleNotFoundError:  # not even the namespace `azure`
        return False


def _default_credential() -> Any:
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415  an extra, and half a second of imports

    return DefaultAzureCredential()
