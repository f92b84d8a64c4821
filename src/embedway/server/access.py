"""Access to a gateway: which requests need a key, and whose key they have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.config.addresses import is_loopback
from embedway.errors import ConfigError
from embedway.server.caller import ANYONE, Caller
from embedway.server.keys import PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.config.server import ServerSettings
    from embedway.server.key_ring import KeyRing
    from embedway.server.replies import Header

#: Headers of keys besides `Authorization`; the second is Azure's.
_KEY_HEADERS = frozenset({b"x-api-key", b"api-key"})


def needs_keys(settings: ServerSettings) -> bool:
    """Return whether requests need a key: by `server.auth`, or on any address but loopback."""
    return settings.auth == "keys" or (settings.auth == "auto" and not is_loopback(settings.host))


def is_public(settings: ServerSettings) -> bool:
    """Return whether other machines may use the gateway without a key."""
    return not needs_keys(settings) and not is_loopback(settings.host)


def no_store_of_keys() -> ConfigError:
    """Return the error for a gateway that needs keys without a ledger."""
    return ConfigError(
        "API keys are stored with the ledger: set it to sqlite or redis, or server.auth to 'none'",
        key="ledger.backend",
    )


class Access:
    """Decides who a caller is."""

    #: Caller of a request before its key is checked.
    nobody = Caller()

    def __init__(self, settings: ServerSettings, ring: KeyRing | None) -> None:
        """Create the access. `ring` is None without a store of keys. Raises ConfigError if keys are needed then."""
        self._needs_keys = needs_keys(settings)
        if self._needs_keys and ring is None:
            raise no_store_of_keys()
        self._ring = ring
        #: Whether the gateway is for programs of this machine, without keys.
        self.is_loopback_only = settings.auth == "auto" and not self._needs_keys
        self._checks_keys = ring is not None and settings.auth != "none"

    async def caller_of(self, headers: Sequence[Header]) -> Caller:
        """Return the caller of a request. Raises AccessError, and LedgerError if the keys cannot be read.

        Where no key is needed, a key of the gateway is checked too, so that its tenant and budgets apply. Other values
        are ignored, because clients of other services always send one.
        """
        if not self._checks_keys:
            return ANYONE
        authorization = x_api_key = None
        for name, value in headers:
            if name == b"authorization":
                authorization = value.decode("latin-1")
            elif name in _KEY_HEADERS:
                x_api_key = value.decode("latin-1")
        if not self._needs_keys and not _is_own_key(authorization or x_api_key or ""):
            return ANYONE
        assert self._ring is not None  # noqa: S101  keys are checked
        return await self._ring.caller_of(authorization, x_api_key)


def _is_own_key(value: str) -> bool:
    """Return whether a header contains what may be a key of a gateway."""
    return value.rpartition(" ")[2].startswith(PREFIX)
