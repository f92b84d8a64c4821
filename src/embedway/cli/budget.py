"""`embedway budget show|set|remove|confirm|ledger|pins|unpin`: budgets, spending and pinned collections."""

import datetime as dt
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeVar

import typer

from embedway.cli import pins
from embedway.cli.options import Invocation, JsonFlag, decode_text
from embedway.cli.output import note, print_csv, print_json, print_line, print_table, report_of_work, wait_for
from embedway.errors import UsageError
from embedway.interrupts import explain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from embedway.config import Config
    from embedway.ledger.base import Entry, Ledger, Limit, PeriodTotals, Restored, Standing

T = TypeVar("T")

ENTRY_COLUMNS = (
    *("when (UTC)", "state", "model", "route", "collection", "key"),
    *("texts", "hits", "tokens", "cost", "saved", ""),
)
#: Maximum of --newest; the stores count in 64 bits.
MOST_ENTRIES = 10**9
#: Columns of the CSV output, also without rows.
BUDGET_FIELDS = (
    *("name", "limit_usd", "scope", "period", "hard", "warn_at"),
    *("now", "spent_usd", "held_usd", "left_usd"),
)
ENTRY_FIELDS = (
    *("id", "opened", "closed", "state", "model", "route", "collection", "api_key", "texts", "hits", "tokens"),
    *("unpriced", "reserved_usd", "sent_usd", "spent_usd", "estimated_usd", "unsure_usd", "saved_usd", "failed"),
)

app = typer.Typer(help="Set budgets, show spending and pins.", no_args_is_help=True, rich_markup_mode=None)
app.command("pins", short_help="Show the model of each collection.")(pins.show)
app.command("unpin")(pins.remove)


CsvFlag: TypeAlias = Annotated[bool, typer.Option("--csv", help="Print CSV on standard output.")]


@app.command("show")
def show(context: typer.Context, *, as_csv: CsvFlag = False, as_json: JsonFlag = False) -> None:
    """Show budgets, spending and savings. Amounts are for today, this month and in total."""
    _check_one_way(as_csv=as_csv, as_json=as_json)
    config = Invocation.of(context).config()
    standings, totals, restored = _with_ledger(config, _load_standings)
    document = {
        "budgets": [standing.to_json() for standing in standings],
        "spent": [_totals_json(one) for one in totals],
        "restored": None if restored is None else restored.to_json(),
    }
    if as_json:
        print_json(document)
        return
    if restored is not None:
        note(
            Invocation.of(context),
            "this ledger is from {books_of}, from a backup that was restored at {restored_at}: hard budgets refuse "
            "every call until `embedway budget confirm`".format(**restored.to_json()),
        )
    if as_csv:
        _print_csv([standing.to_json() for standing in standings], BUDGET_FIELDS)
        return
    if standings:
        print_table(
            ("budget", "for", "per", "limit", "spent", "reserved", "left", "used", "kind"),
            [_standing_row(one) for one in standings],
            right=(3, 4, 5, 6, 7),
        )
    else:
        print_line("no budgets: create one with `embedway budget set NAME USD`, or with [budgets.NAME] in the settings")
    print_line()
    print_table(
        ("in", "spent", "reserved", "saved by the cache"),
        [(one.period, *(_usd(value) for value in (one.spent, one.held, one.saved))) for one in totals],
        right=(1, 2, 3),
    )


# Without ignore_unknown_options, typer would call a negative amount an unknown option.
@app.command("set", short_help="Create or change a budget.", context_settings={"ignore_unknown_options": True})
def set_limit(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", callback=decode_text, help="Name of the budget.")],
    amount: Annotated[str, typer.Argument(metavar="USD", help="Maximum spending in dollars; 0 allows none.")],
    *,
    per: Annotated[
        Literal["total", "day", "month"] | None,
        typer.Option("--per", help="Period of the limit, in UTC. Default of a new budget: total."),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="Limit only this model.")] = None,
    collection: Annotated[
        str | None,
        typer.Option("--collection", metavar="NAME", callback=decode_text, help="Limit only this collection."),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            metavar="NAME",
            callback=decode_text,
            help="Limit only calls with this key; its name, not the key.",
        ),
    ] = None,
    soft: Annotated[
        bool | None,
        typer.Option(
            "--soft/--hard",
            help="Only warn, or refuse calls over the limit. Default of a new budget: --hard.",
            show_default=False,
        ),
    ] = None,
    warn_at: Annotated[
        list[int] | None,
        typer.Option(
            "--warn-at", min=1, max=100, metavar="PERCENT", help="Warn when this percentage is spent; repeatable."
        ),
    ] = None,
) -> None:
    """Create or change a budget, for all users of this ledger. Options that are not given stay unchanged."""
    from embedway.money import to_nanousd
    from embedway.providers.names import full_name

    if name.startswith("-"):
        raise UsageError(f"there is no option {name}, and the name of a budget cannot start with -")
    invocation = Invocation.of(context)
    config = invocation.config()
    given = (("api_key", api_key), ("collection", collection))
    named = [f"{kind}:{value}" for kind, value in given if value is not None]
    named += [f"model:{full_name(model, config)}"] if model is not None else []
    if len(named) > 1:
        raise UsageError("a budget applies to one of --model, --collection and --api-key; set a budget for each")
    if name in config.budgets:
        raise UsageError(
            f"budget {name!r} is defined in the settings ({config.sources.get(f'budgets.{name}.usd', 'there')})"
        )
    changes: dict[str, Any] = {
        "scope": named[0] if named else None,
        "period": per,
        "hard": None if soft is None else not soft,
        "warn_at": tuple(sorted(warn_at)) if warn_at else None,
    }
    given_changes = {field: value for field, value in changes.items() if value is not None}
    before, limit = _with_ledger(
        config, lambda ledger, _: _set_limit(ledger, name, to_nanousd(amount, name="USD"), given_changes)
    )
    was = f" (it was {_describe(before)})" if before is not None else ""
    note(invocation, f"budget {name}: {_describe(limit)}{was}")


