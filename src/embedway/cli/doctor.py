"""`embedway doctor`: report what works here, what is missing, and how to get it."""

from typing import TYPE_CHECKING, Annotated

import typer

from embedway.cli.options import Invocation, JsonFlag
from embedway.cli.output import one_line, print_json, print_line, print_to_standard_error
from embedway.text import count_of, printable

if TYPE_CHECKING:
    from embedway.cli.checks.base import Finding
    from embedway.cli.checks.registry import Report


def doctor(
    context: typer.Context,
    *,
    online: Annotated[
        bool,
        typer.Option(
            "--online",
            help="Also check whether the hub is reachable, and call each route with one short text. The calls may cost "
            "money: they are booked in the ledger, and no budget is exceeded.",
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Report what works here, what is missing and how to get it, also if the settings are invalid.

    Each check has a line: ok, warning, problem (texts cannot be embedded), failed (the check itself), or skipped.
    Secrets are never shown. Nothing is changed. Exit with 1 if texts cannot be embedded, which includes invalid
    settings, and else with 0.
    """
    from embedway.cli.checks.registry import examine

    invocation = Invocation.of(context)
    report = examine(invocation.files, online=online)
    if as_json:
        print_json(report.document)
    else:
        _print(report)
    for warning in report.warnings:
        print_to_standard_error(f"{warning}\n")
    if invocation.traceback:
        for trace in report.tracebacks:
            print_to_standard_error(trace)
    if not report.works:
        raise typer.Exit(1)


def _print(report: "Report") -> None:
    width = max((len(_shown(one.name)) for _, lines in report.sections for one in lines), default=0)
    for section, lines in report.sections:
        if lines:
            print_line(section.capitalize())
        for one in lines:
            print_line(f"  {one.status:8} {_shown(one.name).ljust(width)}  {_detail(one)}")
        if lines:
            print_line()
    settings = report.facts["settings"]
    if settings:
        rows = [("setting", "value", "set by")]
        rows += [(_shown(one["key"]), _shown(one["value"]), _shown(one["source"])) for one in settings]
        widths = [max(len(row[i]) for row in rows) for i in range(2)]
        for key, value, source in rows:
            print_line(f"{key.ljust(widths[0])}  {value.ljust(widths[1])}  {source}")
        print_line()
    print_line(_count(report))
    print_line("Texts can be embedded here." if report.works else "Texts cannot be embedded here yet.")


def _shown(text: str) -> str:
    """Return a text on one line, with escapes instead of control characters."""
    return one_line(printable(text))


def _detail(finding: "Finding") -> str:
    detail = _shown(finding.detail)
    return f"{detail} -> {_shown(finding.remedy)}" if finding.remedy else detail


def _count(report: "Report") -> str:
    statuses = [one.status for _, lines in report.sections for one in lines]
    counts = [(statuses.count("problem"), "problem"), (statuses.count("warning"), "warning")]
    shown = [count_of(number, name) for number, name in counts]
    failed = statuses.count("failed")
    shown += [f"{count_of(failed, 'check')} failed"] if failed else []
    return ", ".join(shown) + "."
