"""Errors as answers: an HTTP status, a code and a message for each error of embedway."""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass
from pathlib import Path

from embedway import errors
from embedway.errors import EmbedwayError, UsageError, without_row
from embedway.ledger.refusals import MAX_COST
from embedway.text import printable

_log = logging.getLogger("embedway.server")

#: Wait that a client is advised if none is known, in seconds.
_WAIT_S = 1.0
#: Maximum characters of a message.
_MOST_CHARACTERS = 2_000


@dataclass(frozen=True, slots=True)
class Problem:
    """Reason for which a request has no result. `param` is the field of the request at fault."""

    status: int
    code: str
    message: str
    param: str | None = None
    #: Seconds after which the request may succeed; None if it will not, or if no wait is known.
    retry_after_s: float | None = None
    #: Whether the same request may succeed later.
    may_retry: bool = False


class BodyError(UsageError):
    """The body or the address of a request is invalid. `status` and `code` are those of its answer."""

    def __init__(self, message: str, *, param: str | None = None, status: int = 400, code: str = "") -> None:
        self.param = param
        self.status = status
        self.code = code or "invalid_request_error"
        super().__init__(message)


class NotServedError(errors.ModelError):
    """The gateway does not serve a model, or the key may not use it."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """Answer to a class of errors. With `is_internal`, its message is only logged: it may name files or servers."""

    error: type[EmbedwayError]
    status: int
    code: str
    param: str | None = None
    may_retry: bool = False
    is_internal: bool = False
    #: What a caller without admin rights reads instead of a message that names routes and addresses of the gateway.
    instead: str = ""


_UPSTREAM = "the service that computes this model"
#: The first row whose class an error has decides.
_KINDS = (
    _Kind(errors.TextTooLongError, 400, "context_length_exceeded", "input"),
    _Kind(errors.SourceError, 500, "internal_error", is_internal=True),
    _Kind(errors.InputError, 400, "invalid_input", "input"),
    _Kind(errors.DimensionsError, 400, "unsupported_dimensions", "dimensions"),
    _Kind(errors.UsageError, 400, "invalid_request_error"),
    _Kind(NotServedError, 404, "model_not_found", "model"),
    _Kind(errors.UnknownModelError, 404, "model_not_found", "model"),
    _Kind(errors.NoModelError, 400, "no_model", "model"),
    _Kind(errors.SpaceMismatchError, 409, "space_mismatch", "collection"),
    _Kind(errors.BudgetExceededError, 429, "insufficient_quota"),
    _Kind(errors.RefusedInputError, 400, "refused_input", "input"),
    _Kind(errors.RateLimitedError, 429, "rate_limit_exceeded", may_retry=True, instead=f"{_UPSTREAM} is busy"),
    _Kind(errors.QuotaExceededError, 502, "upstream_quota_exceeded", instead=f"{_UPSTREAM} refuses further requests"),
    _Kind(errors.AuthenticationError, 502, "upstream_authentication_failed", is_internal=True),
    _Kind(errors.UnavailableError, 503, "upstream_unavailable", may_retry=True, instead=f"{_UPSTREAM} is unavailable"),
    _Kind(errors.UpstreamError, 502, "upstream_error", instead=f"{_UPSTREAM} failed"),
    _Kind(
        errors.BadVectorsError, 502, "invalid_vectors", may_retry=True, instead=f"{_UPSTREAM} returned invalid vectors"
    ),
    _Kind(errors.BatchError, 500, "batch_failed", may_retry=True, instead="the computation failed"),
    _Kind(errors.NoRouteError, 503, "no_route", may_retry=True, instead=f"{_UPSTREAM} is unavailable"),
    _Kind(errors.DeadlineError, 504, "deadline_exceeded", may_retry=True),
    _Kind(errors.ClosedError, 503, "shutting_down", may_retry=True),
    _Kind(errors.NotAllowedError, 403, "permission_denied"),
    _Kind(errors.AccessError, 401, "invalid_api_key"),
    _Kind(errors.KeyLimitError, 429, "rate_limit_exceeded", may_retry=True),
    _Kind(errors.OverloadedError, 503, "overloaded", may_retry=True),
    _Kind(errors.LedgerError, 503, "ledger_unavailable", may_retry=True, is_internal=True),
    _Kind(errors.CacheError, 503, "cache_unavailable", is_internal=True),
    _Kind(errors.EmbedwayError, 500, "internal_error", is_internal=True),
)


#: Codes by status of all errors that a request may end with, besides those of its body and address.
STATUSES = {kind.code: kind.status for kind in _KINDS}


def problem_of(error: Exception, *, is_admin: bool = False) -> Problem:
    """Return the answer to an error. The reason of an internal error is logged, and not in the answer.

    So is what a service failed with, unless the caller has admin rights: it names routes and addresses of the gateway.
    """
    if not isinstance(error, EmbedwayError):
        return _unexpected(error)
    if isinstance(error, BodyError):
        return Problem(error.status, error.code, _shown(str(error)), error.param)
    if isinstance(error, errors.BudgetExceededError) and error.budget == MAX_COST:
        return Problem(429, "max_cost_exceeded", _shown(str(error)), "max_cost")  # the request's own limit
    kind = next(one for one in _KINDS if isinstance(error, one.error))
    wait_s: float | None = getattr(error, "retry_after_s", None)
    if kind.may_retry and wait_s is None and kind.status in {429, 503}:
        wait_s = _WAIT_S
    param = kind.param
    message = str(error)
    if error.row is not None and param == "input":
        param, message = f"input.{error.row}", without_row(error)
    if isinstance(error, errors.TextTooLongError):  # its own remedy is an option of commands
        message = f'{message.partition(". ")[0]}. Split it, or send "on_overflow": "truncate"'
    if kind.is_internal:
        _log.error("a request failed: %s: %s", type(error).__name__, printable(message))
        message = f"the gateway cannot do this now ({kind.code}); its log contains the reason"
    elif kind.instead and not is_admin:
        # Not a warning: an outage would log one for each request, and the engine warns of it.
        _log.info("a request failed: %s: %s", type(error).__name__, printable(message))
        message = kind.instead
    return Problem(kind.status, kind.code, _shown(message), param, wait_s, kind.may_retry)


def _unexpected(error: Exception) -> Problem:
    """Return the answer to an error that no request should cause. Its place is logged; its message may be a text."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown place"
    _log.error("a request failed unexpectedly: %s in %s", type(error).__name__, place)
    return Problem(500, "internal_error", "an unexpected error of the gateway; its log contains the place")


def _shown(message: str) -> str:
    return printable(message, keep_layout=True)[:_MOST_CHARACTERS]
