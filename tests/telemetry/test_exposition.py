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


def test_times_of_creation_are_left_out():
    assert b"_created" not in own_exposition()


@pytest.mark.parametrize(("name", "reason"), [("none/x.prom", "does not exist"), (".", "is a folder")])
def test_a_file_that_cannot_be_written_is_refused(tmp_path, name, reason):
    with pytest.raises(UsageError, match=reason):
        check_metrics_file(tmp_path / name)
