"""Limits of the inference process and of its clients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from embedway.config.server import ServerSettings


@dataclass(frozen=True, slots=True)
class InferenceLimits:
    """Limits of the inference process. Times are in seconds."""

    #: Time after which an unused model is unloaded; None for never.
    keep_alive_s: float | None = None
    #: Maximum memory of loaded models, in bytes; None for no limit.
    models_bytes: int | None = None
    #: Maximum time that a job waits for its model.
    load_wait_s: float = 30.0
    #: Time that a batch of `HANG_TOKENS` padded tokens may take before the process counts as hanging.
    hang_s: float = 60.0
    #: Maximum jobs that the process accepts at a time, of all clients together.
    max_jobs: int = 20_000

    @classmethod
    def of(cls, settings: ServerSettings) -> Self:
        """Return the limits of the gateway's settings."""
        keep, mib = settings.keep_alive_s, settings.models_mib
        return cls(
            None if keep == "never" else keep,
            None if mib is None else mib << 20,
            settings.load_wait_s,
            settings.hang_s,
        )


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Limits of a client of the inference process. Times are in seconds."""

    #: Period of pings while calls are pending.
    ping_every_s: float = 2.0
    #: Time without any answer of the process, while calls are pending, after which its connection is given up.
    silent_s: float = 15.0
    #: Maximum time to connect, again and again, while the process is being started.
    connect_s: float = 15.0
    #: Times that a job is sent at most: a process that replaced a dead one computes its jobs again.
    max_sends: int = 2
