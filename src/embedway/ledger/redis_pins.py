"""Pins in Redis or Valkey. Every call is one script, which the server runs atomically."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from embedway.ledger.pins import LONGEST_CLAIM_S, read_pin
from embedway.ledger.redis import ANSWER_S, PINS_CHECK, PINS_KEYS, failure, note_server, read_script, redis_client
from embedway.ledger.sqlite_formats import PINS_VERSION
from embedway.store_failures import explain_server, server_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway.ledger.pins import Pin
    from embedway.space import Space

_SCRIPT = PINS_CHECK + read_script("pins")


class RedisPins:
    """Pins on a Redis or Valkey server, shared by several machines. Without `clock`, the server's time is used."""

    def __init__(self, url: str, *, cluster: bool = False, clock: Callable[[], float] | None = None) -> None:
        """Create the store; it connects at its first use. Raises MissingExtraError without the library."""
        self._clock = clock
        self._url = url
        self._is_noted = False
        self._client = redis_client(url, cluster=cluster, what="pins.backend = 'redis'")

    async def get(self, collection: str) -> Pin | None:
        written = await self._call("get", collection)
        return None if written is None else read_pin(collection, written)

    async def claim(self, pin: Pin, lease_s: float) -> Pin:
        return read_pin(pin.collection, await self._call("claim", pin.collection, pin.written(), lease_s=lease_s))

    async def renew(self, pin: Pin, lease_s: float) -> None:
        await self._call("renew", pin.collection, claim=pin.claim, lease_s=lease_s)

    async def confirm(self, pin: Pin) -> Pin:
        written = replace(pin, claim="").written()
        return read_pin(pin.collection, await self._call("confirm", pin.collection, written))

    async def withdraw(self, pin: Pin) -> None:
        await self._call("withdraw", pin.collection, claim=pin.claim)

    async def learn(self, pin: Pin, known: Space) -> bool:
        written = await self._call("get", pin.collection)
        if written is None or pin.claim or read_pin(pin.collection, written) != pin:
            return False
        learned = replace(pin, space=pin.space.with_facts(known)).written()
        return bool(await self._call("learn", pin.collection, learned, claim=written))

    async def remove(self, collection: str) -> bool:
        return bool(await self._call("remove", collection))

    async def all(self) -> list[Pin]:
        found = await self._call("all")
        return [read_pin(*pair) for pair in sorted(zip(found[::2], found[1::2], strict=True))]

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _call(
        self, operation: str, collection: str = "", given: str = "", *, claim: str = "", lease_s: float = 0.0
    ) -> Any:
        import redis.exceptions  # noqa: PLC0415  already loaded by the client

        now = "" if self._clock is None else repr(self._clock())
        arguments = (operation, collection, given, claim, min(lease_s, LONGEST_CLAIM_S), now)
        try:
            answer = await self._client.eval(_SCRIPT, len(PINS_KEYS), *PINS_KEYS, *arguments)
        except (redis.exceptions.RedisError, OSError, TimeoutError, ValueError) as error:
            why = explain_server(error, self._url, setting="pins.url", answer_s=ANSWER_S)
            otherwise = f"the pins of collections in Redis at {server_address(self._url)} cannot be used: {why}"
            raise failure(error, "the store of pins", PINS_VERSION, otherwise) from error
        if not self._is_noted:
            self._is_noted = True
            await note_server("pins", self._client, self._url)
        return answer
