"""Metrics of jobs: success, end, time and rejected rows, once for each run, and a label for all series of a file."""

import itertools

import pytest
from prometheus_client.parser import text_string_to_metric_families

from embedway.telemetry.exposition import write_metrics_file
from embedway.telemetry.metrics import Metrics
from embedway.telemetry.run_metrics import Run


def samples(path):
    families = text_string_to_metric_families(path.read_text("utf-8"))
    return [sample for family in families for sample in family.samples]


def values(path, run):
    return {
        one.name.removeprefix("embedway_run_"): one.value
        for one in samples(path)
        if one.name.startswith("embedway_run_") and one.labels["run"] == run
    }


def test_a_completed_run(tmp_path):
    path = tmp_path / "completed.prom"
    with Run("completed", clock=lambda: 1000.0, timer=itertools.count(0, 30).__next__) as run:
        run.rejected = 2
    write_metrics_file(path)
    assert values(path, "completed") == {"success": 1, "end_timestamp_seconds": 1000, "seconds": 30, "rejected_rows": 2}


def test_a_run_that_raises_has_failed(tmp_path):
    path = tmp_path / "raising.prom"
    with pytest.raises(ZeroDivisionError), Run("raising", clock=lambda: 1000.0):
        1 / 0  # noqa: B018
    write_metrics_file(path)
    found = values(path, "raising")
    assert (found["success"], found["end_timestamp_seconds"]) == (0, 1000)
    assert "rejected_rows" not in found


def test_a_run_whose_file_is_written_before_its_end_has_failed(tmp_path):
    path = tmp_path / "killed.prom"
    with Run("killed"):
        write_metrics_file(path)  # as a signal does that ends the process
    assert values(path, "killed")["success"] == 0


def test_all_series_of_a_file_have_its_name(tmp_path):
    write_metrics_file(tmp_path / "docs.prom")
    found = samples(tmp_path / "docs.prom")
    assert found
    assert all("run" in one.labels for one in found)
    assert {one.labels["run"] for one in found if not one.name.startswith("embedway_run_")} == {"docs"}


def test_names_that_are_no_labels_are_other(tmp_path):
    with Run("a\nb"):
        pass
    write_metrics_file(tmp_path / "x.prom")
    assert values(tmp_path / "x.prom", "other")["success"] == 1


def test_processes_without_a_job_have_no_series_of_jobs():
    names = {family.name for family in Metrics().collect()}
    assert names
    assert not [name for name in names if name.startswith("embedway_run_")]
