"""Everything that embedway raises on purpose.

::

    EmbedwayError
    ├── ConfigError               a setting is wrong: which file, key, value and rule
    ├── UsageError                a wrong argument of a call or command; also a ValueError
    ├── MissingExtraError         an optional dependency is not installed
    ├── ClosedError               the embedder was closed
    ├── InputError                a text cannot be embedded
    │   ├── TextTooLongError      a text is over the model's limit and may not be cut
    │   └── SourceError           a file, line or row of a source cannot be used
    ├── ModelError
    │   ├── UnknownModelError     no model has that name
    │   ├── NoModelError          no model meets every requirement
    │   ├── UnsupportedModelError the model needs something that is not built
    │   ├── RuntimeUnavailableError  no backend can run it here
    │   └── WeightsError
    │       ├── WeightsUnavailableError  no place had the files
    │       └── WeightsCorruptError      the bytes are not the right ones
    ├── DimensionsError           the model was not trained for that size
    ├── SpaceMismatchError        two vector spaces would meet
    ├── BadVectorsError           a model answered with vectors that cannot be right
    ├── BatchError                running a batch failed
    ├── UpstreamError             a provider's service failed or refused
    │   ├── AuthenticationError   the key is missing, wrong, or has no right to the model
    │   ├── QuotaExceededError    the account's money or quota is used up
    │   ├── RateLimitedError      asked to come back later
    │   ├── UnavailableError      not reached, too slow, reset, or failing by itself
    │   ├── RefusedInputError     something in the request is refused; other texts may pass
    │   └── ProtocolError         the answer is not what the API promises
    ├── NoRouteError              no route of the model could compute
    ├── DeadlineError             the deadline of a request passed; also a TimeoutError
    ├── BudgetExceededError       a limit on money would be passed
    ├── LedgerError               what was spent cannot be read or written, so nothing is spent
    ├── CacheError                a cache that was asked for cannot be read or cleared, or is of a newer version
    ├── StateError                a backup of the state cannot be made, read or restored
    └── SinkError                 a destination cannot be written or read

Every error says what was wrong, where, and what to do. None holds a text of the user's or a secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedway.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class EmbedwayError(Exception):
    """The root: catch this to catch all that embedway raises on purpose."""

    #: What the command line exits with when this error ends it.
    exit_code = 1


class ConfigError(EmbedwayError):
    """A setting is wrong.

    `where` is a file, `environment` or `arguments`; `key` is the dotted name, empty for a whole file. Characters that
    cannot be printed are written as escapes: names of keys and files may hold what a terminal obeys.
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
    """The embedder was closed; make a new one."""


class InputError(EmbedwayError):
    """A text cannot be embedded. `row` counts from 0 and is None when the whole input is meant."""

    def __init__(self, message: str, *, row: int | None = None) -> None:
        self.row = row
        super().__init__(f"text {row}: {message}" if row is not None else message)


class TextTooLongError(InputError):
    """A text is over the model's limit in tokens, and `on_overflow` is `error`."""

    def __init__(self, *, row: int, max_tokens: int, tokens: int | None) -> None:
        self.max_tokens = max_tokens
        self.tokens = tokens
        have = f"has {tokens} tokens" if tokens is not None else "is far longer"
        super().__init__(f"{have}; the model takes {max_tokens}. Split it, or pass on_overflow='truncate'", row=row)


def with_row(error: EmbedwayError, row: int) -> EmbedwayError:
    """An error that names a text by its place, for the text at another place; any other error as it is."""
    if not isinstance(error, TextTooLongError):
        return error
    return TextTooLongError(row=row, max_tokens=error.max_tokens, tokens=error.tokens)


class SourceError(InputError):
    """A file, line or row of a source cannot be used. `line` counts from 1."""

    def __init__(self, message: str, *, path: Path | str, line: int | None = None, field: str | None = None) -> None:
        self.path = str(path)
        self.line = line
        self.field = field
        self.reason = message
        place = self.path if line is None else f"{self.path}:{line}"
        if field is not None:
            place = f"{place}: field {field!r}"
        super().__init__(f"{place}: {message}")


class ModelError(EmbedwayError):
    """A model cannot be used."""


