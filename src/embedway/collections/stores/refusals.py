"""Errors that all stores raise: a collection that exists must not, and one that does not exist must."""

from __future__ import annotations

from embedway.errors import SinkError
from embedway.remedies import by_place, option

#: Remedy for a file of vectors without its record.
DECLARE = "`embedway export FILE --space MODEL --to NEW` declares the model of a file that lost its record"


def already_exists(what: str, destination: str) -> SinkError:
    """Return the error of a collection that would be replaced; `what` names its kind, such as `table`."""
    message = f"already exists; choose another {what}, or replace it with {option('overwrite', True)}"
    return SinkError(message, destination=destination)


def no_such(what: str, destination: str, *, similar: str = "") -> SinkError:
    """Return the error of a collection that does not exist; `similar` begins with `; ` and names one that does."""
    create = by_place(
        command="`embedway sync SOURCE --to COLLECTION` creates it",
        python="open it with create=True, and sync it, to create it",
    )
    joined = f"{similar} Otherwise, {create}" if similar else f"; {create}"
    return SinkError(f"there is no such {what}{joined}", destination=destination)
