"""Stores of files and batches."""

import pytest

from batch_stores import empty_server
from clocks import Clock


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["sqlite", "redis"])
def kind(request):
    return request.param


@pytest.fixture
def place(kind, tmp_path, request):
    """Return the arguments of `open_stores` for an empty place."""
    url = request.getfixturevalue("valkey") if kind == "redis" else ""
    if url:
        empty_server(url)
    return kind, tmp_path, url
