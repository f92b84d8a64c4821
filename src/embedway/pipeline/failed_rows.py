"""Log line on the texts of a call that failed: their rows and the classes of their errors."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Self

from embedway.config.local_models import AUTO
from embedway.dispatch.log_lines import kind_of
from embedway.errors import EmbedwayError
from embedway.text import redact

if TYPE_CHECKING:
    from collections.abc import Mapping

_log = logging.getLogger("embedway.rows")

#: Maximum rows of a kind of error, and kinds of errors, in a line.
_MOST_ROWS, _MOST_KINDS = 10, 5


class FailedRows:
    """Context manager that logs the rows of a call that failed, in one line, however many there are.

    The block sets the errors of a partial result, and its model (level WARNING). The caller reports an error that the
    block raises, so its row is of level INFO.
    """

    __slots__ = ("_texts", "errors", "model")

    def __init__(self, model: str, texts: int) -> None:
        #: Name to log.
        self.model = "the model of the call" if model == AUTO else model
        self.errors: Mapping[int, EmbedwayError] = {}
        self._texts = texts

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, EmbedwayError) and error.row is not None:
            line = "row %d of %s for %s failed, and so did the call: %s"
            _log.info(line, error.row, _texts(self._texts), redact(self.model), kind_of(error))
        elif error is None and self.errors:
            count, kinds = len(self.errors), _by_kind(self.errors)
            _log.warning("%d of %s for %s failed: %s", count, _texts(self._texts), redact(self.model), kinds)


def _by_kind(failed: Mapping[int, EmbedwayError]) -> str:
    kinds: dict[str, list[int]] = {}
    for row in sorted(failed):
        kinds.setdefault(kind_of(failed[row]), []).append(row)
    shown = [f"{_rows(rows)}: {kind}" for kind, rows in list(kinds.items())[:_MOST_KINDS]]
    more = len(kinds) - len(shown)
    return "; ".join(shown) + (f"; and {more} more kinds of errors" if more else "")


def _rows(rows: list[int]) -> str:
    named, more = ", ".join(map(str, rows[:_MOST_ROWS])), len(rows) - _MOST_ROWS
    return f"{'row' if len(rows) == 1 else 'rows'} {named}" + (f" and {more:,} more" if more > 0 else "")


def _texts(count: int) -> str:
    return "1 text" if count == 1 else f"{count:,} texts"
