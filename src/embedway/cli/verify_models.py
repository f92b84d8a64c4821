"""`embedway models verify`: whether two models or routes answer in one vector space."""

from typing import TYPE_CHECKING, Annotated

import typer

from embedway.cli.options import Invocation, JsonFlag, decode_text
from embedway.cli.output import DownloadProgress, note, print_json, print_line, print_table, report_of_work, wait_for
from embedway.errors import EmbedwayError, UsageError
from embedway.interrupts import explain

if TYPE_CHECKING:
    from embedway.models.verification import SpaceComparison
    from embedway.quality.space_proofs import SpaceProof, StoredVectors

#: Exit code without a result, because 1 means another space.
UNCHECKED = 4


def verify(
    context: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[A B]",
            callback=decode_text,
            help="Two models or routes: NAME of a model, routes.NAME, PROVIDER:MODEL, or NAME#PRECISION,BACKEND of a "
            "model on this machine.",
        ),
    ] = None,
    *,
    max_cost: Annotated[
        str | None, typer.Option("--max-cost", metavar="USD", help="Send nothing if the comparison may cost more.")
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="List the stored proofs.")] = False,
    remove: Annotated[
        str | None, typer.Option("--remove", metavar="NAME", help="Remove a stored proof, by its name in the list.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare the vectors of two models or routes, and store the result as a proof for failover.

    Exit with 0 for the same space, 1 for another one, 4 if they could not be compared, such as without an answer.
    """
    invocation = Invocation.of(context)
    if sum((bool(names), show, remove is not None)) != 1 or (names and len(names) != 2):
        raise UsageError("name two models or routes, or use --list or --remove NAME")
    if names:
        _verify(invocation, names[0], names[1], max_cost, as_json=as_json)
    elif remove is not None:
        _remove(invocation, remove)
    else:
        _list(invocation, as_json=as_json)


def _verify(invocation: Invocation, a: str, b: str, max_cost: str | None, *, as_json: bool) -> None:
    from embedway._embedder import AsyncEmbedder

    async def work() -> "SpaceComparison":
        config = invocation.config()
        async with AsyncEmbedder(config=config, progress=DownloadProgress(invocation)) as embedder:
            return await embedder.models.verify(a, b, max_cost=max_cost, progress=lambda text: note(invocation, text))

    explain("no proof was stored; run the same command again")
    try:
        found = wait_for(work())
    except EmbedwayError as error:
        if error.exit_code == 1:
            error.exit_code = UNCHECKED
        raise
    explain("the proof is stored; `embedway models verify --list` shows it")
    with report_of_work(invocation, as_json=as_json):
        if as_json:
            print_json({**found.proof.to_json(), "tokens": found.tokens, "cost_nanousd": found.cost_nanousd})
        else:
            _print(found)
    raise typer.Exit(0 if found.is_same else 1)


def _print(found: "SpaceComparison") -> None:
    from embedway.money import usd

    proof = found.proof
    print_line(f"{proof.a.name} and {proof.b.name}: {proof.verdict}")
    for reason in proof.reasons:
        print_line(f"- {reason}")
    print_table(
        ("texts as", "texts", "same", "same ≥", "lowest", "1 %", "median", "top 1", "top 1 ≥", "top 10", "interval"),
        [
            (
                one.input_type,
                str(one.texts),
                str(one.same_texts),
                f"{one.same_share_at_least:.1%}",
                f"{one.lowest_cosine:.5f}",
                f"{one.first_percentile:.5f}",
                f"{one.median_cosine:.5f}",
                f"{one.top1_agreement:.1%}",
                f"{one.top1_at_least:.1%}",
                f"{one.top10_overlap:.1%}",
                f"{one.top10_interval[0]:.1%} to {one.top10_interval[1]:.1%}",
            )
            for one in found.figures
        ],
        right=tuple(range(1, 11)),
    )
    cost = "an unknown amount" if found.cost_nanousd is None else f"${usd(found.cost_nanousd)}"
    left = f"; {found.left_out} texts were refused" if found.left_out else ""
    print_line(f"{found.tokens:,} tokens for {cost}{left}. Bounds have a confidence of 95 %.")


def _list(invocation: Invocation, *, as_json: bool) -> None:
    import time

    from embedway._embedder import AsyncEmbedder

    async def work() -> "list[SpaceProof | StoredVectors]":
        async with AsyncEmbedder(config=invocation.config()) as embedder:
            return await embedder.models.proofs()

    found = wait_for(work())
    if as_json:
        print_json([one.to_json() for one in found])
        return
    if not found:
        print_line("no proofs: `embedway models verify A B` compares two models or routes")
        return
    now = time.time()
    print_table(
        ("name", "a", "b", "result", "texts", "date (UTC)", "age", "version"),
        [
            (
                one.name,
                *_compared(one),
                str(one.texts),
                one.date,
                f"{max(0, int((now - one.made) // 86_400))} d{'' if one.is_valid(now) else ', expired'}",
                one.version,
            )
            for one in found
        ],
        right=(4,),
    )


def _compared(one: "SpaceProof | StoredVectors") -> tuple[str, str, str]:
    """Return the two routes and the result; stored vectors have one route and no result."""
    from embedway.quality.space_proofs import SpaceProof

    return (
        (one.a.name, one.b.name, one.verdict)
        if isinstance(one, SpaceProof)
        else (one.route.name, "-", "stored vectors")
    )


def _remove(invocation: Invocation, name: str) -> None:
    from embedway._embedder import AsyncEmbedder

    async def work() -> bool:
        async with AsyncEmbedder(config=invocation.config()) as embedder:
            return await embedder.models.remove_proof(name)

    if not wait_for(work()):
        raise UsageError(f"no proof is named {name!r}; `embedway models verify --list` shows them")
    note(invocation, f"removed {name}")