class UnknownModelError(ModelError):
    """No model has that name. `nearest` holds the names closest to it."""

    def __init__(self, name: str, *, nearest: Sequence[str]) -> None:
        self.name = name
        self.nearest = tuple(nearest)
        hint = f"; nearest: {', '.join(self.nearest)}" if self.nearest else ""
        super().__init__(
            f"no model is called {name!r}{hint}. `embedway models list` shows all; "
            "write hf:OWNER/NAME for a repository of the Hugging Face hub, or the path of a folder"
        )


class NoModelError(ModelError):
    """No model meets every requirement. `advice` says which to relax; `table` has every model with every reason."""

    def __init__(self, advice: Sequence[str], *, table: Sequence[object] = ()) -> None:
        self.advice = tuple(advice)
        self.table = tuple(table)
        lines = ["no model meets every requirement; what would help:", *(f"  - {line}" for line in self.advice)]
        super().__init__("\n".join(lines) if self.advice else "there is no model to choose from")


class UnsupportedModelError(ModelError):
    """The model needs something that the local runtime does not build; the message names it."""


class RuntimeUnavailableError(ModelError):
    """No backend here can run the model as asked."""


class WeightsError(ModelError):
    """The files of a model."""


class WeightsUnavailableError(WeightsError):
    """No place had the files. `tried` pairs each place with why it failed."""

    def __init__(self, model: str, *, tried: Sequence[tuple[str, str]], advice: str = "") -> None:
        self.model = model
        self.tried = tuple(tried)
        lines = [f"the files of {model} could not be had. Tried:"]
        lines += [f"  - {place}: {reason}" for place, reason in self.tried] or ["  - nothing: no place is known"]
        if advice:
            lines.append(advice)
        super().__init__("\n".join(lines))


class WeightsCorruptError(WeightsError):
    """A file's bytes are not the ones that the catalog or the hub names."""

    def __init__(self, path: Path | str, *, expected: str, found: str, advice: str = "") -> None:
        self.path = str(path)
        self.expected = expected
        self.found = found
        super().__init__(f"{path}: sha256 is {found}, expected {expected}. {advice}".rstrip())


class DimensionsError(EmbedwayError):
    """The model was not trained for that size. `sizes` holds those it was trained for."""

    exit_code = 2

    def __init__(self, model: str, *, asked: int, sizes: Sequence[int]) -> None:
        self.asked = asked
        self.sizes = tuple(sizes)
        super().__init__(
            f"{model} gives {', '.join(map(str, self.sizes))} dimensions, not {asked}: "
            "vectors cut to a size that a model was not trained for lose their meaning"
        )


class SpaceMismatchError(EmbedwayError):
    """Two vector spaces would meet."""

    def __init__(
        self,
        *,
        collection: str,
        collection_space: str,
        asked_space: str,
        asked: str = "the query",
        claimed: bool = False,
    ) -> None:
        """`claimed` where nothing is written yet, and a first write is under way."""
        self.collection = collection
        self.collection_space = collection_space
        self.asked_space = asked_space
        self.claimed = claimed
        holds = "is just being written for the first time, with vectors" if claimed else "holds vectors"
        advice = "Wait until that write is over" if claimed else "Use the collection's own model"
        super().__init__(
            f"{collection} {holds} of the space {collection_space}; {asked} would be of the space "
            f"{asked_space}, and distances between the two mean nothing. "
            f"{advice}, or {'use its model' if claimed else 'embed it anew'}"
        )


class BadVectorsError(EmbedwayError):
    """A model answered with vectors that cannot be right. `rows` are the first offending rows."""

    def __init__(self, message: str, *, route: str, rows: Sequence[int] = ()) -> None:
        self.route = route
        self.rows = tuple(rows)
        where = f" (rows {', '.join(map(str, self.rows))})" if self.rows else ""
        super().__init__(f"{route}: {message}{where}")


class BatchError(EmbedwayError):
    """Running a batch failed; the cause is chained."""

    def __init__(self, message: str, *, route: str) -> None:
        self.route = route
        super().__init__(f"{route}: {message}")


