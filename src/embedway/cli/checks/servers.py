"""Redis and Valkey servers of the cache, the ledger and the pins.

They are the user's own, so they are contacted without `--online`. Only commands that read are sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from embedway.cache.redis_server import FORMAT, FORMAT_FIELD, FORMATS
from embedway.cli.checks.base import Finding, Findings, describe
from embedway.cli.checks.storage import status_without_ledger
from embedway.errors import newer_version
from embedway.ledger.redis import LEDGER_KEYS, PINS_KEYS
from embedway.ledger.sqlite_formats import LEDGER_VERSION, PINS_VERSION
from embedway.shared_servers import KEPT, CacheUse, ServerFacts
from embedway.store_failures import explain_server, server_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from embedway.cli.checks.base import Setup, Status
    from embedway.config.sections import CacheSettings
    from embedway.shared_servers import Part

#: Time to connect, and for one answer, in seconds.
ANSWER_S = 2.0
#: Minimum version of Redis: scripts that read the time and then write need the replication of effects.
_OLDEST = (5, 0)
#: Consequences if a server cannot be used.
_EFFECTS = {
    "cache": "vectors are computed again",
    "ledger": "calls of services are refused",
    "pins": "writes to collections are refused",
}


@dataclass(frozen=True, slots=True)
class _Server:
    """A server, and the parts of the settings that use it."""

    url: str
    parts: tuple[Part, ...]

    @property
    def keeps_state(self) -> bool:
        """Whether its data cannot be computed again."""
        return self.parts != ("cache",)


@dataclass(frozen=True, slots=True)
class _Shared:
    """A server that answered, and the parts that use it under any URL."""

    facts: ServerFacts
    parts: set[Part] = field(default_factory=set)


def check_servers(setup: Setup) -> Findings:
    """Connect to each server, and report what prevents or endangers its use."""
    servers = tuple(_servers(setup))
    if not servers:
        return Findings((Finding("redis", "skipped", "no setting names a server"),))
    try:
        import redis  # noqa: F401
    except BaseException as error:  # noqa: BLE001  a broken library may raise anything when it is imported
        used = ", ".join(part for server in servers for part in server.parts)
        reason = "not installed" if isinstance(error, ModuleNotFoundError) else f"broken: {describe(error)}"
        detail = f"{used}: backend is 'redis', and the library is {reason}"
        return Findings((Finding("redis", "problem", detail, "pip install 'embedway[redis]'"),))
    shared: dict[str, _Shared] = {}
    found = tuple(finding for server in servers for finding in _check(server, setup, shared))
    return Findings(found + tuple(_judge_shared(shared, setup.config.cache)))


def _servers(setup: Setup) -> Iterator[_Server]:
    config = setup.config
    named: dict[str, list[Part]] = {}
    stores: tuple[tuple[Part, Any], ...] = (("cache", config.cache), ("ledger", config.ledger), ("pins", config.pins))
    for part, settings in stores:
        if settings.backend == "redis":
            named.setdefault(settings.url.get_secret_value(), []).append(part)
    for url, parts in named.items():
        yield _Server(url, tuple(parts))


def _check(server: _Server, setup: Setup, used: dict[str, _Shared]) -> Iterator[Finding]:
    """Check a server, and add its parts to those that use it under another URL."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    name = f"redis of {', '.join(server.parts)}"
    failed = status_without_ledger(setup.config) if "ledger" in server.parts else "warning"
    limits: dict[str, Any] = {"socket_connect_timeout": ANSWER_S, "socket_timeout": ANSWER_S}
    client = redis.Redis.from_url(server.url, retry=Retry(NoBackoff(), 0), decode_responses=True, **limits)
    place = _place(server.url)
    try:
        client.ping()
        yield from _check_answer(name, place, client, server, failed, used)
    except Exception as error:  # noqa: BLE001  the library raises errors of several trees
        effects = "; ".join(_EFFECTS[part] for part in server.parts)
        why = explain_server(error, server.url, setting=f"{server.parts[0]}.url", answer_s=ANSWER_S)
        yield Finding(name, failed, f"{place}: {why.reason}, so {effects}", why.remedy)
    finally:
        client.close()


def _place(url: str) -> str:
    """Return scheme, host and port of a URL."""
    return f"{url.partition('://')[0]}://{server_address(url)}"


