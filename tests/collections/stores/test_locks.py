"""Lock of a local collection."""

import subprocess
import sys

import pytest

from embedway.collections.stores.locks import exclusive
from embedway.errors import SinkError

HOLD = (
    "import sys; from pathlib import Path; from embedway.collections.stores.locks import exclusive\n"
    "with exclusive(Path(sys.argv[1]), destination='x'): print('held', flush=True); sys.stdin.read()"
)


def test_a_second_lock_is_refused_by_name_and_nothing_is_left(tmp_path):
    path = tmp_path / "out.parquet"
    with exclusive(path, destination="out.parquet"):
        with pytest.raises(SinkError, match=r"another process or thread changes the collection") as caught:
            exclusive(path, destination="out.parquet").__enter__()
        assert "out.parquet" in str(caught.value)
        with exclusive(tmp_path / "other.parquet", destination="other"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    path = tmp_path / "out.parquet"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(SinkError):
            exclusive(path, destination="x").__enter__()
    finally:
        holder.kill()
        holder.communicate()
    with exclusive(path, destination="x"):
        pass
