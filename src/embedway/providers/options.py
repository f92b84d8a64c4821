"""Validation of the options of a route: an unknown or invalid option is an error, never ignored."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from embedway.config.routes import RouteSettings
from embedway.config.types import FALSE, TRUE
from embedway.errors import ConfigError
from embedway.providers.base import RequestLimits, lowest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.providers.base import Declared, Endpoint

_WHOLE = re.compile("0*[1-9][0-9]{0,14}", re.ASCII)
_INPUTS = ("max_inputs", "batch_size")
#: Options of every provider: the most texts and tokens of a request.
LIMITS = (*_INPUTS, "max_request_tokens")


def known(endpoint: Endpoint, options: Sequence[str]) -> None:
    """Raise ConfigError for an option that is neither in `options` nor one of `LIMITS`."""
    options = tuple(dict.fromkeys((*LIMITS, *options)))
    for option in endpoint.options:
        if option not in options and option in RouteSettings.model_fields:
            raise ConfigError(
                f"is a key of the route; write it beside options, not in it: {option} = …",
                where=endpoint.route,
                key=f"options.{option}",
            )
        if option not in options:
            raise ConfigError(
                f"is not an option; available: {', '.join(options)}", where=endpoint.route, key=f"options.{option}"
            )


def whole(endpoint: Endpoint, option: str, default: int) -> int:
    """Return an option that is an integer greater than 0. Raises ConfigError for other values."""
    text = endpoint.options.get(option, str(default))
    if not _WHOLE.fullmatch(text):
        raise ConfigError("must be an integer greater than 0", where=endpoint.route, key=f"options.{option}")
    return int(text)


def whole_or_none(endpoint: Endpoint, option: str) -> int | None:
    """Return an option that is an integer greater than 0; None if it is unset. Raises ConfigError for other values."""
    return whole(endpoint, option, 1) if option in endpoint.options else None


def most_inputs(endpoint: Endpoint, default: int) -> int:
    """Return the lower of the options `max_inputs` and `batch_size`, which both limit a request to a server."""
    return lowest(*_named(endpoint, _INPUTS).values()) or default


def limits_of(endpoint: Endpoint, declared: Declared) -> RequestLimits:
    """Return the limits of a request in the options of a route.

    Raises ConfigError for a limit above the declared one, which is the service's own. A provider whose service has none
    declares the limit in the options.
    """
    # The batches of a local provider are its own: a request has several.
    inputs = _lowest_of(endpoint, _INPUTS[:1] if declared.local else _INPUTS, declared.max_inputs)
    return RequestLimits(inputs, _lowest_of(endpoint, ("max_request_tokens",), declared.max_request_tokens))


def _lowest_of(endpoint: Endpoint, options: Sequence[str], most: int | None) -> int | None:
    limits = _named(endpoint, options)
    if not limits:
        return None
    option, limit = min(limits.items(), key=lambda pair: pair[1])
    if most is not None and limit > most:
        message = f"must be at most {most}, the provider's limit"
        raise ConfigError(message, where=endpoint.route, key=f"options.{option}")
    return limit


def _named(endpoint: Endpoint, options: Sequence[str]) -> dict[str, int]:
    return {option: whole(endpoint, option, 1) for option in options if option in endpoint.options}


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
