"""Metrics in a file: readable by other users, whole, and refused before the work."""

import os
import stat

import pytest
from prometheus_client.parser import text_string_to_metric_families

from embedway.errors import UsageError
from embedway.telemetry.exposition import check_metrics_file, own_exposition, write_metrics_file


def test_the_file_is_readable_by_all_and_replaces_a_former_one(tmp_path):
    path = tmp_path / "embedway.prom"
    path.write_text("old")
    write_metrics_file(path)
    families = [family.name for family in text_string_to_metric_families(path.read_text("utf-8"))]
    assert "embedway_resident_memory_bytes" in families
    assert not any(name.startswith(("process_", "python_")) for name in families)
    assert [one.name for one in tmp_path.iterdir()] == ["embedway.prom"]
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_link_stays_and_its_target_is_written(tmp_path):
    target, link = tmp_path / "folder/real.prom", tmp_path / "link.prom"
    target.parent.mkdir()
    link.symlink_to(target)
    for _ in range(2):
        check_metrics_file(link)
        write_metrics_file(link)
    assert link.readlink() == target
    assert b"embedway_" in target.read_bytes()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_or_a_link_to_one_is_refused_and_stays(tmp_path):
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(UsageError, match="is a device, a pipe or a socket"):
            check_metrics_file(path)
        with pytest.raises(OSError, match="it is a device, a pipe or a socket"):
            write_metrics_file(path)
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert link.is_symlink()


def test_a_link_into_a_missing_folder_is_refused(tmp_path):
    link = tmp_path / "link.prom"
    link.symlink_to(tmp_path / "none/x.prom")
    with pytest.raises(UsageError, match="into a folder that does not exist"):
        check_metrics_file(link)


def test_times_of_creation_are_left_out():
    assert b"_created" not in own_exposition()


@pytest.mark.parametrize(("name", "reason"), [("none/x.prom", "does not exist"), (".", "is a folder")])
def test_a_file_that_cannot_be_written_is_refused(tmp_path, name, reason):
    with pytest.raises(UsageError, match=reason):
        check_metrics_file(tmp_path / name)
