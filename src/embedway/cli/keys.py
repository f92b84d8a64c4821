"""`embedway keys create|list|show|revoke`: API keys of the gateway."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from embedway.cli.options import Invocation, JsonFlag, decode_text, split_names
from embedway.cli.output import note, print_json, print_line, print_table, report_of_work, wait_for
from embedway.errors import UsageError
from embedway.interrupts import explain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from embedway.config import Config
    from embedway.ledger.base import Limit, Standing
    from embedway.ledger.records import Records
    from embedway.server.keys import ApiKey

T = TypeVar("T")

app = typer.Typer(help="Create, list and revoke API keys of the gateway.", no_args_is_help=True, rich_markup_mode=None)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", callback=decode_text, help="Name of the key.")]


@app.command("create", short_help="Create a key and print it.")
def create(
    context: typer.Context,
    name: NameArgument,
    *,
    tenant: Annotated[
        str,
        typer.Option(
            "--tenant",
            metavar="T",
            callback=decode_text,
            help="Tenant whose cache, pins, files and batches the key uses. Default: the default tenant.",
        ),
    ] = "",
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--models",
            metavar="A,B",
            callback=decode_text,
            help="Models that the key may use, separated by commas; repeatable. Default: all.",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", metavar="USD", help="Maximum spending of the key in dollars; 0 allows none."),
    ] = None,
    period: Annotated[
        Literal["total", "day", "month"] | None,
        typer.Option("--period", help="Period of the budget, in UTC. Default: total."),
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option("--requests-per-minute", min=1, metavar="N", help="Maximum requests in a minute.")
    ] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option("--tokens-per-minute", min=1, metavar="N", help="Maximum tokens in a minute.")
    ] = None,
    weight: Annotated[
        float,
        typer.Option("--weight", metavar="W", help="Share of the gateway under load, relative to other keys."),
    ] = 1.0,
    max_priority: Annotated[
        int, typer.Option("--max-priority", min=0, max=9, metavar="P", help="Highest priority of a request.")
    ] = 9,
    admin: Annotated[
        bool, typer.Option("--admin", help="Allow the page and the metrics, which show all tenants.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Create a key and print it. It is shown only now: the store contains a hash of it."""
    from embedway.server.keys import new_key

    if period is not None and budget is None:
        raise UsageError("--period is the period of --budget; use both")
    invocation = Invocation.of(context)
    config = invocation.config()
    key, text = new_key(
        name,
        tenant=tenant,
        models=_full_names(split_names(models), config),
        weight=weight,
        max_priority=max_priority,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        admin=admin,
    )
    limit = None if budget is None else _budget(key, budget, period or "total", config)
    replaced = _with_records(config, lambda records: _create(records, key, limit, config))
    with report_of_work(invocation, as_json=True):
        if as_json:
            print_json({"key": text, **key.to_json(), "budget": None if limit is None else limit.to_json()})
        else:
            print_line(text)
    note(
        invocation,
        f"key {name} {'replaces a revoked one' if replaced else 'is created'}; it is shown only now. "
        "Running gateways accept it within a second",
    )


@app.command("list", short_help="List all keys.")
def list_keys(context: typer.Context, *, as_json: JsonFlag = False) -> None:
    """List all keys, also revoked ones, without their secrets."""
    from embedway.server.keys import all_keys

    invocation = Invocation.of(context)
    keys, unreadable = _with_records(invocation.config(), all_keys)
    for name in unreadable:
        note(invocation, f"key {name} is damaged, or of a newer version of embedway, so it is refused")
    if as_json:
        print_json([key.to_json() for key in keys])
    elif keys:
        columns = ("name", "id", "tenant", "models", "requests/min", "tokens/min", "weight", "created (UTC)", "state")
        print_table(columns, [_row(key) for key in keys], right=(4, 5, 6))
    else:
        print_line("no keys: create one with `embedway keys create NAME`")


