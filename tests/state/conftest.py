"""Places for state: files, and a real Valkey."""

import contextlib

import pytest
import redis

from state_places import Place


@pytest.fixture(params=["sqlite", "redis", "redis cluster"])
def place(request, tmp_path):
    """Return an empty place for state, in files or on a server."""
    folder = tmp_path / "state"
    folder.mkdir()
    if request.param == "sqlite":
        return Place(folder)
    cluster = request.param == "redis cluster"
    url = request.getfixturevalue("valkey_cluster" if cluster else "valkey")
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        client.flushall()
    return Place(folder, url, cluster=cluster)


@pytest.fixture
def files(tmp_path):
    """Return an empty place for state in files."""
    folder = tmp_path / "state"
    folder.mkdir()
    return Place(folder)


@pytest.fixture
def server(tmp_path, valkey):
    """Return an empty place for state on a server."""
    folder = tmp_path / "beside the server"
    folder.mkdir()
    with contextlib.closing(redis.Redis.from_url(valkey)) as client:
        client.flushall()
    return Place(folder, valkey)
