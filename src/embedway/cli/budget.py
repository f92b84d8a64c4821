"""`embedway budget show|set|remove|ledger`: what may be spent, and what was."""

import csv
import datetime as dt
import json
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

import typer

from embedway.cli.options import JsonFlag
from embedway.cli.output import note, print_json, print_line, print_table, wait_for
from embedway.cli.session import Session
from embedway.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from embedway.config import Config
    from embedway.ledger.base import Entry, Ledger, Standing, Totals

T = TypeVar("T")

ENTRY_COLUMNS = (
    *("when (UTC)", "state", "model", "route", "collection", "key"),
    *("texts", "hits", "tokens", "cost", "saved", ""),
)

app = typer.Typer(help="What may be spent, and what was.", no_args_is_help=True, rich_markup_mode=None)


class Period(StrEnum):
    """`--per`."""

    TOTAL = "total"
    DAY = "day"
    MONTH = "month"


CsvFlag: TypeAlias = Annotated[bool, typer.Option("--csv", help="CSV on standard output.")]


@app.command("show")
def show(context: typer.Context, *, as_csv: CsvFlag = False, as_json: JsonFlag = False) -> None:
    """Show where each budget stands, and what was spent and saved today, this month and in all."""
    config = Session.of(context).config()
    standings, totals = _with_ledger(config, _standings)
    document = {
        "budgets": [standing.to_json() for standing in standings],
        "spent": [_totals_json(one) for one in totals],
    }
    if as_json:
        print_json(document)
        return
    if as_csv:
        _print_csv(document["budgets"], ("name", "scope", "period", "usd", "hard"))
        return
    if standings:
        print_table(
            ("budget", "for", "per", "limit", "spent", "reserved", "left", "used", "kind"),
            [_standing_row(one) for one in standings],
            right=(3, 4, 5, 6, 7),
        )
    else:
        print_line("no budgets: `embedway budget set NAME USD`, or [budgets.NAME] in the settings")
    print_line()
    print_table(
        ("in", "spent", "reserved", "saved by the cache"),
        [(one.period, *(_usd(value) for value in (one.spent, one.held, one.saved))) for one in totals],
        right=(1, 2, 3),
    )


@app.command("set")
def set_limit(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the budget is called.")],
    amount: Annotated[str, typer.Argument(metavar="USD", help="The most that may be spent; 0 for nothing.")],
    *,
    per: Annotated[Period, typer.Option("--per", help="In which time, by UTC.")] = Period.TOTAL,
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="For this model alone.")] = None,
    collection: Annotated[str | None, typer.Option("--collection", metavar="NAME", help="For this one alone.")] = None,
    api_key: Annotated[
        str | None, typer.Option("--api-key", metavar="NAME", help="For this key's calls alone; its name, not the key.")
    ] = None,
    soft: Annotated[bool, typer.Option("--soft", help="Warn, and refuse nothing.")] = False,
    warn_at: Annotated[
        list[int] | None, typer.Option("--warn-at", min=1, max=100, metavar="PERCENT", help="Several.")
    ] = None,
) -> None:
    """Set a budget, which holds for all who use this ledger, at once."""
    from embedway.ledger.base import WARN_AT, Limit
    from embedway.money import to_nanousd

    session = Session.of(context)
    config = session.config()
    named = [f"{kind}:{value}" for kind, value in (("api_key", api_key), ("collection", collection)) if value]
    named += [f"model:{_full_name(model, config)}"] if model else []
    if len(named) > 1:
        raise UsageError("a budget is for one of --model, --collection and --api-key; set one for each")
    if name in config.budgets:
        raise UsageError(f"budget {name!r} is in the settings ({config.sources.get(f'budgets.{name}.usd', 'there')})")
    limit = Limit(
        name,
        to_nanousd(amount, name="USD"),
        named[0] if named else "*",
        per.value,
        hard=not soft,
        warn_at=tuple(sorted(warn_at)) if warn_at else WARN_AT,
    )
    _with_ledger(config, lambda ledger, _: ledger.set_limit(limit))
    note(session, f"budget {name}: ${_usd(limit.nanousd)} {_per(limit.period)}")


@app.command("remove")
def remove(
    context: typer.Context, name: Annotated[str, typer.Argument(metavar="NAME", help="What the budget is called.")]
) -> None:
    """Remove a budget. What was spent stays in the ledger."""
    config = Session.of(context).config()
    if name in config.budgets:
        raise UsageError(f"budget {name!r} is in the settings; take [budgets.{name}] out of them")
    if not _with_ledger(config, lambda ledger, _: ledger.remove_limit(name)):
        raise UsageError(f"there is no budget {name!r}; `embedway budget show` lists them")


