"""Streaming readers for files of rows: JSON Lines, CSV, and plain lines; rows of tables to documents.

The error of a row goes to `on_bad_row`, which raises or records it; the error of a file is raised at once. A row has a
maximum size, so that memory is limited whatever the file contains.
"""

from __future__ import annotations

import csv
import json
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Protocol

from embedway.collections.documents import (
    MAX_ID_CHARACTERS,
    MAX_RATIO,
    MAX_ROW_BYTES,
    MAX_TITLE_CHARACTERS,
    NO_METADATA,
    UNCHECKED_BYTES,
    Document,
    surrogate_fault,
    text_fault,
)
from embedway.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from embedway.collections.documents import OnBadRow, ReadOptions

    Advance = Callable[[int], None]

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
#: Maximum bytes of a line that is skipped because it is too long; beyond it, the file is an error.
_MAX_SKIPPED_BYTES = 1 << 30
_SKIPPED_PART_BYTES = 1 << 20


class Lines(Protocol):
    """A binary stream that is read by lines."""

    def readline(self, size: int, /) -> bytes:
        """Return the next line, or its first `size` bytes; nothing at the end."""


def read_lines(stream: Lines, source: str, *, on_bad_row: OnBadRow, advance: Advance) -> Iterator[Document]:
    """Read one document per line; skip blank lines."""
    for number, raw in _numbered(stream, source, on_bad_row, advance):
        try:
            text = _decode(raw, source, number).rstrip("\r\n")
        except SourceError as error:
            on_bad_row(error)
            continue
        if text and not text.isspace():
            yield Document(id=f"{source}:{number}", text=text, source=source, line=number)


def read_jsonl(
    stream: Lines, source: str, options: ReadOptions, *, on_bad_row: OnBadRow, advance: Advance
) -> Iterator[Document]:
    """Read one document per JSON object; skip blank lines."""
    for number, raw in _numbered(stream, source, on_bad_row, advance):
        if raw.isspace():
            continue
        try:
            document = to_document(_json_object(raw, source, number), source, number, options)
        except SourceError as error:
            on_bad_row(error)
            continue
        yield document


def read_csv(
    stream: Lines,
    source: str,
    options: ReadOptions,
    *,
    delimiter: str = ",",
    on_bad_row: OnBadRow,
    advance: Advance,
) -> Iterator[Document]:
    """Read one document per record below the header; a document's line is the first line of its record."""
    if csv.field_size_limit() < MAX_ROW_BYTES:
        # Python's default, 128 KiB, is less than a long document.
        csv.field_size_limit(MAX_ROW_BYTES)
    lines = _CsvLines(stream, source, advance)
    # Strict: an unclosed quote is an error; otherwise the rest of the file would be one text.
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise SourceError(f"is not CSV: {error}", path=source, line=1) from None
    _refuse_bad_header(header, source, options)
    while True:
        line = lines.begin_record()
        try:
            cells = next(reader)
            if cells:
                yield to_document(_csv_record(header, cells, source, line), source, line, options)
        except StopIteration:
            return
        except csv.Error as error:
            on_bad_row(SourceError(f"is not CSV: {error}", path=source, line=line))
        except SourceError as error:
            if lines.too_long:
                raise
            on_bad_row(error)


class _CsvLines:
    """Decoded lines of a CSV file, with a limit for one record, because an unclosed quote reads all lines."""

    def __init__(self, stream: Lines, source: str, advance: Advance) -> None:
        self._stream = stream
        self._source = source
        self._advance = advance
        self._line = 0
        self._record_line = 1
        self._record_bytes = 0
        self.too_long = False

    def begin_record(self) -> int:
        """Begin a record and return its first line."""
        self._record_line, self._record_bytes = self._line + 1, 0
        return self._record_line

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        raw = self._stream.readline(MAX_ROW_BYTES + 1)
        if not raw:
            raise StopIteration
        self._line += 1
        self._advance(len(raw))
        self._record_bytes += len(raw)
        if self._record_bytes > MAX_ROW_BYTES:
            self.too_long = True
            raise SourceError(
                f"the record has more than {MAX_ROW_BYTES:,} bytes; close its quote, or split it",
                path=self._source,
                line=self._record_line,
            )
        # Bytes that are not UTF-8 become lone surrogates, so that only their own row is rejected.
        text = raw.removeprefix(_BYTE_ORDER_MARK) if self._line == 1 else raw
        return text.decode("utf-8", "surrogateescape")


def _refuse_bad_header(header: list[str], source: str, options: ReadOptions) -> None:
    """Raise `SourceError` if a requested column is missing or ambiguous."""
    if options.text_field not in header:
        raise SourceError(
            "the header has no such column; name the right one: --text-field, or text_field=",
            path=source,
            line=1,
            field=options.text_field,
        )
    refuse_unknown(options.keep, header, source, line=1)
    refuse_duplicates(options, header, source, line=1)


def refuse_unknown(keep: Sequence[str], columns: Sequence[str], source: str, *, line: int | None) -> None:
    """Raise `SourceError` for a field to keep that is not a column."""
    for name in keep:
        if name not in columns:
            known = ", ".join(map(repr, columns[:10]))
            raise SourceError(
                f"is not a column that can be kept; existing columns: {known}", path=source, line=line, field=name
            )


def refuse_duplicates(options: ReadOptions, columns: Sequence[str], source: str, *, line: int | None) -> None:
    """Raise `SourceError` for a requested column that occurs twice."""
    for name in wanted_columns(options):
        if columns.count(name) > 1:
            raise SourceError("is the name of several columns; rename all but one", path=source, line=line, field=name)


def wanted_columns(options: ReadOptions) -> list[str]:
    """Return the columns that are read, without duplicates."""
    return [*dict.fromkeys((options.text_field, options.id_field, "title", *options.keep))]


