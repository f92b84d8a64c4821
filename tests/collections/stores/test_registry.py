"""Forms of destinations, and stores of third parties."""

import importlib.metadata

import pytest

from embedway.collections.stores import registry
from embedway.collections.stores.postgres import PostgresStore
from embedway.errors import UsageError
from memory_store import MemoryStore


@pytest.fixture
def install(monkeypatch):
    """Install an entry point with a name and an object reference."""
    real = importlib.metadata.entry_points

    def run(name, value):
        entries = importlib.metadata.EntryPoints([importlib.metadata.EntryPoint(name, value, registry.GROUP)])
        monkeypatch.setattr(
            importlib.metadata,
            "entry_points",
            lambda **chosen: entries.select(**chosen) if chosen.get("group") == registry.GROUP else real(**chosen),
        )

    return run


def test_unknown_form_lists_all_forms(install):
    install("memory", "memory_store:MemoryStore")
    with pytest.raises(UsageError) as caught:
        registry.store_for("out.txt")
    for form in ("X.parquet", "X.jsonl", "lancedb:", "postgresql://", "memory:..."):
        assert form in str(caught.value)


def test_third_party_store(install):
    install("memory", "memory_store:MemoryStore")
    assert isinstance(registry.store_for("memory:x"), MemoryStore)


def test_built_in_form_cannot_be_replaced(install):
    install("postgresql", "memory_store:MemoryStore")
    assert isinstance(registry.store_for("postgresql://h/d#t"), PostgresStore)


@pytest.mark.parametrize("value", ["no_such_module:X", "memory_store:NOTHING", "builtins:str"])
def test_broken_store_is_named(install, value):
    install("mine", value)
    with pytest.raises(UsageError, match="'mine'"):
        registry.store_for("mine:x")


def test_password_is_not_shown():
    with pytest.raises(UsageError) as caught:
        registry.store_for("mysql://me:s3cret@h/db")
    assert "s3cret" not in str(caught.value)
