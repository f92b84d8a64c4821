"""Log line on the texts of a call that failed: their rows and the classes of their errors."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from embedway.config.local_models import AUTO
from embedway.dispatch.log_lines import kind_of
from embedway.errors import EmbedwayError
from embedway.text import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_log = logging.getLogger("embedway.rows")

#: Maximum rows of a kind of error, and kinds of errors, in a line.
_MOST_ROWS, _MOST_KINDS = 10, 5


@dataclass(slots=True)
class FailedRows:
    """Model of a call, by the name to log, and its errors by row."""

    model: str
    errors: Mapping[int, EmbedwayError] = field(default_factory=dict)


@contextmanager
def logged_rows(model: str, texts: int) -> Iterator[FailedRows]:
    """Log the rows of a call that failed, in one line, however many there are.

    The block sets the errors of a partial result, and its model (level WARNING). The caller reports an error that the
    block raises, so its row is of level INFO.
    """
    failed = FailedRows("the model of the call" if model == AUTO else model)
    try:
        yield failed
    except EmbedwayError as error:
        if error.row is not None:
            line = "row %d of %s for %s failed, and so did the call: %s"
            _log.info(line, error.row, _texts(texts), redact(failed.model), kind_of(error))
        raise
    if failed.errors:
        count, kinds = len(failed.errors), _by_kind(failed.errors)
        _log.warning("%d of %s for %s failed: %s", count, _texts(texts), redact(failed.model), kinds)


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
