"""Streaming readers for files of rows: JSON Lines, CSV, Parquet, and plain lines.

The error of a row goes to `on_bad_row`, which raises or records it; the error of a file is raised at once.
"""

from __future__ import annotations

import csv
import json
from typing import IO, TYPE_CHECKING, Any

from embedway.collections.documents import NO_METADATA, Document, surrogate_fault, text_fault
from embedway.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from embedway.collections.documents import OnBadRow, ReadOptions

    Advance = Callable[[int], None]

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
#: Maximum characters of a CSV field. Python's default, 128 KiB, is less than a long document.
_CSV_FIELD_LIMIT_CHARACTERS = 1 << 28
_PARQUET_BATCH_ROWS = 512


def read_lines(stream: Iterable[bytes], source: str, *, on_bad_row: OnBadRow, advance: Advance) -> Iterator[Document]:
    """Read one document per line; skip blank lines."""
    for number, raw in _numbered(stream, advance):
        try:
            text = _decode(raw, source, number).rstrip("\r\n")
        except SourceError as error:
            on_bad_row(error)
            continue
        if text and not text.isspace():
            yield Document(id=f"{source}:{number}", text=text, source=source, line=number)


def read_jsonl(
    stream: Iterable[bytes], source: str, options: ReadOptions, *, on_bad_row: OnBadRow, advance: Advance
) -> Iterator[Document]:
    """Read one document per JSON object; skip blank lines."""
    for number, raw in _numbered(stream, advance):
        if raw.isspace():
            continue
        try:
            document = _document(_json_object(raw, source, number), source, number, options)
        except SourceError as error:
            on_bad_row(error)
            continue
        yield document


def read_csv(
    stream: Iterable[bytes],
    source: str,
    options: ReadOptions,
    *,
    delimiter: str = ",",
    on_bad_row: OnBadRow,
    advance: Advance,
) -> Iterator[Document]:
    """Read one document per record below the header; a document's line is the first line of its record."""
    if csv.field_size_limit() < _CSV_FIELD_LIMIT_CHARACTERS:
        csv.field_size_limit(_CSV_FIELD_LIMIT_CHARACTERS)
    # Bytes that are not UTF-8 become lone surrogates, so that only their own row is rejected.
    lines = (raw.decode("utf-8", "surrogateescape") for _, raw in _numbered(stream, advance))
    # Strict: an unclosed quote is an error; otherwise the rest of the file would be one text.
    reader = csv.DictReader(lines, delimiter=delimiter, strict=True)
    try:
        header = reader.fieldnames or ()
    except csv.Error as error:
        raise SourceError(f"is not CSV: {error}", path=source, line=1) from None
    if options.text_field not in header:
        raise SourceError(
            "the header has no such column; name the right one with the text field option",
            path=source,
            line=1,
            field=options.text_field,
        )
    _refuse_unknown(options.keep, header, source, line=1)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            on_bad_row(SourceError(f"is not CSV: {error}", path=source, line=line))
            continue
        try:
            document = _document(_csv_record(row, source, line), source, line, options)
        except SourceError as error:
            on_bad_row(error)
            continue
        yield document


def _refuse_unknown(keep: Sequence[str], columns: Sequence[str], source: str, *, line: int | None) -> None:
    """Raise `SourceError` for a field to keep that is not a column."""
    for name in keep:
        if name not in columns:
            known = ", ".join(map(repr, columns[:10]))
            raise SourceError(
                f"is not a column that can be kept; existing columns: {known}", path=source, line=line, field=name
            )


def read_parquet(
    path: str, source: str, options: ReadOptions, *, size_bytes: int, on_bad_row: OnBadRow, advance: Advance
) -> Iterator[Document]:
    """Read one document per row; a document's line is the number of its row, from 1."""
    import pyarrow as pa  # noqa: PLC0415 - heavy, and most jobs read no Parquet
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if options.text_field not in names:
                raise SourceError(
                    "the file has no such column; name the right one with the text field option",
                    path=source,
                    field=options.text_field,
                )
            _refuse_unknown(options.keep, names, source, line=None)
            wanted = dict.fromkeys((options.text_field, options.id_field, "title", *options.keep))
            columns = [name for name in wanted if name in names]
            bytes_per_row = size_bytes / max(file.metadata.num_rows, 1)
            number = 0
            for batch in _parquet_batches(file, columns):
                for row in _parquet_rows(batch):
                    number += 1
                    try:
                        document = _document(row, source, number, options)
                    except SourceError as error:
                        on_bad_row(error)
                        continue
                    yield document
                advance(int(bytes_per_row * batch.num_rows))
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"cannot be read as Parquet: {type(error).__name__}", path=source) from error


def _parquet_batches(file: Any, columns: list[str]) -> Iterator[Any]:
    # One row group at a time: over a complete file, `iter_batches` reads ahead without limit.
    for group in range(file.num_row_groups):
        yield from file.iter_batches(batch_size=_PARQUET_BATCH_ROWS, row_groups=[group], columns=columns)


def _parquet_rows(batch: Any) -> Iterator[dict[str, object]]:
    """Iterate over the rows of a record batch; only values that are not UTF-8 are invalid."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for index in range(batch.num_rows):
            yield {name: _cell(batch.column(name)[index]) for name in batch.schema.names}


def _cell(scalar: Any) -> object:
    try:
        value: object = scalar.as_py()
    except UnicodeDecodeError:
        return "\udc80"
    return value


def _numbered(stream: Iterable[bytes], advance: Advance) -> Iterator[tuple[int, bytes]]:
    for number, raw in enumerate(stream, 1):
        advance(len(raw))
        yield number, raw.removeprefix(_BYTE_ORDER_MARK) if number == 1 else raw


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


def _csv_record(row: dict[str | Any, Any], source: str, line: int) -> Mapping[str, object]:
    # DictReader stores surplus cells under None and fills missing ones with None.
    if None in row:
        raise SourceError("has more cells than the header", path=source, line=line)
    return row


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
        title=title if isinstance(title, str) and text_fault(title) is None else None,
        metadata=_metadata(row, source, line, options.keep) if options.keep else NO_METADATA,
    )


def _identifier(value: object, source: str, line: int, field: str) -> str:
    if value is None or value == "":
        return f"{source}:{line}"
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        reason = f"must be text or an integer, is {type(value).__name__}"
        raise SourceError(reason, path=source, line=line, field=field)
    if reason_or_none := surrogate_fault(value):
        raise SourceError(reason_or_none, path=source, line=line, field=field)
    return value


def _metadata(row: Mapping[str, object], source: str, line: int, keep: tuple[str, ...]) -> dict[str, str | None]:
    kept: dict[str, str | None] = {}
    for name in keep:
        value = row.get(name)
        if value is not None and not isinstance(value, str):
            value = json.dumps(value, ensure_ascii=False, default=str)
        if value is not None and (reason := surrogate_fault(value)):
            raise SourceError(reason, path=source, line=line, field=name)
        kept[name] = value
    return kept


def open_counted(raw: IO[bytes], unpacked: Iterable[bytes], advance: Advance) -> Iterator[bytes]:
    """Iterate over the lines of a compressed file, and count the compressed bytes as they are used."""
    before = 0
    for line in unpacked:
        yield line
        now = raw.tell()
        if now != before:
            advance(now - before)
            before = now
