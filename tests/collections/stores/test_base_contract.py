"""Every local store passes the contract of stores."""

import pytest

import memory_store
import store_contract
from memory_store import MemoryStore
from store_contract import StoreContract


class TestParquet(StoreContract):
    @pytest.fixture
    def destination(self, tmp_path):
        return str(tmp_path / "out.parquet")


class TestJsonLines(StoreContract):
    @pytest.fixture
    def destination(self, tmp_path):
        return str(tmp_path / "out.jsonl")


class TestMemory(StoreContract):
    @pytest.fixture
    def destination(self, monkeypatch):
        def opened(destination):
            store = MemoryStore(destination)
            store.open()
            return store

        def created(destination, *, overwrite=False):
            store = MemoryStore(destination)
            store.prepare(overwrite=overwrite)
            return store

        monkeypatch.setattr(store_contract, "open_store", opened)
        monkeypatch.setattr(store_contract, "create_store", created)
        monkeypatch.setattr(memory_store, "PLACES", {})
        return "memory:rows"
