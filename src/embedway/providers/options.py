"""Validation of the options of a route: an unknown or invalid option is an error, never ignored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.config.routes import RouteSettings
from embedway.config.types import FALSE, TRUE
from embedway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.providers.base import Endpoint


def known(endpoint: Endpoint, options: Sequence[str]) -> None:
    """Raise ConfigError for an option that is not in `options`."""
    for option in endpoint.options:
        if option not in options and option in RouteSettings.model_fields:
            raise ConfigError(
                f"is a key of the route; write it beside options, not in it: {option} = …",
                where=endpoint.route,
                key=f"options.{option}",
            )
        if option not in options:
            there = f"available: {', '.join(options)}" if options else "this provider has none"
            raise ConfigError(f"is not an option; {there}", where=endpoint.route, key=f"options.{option}")


def whole(endpoint: Endpoint, option: str, default: int) -> int:
    """Return an option that is an integer greater than 0. Raises ConfigError for other values."""
    text = endpoint.options.get(option, str(default))
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError("must be an integer greater than 0", where=endpoint.route, key=f"options.{option}")
    return int(text)


def whole_or_none(endpoint: Endpoint, option: str) -> int | None:
    """Return an option that is an integer greater than 0; None if it is unset. Raises ConfigError for other values."""
    return whole(endpoint, option, 1) if option in endpoint.options else None


def yes(endpoint: Endpoint, option: str, *, default: bool = False) -> bool:
    """Return an option that is `true` or `false`, or one of their other words. Raises ConfigError for other values."""
    text = endpoint.options.get(option, "true" if default else "false").casefold()
    if text not in TRUE | FALSE:
        raise ConfigError("must be true or false", where=endpoint.route, key=f"options.{option}")
    return text in TRUE


def one_of(endpoint: Endpoint, option: str, choices: Sequence[str]) -> str:
    """Return an option that is one of `choices`, by default the first. Raises ConfigError for other values."""
    text = endpoint.options.get(option, choices[0])
    if text not in choices:
        words = ", ".join(word or "unset" for word in choices)
        raise ConfigError(f"must be one of {words}", where=endpoint.route, key=f"options.{option}")
    return text
