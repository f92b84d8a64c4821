"""LanceDB passes the contract of stores, and undoes changes of killed processes."""

import pytest

from store_contract import StoreContract


class TestLanceDB(StoreContract):
    @pytest.fixture
    def destination(self, tmp_path):
        return f"lancedb:{tmp_path / 'db'}#rows"
