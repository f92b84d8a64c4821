"""`embedway doctor`: report what works here, what is missing, and how to get it."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from embedway.cli.options import Invocation, JsonFlag
from embedway.cli.output import one_line, print_json, print_line, print_table, size


def doctor(
    context: typer.Context,
    *,
    online: Annotated[bool, typer.Option("--online", help="Also check whether the hub is reachable.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Report what works here, what is missing and how to get it. Exit with 1 only if texts cannot be embedded."""
    from embedway.cli import checks

    report = checks.examine(Invocation.of(context).config(), online=online)
    if as_json:
        print_json(asdict(report))
    else:
        _print(asdict(report))
    if not report.works:
        raise typer.Exit(1)


def _print(report: dict[str, Any]) -> None:
    machine, weights = report["machine"], report["weights"]
    memory = "unknown"
    if machine["memory_bytes"]:
        memory = size(machine["memory_bytes"])
        if machine["available_bytes"] is not None:
            memory += f", {size(machine['available_bytes'])} free"
    flags = [f"{name} {'yes' if there else 'no'}" for name, there in machine["flags"].items()]
    free = f", {size(weights['free_bytes'])} free" if weights["free_bytes"] is not None else ""
    facts = [
        ("embedway", report["embedway"]),
        ("python", report["python"]),
        ("system", f"{machine['system']}, {machine['architecture']}"),
        ("cpu", machine["cpu"]),
        ("cpu flags", ", ".join(flags) or "unknown"),
        ("usable cores", str(machine["cores"])),
        ("memory", memory),
        ("weights", f"{weights['path']} ({'writable' if weights['writable'] else 'NOT writable'}{free})"),
        ("default model", f"{report['default_model']['name']} ({_model_state(report['default_model'])})"),
        ("cache", _cache(report["cache"])),
        ("hub", _hub(report["hub"])),
        ("pip", report["pip"] or "not installed"),
    ]
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        print_line(f"{name.ljust(width)}  {one_line(value)}")
    _print_tables(report)
    print_line()
    for advice in report["advice"]:
        print_line(f"- {advice}")
    print_line("Texts can be embedded here." if report["works"] else "Texts cannot be embedded here yet.")


def _print_tables(report: dict[str, Any]) -> None:
    tables: tuple[tuple[tuple[str, ...], list[tuple[str, ...]]], ...] = (
        (
            ("backend", "version", "precisions"),
            [
                (item["name"], item["version"] or item["why_not"] or "", ", ".join(item["precisions"]) or "-")
                for item in report["backends"]
            ],
        ),
        (
            ("extra", "state"),
            [
                (item["name"], f"installed ({item['version']})" if item["version"] else item["how"])
                for item in report["extras"]
            ],
        ),
        (("setting", "value", "set by"), [(item["key"], item["value"], item["source"]) for item in report["settings"]]),
        (("ignored setting of embedway.toml",), [(key,) for key in report["ignored"]]),
        (("tuned model", "choice"), [(item["model"], item["choice"]) for item in report["tuned"]]),
    )
    for columns, rows in tables:
        if rows:
            print_line()
            print_table(columns, rows)


def _model_state(model: dict[str, Any]) -> str:
    if model["here"]:
        return "available"
    return model["problem"] or "not downloaded"


def _cache(kept: dict[str, Any]) -> str:
    folder = kept["folder"]
    if folder is None:
        return str(kept["backend"])
    return f"{kept['backend']} in {folder['path']} ({'writable' if folder['writable'] else 'NOT writable'})"


def _hub(hub: dict[str, Any]) -> str:
    if hub["offline"]:
        state = "offline by setting"
    elif hub["reachable"] is None:
        state = "not checked; use --online to check"
    else:
        state = "reachable" if hub["reachable"] else f"unreachable: {hub['why_not']}"
    return f"{hub['endpoint']} ({state})"
