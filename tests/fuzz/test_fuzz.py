"""Seeded quick runs of the fuzz harness: no fault in any area, and planted faults are found."""

import pytest
import run
from cases import SECRET, TEXT, Case, LogRecords, WrongResultError, judge

from embedway.errors import UsageError

#: Cases of the quick run of each area.
QUICK = {"calls": 400, "folders": 25, "answers": 25, "libraries": 60}


@pytest.mark.parametrize("area", run.AREAS)
def test_nothing_but_our_own_errors_leaves_a_public_call(area):
    report = run.fuzz(area, seed=7, count=QUICK[area], seconds=240)
    assert report.faults == []
    assert report.cases.total() > 0


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("error", "kinds"),
    [
        (UsageError("a is 5; it must be a list"), set()),
        (ValueError("a is 5"), {"outside"}),
        (SystemExit(2), {"outside"}),
        (WrongResultError("row 1"), {"wrong"}),
        (UsageError(f"the key {SECRET} is wrong"), {"secret"}),
        (UsageError(f"the text {TEXT} is wrong"), {"text"}),
        (UsageError("x" * 10_000), {"long"}),
    ],
)
def test_each_kind_of_fault_is_found(error, kinds):
    assert set(judge(Case("a", "b", lambda: fail(error)), LogRecords()).faults) == kinds


def test_a_text_in_a_chained_error_is_found():
    def chained():
        try:
            fail(KeyError(TEXT))
        except KeyError as error:
            raise UsageError("a is wrong") from error

    assert set(judge(Case("a", "b", chained), LogRecords()).faults) == {"text"}


@pytest.mark.parametrize(("what", "kind"), [("hang", "hang"), ("exit", "crash")])
def test_a_process_that_hangs_or_ends_is_a_fault_of_its_case(monkeypatch, tmp_path, what, kind):
    ends = {"hang": "time.sleep(600)", "exit": "os._exit(3)"}[what]
    child = tmp_path / "child.py"
    lines = ['{"marks": {}}', '{"begin": [0, "entry", "entry: case"]}']
    child.write_text(f"import os, time\nprint({lines[0]!r})\nprint({lines[1]!r}, flush=True)\n{ends}\n")
    monkeypatch.setattr(run, "CHILD", child)
    monkeypatch.setattr(run, "_CASE_S", 0.2)
    report = run.fuzz("calls", count=1, seconds=60)
    assert [fault[:3] for fault in report.faults] == [(kind, "entry", "entry: case")]
