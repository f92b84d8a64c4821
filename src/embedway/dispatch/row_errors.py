"""Errors of the rows of a request. The error of a single text has its row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedway.dispatch.halving import is_about_its_texts
from embedway.errors import BadVectorsError, EmbedwayError, NoRouteError, UnavailableError, of_row

if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedway.dispatch.halving import Findings
    from embedway.dispatch.request import Rows, UpstreamRequest, UpstreamResponse


@dataclass(frozen=True, slots=True)
class RowErrors:
    """Records errors in the response of a partial request, and raises the others."""

    request: UpstreamRequest
    response: UpstreamResponse
    found: Mapping[tuple[str, int], Findings]

    def fail(self, rows: Rows, error: EmbedwayError, *, cause: EmbedwayError | None = None) -> None:
        """Record the error of rows, or raise it. The error of a text has its row; `cause` is its reason."""
        cause, errors = cause or error, dict.fromkeys(rows.tolist(), error)
        is_each_invalid = isinstance(cause, BadVectorsError) and len(cause.rows) == len(rows)
        if is_each_invalid or (len(rows) == 1 and is_about_its_texts(cause)):
            errors = {row: of_row(error, row) for row in errors}
        if not self.request.partial:
            first = next(iter(errors.values()))
            raise of_row(first, None) if self._is_outage(rows[0], first) else first
        self.response.errors.update(errors)

    def _is_outage(self, row: int, error: EmbedwayError) -> bool:
        """Return whether the service itself may have caused an error: it answered none of the caller's texts."""
        callers = self.request.callers
        caller, texts = 0, len(self.request.texts)
        if callers is not None:
            caller, texts = int(callers[row]), int((callers == callers[row]).sum())
        is_answered = any(found.answers for (_, own), found in self.found.items() if own == caller)
        return texts > 1 and not is_answered and isinstance(error, (UnavailableError, NoRouteError))

    def forget_rows_of_outages(self) -> None:
        """Remove the row of each error that the service itself may have caused."""
        errors = self.response.errors
        for row, error in errors.items():
            if error.row is not None and self._is_outage(row, error):
                errors[row] = of_row(error, None)


def first_error(errors: BaseException) -> EmbedwayError:
    """Return the first error of a group."""
    while isinstance(errors, BaseExceptionGroup):
        errors = errors.exceptions[0]
    assert isinstance(errors, EmbedwayError)  # noqa: S101 - `except*` catches nothing else
    return errors
