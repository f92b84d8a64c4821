"""Open the configured store of limits per minute."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from embedway.config import Config
    from embedway.server.rates import RateLimits


def open_rates(config: Config, path: Path) -> RateLimits:
    """Open the limits: on the ledger's server, or in a file for the processes of this machine.

    Raises LedgerError if the file cannot be used.
    """
    settings = config.ledger
    if settings.backend == "redis":
        from embedway.server.redis_rates import RedisRates  # noqa: PLC0415  import only the chosen store

        return RedisRates(settings.url.get_secret_value(), cluster=settings.cluster)
    from embedway.server.local_rates import LocalRates  # noqa: PLC0415

    return LocalRates(path)