@app.command("remove")
def remove(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", callback=decode_text, help="Name of the budget.")],
) -> None:
    """Remove a budget. Its spending stays in the ledger."""
    config = Invocation.of(context).config()
    if name in config.budgets:
        raise UsageError(f"budget {name!r} is defined in the settings; remove [budgets.{name}] there")
    if not _with_ledger(config, lambda ledger, _: ledger.remove_limit(name)):
        raise UsageError(f"there is no budget {name!r}; `embedway budget show` lists them")


@app.command("confirm", short_help="Confirm a restored ledger.")
def confirm(context: typer.Context, *, as_json: JsonFlag = False) -> None:
    """Confirm a restored ledger, or one whose server deleted keys: hard budgets allow calls again."""
    invocation = Invocation.of(context)
    restored = _with_ledger(invocation.config(), lambda book, _: book.confirm())
    if as_json:
        with report_of_work(invocation, as_json=True):
            print_json({"confirmed": None if restored is None else restored.to_json()})
    elif restored is None:
        note(
            invocation,
            "nothing to confirm: the ledger was not restored from a backup, or is already confirmed. If its server had "
            "deleted keys, calls are allowed again",
        )
    else:
        note(
            invocation, f"the ledger from {restored.to_json()['books_of']} is confirmed; hard budgets allow calls again"
        )


@app.command("ledger")
def ledger(
    context: typer.Context,
    *,
    newest: Annotated[
        int,
        typer.Option(
            "--newest", "-n", min=0, max=MOST_ENTRIES, metavar="N", help="Number of entries to show; 0 for all."
        ),
    ] = 50,
    since: Annotated[
        str | None, typer.Option("--since", metavar="DATE", help="First day to show, in UTC, such as 2026-11-01.")
    ] = None,
    as_csv: CsvFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Show the cost of each call, newest first."""
    _check_one_way(as_csv=as_csv, as_json=as_json)
    config = Invocation.of(context).config()
    start = _parse_day(since) if since else None
    entries = _with_ledger(config, lambda book, _: book.entries(newest=newest or None, since=start))
    rows = [entry.to_json() for entry in entries]
    if as_json:
        print_json(rows)
    elif as_csv:
        _print_csv(rows, ENTRY_FIELDS)
    elif rows:
        print_table(ENTRY_COLUMNS, [_entry_row(entry) for entry in entries], right=(6, 7, 8, 9, 10))
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

    explain("the ledger contains all of a change or nothing; `embedway budget show` shows the limits")
    return wait_for(run())


async def _set_limit(book: "Ledger", name: str, nanousd: int, changes: dict[str, Any]) -> "tuple[Limit | None, Limit]":
    """Set a limit, and return the previous limit of this name and the new one."""
    from embedway.ledger.base import Limit

    before = next((one for one in await book.limits() if one.name == name), None)
    limit = replace(before or Limit(name, nanousd), nanousd=nanousd, **changes)
    await book.set_limit(limit)
    return before, limit


async def _load_standings(
    book: "Ledger", config: "Config"
) -> "tuple[list[Standing], list[PeriodTotals], Restored | None]":
    from embedway.ledger.opening import limits_of
    from embedway.providers.names import full_name

    return await book.standings(limits_of(config, full_name)), await book.totals(), await book.restored()


def _parse_day(text: str) -> float:
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
        _scope(limit),
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
        notes.append(
            f"{_usd(entry.unsure)} unsure: a failed request may be billed, or the reported usage is implausible"
        )
    if entry.reserved + entry.sent:
        notes.append(f"{_usd(entry.reserved + entry.sent)} reserved")
    return (
        when,
        "failed" if entry.failed else entry.state,
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


def _totals_json(one: "PeriodTotals") -> dict[str, Any]:
    return {
        "period": one.period,
        "spent_usd": _usd(one.spent),
        "held_usd": _usd(one.held),
        "saved_usd": _usd(one.saved),
    }


def _check_one_way(*, as_csv: bool, as_json: bool) -> None:
    if as_csv and as_json:
        raise UsageError("--csv and --json cannot be combined; use only one of them")


def _print_csv(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    print_csv(columns, [{name: _cell(value) for name, value in row.items()} for row in rows])


def _cell(value: Any) -> Any:
    if isinstance(value, (list, dict, bool)):
        return json.dumps(value)
    # The quote keeps spreadsheets from reading a name as a formula.
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"} else value


def _describe(limit: "Limit") -> str:
    """Describe a limit in words."""
    per = "in total" if limit.period == "total" else f"a {limit.period}"
    return f"${_usd(limit.nanousd)} {per} for {_scope(limit)}, {'hard' if limit.hard else 'soft'}"


def _scope(limit: "Limit") -> str:
    return "everything" if limit.scope == "*" else limit.scope.replace(":", " ", 1)


def _usd(nanousd: int) -> str:
    from embedway.money import usd

    return usd(nanousd)
