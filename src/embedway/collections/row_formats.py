"""Streaming readers for lines, JSON Lines, JSON arrays, CSV and TSV.

The error of a row goes to `on_bad_row`, which raises or records it; the error of a file is raised at once. A row has a
maximum size, so that memory is limited whatever the file contains.
"""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

from embedway.collections.documents import MAX_ROW_BYTES
from embedway.collections.lines import HEAD_BYTES, StreamError, numbered_lines, peek_line
from embedway.errors import SourceError
from embedway.remedies import option

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator, Mapping

    from embedway.collections.documents import OnBadRow, RawDocument
    from embedway.collections.rows import RowReader

_SEPARATORS = (",", ";", "\t", "|")


def read_lines(stream: io.BufferedReader, rows: RowReader, *, on_bad_row: OnBadRow) -> Iterator[RawDocument]:
    """Read one document per line; skip blank lines."""
    for number, raw in numbered_lines(stream, rows.path, on_bad_row, limit=MAX_ROW_BYTES):
        try:
            text = _decode(raw, rows, number).rstrip("\r\n")
            if text and not text.isspace():
                document = rows.line(text, number)
            else:
                continue
        except SourceError as error:
            on_bad_row(error)
            continue
        yield document


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
    for number, (value, line) in enumerate(_array_items(stream, rows), 1):
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


def _array_items(stream: io.BufferedReader, rows: RowReader) -> Iterator[tuple[object, int]]:
    """Iterate over the items of an array, and their lines; the text of at most one item is in memory."""
    decoder = json.JSONDecoder()
    buffer, line, wanted = "", 1, HEAD_BYTES
    raw = b""
    opened = ended = False
    while True:
        if not ended and len(buffer) < wanted:
            block = stream.read(wanted)
            raw += block
            ended = len(block) < wanted
            text, raw = _decode_part(raw, rows, line, final=ended)
            buffer += text
        stripped = buffer.lstrip(" \t\r\n," if opened else " \t\r\n")
        line += buffer.count("\n", 0, len(buffer) - len(stripped))
        buffer = stripped
        if not opened:
            opened, buffer = True, buffer[1:]
            continue
        if buffer.startswith("]"):
            return
        try:
            value, end = decoder.raw_decode(buffer)
            complete = ended or end < len(buffer)
        except (ValueError, RecursionError) as error:
            complete = False
            if ended or len(buffer) > MAX_ROW_BYTES or isinstance(error, RecursionError):
                raise rows.fault("is not JSON from here on, or the row is too large", line) from None
        if not complete:
            wanted = 2 * max(len(buffer), HEAD_BYTES)
            continue
        wanted = HEAD_BYTES
        yield value, line
        line += buffer.count("\n", 0, end)
        buffer = buffer[end:]


def _decode_part(raw: bytes, rows: RowReader, line: int, *, final: bool) -> tuple[str, bytes]:
    """Return the text of all complete characters, and the rest."""
    try:
        return raw.decode(), b""
    except UnicodeDecodeError as error:
        if not final and error.start >= len(raw) - 3:
            return raw[: error.start].decode(), raw[error.start :]
        raise rows.fault("is not UTF-8", line + raw.count(b"\n", 0, error.start)) from None


def read_csv(
    stream: io.BufferedReader, rows: RowReader, *, delimiter: str | None, on_bad_row: OnBadRow
) -> Iterator[RawDocument]:
    """Read one document per record below the header; a document's line is the first line of its record.

    Without `delimiter`, it is found from the header: the one with which the header has the column of texts.
    """
    if csv.field_size_limit() < MAX_ROW_BYTES:
        # Python's default, 128 KiB, is less than a long document.
        csv.field_size_limit(MAX_ROW_BYTES)
    lines = _CsvLines(stream, rows)
    # Strict: an unclosed quote is an error; otherwise the rest of the file would be one text.
    reader = csv.reader(lines, strict=True, **_dialect(lines, delimiter, rows.options.text_field))
    header_line = lines.begin_record()
    try:
        header = [cell.strip() for cell in next(reader, [])]
    except csv.Error as error:
        raise rows.fault(f"is not CSV: {error}", header_line) from None
    rows.check_columns(header, line=header_line, what="header")
    while True:
        line = lines.begin_record()
        try:
            cells = next(reader)
            document = rows.document(_record(header, cells, rows, line), line) if cells else None
        except StopIteration:
            return
        except csv.Error as error:
            on_bad_row(rows.fault(f"is not CSV: {error}; is a quote not closed?", line))
        except SourceError as error:
            if lines.too_long or isinstance(error, StreamError):
                raise
            on_bad_row(error)
        else:
            if document is not None:
                yield document


