"""Redis servers that several parts use. A server that is full, or that deletes keys, endangers the ledger and the pins.

Each process warns once for each server: when the cache shares it with them and may fill it, and when the server may
delete their keys.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from embedway.store_failures import server_address
from embedway.third_party import INVALID_VALUE_ERRORS

if TYPE_CHECKING:
    from collections.abc import Mapping

_log = logging.getLogger("embedway.redis")

Part: TypeAlias = Literal["cache", "ledger", "pins"]
#: Content of the parts that cannot be computed again.
KEPT: dict[Part, str] = {"ledger": "spending and budgets", "pins": "pins of collections"}
#: Sections of INFO that are read.
_SECTIONS = ("server", "memory")


_MIB = 2**20


@dataclass(frozen=True, slots=True)
class CacheUse:
    """Bound of the cache's entries on a server, and whether they expire."""

    max_bytes: int
    expires: bool


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """Facts of a server, or of the nodes of a cluster. They are empty if the user may not run INFO."""

    run_ids: tuple[str, ...] = ()
    #: Lowest memory limit of the nodes, in bytes; 0 for none.
    maxmemory: int = 0
    policy: str = ""

    @classmethod
    def of(cls, answers: list[Mapping[str, Any]]) -> ServerFacts:
        """Return the facts in the answers of INFO of all nodes."""
        run_ids = tuple(sorted({str(one["run_id"]) for one in answers if one.get("run_id")}))
        limits = [limit for one in answers if (limit := one.get("maxmemory")) and type(limit) is int]
        policies = sorted({str(one["maxmemory_policy"]) for one in answers if one.get("maxmemory_policy")})
        return cls(run_ids, min(limits, default=0), next(iter(policies), ""))

    @property
    def deletes(self) -> bool:
        """Whether a full server deletes keys that do not expire."""
        return self.maxmemory > 0 and self.policy.startswith("allkeys")

    def refuses(self, *, expires: bool) -> bool:
        """Whether a server that is full of the cache's entries refuses writes."""
        return self.policy == "noeviction" or (self.policy.startswith("volatile") and not expires)

    def danger(self, cache: CacheUse | None) -> tuple[str, str] | None:
        """Return how a cache endangers others on the server, and the remedy; None if it does not.

        A policy that deletes their keys is a warning of its own.
        """
        bound = cache.max_bytes if cache is not None else 0
        if not self.policy:
            return "its memory limit is not known", "allow the command INFO"
        if not self.maxmemory:
            settings = "its maxmemory-policy to volatile-lru, or to noeviction with cache.redis_mib at most half of it"
            return "it has no maxmemory, so entries may fill the machine", f"set its maxmemory, and {settings}"
        if not self.refuses(expires=cache is None or cache.expires) or 0 < bound <= self.maxmemory // 2:
            return None
        most = self.maxmemory // 2 // _MIB
        remedy = f"set cache.redis_mib to {most} or less" if most else "raise its maxmemory"
        return "cache.redis_mib is more than half of its maxmemory, so entries may fill it", remedy


async def read_facts(client: Any) -> ServerFacts:
    """Read the facts of a server or cluster. Raises the library's errors of the connection only."""
    import redis.exceptions  # noqa: PLC0415  already loaded by the client

    try:
        if hasattr(client, "get_nodes"):  # a cluster of several nodes answers by node
            found = [await client.info(section) for section in _SECTIONS]
            by_node = [one.values() if all(isinstance(node, dict) for node in one.values()) else [one] for one in found]
            answers = [facts for nodes in by_node for facts in nodes]
        else:
            pipeline = client.pipeline(transaction=False)
            for section in _SECTIONS:
                pipeline.info(section)
            answers = await pipeline.execute(raise_on_error=False)
    except (redis.exceptions.ResponseError, *INVALID_VALUE_ERRORS):
        return ServerFacts()  # some users have no permission for INFO
    return ServerFacts.of([facts for facts in answers if isinstance(facts, dict)])


class _Uses:
    """Parts that use each server in this process, and the logged warnings."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parts: dict[str, dict[Part, CacheUse | None]] = {}
        self._logged: set[tuple[str, str]] = set()

    def note(self, part: Part, url: str, facts: ServerFacts, cache: CacheUse | None = None) -> None:
        """Note that a part uses a server, and log the warnings that follow, each once. `cache` is of the cache."""
        place = server_address(url)
        with self._lock:
            for server in facts.run_ids or (place,):
                parts = self._parts.setdefault(server, {})
                parts[part] = cache
                kept = [one for one in KEPT if one in parts]
                danger = facts.danger(parts["cache"]) if "cache" in parts and kept and not facts.deletes else None
                if danger is not None and self._is_new("shared", server):
                    _log.warning("%s", _shared_warning(place, kept, *danger))
                if part in KEPT and facts.deletes and self._is_new("policy", server):
                    _log.warning("%s", _policy_warning(place, part, facts.policy))

    def _is_new(self, warning: str, server: str) -> bool:
        known = len(self._logged)
        self._logged.add((warning, server))
        return len(self._logged) > known


_USES = _Uses()
note_use = _USES.note


def _shared_warning(place: str, kept: list[Part], why: str, remedy: str) -> str:
    """Return the warning about a server that the cache shares with the ledger or the pins."""
    names = " and ".join(f"the {one}" for one in kept)
    return (
        f"the cache and {names} use the same Redis server at {place}: {why}, and a full server refuses calls of "
        f"{names}. Use another server for the cache (cache.url), or {remedy}. This is logged once"
    )


def _policy_warning(place: str, part: Part, policy: str) -> str:
    """Return the warning about a server that may delete keys of the ledger or the pins."""
    return (
        f"the maxmemory-policy of the Redis server at {place} is {policy}: when it is full, it may delete "
        f"{KEPT[part]}. Set it to noeviction, or to volatile-lru if the cache shares the server. This is logged once"
    )
