"""PostgreSQL passes the contract of stores."""

import pytest

from store_contract import StoreContract


class TestContract(StoreContract):
    @pytest.fixture
    def destination(self, table):
        return table
