"""Progress of a job in a log."""

from types import SimpleNamespace

from embedway.cli.job_progress import LINE_INTERVAL_S, ProgressLines
from embedway.collections.report import RunStatus

STATUS = RunStatus(3, 1_200, 50_000, 40.0, 1_500.0, 90.0, 1, 2)


def test_a_log_has_a_line_a_minute(capsys):
    now = [0.0]
    lines = ProgressLines(SimpleNamespace(quiet=False), clock=lambda: now[0])
    for now[0] in (1.0, LINE_INTERVAL_S - 1, LINE_INTERVAL_S, LINE_INTERVAL_S + 1, 2 * LINE_INTERVAL_S):
        lines.update(STATUS)
    lines.stop()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == ["embedway: 1,200 texts, 40 texts/s, 1,500 tokens/s, 90 s left"] * 2


def test_a_quiet_job_prints_nothing(capsys):
    lines = ProgressLines(SimpleNamespace(quiet=True), clock=iter((0.0, 1000.0)).__next__)
    lines.update(STATUS)
    assert capsys.readouterr().err == ""
