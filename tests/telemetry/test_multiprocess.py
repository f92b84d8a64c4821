"""Metrics of several processes in one folder: ended processes, and folders that cannot be used."""

import os
import subprocess
import sys

import pytest

from embedway.errors import ConfigError
from embedway.telemetry import multiprocess

#: Reports one call, a state of a circuit and a budget, prints the exposition, and ends as its argument says.
WORKER = """
import os, sys
from embedway.telemetry import names
from embedway.telemetry.metrics import process_metrics
from embedway.telemetry.prometheus import exposition

metrics = process_metrics()
metrics.child(names.REQUESTS_RUNNING, "embed").inc()
metrics.child(names.REQUESTS, "embed", "m", "ok").inc()
metrics.child(names.BUDGET_SPENT, "b").set(3)
print(exposition().decode(), flush=True)  # a killed process writes nothing at its end
if sys.argv[1] == "killed":
    os.kill(os.getpid(), 9)
"""


def run(code, folder, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def value(text, series):
    (found,) = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(f"{series} ")]
    return float(found)


@pytest.mark.parametrize("end", ["normal", "killed"])
def test_ended_processes_leave_only_their_counts_and_latest_values(tmp_path, end):
    texts = [run(WORKER, tmp_path, end).stdout for _ in range(3)]
    memory = [value(text, "embedway_resident_memory_bytes") for text in texts]
    assert max(memory) < 1.5 * min(memory)
    assert value(texts[-1], 'embedway_requests_running{task="embed"}') == 1
    assert value(texts[-1], 'embedway_requests_total{model="m",outcome="ok",task="embed"}') == 3
    assert value(texts[-1], 'embedway_budget_spent_dollars{budget="b"}') == 3


def test_a_process_removes_its_gauges_at_its_end(tmp_path):
    run(WORKER, tmp_path, "normal")
    assert list(tmp_path.glob("gauge_live*")) == []
    assert list(tmp_path.glob("gauge_mostrecent_*"))
    run(WORKER, tmp_path, "killed")
    assert list(tmp_path.glob("gauge_live*"))


def test_a_process_continues_the_files_of_a_killed_one_of_its_name(tmp_path):
    begin = "from pathlib import Path\nfrom embedway.telemetry.multiprocess import continue_files\n"
    named = f"{begin}continue_files('worker0', Path({str(tmp_path)!r}))\n{WORKER}"
    texts = [run(named, tmp_path, "killed").stdout for _ in range(3)]
    assert value(texts[-1], 'embedway_requests_running{task="embed"}') == 1
    assert value(texts[-1], 'embedway_requests_total{model="m",outcome="ok",task="embed"}') == 3
    kinds = {"counter", "gauge_livesum", "gauge_mostrecent"}
    assert {one.name for one in tmp_path.iterdir()} == {f"{kind}_worker0.db" for kind in kinds}


def test_files_in_a_folder_of_the_user_are_named_by_pids(tmp_path):
    begin = "from pathlib import Path\nfrom embedway.telemetry.multiprocess import continue_files\n"
    run(f"{begin}continue_files('worker0', Path('another'))\n{WORKER}", tmp_path, "killed")
    assert list(tmp_path.glob("counter_*"))
    assert not list(tmp_path.glob("*worker0*"))


def test_files_of_living_processes_and_without_a_pid_stay(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    kept = [
        f"gauge_livesum_{os.getpid()}.db",
        "gauge_livesum_1.db",
        "gauge_livesum_worker.db",
        f"counter_{ended.pid}.db",
    ]
    for name in [*kept, f"gauge_livemax_{ended.pid}.db"]:
        (tmp_path / name).touch()
    multiprocess.drop_ended(tmp_path)
    assert {one.name for one in tmp_path.iterdir()} == set(kept)


def test_nothing_is_removed_if_files_are_not_named_by_pids(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / f"gauge_livesum_{ended.pid}.db").touch()
    multiprocess.drop_ended(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


OPEN = "from embedway import Embedder, EmbedwayError\ntry:\n Embedder()\nexcept EmbedwayError as error:\n print(error)"
EXPOSE = (
    "from embedway import EmbedwayError\nfrom embedway.telemetry.prometheus import exposition\n"
    "try:\n exposition()\nexcept EmbedwayError as error:\n print(error)"
)


@pytest.mark.parametrize("code", [OPEN, EXPOSE])
def test_a_missing_folder_is_an_error_at_the_start(tmp_path, code):
    done = run(code, tmp_path / "missing")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        f"environment: PROMETHEUS_MULTIPROC_DIR: {tmp_path}/missing is not an existing folder"
    )
    assert "unset PROMETHEUS_MULTIPROC_DIR" in done.stdout


@pytest.mark.parametrize("kind", ["empty", "file", "unwritable"])
def test_a_folder_that_cannot_be_used_is_an_error(tmp_path, monkeypatch, kind):
    folder = tmp_path / "metrics"
    if kind == "file":
        folder.touch()
    if kind == "unwritable":
        folder.mkdir(mode=0o500)
        if os.geteuid() == 0:
            folder = "/proc/self/fdinfo"  # not even root may write there
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "" if kind == "empty" else str(folder))
    with pytest.raises(ConfigError, match="environment: PROMETHEUS_MULTIPROC_DIR: "):
        multiprocess.checked_folder()


def test_without_metrics_the_folder_is_not_needed(tmp_path):
    code = OPEN.replace("Embedder()", "Embedder(config=Config.load(overrides={'telemetry.prometheus': False}))")
    done = run(code.replace("import Embedder", "import Config, Embedder"), tmp_path / "missing")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


LOST = """
import shutil, os
from embedway import EmbedwayError
from embedway.telemetry.prometheus import exposition
exposition()
{}
try:
    exposition()
except EmbedwayError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("shutil.rmtree(os.environ['PROMETHEUS_MULTIPROC_DIR'])", "not an existing folder"),
        ("del os.environ['PROMETHEUS_MULTIPROC_DIR']", "was removed"),
        ("open(os.environ['PROMETHEUS_MULTIPROC_DIR'] + '/counter_1.db', 'wb').write(b'damage' * 9)", "cannot be read"),
    ],
)
def test_a_folder_that_is_lost_or_damaged_later_is_an_error_of_this_library(tmp_path, fault, reason):
    done = run(LOST.format(fault), tmp_path)
    assert done.returncode == 0, done.stderr
    assert reason in done.stdout