@app.command("ledger")
def ledger(
    context: typer.Context,
    *,
    newest: Annotated[int, typer.Option("--newest", "-n", min=0, metavar="N", help="So many; 0 for all.")] = 50,
    since: Annotated[
        str | None, typer.Option("--since", metavar="DATE", help="From this day on, such as 2026-11-01.")
    ] = None,
    as_csv: CsvFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Show what was spent, call by call, the newest first."""
    config = Session.of(context).config()
    start = _day(since) if since else None
    entries = _with_ledger(config, lambda book, _: book.entries(newest=newest or None, since=start))
    rows = [entry.to_json() for entry in entries]
    if as_json:
        print_json(rows)
    elif as_csv:
        _print_csv(rows, ("id", "opened", "state", "model"))
    elif rows:
        print_table(
            (
                "when (UTC)",
                "state",
                "model",
                "route",
                "collection",
                "key",
                "texts",
                "hits",
                "tokens",
                "cost",
                "saved",
                "",
            ),
            [_entry_row(entry) for entry in entries],
            right=(6, 7, 8, 9, 10),
        )
    else:
        print_line("the ledger is empty")


def _with_ledger(config: "Config", work: "Callable[[Ledger, Config], Awaitable[T]]") -> T:
    from embedway.ledger.opening import open_ledger

    async def run() -> T:
        book = open_ledger(config)
        if book is None:
            raise UsageError("there is no ledger: ledger.backend is none; set it to sqlite or redis")
        try:
            return await work(book, config)
        finally:
            await book.aclose()

    return wait_for(run())


async def _standings(book: "Ledger", config: "Config") -> "tuple[list[Standing], list[Totals]]":
    from embedway.ledger.opening import limits_of
    from embedway.providers.opening import full_name

    return await book.standings(limits_of(config, full_name)), await book.totals()


def _full_name(name: str, config: "Config") -> str:
    """The name that calls of a model are booked under. Raises UnknownModelError."""
    from embedway.providers.opening import full_name

    return full_name(name, config)


def _day(text: str) -> float:
    try:
        day = dt.date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--since is {text!r}; it must be a day such as 2026-11-01") from None
    return dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC).timestamp()


def _standing_row(one: "Standing") -> tuple[str, ...]:
    limit = one.limit
    used = f"{(one.spent + one.held) / limit.nanousd:.0%}" if limit.nanousd else "-"
    return (
        limit.name,
        "everything" if limit.scope == "*" else limit.scope.replace(":", " ", 1),
        limit.period,
        *(_usd(value) for value in (limit.nanousd, one.spent, one.held, one.left)),
        used,
        "hard" if limit.hard else "soft",
    )


def _entry_row(entry: "Entry") -> tuple[str, ...]:
    when = dt.datetime.fromtimestamp(entry.opened, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
    notes = []
    if entry.unpriced:
        notes.append("no known price")
    if entry.estimated:
        notes.append(f"{_usd(entry.estimated)} estimated")
    if entry.unsure:
        notes.append(f"{_usd(entry.unsure)} unsure: failed, and may be billed")
    if entry.reserved + entry.sent:
        notes.append(f"{_usd(entry.reserved + entry.sent)} reserved")
    return (
        when,
        entry.state,
        entry.model,
        entry.route,
        entry.collection,
        entry.api_key,
        f"{entry.texts:,}",
        f"{entry.hits:,}",
        f"{entry.tokens:,}",
        _usd(entry.spent),
        _usd(entry.saved),
        "; ".join(notes),
    )


def _totals_json(one: "Totals") -> dict[str, Any]:
    return {
        "period": one.period,
        "spent_usd": _usd(one.spent),
        "held_usd": _usd(one.held),
        "saved_usd": _usd(one.saved),
    }


def _print_csv(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """All fields of all rows; `columns` where there are none."""
    writer = csv.DictWriter(sys.stdout, list(rows[0]) if rows else columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)


def _cell(value: Any) -> Any:
    if isinstance(value, (list, dict, bool)):
        return json.dumps(value)
    # A name that a spreadsheet would take for a formula.
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"} else value


def _per(period: str) -> str:
    return "in all" if period == "total" else f"a {period}"


def _usd(nanousd: int) -> str:
    from embedway.money import usd

    return usd(nanousd)
