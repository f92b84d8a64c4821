"""Open the configured ledger, records and pins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.ledger.base import Limit
from embedway.money import to_nanousd

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway.config import Config
    from embedway.ledger.base import Ledger
    from embedway.ledger.pins import Pins
    from embedway.ledger.records import Records


def open_ledger(config: Config) -> Ledger | None:
    """Open the ledger of `[ledger]`; None for `none`. Nothing is read or connected yet."""
    settings = config.ledger
    if settings.backend == "sqlite":
        from embedway.ledger.sqlite import SqliteLedger  # noqa: PLC0415  import only the chosen backend

        return SqliteLedger(settings.path)
    if settings.backend == "redis":
        from embedway.ledger.redis import RedisLedger  # noqa: PLC0415

        return RedisLedger(settings.url.get_secret_value(), cluster=settings.cluster)
    return None


def open_records(config: Config) -> Records | None:
    """Open the records in the ledger's store; None if `[ledger]` is `none`. Nothing is read or connected yet."""
    settings = config.ledger
    if settings.backend == "sqlite":
        from embedway.ledger.sqlite_records import SqliteRecords  # noqa: PLC0415  import only the chosen backend

        return SqliteRecords(settings.path)
    if settings.backend == "redis":
        from embedway.ledger.redis_records import RedisRecords  # noqa: PLC0415

        return RedisRecords(settings.url.get_secret_value(), cluster=settings.cluster)
    return None


def limits_of(config: Config, full_name: Callable[[str, Config], str]) -> tuple[Limit, ...]:
    """Return the limits of `[budgets.NAME]`; `full_name` returns the name under which calls of a model are booked."""
    return tuple(
        Limit(
            name,
            to_nanousd(budget.usd, name="usd"),
            budget.scope if budget.model is None else f"model:{full_name(budget.model, config)}",
            budget.period,
            hard=budget.hard,
            warn_at=budget.warn_at,
        )
        for name, budget in config.budgets.items()
    )


def open_pins(config: Config) -> Pins:
    """Open the pins of `[pins]`. Nothing is read or connected yet."""
    from embedway.ledger.remembered_pins import RememberedPins  # noqa: PLC0415

    settings = config.pins
    if settings.backend == "redis":
        from embedway.ledger.redis_pins import RedisPins  # noqa: PLC0415

        url = settings.url.get_secret_value()
        return RememberedPins(RedisPins(url, cluster=settings.cluster), url)
    from embedway.ledger.sqlite_pins import SqlitePins  # noqa: PLC0415

    return RememberedPins(SqlitePins(settings.path), str(settings.path.absolute()))
