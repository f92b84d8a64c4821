"""`embedway cache stats|clear|verify`: inspect, clear and verify the vector cache."""

import os
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from embedway.cli.job_options import (
    EncodingOption,
    ExcludeOption,
    FollowLinksOption,
    IncludeOption,
    TextFieldOption,
    reading_options,
)
from embedway.cli.options import InputTypeChoice, Invocation, JsonFlag, ModelOption, OverflowChoice
from embedway.cli.output import (
    DownloadProgress,
    note,
    note_pipes,
    print_json,
    print_line,
    print_table,
    report_of_work,
    size,
    standard_input,
    wait_for,
)
from embedway.errors import UsageError
from embedway.interrupts import explain
from embedway.text import printable

if TYPE_CHECKING:
    from embedway.cache.stats import CacheCheck, CacheStats, ClearResult, ModelStats
    from embedway.collections.run import RunOptions
    from embedway.config import Config

app = typer.Typer(help="Inspect, clear and verify the vector cache.", no_args_is_help=True, rich_markup_mode=None)

_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
#: Minimum cosine of equal vectors. Kernels and batches differ in the last digits; lossy codecs stay above it.
SAME_COSINE = 0.999


@app.command("stats", short_help="Show entries, hits and savings.")
def stats(context: typer.Context, *, as_json: JsonFlag = False) -> None:
    """Show cached vectors, and tokens and money saved. Running processes save their counts at most once a minute."""
    config = Invocation.of(context).config()
    found = wait_for(_load_stats(config))
    if as_json:
        print_json(_stats_json(config, found))
        return
    print_line(_describe_location(config))
    rows = [_row(model, one) for model, one in found.models.items()]
    print_table(
        ("model", "entries", "size", "hits", "misses", "hit rate", "tokens saved", "dollars saved"),
        [*rows, _row("total", found.total)],
        right=(1, 2, 3, 4, 5, 6, 7),
    )
    total = found.total
    counts = {
        "computed by a concurrent caller": total.shared,
        "evicted": found.evictions,
        "damaged entries": total.damaged,
        "entries with invalid vectors": total.invalid,
        "damaged files renamed": found.set_aside,
        "failed reads": found.failed_reads,
        "failed writes": found.failed_writes,
    }
    problems = ", ".join(f"{number:,} {what}" for what, number in counts.items() if number)
    if problems:
        print_line(problems)


@app.command("clear", short_help="Delete cached vectors.")
def clear(
    context: typer.Context,
    *,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="NAME", help="Delete vectors of this model (full or short name)."),
    ] = None,
    space: Annotated[
        str | None, typer.Option("--space", metavar="ID", help="Delete vectors of this space, as in `embed --json`.")
    ] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", metavar="NAME", help="Delete vectors of this namespace; '' for none.")
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", metavar="AGE", help="Delete vectors older than AGE: 30d, 12h, 90m, 45s."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Delete all vectors.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Delete cached vectors that match all given options."""
    limits = (model, space, namespace, older_than)
    if everything == any(limit is not None for limit in limits):
        raise UsageError("select the vectors to delete: --model, --space, --namespace, --older-than, or --all")
    age = _parse_age_s(older_than) if older_than is not None else None
    invocation = Invocation.of(context)
    config = invocation.config()
    explain("vectors that were deleted stay deleted; run the same command again for the others")
    done = wait_for(_clear(config, model, space, namespace, age))
    with report_of_work(invocation, as_json=as_json):
        if as_json:
            print_json({"before": done.before, "after": done.after})
        else:
            print_line(f"{done.before - done.after:,} vectors deleted: {done.before:,} before, {done.after:,} after")


