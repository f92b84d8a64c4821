"""`embedway select`: show which model fits the texts best, and why."""

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from embedway.cli.job_options import (
    EncodingOption,
    ExcludeOption,
    FitOption,
    FollowLinksOption,
    FormatOption,
    IncludeOption,
    TextFieldOption,
    reading_options,
)
from embedway.cli.options import DimensionsOption, Invocation, JsonFlag, ModelsOption, PresetChoice, split_names
from embedway.cli.output import (
    note,
    note_pipes,
    one_line,
    print_json,
    print_line,
    print_table,
    standard_input,
    wait_for,
)
from embedway.cli.selection import advice_for, criteria_of
from embedway.errors import NoModelError
from embedway.text import count_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.collections.run import RunOptions
    from embedway.config import Config
    from embedway.selection.analysis import TextAnalysis
    from embedway.selection.criteria import ModelSelectionCriteria
    from embedway.selection.scoring import ScoredModel, Selection

_COLUMNS = ("rank", "model", "here", "score", "accuracy", "bonus", "latency", "$/M tokens", "texts cost", "licence", "")
#: Up to this many excluded models are listed with all their reasons; more are counted by reason.
_LISTED_MODELS = 10
#: Maximum characters of a reason in the summary.
_REASON_WIDTH = 100


