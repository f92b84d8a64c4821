"""`embedway quality baseline|check|list|remove|release`: notice models that change under their name."""

import contextlib
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, TypeVar

import typer

from embedway.cli.log import log_in_report
from embedway.cli.options import Invocation, JsonFlag, ModelOption, decode_text
from embedway.cli.output import (
    DownloadProgress,
    count,
    note,
    one_line,
    print_json,
    print_line,
    print_table,
    report_of_work,
    wait_for,
)
from embedway.errors import UsageError
from embedway.interrupts import explain
from embedway.money import usd
from embedway.quality.names import PAID_PERIOD_S

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from embedway import AsyncEmbedder, BaselineReport, BaselineSummary, QualityCheck, RouteCheck

app = typer.Typer(
    help="Store how models answer, and notice when they change.", no_args_is_help=True, rich_markup_mode=None
)

T = TypeVar("T")
DAY_S = 86_400

MaxCostOption: TypeAlias = Annotated[
    str | None, typer.Option("--max-cost", metavar="USD", help="Send nothing that may cost more in all.")
]


@app.command("baseline", short_help="Store how a model answers now.")
def baseline(
    context: typer.Context,
    *,
    model: ModelOption = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            "--pairs",
            metavar="FILE",
            help="JSON Lines with `query` and `passage` of your own, besides the built-in pairs. They are stored.",
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the baseline, and show the differences first.")
    ] = False,
    max_cost: MaxCostOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Store how each route of a model answers now: fixed texts, their noise, and the retrieval of pairs.

    A space has one baseline. Routes that were added later are added to it without --replace. --replace without --pairs
    keeps the pairs of your own; to drop them, remove the baseline first.
    Exit with 4 if a route did not answer; the others are stored.
    """
    invocation = Invocation.of(context)

    async def work(embedder: "AsyncEmbedder") -> "BaselineReport":
        return await embedder.quality.baseline(
            model, pairs=pairs, replace=replace, max_cost=max_cost, progress=lambda text: note(invocation, text)
        )

    explain("the baseline is stored at the end; run the same command again")
    report = _run(invocation, work)
    with report_of_work(invocation, as_json=as_json):
        if as_json:
            print_json(asdict(report))
        else:
            _print_baseline(report)
    if report.failed:
        raise typer.Exit(4)


@app.command("check", short_help="Compare a model with its baseline.")
def check(
    context: typer.Context, *, model: ModelOption = None, max_cost: MaxCostOption = None, as_json: JsonFlag = False
) -> None:
    """Compare each route of a model with the baseline of its space.

    Exit with 0 if all routes passed, 1 if one drifted, 4 if none drifted but one could not be checked, or the check
    failed. Other codes: 2 for wrong usage and settings, 3 if a limit of money refuses the check.
    """
    with _failures_are_unchecked():
        _check(Invocation.of(context), model, max_cost, as_json=as_json)


def _check(invocation: Invocation, model: str | None, max_cost: str | None, *, as_json: bool) -> None:
    async def work(embedder: "AsyncEmbedder") -> "QualityCheck":
        return await embedder.quality.check(model, max_cost=max_cost, progress=lambda text: note(invocation, text))

    explain("routes that were checked keep their result; run the same command again")
    with log_in_report("embedway.quality", "embedway.alerts"):  # the report says the same
        found = _run(invocation, work)
    a_day = _a_day(invocation, found.cost_nanousd)
    if a_day:
        note(invocation, f"the scheduled checks of quality.check_every_s cost about ${usd(a_day)} a day")
    with report_of_work(invocation, as_json=as_json):
        if as_json:
            verdict = "drifted" if found.drifted else "passed" if found.passed else "unchecked"
            print_json({"verdict": verdict, "scheduled_cost_nanousd_a_day": a_day, **asdict(found)})
        else:
            _print_check(found)
    if not found.passed:
        raise typer.Exit(1 if found.drifted else 4)


@app.command("list", short_help="List the stored baselines.")
def list_baselines(context: typer.Context, *, as_json: JsonFlag = False) -> None:
    """List the stored baselines with their routes, the last check of each, and quarantines."""
    found = _run(Invocation.of(context), lambda embedder: embedder.quality.baselines())
    if as_json:
        print_json([asdict(one) for one in found])
    elif found:
        for one in found:
            _print_summary(one)
            print_line()
        for line in _ABOUT_ACCURACY:
            print_line(line)
    else:
        print_line("There is no baseline; create one with `embedway quality baseline --model NAME`")


@app.command("remove", short_help="Remove a baseline.")
def remove(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", callback=decode_text, help="Name of the model, or id of the space.")
    ],
) -> None:
    """Remove the baselines of a model or space. Quarantines of its routes end."""
    invocation = Invocation.of(context)
    removed = _run(invocation, lambda embedder: embedder.quality.remove_baseline(name))
    if not removed:
        raise UsageError(f"there is no baseline of {name!r}; `embedway quality list` shows all")
    note(invocation, f"the baseline of {', '.join(removed)} is removed")


@app.command("release", short_help="End a quarantine without a check.")
def release(
    context: typer.Context,
    *,
    model: ModelOption = None,
    route: Annotated[
        str | None,
        typer.Option("--route", metavar="ROUTE", callback=decode_text, help="Only this route. Default: all."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """End the quarantine of a model's routes. The next check that finds a drift begins a new one."""
    invocation = Invocation.of(context)
    ended = _run(invocation, lambda embedder: embedder.quality.release(model, route=route))
    if as_json:
        print_json({"released": ended})
        return
    note(invocation, f"used again: {', '.join(ended)}" if ended else "no route of the model is in quarantine")


