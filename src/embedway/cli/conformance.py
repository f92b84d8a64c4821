"""`embedway conformance`: judge a server with OpenAI's embeddings API."""

from typing import TYPE_CHECKING, Annotated

import typer

from embedway.cli.options import Invocation, JsonFlag, decode_text
from embedway.cli.output import note, print_json, print_line, print_table, wait_for, wants_progress
from embedway.interrupts import explain

if TYPE_CHECKING:
    from embedway.config import Config
    from embedway.conformance.reference import Reference
    from embedway.conformance.report import Report
    from embedway.conformance.table import Check

#: Exit code if a check failed; 1 means that the server could not be judged.
_FAILED = 4


def conformance(
    context: typer.Context,
    url: Annotated[
        str, typer.Argument(metavar="URL", callback=decode_text, help="URL of the server, with or without /v1.")
    ],
    *,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="NAME", callback=decode_text, help="Model. Default: the only one."),
    ] = None,
    rerank_model: Annotated[
        str | None,
        typer.Option("--rerank-model", metavar="NAME", callback=decode_text, help="Reranker. Default: the model."),
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option("--api-key-env", metavar="NAME", help="Environment variable that has the key.")
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer",
            metavar="MODEL",
            callback=decode_text,
            help="Tokenizer of the model: a catalog name, OWNER/NAME on the hub, or a folder. Default: the catalog's.",
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", min=1, metavar="N", help="Most tokens of a text. Default: that of the model."),
    ] = None,
    check: Annotated[
        list[str] | None, typer.Option("--check", metavar="NAME", help="Run only this check; repeatable.")
    ] = None,
    skip: Annotated[list[str] | None, typer.Option("--skip", metavar="NAME", help="Skip a check; repeatable.")] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, metavar="SECONDS", help="Maximum time of one answer.")
    ] = 60.0,
    allow_http: Annotated[
        bool, typer.Option("--allow-http", help="Send the key to another machine without encryption.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Judge a server with OpenAI's embeddings API by what its clients rely on: a verdict for each check.

    Sends about 200 requests with about 5,000 texts, most of them short, which a service may bill. Exit with 0 if no
    check failed, with 4 if one did, and with 1 if the server could not be judged.
    """
    from embedway.config.key_variable import read_key
    from embedway.conformance.judge import chosen_checks, judge
    from embedway.conformance.target import parse_place

    invocation = Invocation.of(context)
    checks = chosen_checks(check or (), skip or ())
    key = None if api_key_env is None else read_key(api_key_env, option="--api-key-env")
    place = parse_place(url, key=key, timeout_s=timeout, allow_http=allow_http)
    config = invocation.config()

    def started(one: "Check") -> None:
        if wants_progress(invocation):
            note(invocation, f"{checks.index(one) + 1} of {len(checks)}: {one.name}")

    explain("the server was not judged completely; run the same command again")
    report = wait_for(
        judge(
            place,
            model=model,
            rerank_model=rerank_model,
            checks=checks,
            find_reference=lambda served: _reference(invocation, config, tokenizer, served),
            max_tokens=max_tokens,
            started=started,
        )
    )
    if as_json:
        print_json(report.to_json())
    else:
        _print(report)
    if report.has_failures:
        raise typer.Exit(_FAILED)


def _reference(invocation: Invocation, config: "Config", tokenizer: str | None, served: str) -> "Reference | None":
    from embedway.conformance.reference import find_reference, load_reference

    if tokenizer is not None:
        return load_reference(tokenizer, config)
    found = find_reference(served, config)
    if found is None:
        note(invocation, "the tokenizer of the model is not known; --tokenizer names it, for exact checks of lengths")
    return found


def _print(report: "Report") -> None:
    target = report.target
    known = "" if target.reference is None else f", tokenizer {target.reference.name}"
    limit = "" if target.max_tokens is None else f", {target.max_tokens} tokens"
    print_line(f"{target.base_url}: {target.model}{known}{limit}")
    rows = [(result.name, result.verdict.status, result.verdict.seen, result.why) for result in report.results]
    print_table(("check", "verdict", "seen", "why it matters"), rows)
    counts = ", ".join(f"{number} {status}" for status, number in report.counts().items() if number)
    print_line(f"{len(report.results)} {'check' if len(report.results) == 1 else 'checks'}: {counts}.")
