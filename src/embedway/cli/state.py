"""`embedway state backup|restore`: data that cannot be recomputed, in one file."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from embedway.cli.options import Invocation, JsonFlag
from embedway.cli.output import describe_destination, note, print_json, print_line, print_table, report_of_work, size
from embedway.interrupts import explain

app = typer.Typer(help="Back up and restore the state.", no_args_is_help=True, rich_markup_mode=None)


@app.command("backup", short_help="Write the state to a file.")
def backup(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write, such as state.zip.")],
    *,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write the ledger with API keys, pins, trust, and files and batches of a gateway to one file. They may be in use.

    Files and batches on the ledger's server are not contained.
    """
    from embedway.ledger.base import moment
    from embedway.state.backup import back_up, parts_of

    explain(describe_destination(file))
    invocation = Invocation.of(context)
    config = invocation.config()
    done = back_up(parts_of(config), file, overwrite=overwrite)
    if config.ledger.backend == "redis":
        note(invocation, "files and batches of a gateway stay on the server: `valkey-cli --rdb` backs them up")
    parts = {
        name: {"place": done.places[name], "bytes": count, "sha256": sha256}
        for name, (count, sha256) in done.manifest.parts.items()
    }
    rows = [(name, size(count), done.places[name]) for name, (count, _) in done.manifest.parts.items()]
    with report_of_work(invocation, as_json=as_json):
        if as_json:
            print_json({"file": str(file), "created": moment(done.manifest.created), "parts": parts})
        else:
            print_table(("part", "size", "from"), rows, right=(1,))


@app.command("restore", short_help="Restore the state from a file.")
def restore(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File written by `embedway state backup`.")],
    *,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing data; a backup of it is stored beside it.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Restore a backup. After that, hard budgets refuse every call until `embedway budget confirm`."""
    from embedway.ledger.base import moment
    from embedway.state import backup as state

    invocation = Invocation.of(context)
    explain("nothing was restored; the state is unchanged")
    restored = partial(
        explain, "everything was restored; check `embedway budget show`, then run `embedway budget confirm`"
    )
    parts = state.parts_of(invocation.config())
    done = state.restore(parts, file, overwrite=overwrite, on_commit=restored)
    if done.to_confirm:
        note(
            invocation,
            f"the ledger is from {moment(done.created)}: hard budgets refuse every call until you check "
            "`embedway budget show` and run `embedway budget confirm`",
        )
    document = {
        "file": str(file),
        "created": moment(done.created),
        "restored": done.places,
        "kept": None if done.kept is None else str(done.kept),
        "to_confirm": done.to_confirm,
    }
    with report_of_work(invocation, as_json=as_json):
        if as_json:
            print_json(document)
            return
        print_table(("part", "to"), list(done.places.items()))
        if done.kept is not None:
            print_line(f"the previous data is stored in {done.kept}")
