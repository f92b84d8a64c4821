"""The exceptions of embedway.

::

    EmbedwayError
    ├── ConfigError               a setting is wrong: which file, key, value and rule
    ├── UsageError                a wrong argument of a call or command; also a ValueError
    ├── MissingExtraError         an optional dependency is not installed
    ├── ClosedError               the embedder is closed
    ├── InputError                a text cannot be embedded
    │   ├── TextTooLongError      a text exceeds the model's limit and must not be truncated
    │   └── SourceError           a file, line or row of a source cannot be used
    ├── ModelError
    │   ├── UnknownModelError     no model has that name
    │   ├── NoModelError          no model meets every requirement
    │   ├── UnsupportedModelError the model needs something that is not supported
    │   ├── RuntimeUnavailableError  no backend can run it here
    │   └── WeightsError
    │       ├── WeightsUnavailableError  no source has the files
    │       └── WeightsCorruptError      a file does not match its checksum
    ├── DimensionsError           the model does not support that size
    ├── SpaceMismatchError        vectors of two spaces would be mixed
    ├── BadVectorsError           a model returned invalid vectors
    ├── BatchError                running a batch failed
    ├── UpstreamError             a provider's service failed or refused
    │   ├── AuthenticationError   the key is missing, wrong, or has no right to the model
    │   ├── QuotaExceededError    the account's money or quota is used up
    │   ├── RateLimitedError      the service asks to retry later
    │   ├── UnavailableError      unreachable, too slow, connection reset, or a server error
    │   ├── RefusedInputError     a part of the request is refused; other texts may succeed
    │   └── ProtocolError         the answer does not follow the API
    ├── NoRouteError              no route of the model succeeded
    ├── DeadlineError             the deadline of a request passed; also a TimeoutError
    ├── BudgetExceededError       a spending limit would be exceeded
    ├── AccessError               the API key of a request to the gateway is missing or not valid
    │   └── NotAllowedError       the API key is valid, but has no right to what the request asks for
    ├── KeyLimitError             the limit per minute of an API key of the gateway is reached
    ├── OverloadedError           the gateway has no place for a request now, or is closing
    ├── LedgerError               the ledger cannot be read or written, so nothing is spent
    ├── CacheError                a cache cannot be read or cleared on request, or has a newer version
    ├── StateError                a backup of the state or a job's journal cannot be read or written
    └── SinkError                 a destination cannot be written or read
        └── CollectionLockedError  another process or thread changes it

Every error says what was wrong, where, and what to do. None contains a user's text or a secret.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from embedway.remedies import by_place, option
from embedway.sizes import VectorSizes
from embedway.text import printable, shown_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: Rows of an answer that an error lists.
_SHOWN_ROWS = 5


class EmbedwayError(Exception):
    """Base class of all exceptions of embedway."""

    #: Exit code of the command line for this error.
    exit_code = 1
    #: Row of the text that the error is about, from 0; None if it is not about one text.
    row: int | None = None
    #: Backup models of the call that failed too, each with its reason.
    backups: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """Return the message, after the row if the error is about one text, and before the backups that failed."""
        message = super().__str__()
        message = message if self.row is None else f"text {self.row}: {message}"
        if not self.backups:
            return message
        return "\n  - ".join((f"{message}\nits backups failed too:", *map(": ".join, self.backups)))

    def __reduce__(self) -> tuple[object, ...]:
        """Return the parts for pickle and copy. By default, `__init__` would be called with the message alone."""
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[EmbedwayError], args: tuple[object, ...], attributes: dict[str, object]) -> EmbedwayError:
    """Create an error from its parts, without `__init__`, because its arguments are not stored."""
    error = kind.__new__(kind)
    error.args = args  # OSError, a base class of DeadlineError, sets no args in __new__
    error.__dict__.update(attributes)
    return error


class ConfigError(EmbedwayError):
    """A setting is invalid.

    `where` is a file, `environment` or `arguments`; `key` is the dotted name, empty for a whole file. Non-printable
    characters are written as escapes: names of keys and files may contain terminal escape sequences.
    """

    exit_code = 2

    def __init__(self, message: str, *, where: str = "", key: str = "") -> None:
        self.where = printable(where)
        self.key = printable(key)
        place = ": ".join(part for part in (self.where, self.key) if part)
        message = "\n".join(map(printable, message.split("\n")))
        super().__init__(f"{place}: {message}" if place else message)


class UsageError(EmbedwayError, ValueError):
    """A wrong argument of a call or a command."""

    exit_code = 2


class MissingExtraError(EmbedwayError):
    """An optional dependency is not installed."""

    def __init__(self, what: str, *, extra: str, package: str) -> None:
        self.extra = extra
        self.package = package
        super().__init__(f"{what} needs {package}, which is not installed: pip install 'embedway[{extra}]'")


class ClosedError(EmbedwayError):
    """The embedder or the collection is closed; create a new one."""


class InputError(EmbedwayError):
    """A text cannot be embedded. `row` counts from 0; it is None for the whole input."""

    def __init__(self, message: str, *, row: int | None = None) -> None:
        self.row = row
        super().__init__(message)


class TextTooLongError(InputError):
    """A text exceeds the model's limit in tokens, and `on_overflow` is `error`."""

    def __init__(self, *, row: int, max_tokens: int, tokens: int | None) -> None:
        self.max_tokens = max_tokens
        self.tokens = tokens
        have = f"has {tokens} tokens" if tokens is not None else "has far more tokens"
        truncate, unfit = option("on_overflow", "truncate"), by_place(command="--no-fit", python="require_fit=False")
        super().__init__(
            f"{have}; the model accepts {max_tokens}. Split it, or truncate it with {truncate}, for a selected model "
            f"also {unfit}",
            row=row,
        )


