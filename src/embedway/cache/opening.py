"""The cache that the settings ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.cache.codec import open_zstd
from embedway.cache.memory import MemoryCache
from embedway.cache.seal import Seal
from embedway.cache.tiers import Tiers
from embedway.config.types import SECRET_RULE, is_secret
from embedway.errors import ConfigError
from embedway.files import read_bounded

if TYPE_CHECKING:
    from pathlib import Path

    from embedway.cache.base import Cache
    from embedway.config import Config
    from embedway.config.sections import CacheSettings

_MIB = 2**20


def open_cache(config: Config) -> Cache | None:
    """The cache of `[cache]`, None for none. Nothing is read or connected yet.

    Raises RuntimeUnavailableError for a library that is missing.
    """
    settings = config.cache
    ttl_s = settings.ttl_s
    if settings.backend == "none":
        return None
    if settings.zstd:
        open_zstd()
    memory = MemoryCache(settings.memory_mib * _MIB, ttl_s=ttl_s)
    if settings.backend == "memory":
        return memory
    behind: Cache
    if settings.backend == "sqlite":
        from embedway.cache.sqlite import SqliteCache  # noqa: PLC0415  what is not asked for is not loaded

        behind = SqliteCache(settings.path, settings.disk_mib * _MIB, ttl_s=ttl_s)
    else:
        from embedway.cache.redis import RedisCache  # noqa: PLC0415

        keyed = settings.secret is not None or settings.secret_file is not None
        behind = RedisCache(settings.url.get_secret_value(), ttl_s=ttl_s, cluster=settings.cluster, keyed=keyed)
    return Tiers(memory, behind) if settings.tiered else behind


def open_seals(settings: CacheSettings) -> tuple[Seal, ...]:
    """The seal of the cache's secret, and that of the one before it; none without a secret.

    Raises ConfigError for a file that cannot be read, or holds no secrets.
    """
    given = (settings.secret, settings.secret_previous)
    secrets = [secret.get_secret_value() for secret in given if secret is not None]
    if not secrets and settings.secret_file is not None:
        secrets = _secrets_in(settings.secret_file)
    return tuple(Seal(secret) for secret in secrets)


def _secrets_in(path: Path) -> list[str]:
    """The secrets of a file: one on the first line, and the one before it on the second, if any."""
    try:
        lines = read_bounded(path).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise ConfigError(f"cannot be read: {reason}", where=str(path), key="cache.secret_file") from None
    while lines and not lines[-1].strip():
        lines.pop()
    if not 1 <= len(lines) <= 2:
        raise ConfigError(
            f"has {len(lines)} lines; the first must be the secret, and a second one, if any, the secret before it",
            where=str(path),
            key="cache.secret_file",
        )
    for number, line in enumerate(lines, 1):
        if not is_secret(line):
            raise ConfigError(f"line {number} {SECRET_RULE}", where=str(path), key="cache.secret_file")
    if len(set(lines)) < len(lines):
        raise ConfigError("has the same secret twice", where=str(path), key="cache.secret_file")
    return lines
