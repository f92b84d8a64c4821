"""Errors of the disk and of libraries, converted to `SinkError`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from embedway.errors import EmbedwayError, SinkError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Errors that libraries raise for damaged or unusual files; their own classes derive from these.
LIBRARY_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    AttributeError,
    MemoryError,
)


@contextmanager
def sink_errors(destination: str, action: str) -> Iterator[None]:
    """Convert errors of the disk and of libraries to `SinkError`; `action` names the failed action.

    Messages of libraries may quote rows, so they are only chained.
    """
    try:
        yield
    except EmbedwayError:
        raise
    except LIBRARY_ERRORS as error:
        reason = (isinstance(error, OSError) and error.strerror) or type(error).__name__
        raise SinkError(f"{action} failed: {reason}", destination=destination) from error
