"""PostgreSQL passes the contract of stores."""

import pytest

import store_contract
from embedway.collections.stores import create_store, open_store, store_for
from store_contract import StoreContract


class TestContract(StoreContract):
    @pytest.fixture
    def destination(self, table, monkeypatch):
        made = []

        def kept(make):
            def run(*given, **options):
                made.append(make(*given, **options))
                return made[-1]

            return run

        # Tests leave connections open.
        monkeypatch.setattr(store_contract, "create_store", kept(create_store))
        monkeypatch.setattr(store_contract, "open_store", kept(open_store))
        # PostgreSQL has no NUL in texts; test_postgres shows that they are refused by name.
        odd = tuple(text for text in store_contract.ODD_TEXTS if "\0" not in text)
        monkeypatch.setattr(store_contract, "ODD_TEXTS", odd)
        # Messages show the destination without secrets, which is written in another way.
        yield store_for(table).destination
        for store in made:
            store.close()