def select(  # long, because typer reads the options from the signature
    context: typer.Context,
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SOURCE...]", help="Texts, as for `run`. Without texts, only the criteria decide."),
    ] = None,
    *,
    models: ModelsOption = None,
    preset: Annotated[
        PresetChoice | None,
        typer.Option("--preset", "-p", help="Preset of criteria. Default: the setting selection.preset (balanced)."),
    ] = None,
    accuracy_weight: Annotated[
        float | None, typer.Option("--accuracy-weight", min=0, metavar="W", help="Weight of a high quality score.")
    ] = None,
    speed_weight: Annotated[
        float | None, typer.Option("--speed-weight", min=0, metavar="W", help="Weight of a short latency.")
    ] = None,
    cost_weight: Annotated[
        float | None, typer.Option("--cost-weight", min=0, metavar="W", help="Weight of a low price.")
    ] = None,
    max_cost_per_million: Annotated[
        str | None, typer.Option("--max-cost-per-million", metavar="USD", help="Maximum price per million tokens.")
    ] = None,
    max_total_cost: Annotated[
        str | None, typer.Option("--max-total-cost", metavar="USD", help="Maximum cost of all texts.")
    ] = None,
    min_accuracy: Annotated[
        float | None, typer.Option("--min-accuracy", min=0, max=1, metavar="A", help="Minimum accuracy, from 0 to 1.")
    ] = None,
    max_latency_ms: Annotated[
        float | None,
        typer.Option("--max-latency-ms", metavar="MS", help="Maximum latency of a query, in milliseconds."),
    ] = None,
    min_context: Annotated[
        int | None,
        typer.Option("--min-context", min=1, metavar="N", help="Minimum context length of the model, in tokens."),
    ] = None,
    dimensions: DimensionsOption = None,
    multilingual: Annotated[
        bool | None, typer.Option("--multilingual/--no-multilingual", help="Only multilingual models.")
    ] = None,
    local: Annotated[
        bool | None, typer.Option("--local/--no-local", help="Only models that keep texts on this machine.")
    ] = None,
    fit: FitOption = None,
    match_languages: Annotated[
        bool | None,
        typer.Option(
            "--match-languages/--no-match-languages",
            help="Only models that support the languages of the texts; the default.",
        ),
    ] = None,
    language: Annotated[
        list[str] | None,
        typer.Option("--language", "-l", metavar="TAG", help="Language that the model must support; repeatable."),
    ] = None,
    licence: Annotated[
        list[str] | None,
        typer.Option(
            "--licence",
            metavar="NAME",
            help="Allowed licence of the model, or any; repeatable. Default: all except non-commercial ones.",
        ),
    ] = None,
    any_scale: Annotated[
        bool | None,
        typer.Option("--any-scale/--no-any-scale", help="Also compare quality scores of other boards."),
    ] = None,
    anywhere: Annotated[
        bool,
        typer.Option("--anywhere", help="Also models that cannot be used here, because a key or weights are missing."),
    ] = False,
    text_field: TextFieldOption = None,
    format_: FormatOption = None,
    include: IncludeOption = None,
    exclude: ExcludeOption = None,
    encoding: EncodingOption = None,
    follow_links: FollowLinksOption = None,
    show_all: Annotated[bool, typer.Option("--all", help="List each excluded model with all its reasons.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show which model fits the texts best, with the score of each model, or all reasons why it is excluded."""
    invocation = Invocation.of(context)
    config = invocation.config({"selection.preset": preset})
    given: dict[str, Any] = {
        "accuracy_weight": accuracy_weight,
        "speed_weight": speed_weight,
        "cost_weight": cost_weight,
        "max_cost_per_million": max_cost_per_million,
        "max_total_cost": max_total_cost,
        "min_accuracy": min_accuracy,
        "max_latency_ms": max_latency_ms,
        "min_context": min_context,
        "dimensions": dimensions,
        "require_multilingual": multilingual,
        "require_local": local,
        "require_fit": fit,
        "match_languages": match_languages,
        "languages": tuple(language) if language else None,
        "licences": tuple(licence) if licence else None,
        "models": split_names(models),
        "any_scale": any_scale,
    }
    given = {name: value for name, value in given.items() if value is not None}
    criteria = criteria_of(config, given)
    from embedway.collections.run import RunOptions

    note_pipes(invocation, sources or [])
    reading = reading_options(
        text_field=text_field,
        format=format_,
        include=include,
        exclude=exclude,
        encoding=encoding,
        follow_links=follow_links,
    )
    options = RunOptions(on_error="skip", **reading)
    try:
        with advice_for("options", given):
            selection, whole = wait_for(_select(config, sources or [], options, criteria, anywhere=anywhere))
    except NoModelError as error:
        rows = cast("list[ScoredModel]", list(error.table))
        _note_fit(invocation, rows)
        if as_json:
            print_json({"model": None, "advice": list(error.advice), "table": [row.to_json() for row in rows]})
        else:
            print_selection(rows, show_all=show_all, any_scale=criteria.any_scale)
        raise
    _note_fit(invocation, selection.table)
    if as_json:
        print_json({**selection.to_json(), "all_documents": whole})
        return
    if selection.analysis is not None and sources:
        print_line(_describe_texts(selection.analysis))
        if not whole:
            _note_sample(invocation, selection.analysis, counted=criteria.max_total_cost is not None)
    print_line(f"selected: {selection.model}")
    print_line()
    print_selection(list(selection.table), show_all=show_all, any_scale=criteria.any_scale)


def _note_sample(invocation: Invocation, analysis: "TextAnalysis", *, counted: bool) -> None:
    documents = "document" if analysis.texts == 1 else f"{analysis.texts:,} documents"
    read = f"only the first {documents} ({analysis.characters:,} characters) {'was' if analysis.texts == 1 else 'were'}"
    note(invocation, f"{read} analyzed; costs are for {'all documents' if counted else 'these documents'}")


def _note_fit(invocation: Invocation, rows: "Sequence[ScoredModel]") -> None:
    """Note that `run` splits documents, if a document is too long for a model that runs here."""
    here = [row for row in rows if not row.candidate.lacks]
    short = [row for row in here if any(reason.requirement == "require_fit" for reason in row.reasons)]
    if short:
        models = count_of(len(short), "model cannot", "models cannot")
        note(
            invocation,
            f"{models} read the longest text completely; `run` splits texts: use --no-fit to select for chunks",
        )


async def _select(
    config: "Config", sources: list[str], options: "RunOptions", criteria: "ModelSelectionCriteria", *, anywhere: bool
) -> "tuple[Selection, bool]":
    from embedway._embedder import AsyncEmbedder
    from embedway.collections.model_choice import SAMPLE_CHARACTERS, open_texts, take_texts

    async with AsyncEmbedder(config=config) as embedder:
        if not sources:
            return await embedder.select([], criteria, anywhere=anywhere), True
        stream = standard_input() if "-" in sources else None
        async with open_texts(sources, options, standard_input=stream) as documents:
            texts, whole = await take_texts(documents, most_characters=SAMPLE_CHARACTERS)
            return await embedder.select(texts, criteria, anywhere=anywhere, rest=documents), whole


def _describe_texts(analysis: "TextAnalysis") -> str:
    """Describe the languages and the code of the texts, on one line."""
    languages = [f"{language} {share:.0%}" for language, share in analysis.languages]
    if analysis.unknown:
        languages.append(f"unknown {analysis.unknown:.0%}")
    parts = [f"{count_of(analysis.texts, 'text')}, {count_of(analysis.characters, 'character')}"]
    parts.append(", ".join(languages) or "no language")
    parts.append(f"code in {analysis.code:.0%}" if analysis.contains_code else "no code")
    if analysis.multilingual:
        parts.append("multilingual")
    return "; ".join(parts) + f" (a sample of {analysis.sampled})"


def print_selection(rows: "list[ScoredModel]", *, show_all: bool, any_scale: bool) -> None:
    """Print the accepted models by rank, then the excluded ones: each with its reasons, or their number by reason."""
    inside = [row for row in rows if row.rank is not None]
    if inside:
        _print_ranked(inside)
    outside = [row for row in rows if row.rank is None]
    if inside and outside:
        print_line()
    if show_all or len(outside) <= _LISTED_MODELS:
        _print_reasons("excluded", outside)
        _print_scales(rows, any_scale=any_scale)
        return
    # Models that miss nothing but the scale are shown beside the others, with their scores.
    beside = [row for row in outside if [reason.requirement for reason in row.reasons] == ["any_scale"]]
    if beside:
        _print_reasons("not compared", beside)
        print_line()
    _print_counts([row for row in outside if row not in beside])
    _print_scales([*inside, *beside], any_scale=any_scale)


def _print_ranked(rows: "list[ScoredModel]") -> None:
    """Print the accepted models, and explain the marks in their table."""
    unused = set()
    if all(row.multilingual_bonus * row.code_bonus == 1 for row in rows):
        unused.add("bonus")
    if not any(row.candidate.lacks for row in rows):
        unused.add("here")
    columns = [column for column in _COLUMNS if column not in unused]
    right = [place for place, column in enumerate(columns) if column not in {"model", "here", "licence", ""}]
    print_table(columns, [[_cells(row)[column] for column in columns] for row in rows], right=right)
    if "here" in columns:
        print_line("here: whether it runs here now; `lacks` of --json says what is missing")
    if any(_is_estimated(row) for row in rows):
        print_line("~ estimated: from a sample (--max-total-cost counts all texts), or without the model's tokenizer")
    print_line("+ pareto: no model is better in accuracy, latency and price at once")
    if any(row.candidate.non_commercial for row in rows):
        print_line("! the licence forbids commercial use")


def _print_reasons(title: str, rows: "list[ScoredModel]") -> None:
    if rows:
        listed = [(row.model, "; ".join(reason.message for reason in row.reasons)) for row in rows]
        print_table((title, "reason"), listed)


def _print_scales(rows: "list[ScoredModel]", *, any_scale: bool) -> None:
    """Explain the mark of scores that are not MTEB's English average."""
    if any(row.accuracy is not None and not _is_mteb(row) for row in rows):
        compared = "" if any_scale else ", which only --any-scale compares"
        print_line(f"*: not MTEB's English average: your own score, or another scale's{compared}; see --json")


def _is_mteb(row: "ScoredModel") -> bool:
    from embedway.catalog.benchmarks import MTEB_EN

    return row.candidate.benchmark.quality_scale == MTEB_EN


def _print_counts(rows: "list[ScoredModel]") -> None:
    """Print how many models are excluded for each reason; a model counts under each of its reasons."""
    counts = Counter(one_line(reason.kind or reason.message, _REASON_WIDTH) for row in rows for reason in row.reasons)
    print_table(("excluded", "reason"), [(str(number), kind) for kind, number in counts.most_common()], right=(0,))
    print_line(f"{len(rows)} models are excluded, each counted under all its reasons; --all lists them")


def _cells(row: "ScoredModel") -> dict[str, str]:
    """Return the cells of a row by column."""
    from embedway.money import usd

    benchmark = row.candidate.benchmark
    price, cost = benchmark.cost_per_million_tokens, row.candidate.cost_nanousd
    mark = "" if _is_mteb(row) else "*"
    return {
        "rank": str(row.rank),
        "model": one_line(row.model),
        "here": "no" if row.candidate.lacks else "yes",
        "score": f"{row.score:.4f}",
        "accuracy": "unknown" if row.accuracy is None else f"{row.accuracy:.3f}{mark}",
        "bonus": f"{row.multilingual_bonus * row.code_bonus:.2f}",
        "latency": f"{benchmark.avg_latency_ms:g} ms",
        "$/M tokens": "unknown" if price is None else f"{price.normalize():f}",
        "texts cost": "unknown" if cost is None else f"{'~' if _is_estimated(row) else ''}{usd(cost)}",
        "licence": one_line(f"{row.candidate.licence or 'unknown'}{'!' if row.candidate.non_commercial else ''}"),
        "": "+" if row.pareto else "",
    }


def _is_estimated(row: "ScoredModel") -> bool:
    """Return whether the cost is estimated, and not counted from all tokens."""
    tokens = row.candidate.tokens
    return bool(row.candidate.cost_nanousd) and tokens is not None and (tokens.sampled or not tokens.own)
