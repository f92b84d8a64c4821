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


@pytest.mark.parametrize("where", ["pass", "with unfinished.commit(): os._exit(unfinished.clean_up() or 0)"])
def test_a_program_that_ends_at_once_leaves_no_lock_file_unless_it_commits(tmp_path, where):
    """As after Ctrl-C, when threads are not awaited."""
    script = (
        "import os, sys; from pathlib import Path; from embedway import unfinished\n"
        "from embedway.collections.stores.locks import exclusive\n"
        "with exclusive(Path(sys.argv[1]), destination='x'):\n"
        f"    {where}\n"
        "    unfinished.clean_up(); os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "out.parquet"], check=False)
    assert done.returncode == 0
    assert bool(list(tmp_path.iterdir())) == (where != "pass")
    with exclusive(tmp_path / "out.parquet", destination="x"):
        pass
    assert list(tmp_path.iterdir()) == []