def _numbered(stream: Lines, source: str, on_bad_row: OnBadRow, advance: Advance) -> Iterator[tuple[int, bytes]]:
    number = 0
    while raw := stream.readline(MAX_ROW_BYTES + 1):
        number += 1
        advance(len(raw))
        if len(raw) > MAX_ROW_BYTES:
            fault = SourceError(f"the line has more than {MAX_ROW_BYTES:,} bytes; split it", path=source, line=number)
            on_bad_row(fault)
            if not raw.endswith(b"\n"):
                _skip_line(stream, fault, advance)
            continue
        yield number, raw.removeprefix(_BYTE_ORDER_MARK) if number == 1 else raw


def _skip_line(stream: Lines, fault: SourceError, advance: Advance) -> None:
    """Skip the rest of a line. Raises its error if the line does not end."""
    skipped = 0
    while part := stream.readline(_SKIPPED_PART_BYTES):
        advance(len(part))
        skipped += len(part)
        if part.endswith(b"\n"):
            return
        if skipped > _MAX_SKIPPED_BYTES:
            raise fault


def _decode(raw: bytes, source: str, line: int) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise SourceError("is not UTF-8", path=source, line=line) from None


def _json_object(raw: bytes, source: str, line: int) -> dict[str, object]:
    try:
        row = json.loads(_decode(raw, source, line))
    except (ValueError, RecursionError) as error:
        where = f" (column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise SourceError(f"is not JSON{where}", path=source, line=line) from None
    if not isinstance(row, dict):
        raise SourceError(f"must be a JSON object, is {type(row).__name__}", path=source, line=line)
    return row


def _csv_record(header: list[str], cells: list[str], source: str, line: int) -> Mapping[str, object]:
    if len(cells) > len(header):
        raise SourceError("has more cells than the header", path=source, line=line)
    return dict(zip(header, cells, strict=False))


def to_document(row: Mapping[str, object], source: str, line: int, options: ReadOptions) -> Document:
    """Return a row as a document. Raises `SourceError`, with the row's id if it has one."""
    try:
        return _document(row, source, line, options)
    except SourceError as error:
        if row.get(options.id_field) not in (None, "") and error.field != options.id_field:
            with suppress(SourceError):
                error.id = _identifier(row[options.id_field], source, line, options.id_field)
        raise


def _document(row: Mapping[str, object], source: str, line: int, options: ReadOptions) -> Document:
    name = options.text_field
    text = row.get(name)
    if text is None:
        raise SourceError("is missing", path=source, line=line, field=name)
    if reason := text_fault(text):
        raise SourceError(reason, path=source, line=line, field=name)
    title = row.get("title")
    return Document(
        id=_identifier(row.get(options.id_field), source, line, options.id_field),
        text=text,  # type: ignore[arg-type]  # text_fault lets only str pass
        source=source,
        line=line,
        title=title[:MAX_TITLE_CHARACTERS] if isinstance(title, str) and text_fault(title) is None else None,
        metadata=_metadata(row, source, line, options.keep) if options.keep else NO_METADATA,
    )


def _identifier(value: object, source: str, line: int, field: str) -> str:
    if value is None or value == "":
        return f"{source}:{line}"
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        reason = f"must be text or an integer, is {type(value).__name__}"
        raise SourceError(reason, path=source, line=line, field=field)
    if reason_or_none := surrogate_fault(value):
        raise SourceError(reason_or_none, path=source, line=line, field=field)
    if len(value) > MAX_ID_CHARACTERS:
        reason = f"has {len(value):,} characters; an id may have {MAX_ID_CHARACTERS:,}"
        raise SourceError(reason, path=source, line=line, field=field)
    return value


def _metadata(row: Mapping[str, object], source: str, line: int, keep: tuple[str, ...]) -> dict[str, str | None]:
    kept: dict[str, str | None] = {}
    for name in keep:
        value = row.get(name)
        if value is not None and not isinstance(value, str):
            value = _as_json(value, source, line, name)
        if value is not None and (reason := surrogate_fault(value)):
            raise SourceError(reason, path=source, line=line, field=name)
        kept[name] = value
    return kept


def _as_json(value: object, source: str, line: int, field: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise SourceError("cannot be written as JSON", path=source, line=line, field=field) from None


class IteratedLines:
    """Lines of a stream that may support only iteration."""

    def __init__(self, stream: Iterable[bytes]) -> None:
        self._stream = stream
        self._iterator: Iterator[bytes] | None = None
        self._rest = b""

    def readline(self, size: int, /) -> bytes:
        """Return the next line, or its first `size` bytes."""
        self._iterator = self._iterator or iter(self._stream)
        line = self._rest or next(self._iterator, b"")
        self._rest = line[size:]
        return line[:size]


class UnpackedLines:
    """Lines of a compressed file. Counts the compressed bytes as they are used."""

    def __init__(self, raw: IO[bytes], unpacked: Lines, source: str, advance: Advance) -> None:
        self._raw = raw
        self._unpacked = unpacked
        self._source = source
        self._advance = advance
        self._packed_bytes = self._unpacked_bytes = 0

    def readline(self, size: int, /) -> bytes:
        """Return the next line. Raises `SourceError` if the file unpacks to far more than text does."""
        line = self._unpacked.readline(size)
        packed = self._raw.tell()
        if packed != self._packed_bytes:
            self._advance(packed - self._packed_bytes)
            self._packed_bytes = packed
        self._unpacked_bytes += len(line)
        if self._unpacked_bytes > max(UNCHECKED_BYTES, MAX_RATIO * packed):
            raise SourceError(
                f"unpacks to more than {MAX_RATIO} times its size; if that is right, unpack it and name the new file",
                path=self._source,
            )
        return line
