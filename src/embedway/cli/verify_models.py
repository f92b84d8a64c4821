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
            metavar="A B",
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
    print_line(_models_of(proof))
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
        in_blocks=True,
    )
    cost = "at an unknown price" if found.cost_nanousd is None else f"for ${usd(found.cost_nanousd)}"
    left = f"; {found.left_out} texts were refused" if found.left_out else ""
    print_line(f"{found.tokens:,} tokens {cost}{left}. Bounds have a confidence of 95 %.")


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
        print_line("There are no proofs: `embedway models verify A B` compares two models or routes")
        return
    now = time.time()
    from embedway.quality.space_proofs import SpaceProof

    compared = [one for one in found if isinstance(one, SpaceProof)]
    for model in dict.fromkeys(map(_models_of, compared)):
        print_line(model)
        print_table(
            ("name", "a", "b", "result", "texts", "date (UTC)", "age", "version"),
            [
                (one.name, one.a.name, one.b.name, one.verdict, str(one.texts), one.date, _age(one, now), one.version)
                for one in compared
                if _models_of(one) == model
            ],
            right=(4,),
            in_blocks=True,
        )
        print_line()
    stored = [one for one in found if not isinstance(one, SpaceProof)]
    if stored:
        print_line("Stored vectors of routes, to compare others with while the route is down:")
        print_table(
            ("name", "route", "model", "date (UTC)", "age"),
            [(one.name, one.route.name, one.route.model, one.date, _age(one, now)) for one in stored],
            in_blocks=True,
        )


def _models_of(proof: "SpaceProof") -> str:
    """Return the names of the compared models, one if they are equal."""
    return " and ".join(dict.fromkeys(one.model for one in (proof.a, proof.b)))


def _age(proof: "SpaceProof | StoredVectors", now: float) -> str:
    return f"{max(0, int((now - proof.made) // 86_400))} d{'' if proof.is_valid(now) else ', expired'}"


def _remove(invocation: Invocation, name: str) -> None:
    from embedway._embedder import AsyncEmbedder

    async def work() -> bool:
        async with AsyncEmbedder(config=invocation.config()) as embedder:
            return await embedder.models.remove_proof(name)

    if not wait_for(work()):
        raise UsageError(f"no proof is named {name!r}; `embedway models verify --list` shows them")
    note(invocation, f"removed {name}")
