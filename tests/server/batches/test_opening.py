"""The store of files and batches is beside the ledger."""

from async_tests import in_loop
from embedway import Config
from embedway.server.batches.opening import open_batch_store
from embedway.server.batches.redis import RedisBatchStore
from embedway.server.batches.sqlite import SqliteBatchStore


@in_loop
async def test_the_ledger_decides_on_the_store(tmp_path, valkey):
    folder = {"server.state_directory": str(tmp_path)}
    for overrides, kind in (
        ({"ledger.backend": "sqlite"}, SqliteBatchStore),
        ({"ledger.backend": "none"}, SqliteBatchStore),
        ({"ledger.backend": "redis", "ledger.url": valkey}, RedisBatchStore),
    ):
        store = open_batch_store(Config.load(environ={}, overrides={**folder, **overrides}))
        assert isinstance(store, kind)
        assert await store.open_batches() == []
        await store.aclose()
    assert (tmp_path / "batches.sqlite").exists()