@app.command("show", short_help="Show one key and its spending.")
def show(context: typer.Context, name: NameArgument, *, as_json: JsonFlag = False) -> None:
    """Show the rights and limits of a key, and its spending against its budgets."""
    from embedway.money import usd
    from embedway.server.keys import find_key

    config = Invocation.of(context).config()
    key = _with_records(config, lambda records: find_key(records, name))
    standings = wait_for(_standings(key, config))
    if as_json:
        print_json({**key.to_json(), "budgets": [standing.to_json() for standing in standings]})
        return
    shown = key.to_json()
    for field in ("name", "id", "tenant", "weight", "max_priority", "created", "revoked"):
        if shown[field] is not None:
            print_line(f"{field}: {shown[field]}")
    print_line(f"models: {', '.join(key.models) if key.models is not None else 'all'}")
    for field in ("requests_per_minute", "tokens_per_minute"):
        print_line(f"{field}: {_number(shown[field])}")
    print_line(f"admin: {'yes' if key.admin else 'no'}")
    print_line()
    if standings:
        columns = ("budget", "per", "limit", "spent", "reserved", "left", "kind")
        rows = [
            (
                *(one.limit.name, one.limit.period),
                *(usd(value) for value in (one.limit.nanousd, one.spent, one.held, one.left)),
                "hard" if one.limit.hard else "soft",
            )
            for one in standings
        ]
        print_table(columns, rows, right=(2, 3, 4, 5))
    else:
        print_line(f"no budgets: create one with `embedway budget set BUDGET USD --api-key {name}`")


@app.command("revoke", short_help="Revoke a key.")
def revoke(context: typer.Context, name: NameArgument, *, as_json: JsonFlag = False) -> None:
    """Revoke a key for ever. Running gateways refuse it within two seconds. Its budgets and spending stay."""
    from embedway.server.keys import revoke_key

    invocation = Invocation.of(context)
    key = _with_records(invocation.config(), lambda records: revoke_key(records, name))
    if as_json:
        with report_of_work(invocation, as_json=True):
            print_json({"name": name} if key is None else key.to_json())
        return
    note(invocation, f"key {name} is revoked; running gateways refuse it within two seconds")


def _with_records(config: "Config", work: "Callable[[Records], Awaitable[T]]") -> T:
    from embedway.ledger.opening import open_records

    async def run() -> T:
        records = open_records(config)
        if records is None:
            raise UsageError(
                "keys are stored with the ledger, and ledger.backend is none; set it to sqlite or redis, as for the "
                "gateway"
            )
        try:
            return await work(records)
        finally:
            await records.aclose()

    explain("a key is stored completely or not at all; `embedway keys list` shows them")
    return wait_for(run())


async def _create(records: "Records", key: "ApiKey", limit: "Limit | None", config: "Config") -> "ApiKey | None":
    """Store a key and its budget. Return the revoked key that it replaces."""
    from embedway.ledger.opening import open_ledger
    from embedway.server.keys import check_is_free, store_new_key

    book = open_ledger(config) if limit is not None else None
    if limit is not None and book is not None:
        try:
            await check_is_free(records, key.name)
            # Before the key: without it, the key would have no limit if this process ended here.
            await book.set_limit(limit)
        finally:
            await book.aclose()
    return await store_new_key(records, key)


def _budget(key: "ApiKey", amount: str, period: Literal["total", "day", "month"], config: "Config") -> "Limit":
    """Return the budget of a new key. Raises UsageError."""
    from embedway.ledger.base import Limit
    from embedway.money import to_nanousd

    limit = Limit(f"key {key.name}", to_nanousd(amount, name="--budget"), key.scope, period)
    if limit.name in config.budgets:
        raise UsageError(f"budget {limit.name!r} is defined in the settings; remove it there, or leave --budget out")
    return limit


async def _standings(key: "ApiKey", config: "Config") -> "list[Standing]":
    from embedway.ledger.opening import limits_of, open_ledger
    from embedway.providers.names import full_name

    book = open_ledger(config)
    if book is None:
        return []
    try:
        return [one for one in await book.standings(limits_of(config, full_name)) if one.limit.scope == key.scope]
    finally:
        await book.aclose()


def _full_names(models: tuple[str, ...] | None, config: "Config") -> tuple[str, ...] | None:
    """Return the names under which calls of models are booked. Raises UnknownModelError."""
    from embedway.providers.names import full_name

    return None if models is None else tuple(dict.fromkeys(full_name(name, config) for name in models))


def _row(key: "ApiKey") -> tuple[str, ...]:
    return (
        key.name,
        key.id,
        key.tenant,
        "all" if key.models is None else ", ".join(key.models),
        _number(key.requests_per_minute),
        _number(key.tokens_per_minute),
        f"{key.weight:g}",
        key.to_json()["created"][:19].replace("T", " "),
        "revoked" if key.revoked is not None else "admin" if key.admin else "active",
    )


def _number(value: Any) -> str:
    return "no limit" if value is None else f"{value:,}"
