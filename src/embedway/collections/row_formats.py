"""Streaming readers for lines, CSV and TSV.

The error of a row goes to `on_bad_row`, which raises or records it; the error of a file is raised at once. A row has a
maximum size, so that memory is limited whatever the file contains.
"""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING, Any

from embedway.collections.documents import MAX_ROW_BYTES
from embedway.collections.lines import HEAD_BYTES, StreamError, numbered_lines, peek_line
from embedway.errors import SourceError

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator, Mapping

    from embedway.collections.documents import OnBadRow, RawDocument
    from embedway.collections.rows import RowReader

#: An odd number of quotes, which ends a quoted cell: inside it, two quotes are one character.
_END_OF_QUOTE = re.compile(rb'(?<!")"(?:"")*+(?!")')
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


def read_csv(
    stream: io.BufferedReader, rows: RowReader, *, delimiter: str | None, on_bad_row: OnBadRow
) -> Iterator[RawDocument]:
    """Read one document per record below the header; a document's line is the first line of its record.

    Without `delimiter`, it is found from the header: the one with which the header has the column of texts.
    """
    if csv.field_size_limit() < MAX_ROW_BYTES:
        # Python's default, 128 KiB, is less than a long document.
        csv.field_size_limit(MAX_ROW_BYTES)
    rows.has_only_texts = True
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
            on_bad_row(_csv_fault(error, lines, rows, line))
        except SourceError as error:
            if lines.too_long or isinstance(error, StreamError):
                raise
            on_bad_row(error)
        else:
            if document is not None:
                yield document


def _csv_fault(error: csv.Error, lines: _CsvLines, rows: RowReader, line: int) -> SourceError:
    reason = str(error)
    if reason == "unexpected end of data":
        line, count = lines.quote_line, lines.record_lines
        reason = f"a quote is not closed, so all lines to the end of the file, {count:,}, are one record"
    return rows.fault(f"is not CSV: {reason}", line)


class _CsvLines:
    """Decoded lines of a CSV file, with a limit for one record, because an unclosed quote reads all lines.

    After its first line, a record continues inside a quote. Lines that do not end the quote are returned together.
    """

    def __init__(self, stream: io.BufferedReader, rows: RowReader) -> None:
        self.stream = stream
        self._rows = rows
        self._line = 0
        self._record_line = 1
        self._record_bytes = 0
        #: Line of the opening quote, if the record continues on the next line.
        self.quote_line = 1
        self.too_long = False

    def begin_record(self) -> int:
        """Begin a record and return its first line."""
        self._record_line, self._record_bytes = self._line + 1, 0
        return self._record_line

    @property
    def record_lines(self) -> int:
        """Number of lines of the record that were read."""
        return self._line - self._record_line + 1

    def skip(self) -> None:
        """Skip a line."""
        self.stream.readline(HEAD_BYTES)
        self._line += 1

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        raw = self._quoted_lines() if self._record_bytes else b""
        raw = raw or self.stream.readline(MAX_ROW_BYTES + 1)
        if not raw:
            raise StopIteration
        self._line += max(1, raw.count(b"\n"))
        # Another quote may begin on the line that ends one.
        if not self._record_bytes or _END_OF_QUOTE.search(raw):
            self.quote_line = self._line
        self._record_bytes += len(raw)
        if self._record_bytes > MAX_ROW_BYTES:
            self.too_long = True
            quote = f"close its quote of line {self.quote_line:,}, or split it"
            reason = f"the record has more than {MAX_ROW_BYTES:,} bytes; {quote}"
            raise self._rows.fault(reason, self._record_line)
        # Bytes that are not UTF-8 become lone surrogates, so that only their own row is rejected.
        return raw.decode("utf-8", "surrogateescape")

    def _quoted_lines(self) -> bytes:
        """Return the complete lines in the buffer up to the one that ends the quote."""
        ready = self.stream.peek()
        ending = _END_OF_QUOTE.search(ready)
        return self.stream.read(ready.rfind(b"\n", 0, ending.start() if ending else None) + 1)


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
