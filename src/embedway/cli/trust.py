"""`embedway trust`: settings files of working directories that are followed without being named."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedway.cli.options import Invocation, JsonFlag
from embedway.cli.output import note, one_line, print_json, print_line, print_table
from embedway.errors import UsageError

if TYPE_CHECKING:
    from embedway.config.discovered_file import DiscoveredFile

#: Of a value, so much is shown.
VALUE_CHARACTERS = 60


def trust(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="An embedway.toml; without it, that of the working directory."),
    ] = None,
    *,
    shown: Annotated[bool, typer.Option("--show", help="Show what a file sets; trusts nothing.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="Show which files are trusted; changes nothing.")] = False,
    removed: Annotated[
        Path | None, typer.Option("--remove", metavar="FILE", help="Trust a file no longer; it may be gone.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Trust an embedway.toml where it is and as it is: once its content changes, it is trusted no longer.

    Shows what it sets that is ignored without trust. A file that is wrong is not trusted.
    """
    if sum((file is not None or shown, listed, removed is not None)) > 1:
        raise UsageError("to trust or show a file, --list and --remove are three things to do; give one of them")
    if listed:
        _list(as_json=as_json)
    elif removed is not None:
        _remove(context, removed, as_json=as_json)
    else:
        _trust(context, file, only_show=shown, as_json=as_json)


def _trust(context: typer.Context, file: Path | None, *, only_show: bool, as_json: bool) -> None:
    from embedway.config import Config
    from embedway.config.discovered_file import DEFAULT_FILE, discover
    from embedway.config.trust import add_trust

    path = file or Path(DEFAULT_FILE)
    if path.name != DEFAULT_FILE:
        raise UsageError(f"only a file that is called {DEFAULT_FILE} is found; name others with --config FILE")
    found = discover(path)
    if found is None:
        raise UsageError(f"{one_line(str(path))} is not there; `embedway init` writes one into the working directory")
    sets = [(one_line(key), _format_value(key, value)) for key, value in Config.untrusted_settings(found)]
    if not only_show:
        Config.load([path])
        add_trust(found.location, found.sha256)
    if as_json:
        print_json(
            {**_json(found, trusted=not only_show), "sets": [{"key": key, "value": value} for key, value in sets]}
        )
        return
    if sets:
        print_table(("setting", "value"), sets)
    else:
        print_line("It sets nothing that is ignored without trust.")
    what = "this is what it would set; nothing was changed" if only_show else "is trusted until its content changes"
    note(Invocation.of(context), f"{one_line(found.location)}{':' if only_show else ''} {what}")


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
        raise UsageError(f"{one_line(place)} is not trusted; `embedway trust --list` shows what is")
    if as_json:
        print_json({"file": place, "removed": True})
    else:
        note(Invocation.of(context), f"{one_line(place)} is trusted no longer")


def _json(found: "DiscoveredFile", *, trusted: bool) -> dict[str, Any]:
    return {"file": found.location, "sha256": found.sha256, "trusted": trusted}


def _state(place: str) -> str:
    """Whether a trusted file is still what it was."""
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
    """A value on one line, as far as it can hold no secret: of an unknown key nobody knows that."""
    from embedway.config.addresses import redact_address
    from embedway.config.layers import pattern_of
    from embedway.config.load import KEYS

    pattern = pattern_of(key)
    known = pattern in KEYS.all or pattern.startswith("routes.*.options.")
    if not known or pattern in KEYS.secrets:
        return "(hidden)"
    if isinstance(value, str) and "//" in value:
        value = redact_address(value)
    if "@" in str(value):
        return "(hidden)"
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return one_line(text, VALUE_CHARACTERS)