@app.command("verify", short_help="Recompute cached vectors and compare.")
def verify(
    context: typer.Context,
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help="Embedded texts, as for `run`, or - for one text per line."),
    ],
    *,
    input_type: Annotated[
        InputTypeChoice, typer.Option("--input-type", help="Input type with which the texts were embedded.")
    ] = "document",
    model: ModelOption = None,
    sample: Annotated[int, typer.Option("--sample", min=1, metavar="N", help="Number of texts to recompute.")] = 100,
    no_chunk: Annotated[bool, typer.Option("--no-chunk", help="One vector per document, as in `run`.")] = False,
    on_overflow: Annotated[
        OverflowChoice | None, typer.Option("--on-overflow", help="Overflow policy with which the texts were embedded.")
    ] = None,
    text_field: TextFieldOption = None,
    include: IncludeOption = None,
    exclude: ExcludeOption = None,
    encoding: EncodingOption = None,
    follow_links: FollowLinksOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Recompute some cached vectors and compare them. The cache stores no texts, so name their sources.

    Exit with 1 if a vector differs.
    """
    invocation = Invocation.of(context)
    config = invocation.config({"embedding.default_model": model, "embedding.on_overflow": on_overflow})
    from embedway.collections.run import RunOptions

    overlap_is_set = "run.overlap" in config.sources
    options = RunOptions(
        model=config.embedding.default_model,
        chunk=not no_chunk and input_type == "document",
        chunk_tokens=None if no_chunk or input_type != "document" else config.run.chunk_tokens,
        overlap_tokens=config.run.overlap if overlap_is_set and not no_chunk else None,
        **reading_options(
            text_field=text_field, include=include, exclude=exclude, encoding=encoding, follow_links=follow_links
        ),
    )
    note_pipes(invocation, sources)
    if "-" in sources:
        standard_input()  # it must be readable
    checked = wait_for(_verify(invocation, config, sources, options, input_type=input_type, sample=sample))
    same = checked.lowest_cosine is None or checked.lowest_cosine >= SAME_COSINE
    if as_json:
        print_json({**asdict(checked), "same": same})
    else:
        _print_check(invocation, checked, same=same)
    if not same:
        raise typer.Exit(1)


def _print_check(invocation: Invocation, checked: "CacheCheck", *, same: bool) -> None:
    print_line(f"{checked.found:,} of {checked.texts:,} texts are in the cache")
    if checked.damaged:
        print_line(
            f"{checked.damaged:,} entries are damaged or contain invalid vectors: they are cache misses, and are "
            "replaced when they are used"
        )
    if checked.lowest_cosine is None:
        note(
            invocation, "nothing to compare: were these texts embedded with this model, input type and overflow policy?"
        )
        return
    cost = f" for {checked.cost_nanousd / 1e9:.6f} dollars" if checked.cost_nanousd else ""
    print_line(f"{checked.recomputed:,} recomputed{cost}: the lowest cosine is {checked.lowest_cosine:.6f}")
    if not same:
        print_line(
            f"the vector of text {checked.row} differs; `embedway cache clear --model …` deletes the vectors of a model"
        )


def _is_missing(config: "Config") -> bool:
    """Return whether the file is missing, to avoid creating it. A broken link counts as present; opening it fails."""
    return config.cache.backend == "sqlite" and not os.path.lexists(config.cache.path)


async def _load_stats(config: "Config") -> "CacheStats":
    from embedway._embedder import AsyncEmbedder
    from embedway.cache.stats import CacheStats

    if _is_missing(config):
        return CacheStats({})
    async with AsyncEmbedder(config=config) as embedder:
        return await embedder.cache.stats()


async def _clear(
    config: "Config", model: str | None, space: str | None, namespace: str | None, age: float | None
) -> "ClearResult":
    from embedway._embedder import AsyncEmbedder
    from embedway.cache.stats import ClearResult

    if _is_missing(config):
        return ClearResult(0, 0)
    async with AsyncEmbedder(config=config) as embedder:
        if model is not None:
            known = (await embedder.cache.stats()).models
            model = _full_name(model, list(known))
        return await embedder.cache.clear(model=model, space_id=space, namespace=namespace, older_than_s=age)


async def _verify(
    invocation: Invocation,
    config: "Config",
    sources: list[str],
    options: "RunOptions",
    *,
    input_type: InputTypeChoice,
    sample: int,
) -> "CacheCheck":
    from embedway._embedder import AsyncEmbedder
    from embedway.collections.run import read_texts

    async with AsyncEmbedder(config=config, progress=DownloadProgress(invocation)) as embedder:
        texts = await read_texts(embedder, sources, options)
        return await embedder.cache.verify(
            texts,
            input_type=input_type,
            model=options.model,
            on_overflow=config.embedding.on_overflow,
            sample=sample,
        )


def _full_name(name: str, known: list[str]) -> str:
    """Return the full name of a cached model. Raises UsageError, which lists the cached models."""
    from embedway.catalog import default_catalog
    from embedway.errors import UnknownModelError

    if name in known:
        return name
    try:
        full = default_catalog().get(name).name
    except UnknownModelError:
        full = name
    matching = [model for model in known if model == full or model.rpartition("/")[2] == name]
    if len(matching) != 1:
        there = ", ".join(map(printable, known)) or "none"
        raise UsageError(f"no cached model is named {name!r}; cached models: {there}")
    return matching[0]


def _parse_age_s(text: str) -> float:
    match = _AGE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"--older-than is {text!r}; it must be a number and a unit, such as 30d, 12h, 90m or 45s")
    return float(match[1]) * _SECONDS[match[2]]


def _describe_location(config: "Config") -> str:
    cache = config.cache
    if cache.backend == "sqlite":
        return f"sqlite: {cache.path}" + ("" if cache.path.exists() else " (not created yet)")
    # The URL may contain a password.
    return cache.backend


def _row(name: str, one: "ModelStats") -> tuple[str, ...]:
    return (
        # In Redis, other programs may have written the name.
        printable(name),
        f"{one.entries:,}",
        size(one.bytes),
        f"{one.hits:,}",
        f"{one.misses:,}",
        f"{one.hit_rate:.1%}",
        f"{one.tokens_saved:,}",
        f"{one.nanousd_saved / 1e9:.6f}",
    )


def _stats_json(config: "Config", found: "CacheStats") -> dict[str, object]:
    return {
        "backend": config.cache.backend,
        "models": {model: _model_json(one) for model, one in found.models.items()},
        "total": _model_json(found.total),
        "evictions": found.evictions,
        "set_aside": found.set_aside,
        "failed_reads": found.failed_reads,
        "failed_writes": found.failed_writes,
    }


def _model_json(one: "ModelStats") -> dict[str, object]:
    return {**asdict(one), "hit_rate": one.hit_rate}