class UpstreamError(EmbedwayError):
    """A provider's service failed or refused.

    `status` is the HTTP status, None where there was no answer. `billed` says that the call may be on the bill
    although it failed: the request had gone out and may have been carried out. `retry_after_s` is the wait that the
    service asks for, None where it asks for none.
    """

    #: Whether the same request may succeed a little later, on this route.
    transient = False
    #: What the service told of its rate limits with the error, a `RateState`; None where it told nothing.
    rates: Any = None
    #: Other models that are set up here, where nothing could be done for this one.
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
        """The message, with what else there is."""
        return _with_elsewhere(super().__str__(), self.elsewhere)


class AuthenticationError(UpstreamError):
    """The key is missing, wrong, or has no right to the model."""


class QuotaExceededError(UpstreamError):
    """The account's money or quota is used up; waiting does not help."""


class RateLimitedError(UpstreamError):
    """The service asks to come back later."""

    transient = True


class UnavailableError(UpstreamError):
    """The service was not reached, was too slow, broke off, or fails by itself (HTTP 408, 409, 5xx)."""

    transient = True


class RefusedInputError(UpstreamError):
    """The service refuses something in the request (HTTP 400, 413, 422); other texts may pass."""


class ProtocolError(UpstreamError):
    """The answer is not what the API promises: no JSON, a field missing, a wrong length."""


class NoRouteError(EmbedwayError):
    """No route of the model could compute. `failed` pairs each route with why."""

    def __init__(self, model: str, *, failed: Sequence[tuple[str, str]], elsewhere: Sequence[str] = ()) -> None:
        self.model = model
        self.failed = tuple(failed)
        self.elsewhere = tuple(elsewhere)
        lines = [f"no route of {model} could compute:"]
        lines += [f"  - {route}: {reason}" for route, reason in self.failed] or ["  - it has none that is set up here"]
        super().__init__("\n".join(lines))

    def __str__(self) -> str:
        """The message, with what else there is."""
        return _with_elsewhere(super().__str__(), self.elsewhere)


class DeadlineError(EmbedwayError, TimeoutError):
    """The deadline of a request passed, after `attempts` requests to services."""

    def __init__(self, message: str, *, attempts: int) -> None:
        self.attempts = attempts
        super().__init__(message)


class BudgetExceededError(EmbedwayError):
    """A limit on money would be passed, so that nothing was sent. Amounts are nano-dollars.

    `budget` names the limit, `needed` is what the request may cost, None where no price is known; `left` is what the
    limit still allows.
    """

    exit_code = 3

    def __init__(self, message: str, *, budget: str, needed: int | None, left: int) -> None:
        self.budget = budget
        self.needed = needed
        self.left = left
        super().__init__(message)


class LedgerError(EmbedwayError):
    """The ledger cannot be read or written. Nothing is spent without it, because a limit could be passed unseen."""


class CacheError(EmbedwayError):
    """A cache that was asked for cannot be read or cleared, or is of a newer version than this package knows.

    Requests raise it only for a newer version, which is a mistake of setup; where a cache fails they compute instead.
    """


class StateError(EmbedwayError):
    """A backup of the state cannot be made, read or restored. `file` is the backup or what fails."""

    def __init__(self, message: str, *, file: Path | str) -> None:
        self.file = str(file)
        super().__init__(f"{file}: {message}")


class SinkError(EmbedwayError):
    """A destination cannot be written or read."""

    def __init__(self, message: str, *, destination: str) -> None:
        self.destination = destination
        super().__init__(f"{destination}: {message}")


def newer_version(version: object, known: int, *, of: str = "", otherwise: str = "") -> str:
    """The predicate for something that a newer version of this package wrote: "is of version 3, and ...".

    `of` names what has the version, and `otherwise` is advice for those who cannot use the newer version.
    """
    whose = f" of {of}" if of else ""
    advice = f", or {otherwise}" if otherwise else ""
    return (
        f"is of version {version}{whose}, and this embedway knows versions up to {known}: "
        f"use the newer embedway that wrote it{advice}"
    )


def _with_elsewhere(message: str, models: Sequence[str]) -> str:
    # Told and not taken: vectors of another space do not belong where this model's are.
    told = f"\nOther models that are set up here, each with a space of its own: {', '.join(models)}"
    return message + told if models else message
