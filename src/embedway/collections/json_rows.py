"""Streaming readers for JSON Lines and JSON arrays, in memory for one row.

The error of a row goes to `on_bad_row`, which raises or records it; an error of syntax in an array ends the file.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from embedway.collections.documents import MAX_ROW_BYTES
from embedway.collections.lines import HEAD_BYTES, numbered_lines
from embedway.errors import SourceError

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator

    from embedway.collections.documents import OnBadRow, RawDocument
    from embedway.collections.rows import RowReader

_SPACE = re.compile(r"[ \t\r\n]*+")
_BETWEEN = re.compile(r"[ \t\r\n]*+(?:,[ \t\r\n]*+)?")


def read_jsonl(stream: io.BufferedReader, rows: RowReader, *, on_bad_row: OnBadRow) -> Iterator[RawDocument]:
    """Read one document per JSON object; skip blank lines."""
    for number, raw in numbered_lines(stream, rows.path, on_bad_row, limit=MAX_ROW_BYTES):
        if raw.isspace():
            continue
        try:
            document = rows.document(_json_object(raw, rows, number), number)
        except SourceError as error:
            on_bad_row(error)
            continue
        yield document


def read_json(stream: io.BufferedReader, rows: RowReader, *, on_bad_row: OnBadRow) -> Iterator[RawDocument]:
    """Read one document per object of a JSON array. An error of syntax ends the file.

    A row without an id has that of its position, from 1, because several rows may be on one line.
    """
    for number, (value, line) in enumerate(_Array(stream, rows), 1):
        try:
            if not isinstance(value, dict):
                raise rows.fault(f"must be a JSON object, is {type(value).__name__}", line)
            document = rows.document(value, line, number=number)
        except SourceError as error:
            on_bad_row(error)
            continue
        yield document


def is_json_rows(head: bytes) -> bool:
    """Return whether JSON text begins as an array of objects."""
    text = head.lstrip()
    return text.startswith(b"[") and text[1:].lstrip().startswith(b"{")


def json_reason(error: ValueError | RecursionError) -> str:
    """Return why a text is not read as JSON."""
    if isinstance(error, json.JSONDecodeError):
        return f"is not JSON: {error.msg} (column {error.colno})"
    if isinstance(error, RecursionError):
        return "is nested too deeply to be read as JSON"
    # Python refuses to convert integers of thousands of digits, because that takes quadratic time.
    return "has an integer with too many digits; write it as text"


def _json_object(raw: bytes, rows: RowReader, line: int) -> dict[str, object]:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise rows.fault("is not UTF-8", line) from None
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = json_reason(error)
        if text.strip() in {"{", "["}:
            reason += "; each object must be on one line, or all in an array in a file .json"
        raise rows.fault(reason, line) from None
    if not isinstance(row, dict):
        raise rows.fault(f"must be a JSON object, is {type(row).__name__}", line)
    return row


class _Array:
    """Iterator over the items of an array, and their lines. At most one item and a block are in memory."""

    def __init__(self, stream: io.BufferedReader, rows: RowReader) -> None:
        self._stream = stream
        self._rows = rows
        self._decoder = json.JSONDecoder()
        #: Decoded text, of which the part before `_at` is used, and the bytes of an incomplete character after it.
        self._text, self._at = "", 0
        self._raw = b""
        self._line = 1
        self._ended = False

    def __iter__(self) -> Iterator[tuple[object, int]]:
        self._skip(_SPACE)
        self._at += 1
        while True:
            self._skip(_BETWEEN)
            if self._text.startswith("]", self._at):
                break
            value, end = self._item()
            yield value, self._line
            self._line += self._text.count("\n", self._at, end)
            self._at = end
        self._at += 1
        self._skip(_SPACE)
        if self._at < len(self._text):
            raise self._rows.fault("has text after the end of its JSON array, which is not read", self._line)

    def _item(self) -> tuple[object, int]:
        """Return the item at the present place, and its end."""
        wanted = HEAD_BYTES
        while True:
            size = len(self._text) - self._at
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if self._ended or not isinstance(error, json.JSONDecodeError):
                    raise self._rows.fault(self._reason(error), self._line) from None
            else:
                if self._ended or end < len(self._text):
                    return value, end
            if size > MAX_ROW_BYTES:
                reason = f"the row has more than {MAX_ROW_BYTES:,} characters, or is not JSON from here on"
                raise self._rows.fault(reason, self._line)
            wanted = 2 * max(size, wanted)
            self._read(wanted)

    def _reason(self, error: ValueError | RecursionError) -> str:
        if not isinstance(error, json.JSONDecodeError):
            return json_reason(error)
        return "is not JSON from here on" if self._text[self._at :].strip() else "the JSON array is not closed"

    def _skip(self, pattern: re.Pattern[str]) -> None:
        """Skip what matches, and read on if nothing is left."""
        while True:
            found = pattern.match(self._text, self._at)
            end = found.end() if found else self._at
            self._line += self._text.count("\n", self._at, end)
            self._at = end
            if self._ended or end < len(self._text):
                return
            self._read(HEAD_BYTES)

    def _read(self, wanted: int) -> None:
        """Read on, until that much text is unused, or to the end."""
        self._text, self._at = self._text[self._at :], 0
        while not self._ended and len(self._text) < wanted:
            block = self._stream.read(HEAD_BYTES)
            self._ended = not block
            self._raw += block
            text, self._raw = _decode_part(self._raw, self._rows, self._line, final=self._ended)
            self._text += text


def _decode_part(raw: bytes, rows: RowReader, line: int, *, final: bool) -> tuple[str, bytes]:
    """Return the text of all complete characters, and the rest."""
    try:
        return raw.decode(), b""
    except UnicodeDecodeError as error:
        if not final and error.start >= len(raw) - 3:
            return raw[: error.start].decode(), raw[error.start :]
        raise rows.fault("is not UTF-8", line + raw.count(b"\n", 0, error.start)) from None
