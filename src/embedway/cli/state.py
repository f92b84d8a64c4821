"""`embedway state backup|restore`: what cannot be computed again, in one file."""

from pathlib import Path
from typing import Annotated

import typer

from embedway.cli.options import Invocation, JsonFlag
from embedway.cli.output import note, print_json, print_line, print_table, size
from embedway.text import printable

app = typer.Typer(
    help="The ledger, pins, trust and keys: what cannot be computed again.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("backup")
def backup(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write, such as state.zip.")],
    *,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write the ledger, pins, trust and keys into one file, also while they are in use."""
    from embedway.ledger.base import moment
    from embedway.state.backup import back_up, parts_of

    done = back_up(parts_of(Invocation.of(context).config()), file, overwrite=overwrite)
    if as_json:
        parts = {
            name: {"place": done.places[name], "bytes": count, "sha256": sha256}
            for name, (count, sha256) in done.manifest.parts.items()
        }
        print_json({"file": str(file), "created": moment(done.manifest.created), "parts": parts})
        return
    rows = [(name, size(count), done.places[name]) for name, (count, _) in done.manifest.parts.items()]
    print_table(("part", "size", "from"), rows, right=(1,))


@app.command("restore")
def restore(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `embedway state backup` wrote.")],
    *,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what there is; a backup of it is kept beside it.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Put a backup in the place of what there is. Hard budgets refuse every call until `embedway budget confirm`."""
    from embedway.ledger.base import moment
    from embedway.state import backup as state

    invocation = Invocation.of(context)
    done = state.restore(state.parts_of(invocation.config()), file, overwrite=overwrite)
    if as_json:
        print_json(
            {
                "file": str(file),
                "created": moment(done.created),
                "restored": done.places,
                "kept": None if done.kept is None else str(done.kept),
                "to_confirm": done.to_confirm,
            }
        )
    else:
        print_table(("part", "to"), list(done.places.items()))
        if done.kept is not None:
            print_line(printable(f"what was there before is kept in {done.kept}", keep_layout=True))
    if done.to_confirm:
        note(
            invocation,
            f"the books are of {moment(done.created)}: hard budgets refuse every call until you have looked at "
            "`embedway budget show` and let them count again with `embedway budget confirm`",
        )
