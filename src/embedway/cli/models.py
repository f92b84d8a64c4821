"""`embedway models list|show|pull|tune|verify`: inspect the catalog, download and tune weights."""

import math
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedway.cli.options import Invocation, JsonFlag
from embedway.cli.output import (
    DownloadProgress,
    note,
    print_json,
    print_line,
    print_table,
    report_of_work,
    size,
    wait_for,
)
from embedway.errors import UsageError
from embedway.interrupts import explain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.catalog import ModelFacts
    from embedway.catalog.services import ServiceFacts
    from embedway.catalog.types import Source
    from embedway.config import Config
    from embedway.weights.store import ModelFolder, WeightsStore

app = typer.Typer(help="List, download, tune and compare models.", no_args_is_help=True, rich_markup_mode=None)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Catalog name or alias.")]


@app.command("list", short_help="List models, and show which are usable here.")
def list_models(context: typer.Context, *, as_json: JsonFlag = False) -> None:
    """List all models with routes, and show what is usable here."""
    from embedway.catalog import default_catalog

    config = Invocation.of(context).config()
    store = _store(context)
    models = [(facts, store.find(facts.weights) is not None) for facts in default_catalog()]
    services = _services(config)
    if as_json:
        document = {
            "models": [
                {
                    **facts_json(facts),
                    **quality_json(facts.name, config),
                    "here": here,
                    "routes": _local_routes(facts, config, here=here),
                }
                for facts, here in models
            ],
            "services": [
                {**service_json(facts), **quality_json(facts.name, config), "routes_here": _routes_json(routes)}
                for facts, routes in services
            ],
        }
        print_json(document)
        return
    print_table(
        ("model", "task", "dimensions", "tokens", "languages", "licence", "here"),
        [_model_row(facts, config, here=here) for facts, here in models],
        right=(3,),
    )
    print_line()
    print_table(
        ("model of service or library", "task", "dimensions", "tokens", "licence", "dollars", "route", "usable here"),
        [row for facts, routes in services for row in _service_rows(facts, routes)],
        right=(3,),
    )
    print_line()
    print_line("Dollars are list prices per million tokens or thousand searches. Libraries run any other model of")
    print_line("theirs as fastembed:NAME or sentence-transformers:OWNER/NAME. ! marks licences of weights that forbid")
    print_line("commercial use; the terms of the maker's own service apply there.")


def _model_row(facts: "ModelFacts", config: "Config", *, here: bool) -> tuple[str, ...]:
    return (
        facts.short_name,
        facts.task,
        ", ".join(map(str, facts.sizes)) or "-",
        f"{facts.max_tokens:,}",
        _languages(facts),
        _licence(facts.licence),
        _here(facts, config, here=here),
    )


def _here(facts: "ModelFacts", config: "Config", *, here: bool) -> str:
    """Return whether this machine runs a model, and which routes of the settings do."""
    weights, routes = "yes" if here else _not_here(config), _usable(_server_routes(facts, config))
    return f"{weights}, {routes}" if routes else weights


def _usable(routes: "list[tuple[str, str]]") -> str:
    return ", ".join(f"{route}: {lacks or 'yes'}" for route, lacks in routes)


def _service_rows(facts: "ServiceFacts", routes: "list[tuple[str, str]]") -> list[tuple[str, ...]]:
    """Return a row per route; the first one contains the facts."""
    dimensions = str(facts.supported) if facts.task == "embed" else "-"
    columns = (facts.name, facts.task, dimensions, f"{facts.max_tokens:,}", _licence(facts.licence), _price(facts))
    return [
        (*(columns if number == 0 else [""] * len(columns)), route, lacks or "yes")
        for number, (route, lacks) in enumerate(routes or [("none", "no route")])
    ]


def _licence(licence: str) -> str:
    """Return a licence, marked if it forbids commercial use."""
    from embedway.catalog.licences import is_non_commercial

    return f"{licence}!" if is_non_commercial(licence) else licence


def _services(config: "Config") -> "list[tuple[ServiceFacts, list[tuple[str, str]]]]":
    """Return each service or library model, with its routes and what each route lacks here (empty if usable)."""
    from embedway.catalog.services import default_services
    from embedway.providers.names import own_models
    from embedway.providers.requirements import routes_here

    found = {facts.name: facts for facts in (*own_models(config).values(), *default_services().values())}
    return [(facts, routes_here(facts, config)) for facts in found.values()]


def _local_routes(facts: "ModelFacts", config: "Config", *, here: bool) -> list[dict[str, str | None]]:
    own = {"route": "local", "lacks": None if here else _not_here(config).removeprefix("no: ")}
    return [*_routes_json(_server_routes(facts, config)), own]


def _server_routes(facts: "ModelFacts", config: "Config") -> "list[tuple[str, str]]":
    """Return the settings' routes to a model that this machine can run, and what each route lacks."""
    from embedway.providers.requirements import routes_to

    return routes_to(facts.names, config, task=facts.task)


