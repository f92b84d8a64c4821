"""Limits per minute on the ledger's Redis or Valkey, shared by all replicas. Times are the server's."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from embedway.errors import LedgerError
from embedway.files import read_package_text
from embedway.ledger.redis import ANSWER_S, redis_client
from embedway.server.rates import MINUTE_S
from embedway.store_failures import explain_server, server_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway.server.rates import MinuteLimits

_PREFIX = "embedway:rates:"
#: The client refuses more calls at once than it may have connections.
_MOST_CONNECTIONS = 16
_SCRIPT = read_package_text("embedway.server", "rates.lua")


class RedisRates:
    """Limits on a server or a cluster. An entry expires when its buckets are full. `clock` is for tests."""

    def __init__(self, url: str, *, cluster: bool = False, clock: Callable[[], float] | None = None) -> None:
        """Create the store; it connects at its first use. Raises MissingExtraError without the library."""
        self._url = url
        self._clock = clock
        self._connections = asyncio.Semaphore(_MOST_CONNECTIONS)
        self._client = redis_client(url, cluster=cluster, what="ledger.backend = 'redis'")

    async def take(self, key_name: str, requests: int, tokens: int, limits: MinuteLimits) -> float:
        """Take requests and tokens; see `RateLimits.take`."""
        return await self._call("take", key_name, requests, tokens, limits)

    async def correct(self, key_name: str, tokens: int, limits: MinuteLimits) -> None:
        """Take or give back tokens; see `RateLimits.correct`."""
        await self._call("correct", key_name, 0, tokens, limits)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _call(self, operation: str, key_name: str, requests: int, tokens: int, limits: MinuteLimits) -> float:
        import redis.exceptions  # noqa: PLC0415  already loaded by the client

        now = "" if self._clock is None else repr(self._clock())
        arguments = (operation, requests, tokens, *map(repr, limits.intervals), MINUTE_S, now)
        try:
            async with self._connections:
                return float(await self._client.eval(_SCRIPT, 1, _PREFIX + key_name, *arguments))
        except (redis.exceptions.RedisError, OSError, ValueError) as error:
            why = explain_server(error, self._url, setting="ledger.url", answer_s=ANSWER_S)
            where = server_address(self._url)
            raise LedgerError(f"the limits of API keys in Redis at {where} cannot be used: {why}") from error