def of_row(error: EmbedwayError, row: int | None) -> EmbedwayError:
    """Return a copy of an error with another row; None for an error that is not about one text."""
    copied = copy.copy(error)
    copied.row = row
    copied.__cause__, copied.__suppress_context__ = error.__cause__, True
    return copied


def with_row(error: EmbedwayError, row: int) -> EmbedwayError:
    """Return the error of a text with another row; return an error that is not about one text unchanged."""
    return error if error.row is None or error.row == row else of_row(error, row)


def without_row(error: EmbedwayError) -> str:
    """Return the message of an error without the row, for a caller that names the text in another way."""
    return str(error).removeprefix(f"text {error.row}: ")


class SourceError(InputError):
    """A file, line or row of a source cannot be used. `line` counts from 1.

    `id` is that of the row, None if it is unknown. `kind` is the class of the error that the row caused. `key` is the
    source and id of the document that could not be read; with `key_is_prefix`, all documents whose ids begin with that
    id could not be.
    """

    id: str | None = None
    kind = "SourceError"
    key: tuple[str, str] | None = None
    key_is_prefix = False

    def __init__(self, message: str, *, path: Path | str, line: int | None = None, field: str | None = None) -> None:
        self.path = str(path)
        self.line = line
        self.field = field
        self.reason = message
        place = printable(self.path) if line is None else f"{printable(self.path)}:{line}"
        if field is not None:
            place = f"{place}: field {field!r}"
        super().__init__(f"{place}: {message}")


class ModelError(EmbedwayError):
    """A model cannot be used."""


class UnknownModelError(ModelError):
    """No model has that name. `nearest` lists the closest names.

    `route` is a route of the settings to it; `lacks` is the reason why a model that only has a benchmark cannot run.
    """

    def __init__(self, name: str, *, nearest: Sequence[str], route: str = "", lacks: str = "") -> None:
        self.name = name
        self.nearest = tuple(nearest)
        self.route, self.lacks = route, lacks
        hint = f"; nearest: {', '.join(self.nearest)}" if self.nearest else ""
        served = f"{route} serves {shown_name(name)}, which no [models.NAME] describes"
        super().__init__(
            f"{shown_name(name)} only has a benchmark; {lacks}"
            if lacks
            else f"{served}: add [models.NAME] with name, dimensions and max_tokens{hint}"
            if route
            else f"no model is called {shown_name(name)}{hint}. `embedway models list` shows all; "
            "write hf:OWNER/NAME for a repository of the Hugging Face hub, or the path of a folder"
        )