def _run(invocation: Invocation, work: "Callable[[AsyncEmbedder], Awaitable[T]]") -> T:
    config = invocation.config()

    async def run() -> T:
        from embedway._embedder import AsyncEmbedder

        async with AsyncEmbedder(config=config, progress=DownloadProgress(invocation)) as embedder:
            return await work(embedder)

    return wait_for(run())


@contextlib.contextmanager
def _failures_are_unchecked() -> "Iterator[None]":
    """Let failures exit with 4: 1 is only for a drift, so that a script can rely on it."""
    try:
        yield
    except typer.Exit:
        raise
    except Exception as error:
        if getattr(error, "exit_code", 1) == 1:
            error.exit_code = 4  # type: ignore[attr-defined]
        raise


def _a_day(invocation: Invocation, cost_nanousd: int | None) -> int | None:
    """Return the cost of a day's scheduled checks of this cost; None without a schedule or a known price."""
    every_s = invocation.config().quality.check_every_s
    if every_s is None or cost_nanousd is None:
        return None
    return round(cost_nanousd * DAY_S / max(every_s, PAID_PERIOD_S if cost_nanousd else 0.0))


_COLUMNS = ("route", "accuracy", "min cosine", "$/M", "last check (UTC)", "verdict")
_ABOUT_ACCURACY = (
    "Accuracy: share of queries whose own passage is found first. Most built-in pairs",
    "are in other languages than English: the English all-MiniLM-L6-v2 has 54%.",
)


def _print_summary(one: "BaselineSummary") -> None:
    """Print a baseline: its model and space once, and then a row for each route."""
    print_line(one.model)
    print_line(f"space {one.space_id}, created {_time(one.created)} UTC")
    print_line(f"pairs: {', '.join(f'{count} {name}' for name, count in one.pairs.items()) or 'none'}")
    print_table(_COLUMNS, _rows(one), right=(1, 2, 3), in_blocks=True)


def _rows(one: "BaselineSummary") -> list[tuple[str, ...]]:
    return [
        (
            route,
            _share(one.accuracy[route]),
            f"{min(noise.min_cosine for noise in noises.values()):.6f}",
            "unknown" if (price := one.prices_nanousd[route]) is None else usd(price),
            "-" if (last := one.checks.get(route)) is None else _time(last.checked),
            "-" if last is None else _verdict(last.verdict, quarantined=last.quarantined),
        )
        for route, noises in one.noise.items()
    ]


def _print_baseline(report: "BaselineReport") -> None:
    _print_summary(report.baseline)
    print_line()
    print_table(
        ("noise of route", "input type", "source", "largest 1 - cosine"),
        [
            (route, kind, source.replace("_", " "), f"{value:.1e}")
            for route, kinds in report.baseline.noise.items()
            for kind, noise in kinds.items()
            for source, value in noise.sources.items()
        ],
        right=(3,),
        in_blocks=True,
    )
    for line in _ABOUT_ACCURACY:
        print_line(line)
    for route, reason in report.failed:
        print_line(f"{route} has no baseline: {one_line(reason.removeprefix(f'{route}: '))}")


def _print_check(found: "QualityCheck") -> None:
    print_line(found.model)
    print_line(f"space {found.space_id}, baseline of {_time(found.baseline_created)} UTC")
    print_table(
        ("route", "verdict", "differ", "cosine", "minimum", "of baseline", "top 10"),
        [
            (
                one.route,
                _verdict(one.verdict, quarantined=one.quarantined),
                f"{len(one.differing)} of {one.canaries}" if one.canaries else "-",
                "-" if one.cosine is None else f"{one.cosine:.6f}",
                "-" if one.min_cosine is None else f"{one.min_cosine:.6f}",
                _share(one.accuracy_ratio),
                _share(one.overlap),
            )
            for one in found.routes
        ],
        right=(2, 3, 4, 5, 6),
        in_blocks=True,
    )
    print_line("Differ: fixed texts below the minimum cosine. Of baseline: accuracy divided by")
    print_line("that of the baseline. Top 10: share of first results that the baseline has too.")
    for one in found.routes:
        _print_reasons(one)
    for text in found.notes:
        print_line(f"Note: {text}")


def _verdict(verdict: str, *, quarantined: bool) -> str:
    return f"{verdict}, quarantine" if quarantined else verdict


def _print_reasons(one: "RouteCheck") -> None:
    for reason in one.reasons:
        print_line(f"{one.route}: {one_line(reason)}")
    if one.suspicious_since is not None:
        texts = "" if one.suspicious_texts is None else f" ({count(one.suspicious_texts)} billed texts)"
        since = _time(one.suspicious_since)
        print_line(f"{one.route}: vectors since {since} UTC are suspicious{texts}; none is deleted")
    if one.advice:
        print_line(f"{one.route}: {one.advice}")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
