"""Every ledger, with a real file and a real Valkey."""

import pytest

from books import redis_books, sqlite_books


@pytest.fixture(params=["sqlite", "redis"])
def books(request, tmp_path):
    if request.param == "sqlite":
        return sqlite_books(tmp_path)
    return redis_books(request.getfixturevalue("valkey"))