class _CsvLines:
    """Decoded lines of a CSV file, with a limit for one record, because an unclosed quote reads all lines."""

    def __init__(self, stream: io.BufferedReader, rows: RowReader) -> None:
        self.stream = stream
        self._rows = rows
        self._line = 0
        self._record_line = 1
        self._record_bytes = 0
        self.too_long = False

    def begin_record(self) -> int:
        """Begin a record and return its first line."""
        self._record_line, self._record_bytes = self._line + 1, 0
        return self._record_line

    def skip(self) -> None:
        """Skip a line."""
        self.stream.readline(HEAD_BYTES)
        self._line += 1

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        raw = self.stream.readline(MAX_ROW_BYTES + 1)
        if not raw:
            raise StopIteration
        self._line += 1
        self._record_bytes += len(raw)
        if self._record_bytes > MAX_ROW_BYTES:
            self.too_long = True
            reason = f"the record has more than {MAX_ROW_BYTES:,} bytes; close its quote, or split it"
            raise self._rows.fault(reason, self._record_line)
        # Bytes that are not UTF-8 become lone surrogates, so that only their own row is rejected.
        return raw.decode("utf-8", "surrogateescape")


def _dialect(lines: _CsvLines, delimiter: str | None, text_field: str) -> dict[str, Any]:
    """Return the arguments of the reader, from the header. Skips the line `sep=;`, which Excel writes before it."""
    head, lines.stream = peek_line(lines.stream)
    if head[:4].lower() == b"sep=" and head[4:5].isascii() and head[4:5].strip(b"\r\n"):
        delimiter = head[4:5].decode()
        lines.skip()
        head, lines.stream = peek_line(lines.stream)
    header = head.decode("utf-8", "replace")
    delimiter = delimiter or _separator(header, text_field)
    return {"delimiter": delimiter, "skipinitialspace": _is_spaced(header, delimiter)}


def _separator(header: str, text_field: str) -> str:
    """Return the separator with which a header has the column of texts, else the most columns."""
    best, most = ",", 0
    for separator in _SEPARATORS:
        try:
            cells = next(csv.reader([header], delimiter=separator), [])
        except csv.Error:
            continue
        rank = len(cells) + (1 << 20) * any(cell.strip().lower() == text_field.lower() for cell in cells)
        if rank > most:
            best, most = separator, rank
    return best


def _is_spaced(header: str, separator: str) -> bool:
    """Return whether each separator is followed by a space, which then belongs to no cell."""
    count = header.count(separator)
    return count > 0 and header.count(f"{separator} ") == count


def _record(header: list[str], cells: list[str], rows: RowReader, line: int) -> Mapping[str, object]:
    if len(cells) > len(header):
        raise rows.fault("has more cells than the header", line)
    return dict(zip(header, cells, strict=False))


def _decode(raw: bytes, rows: RowReader, line: int) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise rows.fault("is not UTF-8", line) from None


def _json_object(raw: bytes, rows: RowReader, line: int) -> dict[str, object]:
    try:
        row = json.loads(_decode(raw, rows, line))
    except (ValueError, RecursionError) as error:
        where = f" (column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise rows.fault(f"is not JSON{where}", line) from None
    if not isinstance(row, dict):
        hint = f"; an array of rows is read with {option('format', 'json')}" if isinstance(row, list) else ""
        raise rows.fault(f"must be a JSON object, is {type(row).__name__}{hint}", line)
    return row
