"""Access to a gateway: which requests need a key, and whose key they have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.config.addresses import is_loopback
from embedway.server.caller import ANYONE, Caller
from embedway.server.problems import BodyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.config.server import ServerSettings
    from embedway.server.replies import Header


def needs_keys(settings: ServerSettings) -> bool:
    """Return whether requests need a key: by `server.auth`, or on any address but loopback."""
    return settings.auth == "keys" or (settings.auth == "auto" and not is_loopback(settings.host))


class Access:
    """Decides who a caller is."""

    #: Caller of a request before its key is checked.
    nobody = Caller()

    def __init__(self, settings: ServerSettings) -> None:
        self._needs_keys = needs_keys(settings)
        #: Whether the gateway is for programs of this machine, without keys.
        self.is_loopback_only = settings.auth == "auto" and not self._needs_keys

    async def caller_of(self, headers: Sequence[Header]) -> Caller:
        """Return the caller of a request. Raises an error if it needs a valid key."""
        del headers
        if self._needs_keys:
            raise BodyError("an API key is required", status=401, code="invalid_api_key")
        return ANYONE