class NoModelError(ModelError):
    """No model meets every requirement. `advice` lists those to relax; `table` has every model with its reasons."""

    def __init__(self, advice: Sequence[str], *, table: Sequence[object] = ()) -> None:
        self.advice = tuple(advice)
        self.table = tuple(table)
        lines = [
            "no model meets every requirement; one of these changes helps:",
            *(f"  - {line}" for line in self.advice),
        ]
        super().__init__("\n".join(lines) if self.advice else "there is no model to choose from")


class UnsupportedModelError(ModelError):
    """The model needs something that the local runtime does not support; the message names it."""


class RuntimeUnavailableError(ModelError):
    """No backend here can run the model as requested."""


class WeightsError(ModelError):
    """The files of a model are unavailable or corrupt."""


class WeightsUnavailableError(WeightsError):
    """No source has the files. `tried` pairs each source with the reason for its failure."""

    def __init__(self, model: str, *, tried: Sequence[tuple[str, str]], advice: str = "") -> None:
        self.model = model
        self.tried = tuple(tried)
        lines = [f"the files of {model} are not available. Tried:"]
        lines += [f"  - {place}: {reason}" for place, reason in self.tried] or ["  - nothing: no source is known"]
        if advice:
            lines.append(advice)
        super().__init__("\n".join(lines))


class WeightsCorruptError(WeightsError):
    """A file's checksum is not the one in the catalog or on the hub."""

    def __init__(self, path: Path | str, *, expected: str, found: str, advice: str = "") -> None:
        self.path = str(path)
        self.expected = expected
        self.found = found
        super().__init__(f"{path}: sha256 is {found}, expected {expected}. {advice}".rstrip())


class DimensionsError(EmbedwayError):
    """The model does not support that size.

    `sizes` lists those it was trained for. If it supports every size of a range, `min_dimensions` is the smallest.
    """

    exit_code = 2

    def __init__(self, model: str, *, asked: int, sizes: Sequence[int], min_dimensions: int | None = None) -> None:
        self.asked = asked
        self.sizes = tuple(sizes)
        self.min_dimensions = min_dimensions
        supported = VectorSizes(self.sizes, min_dimensions)
        why = ": vectors truncated to a size that a model was not trained for lose their meaning"
        if asked > max(self.sizes):
            why = f": its longest vectors have {max(self.sizes)}"
        elif min_dimensions is not None:
            why = ""
        super().__init__(f"{model} supports {supported} dimensions, not {asked}{why}")


class SpaceMismatchError(EmbedwayError):
    """Vectors of two spaces would be mixed."""

    def __init__(
        self,
        *,
        collection: str,
        collection_space: str,
        asked_space: str,
        asked: str = "the query",
        claimed: bool = False,
    ) -> None:
        """Create the error. `claimed` is true during the first write, before anything is written."""
        self.collection = collection
        self.collection_space = collection_space
        self.asked_space = asked_space
        self.claimed = claimed
        holds = "is being written for the first time, with vectors" if claimed else "contains vectors"
        advice = "Wait until that write ends" if claimed else "Use the collection's own model"
        super().__init__(
            f"{collection} {holds} of the space {collection_space}; {asked} would be of the space "
            f"{asked_space}, and distances between the two are meaningless. "
            f"{advice}, or {'use its model' if claimed else 'embed it again'}"
        )


