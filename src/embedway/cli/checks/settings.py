"""Settings: their errors, their sources, and trust in a discovered file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, SecretStr

from embedway.cli.checks.base import Check, Finding, Findings, Setup, start
from embedway.config import Config
from embedway.config.addresses import redact_address
from embedway.config.variables import may_be_secret
from embedway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from embedway.cli.checks.base import Running

NAME = "settings"


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting that is not a default. A secret's value is only `set` or `unset`."""

    key: str
    value: str
    source: str


def load(files: tuple[Path, ...], *, online: bool) -> tuple[Setup | None, Findings, list[Running]]:
    """Load the settings, or the defaults if that fails, and report each error of the settings as a line.

    The setup is None if even the defaults cannot be created.
    """
    loaded: list[Config] = []

    def load_all(_: None) -> Findings:
        try:
            config = Config.load(files)
        except ConfigError as error:
            return Findings(tuple(_problems(error)))
        loaded.append(config)
        return Findings((_summary(config),))

    def load_defaults(_: None) -> Findings:
        loaded.append(Config())
        return Findings()

    checks = (Check(NAME, NAME, load_all, essential=True), Check("default settings", NAME, load_defaults))
    running: list[Running] = []
    lines: list[Finding] = []
    for check in checks:
        running.append(start(check, None))
        lines += running[-1].result().lines
        if loaded:
            break
    if len(running) > 1 and loaded:
        detail = "the settings are invalid, so the other checks use the defaults, and no route is checked"
        lines.append(Finding("default settings", "skipped", detail))
    setup = Setup(loaded[0], len(running) == 1, files, online) if loaded else None
    return setup, Findings(tuple(lines)), running


def _summary(config: Config) -> Finding:
    count = len(config.sources)
    where = ", ".join(dict.fromkeys(source.partition(": ")[0] for source in config.sources.values()))
    detail = f"{count} set by {where}" if count else "all have their defaults"
    return Finding(NAME, "ok", detail)


def _problems(error: ConfigError) -> Iterator[Finding]:
    """Split an error into one line for each invalid setting."""
    first, *others = [line.removeprefix("  - ") for line in str(error).split("\n")]
    for line in others if first.endswith("settings are invalid:") else [" ".join((first, *others))]:
        yield Finding(NAME, "problem", line, _remedy(line))


def _remedy(line: str) -> str:
    if "token file cannot be read" in line:
        return "make the file readable, or set HF_TOKEN or HF_TOKEN_PATH"
    if "cannot be read" in line:
        return "make the file readable, or name another one with --config"
    if line.startswith("environment"):
        return "correct or unset the variable; docs/settings.md explains the rules"
    return "correct the file; docs/settings.md explains the rules"


# ---------------------------------------------------------------- checks


def check_values(setup: Setup) -> Findings:
    """Report every setting that is not a default, and those that are ignored."""
    settings = changed_settings(setup.config)
    return Findings(facts={"settings": [asdict(one) for one in settings], "ignored": list(setup.config.ignored)})


def check_trust(setup: Setup) -> Findings:
    """Report whether the embedway.toml of the working directory applies."""
    from embedway.config.discovered_file import DEFAULT_FILE, discover
    from embedway.config.trust import read_trust

    if setup.files:
        return Findings((Finding(DEFAULT_FILE, "skipped", "not read, because --config names other files"),))
    try:
        found = discover()
    except ConfigError as error:
        return Findings((Finding(DEFAULT_FILE, "problem", str(error), "make it readable, or move it away"),))
    if found is None:
        return Findings((Finding(DEFAULT_FILE, "ok", "there is none in the working directory"),))
    state = read_trust().state(found.location, found.sha256)
    if state == "trusted":
        return Findings((Finding(DEFAULT_FILE, "ok", f"{found.location} is trusted"),))
    why = "has changed since it was trusted" if state == "changed" else "is not trusted"
    names = ", ".join(setup.config.ignored)
    detail = f"{found.location} {why}" + (f", so these settings are ignored: {names}" if names else "")
    if setup.is_loaded and not names:
        return Findings((Finding(DEFAULT_FILE, "ok", f"{detail}, but all its settings are safe and apply"),))
    remedy = "`embedway trust --show` shows what it sets, `embedway trust` allows it"
    return Findings((Finding(DEFAULT_FILE, "warning", detail, remedy),))


def changed_settings(config: Config) -> tuple[Setting, ...]:
    """Return all settings that are not defaults, with their sources."""
    addresses = {f"services.{provider}.base_url": shown for provider, shown in config.addresses.items()}
    return tuple(
        Setting(key, addresses[key] if key in addresses else _shown(key, value_of(config, key)), source)
        for key, source in sorted(config.sources.items())
    )


def _shown(key: str, value: Any) -> str:
    """Return a value as text, without secrets: of a secret whether it is set, of a URL no credentials and no query."""
    if key == "weights.hub_token" or isinstance(value, SecretStr):
        return "set" if value is not None else "unset"
    if isinstance(value, (tuple, list)):
        return ", ".join(_shown(key, one) for one in value)
    if ".options." in key and may_be_secret(key.rpartition(".")[2]):
        return "set"
    text = str(value)
    if key.endswith(("url", "endpoint")) or "://" in text:
        return redact_address(text)
    return text


def value_of(tables: BaseModel | Mapping[str, Any], key: str) -> Any:
    """Return the value at a dotted key, or None. Names given by users may contain dots."""
    inner = (
        tables if isinstance(tables, Mapping) else {name: getattr(tables, name) for name in type(tables).model_fields}
    )
    if key in inner:
        return inner[key]
    for name, value in inner.items():
        if key.startswith(f"{name}.") and isinstance(value, (BaseModel, Mapping)):
            found = value_of(value, key[len(name) + 1 :])
            if found is not None:
                return found
    return None