def _routes_json(routes: "list[tuple[str, str]]") -> list[dict[str, str | None]]:
    return [{"route": route, "lacks": lacks or None} for route, lacks in routes]


def _not_here(config: "Config") -> str:
    """Return the text for a model whose weights are not on this machine."""
    return "no: weights missing, and offline" if config.weights.offline else "no: weights not downloaded"


def _price(facts: "ServiceFacts") -> str:
    if facts.price_usd_per_thousand_searches is not None:
        return f"{facts.price_usd_per_thousand_searches:f} per 1000 searches"
    price = facts.price_usd_per_million_tokens
    return "unknown" if price is None else f"{price:f}"


@app.command("show", short_help="Show all facts of a model.")
def show(context: typer.Context, name: NameArgument, *, as_json: JsonFlag = False) -> None:
    """Show all facts of a model, with source and date."""
    from embedway.catalog import default_catalog
    from embedway.providers.names import service_of
    from embedway.providers.requirements import routes_here

    config = Invocation.of(context).config()
    service = service_of(name, config)
    if service is not None:
        routes = routes_here(service, config)
        document = {**service_json(service), "routes_here": _routes_json(routes)}
        usable = {"routes": [route for route, _ in routes], "here": _usable(routes) or "no: no route"}
    else:
        facts = default_catalog().get(name)
        here = _store(context).find(facts.weights) is not None
        document = {**facts_json(facts), "here": here, "routes": _local_routes(facts, config, here=here)}
        usable = {"routes": [route["route"] for route in document["routes"]], "here": _here(facts, config, here=here)}
    if as_json:
        print_json(document)
        return
    rows, numbers = _fact_rows({**document, **usable})
    weights = document.get("weights")
    if weights is not None:
        given_by = ", ".join(numbers[s["url"]] for s in document["sources"] if "weights" in s["facts"])
        rows.append(("repository", weights["repository"], given_by))
        rows.append(("revision", weights["revision"] or "not pinned", given_by))
    print_table(("fact", "value", "source"), rows)
    if weights is not None:
        files = [
            (one["path"], size(one["size"]) if one["size"] else "-", one["sha256"] or "-") for one in weights["files"]
        ]
        print_line()
        print_table(("file", "size", "sha256"), files, right=(1,))
    print_line()
    print_table(
        ("source", "read on", "URL"),
        [(numbers[source["url"]], source["date"], source["url"]) for source in document["sources"]],
    )


def _fact_rows(document: dict[str, Any]) -> tuple[list[tuple[str, str, str]], dict[str, str]]:
    """Return a row per plain fact, with the numbers of its sources, and the number of each source by URL."""
    numbers = {source["url"]: str(number) for number, source in enumerate(document["sources"], 1)}
    rows = []
    for fact, value in document.items():
        if fact not in {"sources", "weights", "routes_here"}:
            given_by = [numbers[s["url"]] for s in document["sources"] if fact in s["facts"]]
            rows.append((fact, _format_value(value), ", ".join(given_by)))
    return rows, numbers


