"""Errors that the inference process sends to its clients."""

from __future__ import annotations

from typing import Any

from embedway import errors
from embedway.errors import BatchError, EmbedwayError, UnavailableError

#: Errors whose message says everything.
_PLAIN: dict[str, type[EmbedwayError]] = {
    kind.__name__: kind
    for kind in (
        errors.ClosedError,
        errors.RuntimeUnavailableError,
        errors.UnsupportedModelError,
        errors.UsageError,
        errors.WeightsError,
    )
}
#: Maximum characters of a message.
_MOST_CHARACTERS = 2000


def unavailable(route: str, message: str, *, retry_after_s: float, loading: bool = False) -> UnavailableError:
    """Return the error for a process that does not answer, or for a model that it is loading."""
    error = UnavailableError(message, route=route, retry_after_s=retry_after_s)
    error.loading = loading
    return error


def error_to_json(error: BaseException) -> dict[str, Any]:
    """Return an error as plain values. Errors that are not ours are only named: their message may repeat a text."""
    if isinstance(error, UnavailableError):
        prefix = f"{error.route}: "
        return {
            "kind": "UnavailableError",
            "message": str(error).removeprefix(prefix)[:_MOST_CHARACTERS],
            "retry_after_s": error.retry_after_s,
            "loading": error.loading,
        }
    if isinstance(error, EmbedwayError):
        kind = next((base.__name__ for base in type(error).__mro__ if base.__name__ in _PLAIN), "")
        return {"kind": kind, "message": str(error)[:_MOST_CHARACTERS]}
    return {"kind": "", "message": type(error).__name__}


def error_from_json(values: Any, *, route: str) -> EmbedwayError:
    """Return the error of plain values, with the route that it is about."""
    found = values if isinstance(values, dict) else {}
    kind, message = found.get("kind"), str(found.get("message", "no message"))
    if kind == "UnavailableError":
        wait = found.get("retry_after_s")
        after_s = float(wait) if isinstance(wait, (int, float)) else 1.0
        return unavailable(route, message, retry_after_s=after_s, loading=bool(found.get("loading")))
    if kind in _PLAIN:
        return _PLAIN[kind](message)
    return BatchError(f"a batch failed ({message})", route=route)
