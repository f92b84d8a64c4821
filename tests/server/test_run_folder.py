"""The folder of a gateway that was killed is removed by the next one; those of running gateways and others are not."""

import stat
import subprocess
import sys
from pathlib import Path

from embedway.server.run_folder import run_folder

#: Holds a folder until it is killed.
HOLDER = """
import pathlib, sys
from embedway.server.run_folder import run_folder
with run_folder(pathlib.Path(sys.argv[1])) as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_private_and_removed_at_the_end(tmp_path):
    with run_folder(tmp_path) as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        with run_folder(tmp_path) as other:
            assert folder.exists()
        assert not other.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_a_killed_process_is_removed(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        left = Path(holder.stdout.readline().strip())
        with run_folder(tmp_path):
            assert left.is_dir()
        holder.kill()
    assert left.is_dir()
    foreign, link = tmp_path / "embedway-other", tmp_path / "embedway-link"
    foreign.mkdir()
    link.symlink_to(left)
    with run_folder(tmp_path):
        assert not left.exists()
        assert foreign.is_dir()
        assert link.is_symlink()