@app.command("pull", short_help="Download and verify weights.")
def pull(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Catalog names, or hf:OWNER/NAME[@REVISION].")],
    *,
    force: Annotated[bool, typer.Option("--force", help="Download again even if present.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Download, verify and store the weights of models."""
    invocation = Invocation.of(context)
    store = _store(context, DownloadProgress(invocation))
    pulled = []
    explain("complete files and downloaded parts are stored; run the same command again to continue")
    for name in names:
        folder = _pull(store, invocation.config(), name, force=force)
        facts = {"model": folder.repository, "path": str(folder.path)}
        pulled.append({**facts, "weights_sha256": folder.weights_sha256, "origin": folder.origin})
        note(invocation, f"{folder.repository} is in {folder.path} (from {folder.origin})")
    if as_json:
        with report_of_work(invocation, as_json=True):
            print_json({"pulled": pulled})


def _pull(store: "WeightsStore", config: "Config", name: str, *, force: bool) -> "ModelFolder":
    from embedway.local.loading import resolve
    from embedway.providers.names import service_of

    if service_of(name, config) is not None:
        raise UsageError(f"{name} runs on a service and has no weights to download; set its API key")
    named = resolve(name)
    if named.folder is not None:
        raise UsageError(f"{named.folder} is a folder: its files are already on this machine")
    if named.facts is not None:
        return store.pull(named.facts.weights, force=force)
    return store.pull_repository(named.repository or "", named.revision, force=force)


@app.command("tune", short_help="Find a model's fastest settings on this CPU.")
def tune(context: typer.Context, name: NameArgument, *, as_json: JsonFlag = False) -> None:
    """Measure and store the fastest settings of a model on this CPU."""
    invocation = Invocation.of(context)
    config = invocation.config()
    explain("no settings were stored; run the same command again to start over")
    report = wait_for(_tune(invocation, config, name))
    explain(f"the choice is stored in {report.stored_at}")
    note(invocation, f"the choice is stored in {report.stored_at}")
    with report_of_work(invocation, as_json=as_json):
        if as_json:
            print_json(_without_nan(report.to_json()))
        else:
            _print_tuning(report)


def _print_tuning(report: Any) -> None:
    print_table(
        ("backend", "precision", "streams", "threads", "budget", "texts/s", "tokens/s", "one text", "cosine", ""),
        [
            (
                row.backend,
                row.precision,
                str(row.streams),
                str(row.threads),
                f"{row.token_budget:,}",
                f"{row.texts_per_s:,.1f}",
                f"{row.tokens_per_s:,.0f}",
                f"{row.single_ms:.1f} ms",
                f"{row.lowest_cosine:.5f}",
                _verdict(row, report),
            )
            for row in report.rows
        ],
        right=(2, 3, 4, 5, 6, 7, 8),
    )


async def _tune(invocation: Invocation, config: Any, name: str) -> Any:
    from embedway._embedder import AsyncEmbedder

    async with AsyncEmbedder(config=config, progress=DownloadProgress(invocation)) as embedder:
        return await embedder.models.tune(name, progress=lambda text: note(invocation, text))


def _without_nan(value: Any) -> Any:
    """Replace NaN with None: a configuration that returned no numbers has no cosine."""
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _verdict(row: Any, report: Any) -> str:
    if not row.passed:
        return f"rejected: {row.reason}"
    uses = [use for use, best in (("bulk", report.bulk), ("single", report.single)) if best == row]
    return f"best for {' and '.join(uses)}" if uses else ""


def _store(context: typer.Context, progress: DownloadProgress | None = None) -> "WeightsStore":
    from embedway.weights.store import WeightsStore

    return WeightsStore(Invocation.of(context).config().store_settings(), progress=progress)


def quality_json(name: str, config: "Config") -> dict[str, Any]:
    """Return a model's score, its source and its scale; None if unknown."""
    benchmark = config.embedding.model_benchmarks.get(name)
    if benchmark is None or benchmark.quality_score is None:
        return dict.fromkeys(("quality_score", "quality_source", "quality_scale"))
    return {
        "quality_score": benchmark.quality_score,
        "quality_source": benchmark.quality_source or None,
        "quality_scale": benchmark.quality_scale,
    }


def facts_json(facts: "ModelFacts") -> dict[str, Any]:
    """Return all facts of a model as JSON types."""
    from embedway.catalog.licences import is_non_commercial

    return {
        **{field.name: getattr(facts, field.name) for field in fields(facts)},
        "non_commercial": is_non_commercial(facts.licence),
        "prompts": dict(facts.prompts),
        "weights": {
            "repository": facts.weights.repository,
            "revision": facts.weights.revision,
            "files": [asdict(file) for file in facts.weights.files],
            "wheels": [asdict(wheel) for wheel in facts.weights.wheels],
        },
        "sources": _sources_json(facts.sources),
    }


def service_json(facts: "ServiceFacts") -> dict[str, Any]:
    """Return all facts of a service's model as JSON types; prices are strings, because they are exact."""
    from embedway.catalog.licences import is_non_commercial

    return {
        "name": facts.name,
        "aliases": list(facts.aliases),
        "task": facts.task,
        "dimensions": facts.dimensions or None,
        "matryoshka": list(facts.matryoshka),
        "min_dimensions": facts.min_dimensions,
        "default_dimensions": facts.default_dimensions or None,
        "max_tokens": facts.max_tokens,
        "tokenizer": facts.tokenizer,
        "normalized": facts.normalized if facts.task == "embed" else None,
        "languages": list(facts.languages),
        "licence": facts.licence,
        "non_commercial": is_non_commercial(facts.licence),
        "licence_by_route": {
            f"{route.provider}:{route.model}": route.licence or facts.licence for route in facts.routes
        },
        "family": facts.family or None,
        "query_prompt": facts.query_prompt,
        "document_prompt": facts.document_prompt,
        "price_usd_per_million_tokens": _text(facts.price_usd_per_million_tokens),
        "price_usd_per_thousand_searches": _text(facts.price_usd_per_thousand_searches),
        "routes": [f"{route.provider}:{route.model}" for route in facts.routes],
        "sources": _sources_json(facts.sources),
    }


def _text(price: Any) -> str | None:
    return None if price is None else f"{price:f}"


def _sources_json(sources: "Sequence[Source]") -> list[dict[str, Any]]:
    return [{"url": one.url, "date": one.date.isoformat(), "facts": list(one.facts)} for one in sources]


def _languages(facts: "ModelFacts") -> str:
    """Return the languages, or their number if there are too many for a table."""
    return str(len(facts.languages)) if len(facts.languages) > 3 else ", ".join(facts.languages)


def _format_value(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, dict):
        shown = {name: item if item == item.strip() else repr(item) for name, item in value.items() if item}
        return "; ".join(f"{name}: {item}" for name, item in shown.items()) or "-"
    return str(value)
