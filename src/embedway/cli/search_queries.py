"""Queries of `embedway search --queries`: one a line, or JSON Lines with ids."""

import json
import math
from pathlib import Path
from typing import TypeAlias

from embedway import files
from embedway.cli.output import STANDARD_INPUT, standard_input
from embedway.errors import SourceError
from embedway.text import has_surrogate

#: Id of a query, as JSON has it.
QueryId: TypeAlias = str | int | float | None
#: Maximum bytes of a file of queries.
MAX_BYTES = 1 << 26


def read_queries(path: str) -> list[tuple[QueryId, str]]:
    """Return ids and texts of the queries in a file, or of standard input (`-`). Empty lines are skipped.

    A line that begins with `{` is a JSON object with `query` or `text`, and an optional `id`, which keeps its type; the
    default id is the number of the line. Raises SourceError, which names the line.
    """
    name = STANDARD_INPUT if path == "-" else path
    found = []
    for number, line in enumerate(_read(path, name).split(b"\n"), 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError:
            raise SourceError("is not UTF-8", path=name, line=number) from None
        if text:
            found.append(_parsed(text, name, number))
    if not found:
        raise SourceError("contains no query", path=name)
    return found


def _read(path: str, name: str) -> bytes:
    try:
        if path == "-":
            data = standard_input().read(MAX_BYTES + 1)
        else:
            data = files.read_bounded(Path(path), most_bytes=MAX_BYTES)
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror or error}", path=name) from None
    if len(data) > MAX_BYTES:
        raise SourceError(f"is larger than {MAX_BYTES >> 20} MiB; divide it", path=name)
    return data


def _parsed(text: str, name: str, number: int) -> tuple[QueryId, str]:
    if not text.startswith("{"):
        return number, text
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        raise SourceError("is not JSON", path=name, line=number) from None
    query = row.get("query", row.get("text"))
    if not isinstance(query, str) or not query.strip():
        raise SourceError("needs the text of a query, in 'query' or 'text'", path=name, line=number)
    if has_surrogate(query):
        raise SourceError("is not valid Unicode", path=name, line=number)
    asked_id = row.get("id", number)
    is_finite = not isinstance(asked_id, float) or math.isfinite(asked_id)
    if not isinstance(asked_id, (str, int, float, type(None))) or not is_finite:
        raise SourceError("'id' must be a text or a number", path=name, line=number)
    return asked_id, query
