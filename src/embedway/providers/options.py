"""The options of a route, checked: a misspelt or senseless one is an error and never ignored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.providers.base import Endpoint


def known(endpoint: Endpoint, options: Sequence[str]) -> None:
    """Raise ConfigError for an option that is none of these."""
    for option in endpoint.options:
        if option not in options:
            there = f"there are {', '.join(options)}" if options else "this provider has none"
            raise ConfigError(f"is not an option; {there}", where=endpoint.route, key=f"options.{option}")


def whole(endpoint: Endpoint, option: str, default: int) -> int:
    """An option that is a whole number above 0. Raises ConfigError for anything else."""
    text = endpoint.options.get(option, str(default))
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError("must be a whole number above 0", where=endpoint.route, key=f"options.{option}")
    return int(text)


def whole_or_none(endpoint: Endpoint, option: str) -> int | None:
    """The same, or None where it is not given."""
    return whole(endpoint, option, 1) if option in endpoint.options else None


def yes(endpoint: Endpoint, option: str) -> bool:
    """An option that is `true` or `false`, false by default. Raises ConfigError for anything else."""
    text = endpoint.options.get(option, "false")
    if text not in {"true", "false"}:
        raise ConfigError('must be "true" or "false"', where=endpoint.route, key=f"options.{option}")
    return text == "true"


def one_of(endpoint: Endpoint, option: str, choices: Sequence[str]) -> str:
    """An option that is one of some words, the first by default. Raises ConfigError for any other."""
    text = endpoint.options.get(option, choices[0])
    if text not in choices:
        words = ", ".join(word or "unset" for word in choices)
        raise ConfigError(f"must be one of {words}", where=endpoint.route, key=f"options.{option}")
    return text
