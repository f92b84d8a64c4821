"""The folder of a running gateway."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from embedway.errors import UsageError
from embedway.server.run_folder import run_folder, short_folder


def test_a_folder_is_private_and_removed_at_the_end(tmp_path):
    with run_folder(tmp_path) as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "file").touch()
    assert list(tmp_path.iterdir()) == []


def hold(directory, ready):
    with run_folder(directory) as folder:
        ready.send(str(folder))
        signal.pause()


def test_folders_of_killed_gateways_are_removed_and_those_of_others_stay(tmp_path):
    context = multiprocessing.get_context("fork")
    (tmp_path / "embedway-gateway-other").mkdir()  # without a lock: not one of ours
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=hold, args=(tmp_path, sending))
    process.start()
    held = receiving.recv()
    with run_folder(tmp_path) as own:
        assert {one.name for one in tmp_path.iterdir()} == {"embedway-gateway-other", Path(held).name, own.name}
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with run_folder(tmp_path) as own:
        assert {one.name for one in tmp_path.iterdir()} == {"embedway-gateway-other", own.name}


def test_a_directory_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(UsageError, match=r"server\.run_directory"), run_folder(tmp_path / "missing"):
        pass


def test_a_socket_has_a_short_path(tmp_path):
    with short_folder(Path("/run/short")) as short:
        assert short == Path("/run/short")
    with short_folder(tmp_path / ("long" * 25)) as short:
        assert len(str(short)) < 90
        assert short.stat().st_mode & 0o777 == 0o700
