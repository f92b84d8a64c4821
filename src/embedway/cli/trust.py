"""`embedway trust`: trust settings files that are read from working directories without being named."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedway.cli.options import Invocation, JsonFlag
from embedway.cli.output import note, one_line, print_json, print_line, print_table, report_of_work
from embedway.errors import UsageError

if TYPE_CHECKING:
    from embedway.config.discovered_file import DiscoveredFile

#: Maximum characters of a value that are shown.
VALUE_CHARACTERS = 60


def trust(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="An embedway.toml. Default: the one in the working directory."),
    ] = None,
    *,
    shown: Annotated[bool, typer.Option("--show", help="Show what the file sets, without trusting it.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="List the trusted files.")] = False,
    removed: Annotated[
        Path | None,
        typer.Option("--remove", metavar="FILE", help="Stop trusting a file, even if it is deleted."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Trust an embedway.toml at its location, with its current content. A later change ends the trust.

    Shows the settings in it that are ignored without trust. An invalid file is not trusted.
    """
    if sum((file is not None or shown, listed, removed is not None)) > 1:
        raise UsageError("FILE or --show, --list, and --remove cannot be combined; use one of them")
    if listed:
        _list(as_json=as_json)
    elif removed is not None:
        _remove(context, removed, as_json=as_json)
    else:
        _trust(context, file, only_show=shown, as_json=as_json)


def _trust(context: typer.Context, file: Path | None, *, only_show: bool, as_json: bool) -> None:
    from embedway.config import Config
    from embedway.config.discovered_file import DEFAULT_FILE, discover
    from embedway.config.request_headers import known_part
    from embedway.config.trust import add_trust

    path = file or Path(DEFAULT_FILE)
    if path.name != DEFAULT_FILE:
        raise UsageError(f"only a file named {DEFAULT_FILE} can be trusted; pass other files with --config FILE")
    found = discover(path)
    if found is None:
        raise UsageError(f"{one_line(str(path))} does not exist; `embedway init` creates one in the working directory")
    sets = [(one_line(known_part(key)), _format_value(key, value)) for key, value in Config.untrusted_settings(found)]
    if not only_show:
        Config.load([path])
        add_trust(found.location, found.sha256)
    invocation = Invocation.of(context)
    if as_json:
        document = {
            **_json(found, trusted=not only_show),
            "sets": [{"key": key, "value": value} for key, value in sets],
        }
        with nullcontext() if only_show else report_of_work(invocation, as_json=True):
            print_json(document)
        return
    with nullcontext() if only_show else report_of_work(invocation):
        if sets:
            print_table(("setting", "value"), sets)
        else:
            print_line("It sets nothing that needs trust.")
    what = (
        "trust would allow these settings; nothing was changed" if only_show else "is trusted until its content changes"
    )
    note(invocation, f"{one_line(found.location)}{':' if only_show else ''} {what}")


def _list(*, as_json: bool) -> None:
    from embedway.config.trust import read_trust, trust_path

    files = [{"file": place, "sha256": sha256, "state": _state(place)} for place, sha256 in read_trust().files.items()]
    if as_json:
        print_json({"path": str(trust_path()), "files": files})
    elif files:
        print_table(("file", "state"), [(one_line(one["file"]), one["state"]) for one in files])
    else:
        print_line("no file is trusted")


def _remove(context: typer.Context, file: Path, *, as_json: bool) -> None:
    from embedway.config.trust import file_location, remove_trust

    place = file_location(file)
    if not remove_trust(place):
        raise UsageError(f"{one_line(place)} is not trusted; `embedway trust --list` lists the trusted files")
    invocation = Invocation.of(context)
    if as_json:
        with report_of_work(invocation, as_json=True):
            print_json({"file": place, "removed": True})
    else:
        note(invocation, f"{one_line(place)} is no longer trusted")


def _json(found: "DiscoveredFile", *, trusted: bool) -> dict[str, Any]:
    return {"file": found.location, "sha256": found.sha256, "trusted": trusted}


def _state(place: str) -> str:
    """Return whether a trusted file is unchanged, changed, gone or unreadable."""
    from embedway.config.discovered_file import discover
    from embedway.config.trust import read_trust
    from embedway.errors import ConfigError

    try:
        found = discover(Path(place))
    except ConfigError:
        return "cannot be read"
    if found is None:
        return "gone"
    return read_trust().state(place, found.sha256)


def _format_value(key: str, value: Any) -> str:
    """Format a value on one line; hide it if it may contain a secret, or if its key is unknown."""
    from embedway.config.addresses import redact_address
    from embedway.config.layers import is_among, pattern_of
    from embedway.config.load import KEYS

    pattern = pattern_of(key)
    known = is_among(pattern, frozenset(KEYS.all)) or pattern.startswith("routes.*.options.")
    if not known or is_among(pattern, KEYS.secrets):
        return "(hidden)"
    if pattern == "routes.*.api_key_env" or pattern.startswith("routes.*.headers_env."):
        return one_line(str(value), VALUE_CHARACTERS) if _is_variable(value) else "(hidden)"
    if isinstance(value, str) and is_among(pattern, KEYS.paths):
        return one_line(value, VALUE_CHARACTERS)
    if isinstance(value, str) and "//" in value:
        value = redact_address(value)
    if "@" in str(value):
        return "(hidden)"
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return one_line(text, VALUE_CHARACTERS)


def _is_variable(value: Any) -> bool:
    """Return whether a value is the name of a variable, and not a key in its place."""
    from embedway.cli.checks.masking import Mask
    from embedway.config.routes import VARIABLE

    return isinstance(value, str) and VARIABLE.fullmatch(value) is not None and Mask().text(value) == value
