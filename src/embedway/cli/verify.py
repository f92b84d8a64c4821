"""`embedway verify`: prove that the rows of a collection are right, and repair them."""

import math
import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from embedway.cli.job_options import CollectionArgument
from embedway.cli.job_report import cost_rows
from embedway.cli.options import Invocation, JsonFlag
from embedway.cli.output import DownloadProgress, note, print_json, print_line, print_table, wait_for
from embedway.interrupts import explain
from embedway.text import count_of

if TYPE_CHECKING:
    from embedway.collections.recomputing import VerifyPlan
    from embedway.collections.verification_report import VerifyReport
    from embedway.config import Config

#: Faults that a table names.
_SHOWN = 20


def verify(
    context: typer.Context,
    collection: CollectionArgument,
    *,
    sample: Annotated[
        int,
        typer.Option(
            "--sample",
            min=1,
            metavar="N",
            help="Number of random rows to embed again. 250 faultless rows prove that at most 1.2 % are wrong.",
        ),
    ] = 250,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="NAME", help="Model. Default: that of COLLECTION.")
    ] = None,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Replace wrong vectors, and remove rows of incomplete or damaged documents. The next `sync` embeds "
            "these documents again. If the sample has a wrong row, all rows are recomputed.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print how many rows are recomputed, and the price. Spend nothing.")
    ] = False,
    max_cost: Annotated[
        str | None, typer.Option("--max-cost", metavar="USD", help="Maximum cost, with that of a repair.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Embed a random sample of rows again, check that documents are complete, and state what that proves.

    Exit with 1 if a fault is left.
    """
    from embedway.collections.verification_report import VerifyReport
    from embedway.money import to_nanousd

    invocation = Invocation.of(context)
    config = invocation.config()
    most = None if max_cost is None else to_nanousd(max_cost, name="--max-cost")
    kept = "the collection is as before the command, or completely repaired; the same command computes no vector again"
    explain(kept if repair else "nothing is changed")
    report = wait_for(_verify(invocation, config, collection, model, sample, repair=repair, dry_run=dry_run, most=most))
    if not isinstance(report, VerifyReport):
        if as_json:
            print_json(asdict(report))
        else:
            print_line(report.sentence)
        return
    if as_json:
        print_json({**asdict(report), "faultless": report.faultless})
    else:
        _print(invocation, report)
    if not report.faultless:
        raise typer.Exit(1)


async def _verify(
    invocation: Invocation,
    config: "Config",
    destination: str,
    model: str | None,
    sample: int,
    *,
    repair: bool,
    dry_run: bool,
    most: int | None,
) -> "VerifyReport | VerifyPlan":
    import asyncio

    from embedway._embedder import AsyncEmbedder
    from embedway.collections.stores import open_store
    from embedway.collections.verification import plan_verification, verify_collection

    def tell(text: str) -> None:
        note(invocation, text)

    async with AsyncEmbedder(config=config, progress=DownloadProgress(invocation)) as embedder:
        store = await asyncio.to_thread(open_store, destination)
        try:
            if dry_run:
                return await plan_verification(embedder, store, model=model, sample=sample, note=tell)
            return await verify_collection(
                embedder, store, model=model, sample=sample, repair=repair, most_nanousd=most, note=tell
            )
        finally:
            await asyncio.to_thread(store.close)


def _print(invocation: Invocation, report: "VerifyReport") -> None:
    rows = [
        ("collection", report.destination),
        ("space", report.space_id),
        ("rows", f"{report.rows:,} of {count_of(report.documents, 'document')}"),
        ("compared", f"{report.sampled:,}"),
        ("wrong", f"{report.wrong:,}"),
        ("missing", f"{report.missing:,}"),
        ("duplicated", f"{report.duplicated:,}"),
        ("orphaned", f"{report.orphaned:,}"),
        *cost_rows(report.cost_nanousd, report.tokens, 0),
    ]
    if report.repaired or report.removed:
        rows.append(("repaired", f"{count_of(report.repaired, 'row')} replaced, {report.removed:,} removed"))
    print_table(("result", ""), rows)
    _print_faults(invocation, report)
    if report.after is not None and report.after.faults:
        print_line("left after the repair:")
        _print_faults(invocation, report.after)
    if report.repaired or report.removed:
        note(invocation, "the next `sync` embeds the documents of replaced and removed rows again")
    print_line(statement(report))
    if report.after is not None and report.missing > report.after.missing:
        sync = f"`embedway sync --to {shlex.quote(report.destination)}`"
        note(invocation, f"incomplete documents are removed; {sync} adds them again from their sources")


def _print_faults(invocation: Invocation, report: "VerifyReport") -> None:
    if not report.faults:
        return
    shown = report.faults[:_SHOWN]
    print_table(("fault", "row or document", "reason"), [(one.kind, one.id, one.reason) for one in shown])
    if len(report.faults) > len(shown):
        note(invocation, f"{count_of(len(report.faults) - len(shown), 'more fault')}; --json lists all")


def statement(report: "VerifyReport") -> str:
    """Return the sentence that says what a verification proves; after a repair, of the repaired collection."""
    if report.after is not None:
        return f"after the repair: {statement(report.after)}"
    if not report.rows:
        return "the collection has no rows"
    wrong = "none is" if not report.wrong else "1 is" if report.wrong == 1 else f"{report.wrong:,} are"
    if report.sampled >= report.rows:
        return f"all rows were compared: {wrong} wrong"
    most = math.ceil(report.bound * 1000) / 10  # rounded up: it is an upper bound
    proved = f"with {report.confidence:.0%} confidence, at most {most:.1f}% of all rows are wrong"
    return f"of {report.sampled:,} random rows, {wrong} wrong: {proved}"
