"""Messages that the commands `run` and `sync` share: skipped files, rejected rows, cost, and what is kept."""

from typing import TYPE_CHECKING

from embedway.cli.options import Invocation
from embedway.cli.output import continuation, note
from embedway.text import count_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway.collections.job import Kept
    from embedway.config import Config

#: Exit code of a job that completed with rejected rows.
PARTLY_FAILED = 4


def stopped_job(config: "Config", destination: str, kept: "Kept") -> "Callable[[], str]":
    """Return a function that says what a job stopped by a signal has left."""
    from embedway.collections.stores import shown, store_for

    name = shown(destination)
    # For one on a server, it is unknown whether it exists.
    path = store_for(destination).local_path
    state = f"{name} is unchanged" if path is None or path.exists() else f"{name} is not written"

    def describe() -> str:
        if kept.complete:
            return f"{name} is complete"
        again = "run the same command again to continue"
        if kept.rows:
            return f"{count_of(kept.rows, 'row')} written to {name} and kept; {again}"
        if kept.vectors:
            return f"{state}\n{count_of(kept.vectors, 'computed vector')} kept outside of it; {again}"
        return f"{state}\n{continuation(config)}"

    return describe


def tell_rejected(invocation: Invocation, rejected: int, path: str | None) -> None:
    """Say how many rows, files and folders were rejected, and where they are listed."""
    if rejected:
        note(
            invocation,
            f"{count_of(rejected, 'row or file was', 'rows or files were')} rejected; the reasons are in {path}",
        )


def cost_rows(cost_nanousd: int | None, billed_tokens: int, unsure_nanousd: int) -> list[tuple[str, str]]:
    """Return the row of a summary with the cost; none for a job that costs nothing."""
    from embedway.money import usd

    if cost_nanousd is None:
        return [("cost", f"unknown: no price for {billed_tokens:,} tokens")]
    if not billed_tokens and not cost_nanousd:
        return []
    unsure = ""
    if unsure_nanousd:
        why = "failed requests may be billed, or the reported usage is implausible"
        unsure = f", of which ${usd(unsure_nanousd)} is unsure ({why})"
    return [("cost", f"${usd(cost_nanousd)} for {billed_tokens:,} tokens{unsure}")]