class BadVectorsError(EmbedwayError):
    """A model returned invalid vectors. `rows` are the invalid rows of its answer; empty for the whole answer.

    `check` is the name of the failed check, such as `same_vector`; empty if it has none.
    """

    #: Whether the answer may be billed; false if no text was sent.
    billed = True
    #: Whether it is the answer to a probe, so that no text of a caller is at fault.
    of_probe = False
    #: Tokens that the answer reports as billed, if it was read so far.
    billed_tokens: int | None = None

    def __init__(self, message: str, *, route: str, rows: Sequence[int] = (), check: str = "") -> None:
        self.route = route
        self.rows = tuple(rows)
        self.check = check
        #: The message without rows.
        self.message = f"{route}: {message}"
        super().__init__(self.message)

    def __str__(self) -> str:
        """Return the message, with the first invalid rows unless the error is about one text."""
        message = super().__str__()
        if self.row is not None or not self.rows:
            return message
        return f"{message} (rows {', '.join(map(str, self.rows[:_SHOWN_ROWS]))})"


class BatchError(EmbedwayError):
    """A batch failed; the cause is chained."""

    def __init__(self, message: str, *, route: str) -> None:
        self.route = route
        super().__init__(f"{route}: {message}")


class UpstreamError(EmbedwayError):
    """A provider's service failed or refused.

    `status` is the HTTP status, None without an answer. `billed` is true if the failed call may be billed: the request
    was sent and may have been processed. `retry_after_s` is the wait that the service requests, None if it requests
    no wait.
    """

    #: Whether the same request may succeed a little later on this route.
    transient = False
    #: Rate limits in the service's error response, a `RateState`; None if there are none.
    rates: Any = None
    #: Whether a probe failed, so that no text of a caller is at fault.
    of_probe = False
    #: Limits that the service named when it refused a request, a `ServiceLimits`; None if it named none.
    limits: Any = None
    #: Other models that are set up here, if no route of this one can help.
    elsewhere: tuple[str, ...] = ()

    def __init__(
        self,
        message: str,
        *,
        route: str,
        status: int | None = None,
        billed: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        self.route = route
        self.status = status
        self.billed = billed
        self.retry_after_s = retry_after_s
        shown = f" (HTTP {status})" if status is not None else ""
        super().__init__(f"{route}: {message}{shown}")

    def __str__(self) -> str:
        """Return the message, with the other models that are set up."""
        return _with_elsewhere(super().__str__(), self.elsewhere)


class AuthenticationError(UpstreamError):
    """The key is missing, wrong, or has no right to the model."""


class QuotaExceededError(UpstreamError):
    """The account's money or quota is used up; waiting does not help."""


class RateLimitedError(UpstreamError):
    """The service asks to retry later."""

    transient = True


class UnavailableError(UpstreamError):
    """The service is unreachable, too slow, resets the connection, or fails.

    Its statuses are 408, 409, 424, 425, 499, and those from 500 except 501, 505 and 511.
    """

    transient = True
    #: Whether the service says that it still loads the model.
    loading = False


class RefusedInputError(UpstreamError):
    """The service refuses a part of the request (mostly HTTP 400, 413, 422); other texts may succeed."""


class ProtocolError(UpstreamError):
    """The answer does not follow the API: invalid JSON, a missing field, a wrong length.

    Also a request that the service refuses whatever its texts are: an unknown model or path, an unsupported parameter.
    """


class NoRouteError(EmbedwayError):
    """No route of the model succeeded. `failed` pairs each route with the reason."""

    #: Seconds until the first route may be used again, if rate limits are among the reasons; otherwise None.
    retry_after_s: float | None = None

    def __init__(self, model: str, *, failed: Sequence[tuple[str, str]], elsewhere: Sequence[str] = ()) -> None:
        self.model = model
        self.failed = tuple(failed)
        self.elsewhere = tuple(elsewhere)
        lines = [f"no route of {model} succeeded:"]
        lines += [f"  - {route}: {reason}" for route, reason in self.failed] or ["  - no route is set up here"]
        super().__init__("\n".join(lines))

    def __str__(self) -> str:
        """Return the message, with the other models that are set up."""
        return _with_elsewhere(super().__str__(), self.elsewhere)


class DeadlineError(EmbedwayError, TimeoutError):
    """The deadline of a request passed, or a wait would pass it, after `attempts` requests to services.

    If the wait is known, `retry_after_s` is that wait, and `route` the route that requires it.
    """

    route = ""
    retry_after_s: float | None = None

    def __init__(self, message: str, *, attempts: int) -> None:
        self.attempts = attempts
        super().__init__(message)


class BudgetExceededError(EmbedwayError):
    """A spending limit would be exceeded, so the request was not sent. Amounts are nano-dollars.

    `budget` names the limit. `needed` is the maximum cost of the request, None if no price is known. `left` is the
    amount that the limit still allows. `scope` is that of a budget, such as `*` or `api_key:NAME`; empty for a limit of
    the call.
    """

    exit_code = 3

    def __init__(self, message: str, *, budget: str, needed: int | None, left: int, scope: str = "") -> None:
        self.budget = budget
        self.scope = scope
        self.needed = needed
        self.left = left
        super().__init__(message)


class AccessError(EmbedwayError):
    """The API key of a request to the gateway is missing or not valid (HTTP 401).

    An error about the key of an upstream service is an `AuthenticationError`.
    """


class NotAllowedError(AccessError):
    """The API key of a request to the gateway is valid, but has no right to what the request asks for (HTTP 403)."""


class KeyLimitError(EmbedwayError):
    """The requests or tokens per minute of an API key of the gateway are used up (HTTP 429).

    `retry_after_s` is the time until the same request would be accepted; None if it is larger than the limit, so that
    it is never accepted.
    """

    def __init__(self, message: str, *, retry_after_s: float | None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class OverloadedError(EmbedwayError):
    """The gateway has no place for a request now, or is closing (HTTP 503).

    `retry_after_s` is the time until a place is expected to be free, from the work that waits and the measured speed.
    """

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class LedgerError(EmbedwayError):
    """The ledger cannot be read or written. Nothing is spent without it: a limit could be exceeded unnoticed."""


class CacheError(EmbedwayError):
    """A cache cannot be read or cleared on request, or has a newer version than this package supports.

    Requests raise it only for a newer version, which is a setup error. After any other failure, they compute the texts.
    """


class StateError(EmbedwayError):
    """A backup of the state cannot be created, read or restored, or the journal of a job cannot be read.

    Also for the gateway's files and batches. `file` is the backup, the file or the server that fails.
    """

    def __init__(self, message: str, *, file: Path | str) -> None:
        self.file = str(file)
        super().__init__(f"{printable(self.file)}: {message}")


class SinkError(EmbedwayError):
    """A destination cannot be written or read."""

    def __init__(self, message: str, *, destination: str) -> None:
        self.destination = destination
        super().__init__(f"{printable(destination)}: {message}")


class CollectionLockedError(SinkError):
    """Another process or thread changes the collection; a sync with `wait` waits for it."""

    def __init__(self, *, destination: str) -> None:
        wait = by_place(command="`embedway sync --wait` waits", python="`sync(wait=True)` waits")
        reason = f"another process or thread changes the collection; try again when it ends; {wait}"
        super().__init__(reason, destination=destination)


def newer_version(version: object, known: int, *, of: str = "", otherwise: str = "") -> str:
    """Return the predicate for data that a newer version of this package wrote: "has version 3, and ...".

    `of` names the data, and `otherwise` is advice for users who cannot use the newer version.
    """
    whose = f" of {of}" if of else ""
    advice = f", or {otherwise}" if otherwise else ""
    return (
        f"has version {version}{whose}, and this embedway supports versions up to {known}: "
        f"use the newer embedway that wrote it{advice}"
    )


def _with_elsewhere(message: str, models: Sequence[str]) -> str:
    # Reported but not used: vectors of another space must not be mixed with this model's.
    notice = f"\nOther models that are set up here, each with its own space: {', '.join(models)}"
    return message + notice if models else message
