"""Open the configured store of files and batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedway.config import Config
    from embedway.server.batches.base import BatchStore


def open_batch_store(config: Config) -> BatchStore:
    """Open the store beside the ledger: on its server, otherwise in a file. Nothing is read or connected yet."""
    if config.ledger.backend == "redis":
        from embedway.server.batches.redis import RedisBatchStore  # noqa: PLC0415  import only the chosen store

        return RedisBatchStore(config.ledger.url.get_secret_value(), cluster=config.ledger.cluster)
    from embedway.server.batches.sqlite import SqliteBatchStore  # noqa: PLC0415

    return SqliteBatchStore(config.server.batches_file)