def _check_answer(  # noqa: PLR0917
    name: str, place: str, client: Any, server: _Server, failed: Status, used: dict[str, _Shared]
) -> Iterator[Finding]:
    """Check a server that answers: version, role, eviction, persistence, and the versions of our data."""
    import redis.exceptions as known

    found: list[Finding] = []
    try:
        info: Mapping[str, Any] = client.info()
    except known.ResponseError as error:
        if "NOAUTH" in str(error):
            raise
        info = {}
        detail = f"{place}: INFO is not allowed, so eviction and persistence are not checked"
        found.append(Finding(name, "warning", detail, "allow the command INFO"))
    shared = used.setdefault(str(info.get("run_id") or place), _Shared(ServerFacts.of([info])))
    shared.parts.update(server.parts)
    if info.get("aof_enabled") == 0:
        info = {**info, "saves": _saves(client)}
    judged = (*_judge(info, server, failed), *_newer(client, server, failed))
    found += [Finding(name, status, f"{place}: {detail}", remedy) for status, detail, remedy in judged]
    if found:
        yield from found
        return
    brand = "Valkey" if "valkey_version" in info else "Redis"
    yield Finding(name, "ok", f"{place}: {brand} {info.get('valkey_version') or info.get('redis_version', '')}")


def _judge_shared(used: Mapping[str, _Shared], cache: CacheSettings) -> Iterator[Finding]:
    """Iterate over the servers that the cache shares with parts that it endangers."""
    use = CacheUse(cache.redis_mib * 2**20, expires=cache.lifetime_s is not None)
    for shared in used.values():
        kept = [part for part in KEPT if part in shared.parts]
        danger = shared.facts.danger(use) if "cache" in shared.parts and kept and not shared.facts.deletes else None
        if danger is not None:
            why, remedy = danger
            names = " and ".join(f"the {part}" for part in kept)
            detail = f"the cache and {names} use the same server: {why}, and a full server refuses calls of {names}"
            remedy = f"set cache.url to another server, or {remedy}"
            yield Finding(f"redis of {', '.join(sorted(shared.parts))}", "warning", detail, remedy)


def _judge(info: Mapping[str, Any], server: _Server, failed: Status) -> Iterator[tuple[Status, str, str]]:
    """Iterate over the problems that the answer of INFO shows: status, detail and remedy."""
    version = str(info.get("redis_version", ""))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers and numbers < _OLDEST:
        yield failed, f"Redis {version} is too old", "use Redis 5 or newer, or Valkey"
    if info.get("role") not in {None, "master"}:
        yield failed, "it is a replica, which is usually read-only", f"set {server.parts[0]}.url to the primary"
    if not server.keeps_state:
        return
    kept = " and ".join(f"the {part}" for part in server.parts if part != "cache")
    policy = str(info.get("maxmemory_policy") or "noeviction")
    if policy.startswith("allkeys"):
        remedy = "set maxmemory-policy to noeviction, or to volatile-lru if the cache shares the server"
        yield "warning", f"maxmemory-policy is {policy}, so a full server may delete {kept}", remedy
    if info.get("aof_enabled") == 0 and not info.get("saves"):
        yield "warning", f"persistence is off, so a restart deletes {kept}", "set appendonly to yes"


def _saves(client: Any) -> bool:
    """Return whether snapshots are configured; True if the server does not say."""
    import redis.exceptions as known

    try:
        return bool(client.config_get("save").get("save", "unknown"))
    except known.ResponseError:
        return True


def _newer(client: Any, server: _Server, failed: Status) -> Iterator[tuple[Status, str, str]]:
    """Iterate over the parts whose data a newer version of embedway wrote: status, detail and remedy."""
    import redis.exceptions as known

    stamps: dict[str, tuple[Callable[[], Any], int]] = {
        "cache": (lambda: client.hget(FORMATS, FORMAT_FIELD), FORMAT),
        "ledger": (lambda: client.get(LEDGER_KEYS[0]), LEDGER_VERSION),
        "pins": (lambda: client.get(PINS_KEYS[0]), PINS_VERSION),
    }
    for part in server.parts:
        read, version = stamps[part]
        try:
            stamp = str(read() or "")
        except known.ResponseError:
            continue  # another type, no permission, or another node of a cluster
        if stamp.isdecimal() and int(stamp[:9]) > version:
            # Requests fail if the cache has a newer version: with a wrong key, it would return wrong vectors.
            status: Status = "problem" if part == "cache" else failed
            yield status, f"the {part} {newer_version(stamp[:9], version)}", f"or set {part}.url to another server"
