"""Create the cache store, and the keys of the secret, from the settings."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from embedway.cache.base import REFRESH_SHARE
from embedway.cache.codec import import_zstd
from embedway.cache.memory import MemoryCache
from embedway.cache.secret_keys import SecretKeys
from embedway.cache.tiered import TieredCache
from embedway.config.types import SECRET_RULE, is_secret
from embedway.errors import ConfigError
from embedway.files import read_bounded

if TYPE_CHECKING:
    from pathlib import Path

    from embedway.cache.base import CacheStore
    from embedway.config import Config
    from embedway.config.sections import CacheSettings

_MIB = 2**20


def open_cache_store(config: Config) -> CacheStore | None:
    """Open the store of `[cache]`; None for the backend `none`. Nothing is read or connected yet.

    Raises RuntimeUnavailableError for a missing library.
    """
    settings = config.cache
    ttl_s, refresh = settings.lifetime_s, settings.refresh_on_hit and settings.lifetime_s is not None
    if settings.backend == "none":
        return None
    if settings.zstd:
        import_zstd()
    if settings.backend == "memory":
        return MemoryCache(settings.memory_mib * _MIB, ttl_s=ttl_s, refresh=refresh)
    backing: CacheStore
    if settings.backend == "sqlite":
        from embedway.cache.sqlite import SqliteCache  # noqa: PLC0415  import only the chosen store

        backing = SqliteCache(settings.path, settings.disk_mib * _MIB, ttl_s=ttl_s, refresh=refresh)
    else:
        from embedway.cache.redis import RedisCache  # noqa: PLC0415

        keyed = settings.secret is not None or settings.secret_file is not None
        backing = RedisCache(
            settings.url.get_secret_value(),
            settings.redis_mib * _MIB,
            ttl_s=ttl_s,
            refresh=refresh,
            cluster=settings.cluster,
            keyed=keyed,
        )
    if not settings.tiered:
        return backing
    if refresh and ttl_s is not None:
        # Entries expire early in memory: then a hit is read from the store, which restarts its time to live there.
        return TieredCache(MemoryCache(settings.memory_mib * _MIB, ttl_s=ttl_s * REFRESH_SHARE), backing, refresh=True)
    return TieredCache(MemoryCache(settings.memory_mib * _MIB, ttl_s=ttl_s), backing)


def open_secret_keys(settings: CacheSettings) -> tuple[SecretKeys, ...]:
    """Return the keys of the cache's secret and those of the previous secret; empty without a secret.

    Raises ConfigError for a file that cannot be read or contains no valid secrets.
    """
    configured = (settings.secret, settings.secret_previous)
    secrets = [secret.get_secret_value() for secret in configured if secret is not None]
    if not secrets and settings.secret_file is not None:
        secrets = _read_secrets(settings.secret_file)
    return tuple(SecretKeys(secret) for secret in secrets)


def _read_secrets(path: Path) -> list[str]:
    """Read the secrets of a file: the current one from the first line, and an optional previous one from the second."""
    fault = partial(ConfigError, where=str(path), key="cache.secret_file")
    try:
        lines = read_bounded(path).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise fault(f"cannot be read: {reason}") from None
    while lines and not lines[-1].strip():
        lines.pop()
    if not 1 <= len(lines) <= 2:
        wanted = "write the secret on the first line and, if there is one, the previous secret on the second"
        raise fault(f"has {len(lines)} lines; {wanted}")
    for number, line in enumerate(lines, 1):
        if not is_secret(line):
            raise fault(f"line {number} {SECRET_RULE}")
    if len(set(lines)) < len(lines):
        raise fault("has the same secret twice; remove one")
    return lines
