"""Read files one after the other: whole documents, and documents of rows."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import sys
import tempfile
import zlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from embedway.collections.documents import MAX_FILE_BYTES, Document, DocumentKey, RawDocument, text_fault
from embedway.collections.encodings import binary_fault, decode_document
from embedway.collections.file_formats import FORMATS, binary_parser, text_parser
from embedway.collections.inventory import STANDARD_INPUT
from embedway.collections.json_rows import is_json_rows, read_json, read_jsonl
from embedway.collections.lines import (
    CountedLines,
    IteratedLines,
    UnpackedLines,
    as_stream,
    open_lines,
    peek_block,
    peek_line,
    read_reason,
)
from embedway.collections.row_formats import read_csv, read_lines
from embedway.collections.rows import ColumnsError, NoTextField, RowReader, UnseenColumns
from embedway.collections.table import read_parquet
from embedway.collections.whole_files import check_size, read_whole
from embedway.errors import SourceError
from embedway.files import READ_FLAGS

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from embedway.collections.documents import ByteCounter, OnBadRow, ReadOptions
    from embedway.collections.fault_list import FaultList
    from embedway.collections.inventory import SourceFile
    from embedway.collections.lines import Lines
    from embedway.collections.skipped import SkippedFiles
    from embedway.collections.values import SourceFormat

#: Mean characters of a line, and characters of a file, above which code is minified; languages in which it may be.
_MINIFIED_LINE = 500
_MINIFIED_CHARACTERS = 5_000
_MINIFIED_LANGUAGES = frozenset({"javascript", "typescript", "css"})


class _EnoughFaults(Exception):  # noqa: N818  not an error: the rest of the file is not read
    """The job stops, and has as many errors as it names."""


class FileReader:
    """Reader of one file after the other."""

    def __init__(
        self,
        options: ReadOptions,
        skipped: SkippedFiles,
        faults: FaultList,
        counter: ByteCounter,
        standard_input: IO[bytes] | None,
        *,
        optional_columns: Container[str] = (),
    ) -> None:
        self._options = options
        self._skipped = skipped
        self._faults = faults
        self._counter = counter
        self._standard_input = standard_input
        self.unseen = UnseenColumns(options.keep, optional_columns)

    def read(self, file: SourceFile) -> Iterator[RawDocument]:
        """Iterate over the documents of a file. Errors go to the handler."""
        try:
            yield from self._read(file)
        except _EnoughFaults:
            return

    def _report(self, file: SourceFile, error: SourceError) -> None:
        """Hand an error to the handler, with the key of its documents. Raises `_EnoughFaults`, and `NoTextField`."""
        if error.key is None:
            rows = file.format == "auto" or FORMATS[file.format].rows
            error.key, error.key_is_prefix = (file.source, file.document_id), rows
        if isinstance(error, NoTextField):
            raise error
        self._faults.add(error)
        if self._faults.is_enough():
            raise _EnoughFaults

    def _read(self, file: SourceFile) -> Iterator[RawDocument]:
        on_bad_row = partial(self._report, file)
        try:
            if file.format == "auto" or FORMATS[file.format].rows:
                yield from self._rows(file, on_bad_row)
            elif (document := self._whole(file)) is not None:
                yield document
        except NoTextField:
            self._skipped.add("no text field", file.name)
        except SourceError as error:
            if isinstance(error, ColumnsError) and file.named:
                raise
            on_bad_row(error)
        except (OSError, EOFError, zlib.error) as error:
            on_bad_row(SourceError(f"cannot be read completely: {read_reason(error)}", path=file.name))

    def _open(self, file: SourceFile) -> IO[bytes]:
        """Open a file. One of a folder may have become a link or a pipe since the folder was listed."""
        flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
        if not file.named:
            flags = READ_FLAGS | (0 if self._options.follow_links else getattr(os, "O_NOFOLLOW", 0))
        try:
            opened = os.fdopen(os.open(file.path, flags), "rb")
        except OSError as error:
            self._skipped.add("unreadable", file.name)
            raise SourceError(f"cannot be read: {error.strerror}", path=file.name) from None
        if not file.named and not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            opened.close()
            raise SourceError("is not a regular file", path=file.name)
        return opened

    def _whole(self, file: SourceFile) -> RawDocument | None:
        """Return a file as one document, or None if it is skipped."""
        try:
            data = self._read_bytes(file)
        finally:
            self._counter.advance(file.size_bytes or 0)
        return self._document(file, data)

    def _read_bytes(self, file: SourceFile) -> bytes:
        if file.path == STANDARD_INPUT:
            return _read_lines(_open_standard_input(self._standard_input), file.name)
        with self._open(file) as opened:
            return read_whole(opened, file.name, size_bytes=file.size_bytes or 0, gzipped=file.gzipped)

    def _document(self, file: SourceFile, data: bytes, *, is_recoded: bool = False) -> RawDocument | None:
        if not data.strip(b" \t\r\n"):
            self._skip(file, "empty", "is empty")
            return None
        form = FORMATS[file.format]
        given = self._options.encoding
        # `open_lines` has decoded the content with the user's choice, and encoded it as UTF-8.
        encoding = "utf-8" if is_recoded and given else given
        text = ""
        if not form.binary:
            if fault := binary_fault(data, encoding=encoding):
                self._skip(file, "binary", fault)
                return None
            text = self._decode(file, data, encoding)
            if file.language in _MINIFIED_LANGUAGES and not file.named and _is_minified(text):
                self._skip(file, "minified", "is minified")
                return None
        digest = hashlib.blake2b(f"{file.format} {given or ''}\n".encode(), digest_size=16)
        digest.update(data)
        content_hash = digest.hexdigest()
        key = DocumentKey(file.source, file.document_id)
        content: str | bytes = data if form.binary else text

        def parse() -> Document | None:
            try:
                document = _parse(file, content, content_hash)
            except SourceError as error:
                error.key = key
                raise
            if reason := text_fault(document.text):
                self._without_text(file, reason)
                return None
            return document

        return RawDocument(key, content_hash, parse)

    @staticmethod
    def _decode(file: SourceFile, data: bytes, encoding: str | None) -> str:
        if file.format == "html":
            from embedway.collections.parsers.html import decode_html  # noqa: PLC0415  imports its parser

            return decode_html(data, file.name, encoding)
        is_code = FORMATS[file.format].kind == "code"
        return decode_document(data, file.name, encoding=encoding, is_code=is_code)

    def _skip(self, file: SourceFile, reason: str, fault: str) -> None:
        """Skip a file of a folder. Raises SourceError for a named one."""
        if file.named:
            raise SourceError(fault, path=file.name)
        self._skipped.add(reason, file.name)

    def _without_text(self, file: SourceFile, fault: str) -> None:
        try:
            self._skip(file, "empty", fault)
        except SourceError as error:
            error.key = (file.source, file.document_id)
            raise

    def _rows(self, file: SourceFile, on_bad_row: OnBadRow) -> Iterator[RawDocument]:
        rows = RowReader(file.name, file.source, file.document_id, self._options, self.unseen, named=file.named)
        if file.path == STANDARD_INPUT:
            lines: Lines = CountedLines(_open_standard_input(self._standard_input), self._counter.advance)
            if file.format == "parquet":
                with tempfile.TemporaryFile() as copy:
                    shutil.copyfileobj(as_stream(lines), copy)
                    size = copy.tell()
                    yield from read_parquet(copy, rows, size_bytes=size, on_bad_row=on_bad_row, advance=lambda _: None)
                return
            yield from self._stream(lines, file, rows, on_bad_row)
            return
        if file.format == "parquet":
            size = file.size_bytes or 0
            path = str(Path(file.path).absolute())  # Arrow takes a relative a:b.parquet for a URI
            # Arrow opens it by its path. This refuses links, and says why a file cannot be opened.
            with self._open(file):
                yield from read_parquet(
                    path, rows, size_bytes=size, on_bad_row=on_bad_row, advance=self._counter.advance
                )
            return
        with self._open(file) as opened:
            packed = opened.peek(2)[:2] == b"\x1f\x8b" if isinstance(opened, io.BufferedReader) else False
            advance = self._counter.advance
            if packed or file.gzipped:
                lines = UnpackedLines(opened, file.name, advance)
            else:
                lines = CountedLines(opened, advance)
            yield from self._stream(lines, file, rows, on_bad_row)

    def _stream(self, lines: Lines, file: SourceFile, rows: RowReader, on_bad_row: OnBadRow) -> Iterator[RawDocument]:
        tabular = file.format in {"csv", "tsv"}
        stream = open_lines(lines, file.name, encoding=self._options.encoding, carriage_returns=tabular)
        name = file.format
        if name == "auto":
            head, stream = peek_line(stream)
            name = _sniff(head)
        if name == "jsonl":
            # A line of JSON Lines is no array, so a file `.jsonl` may be one.
            head, stream = peek_line(stream)
            if is_json_rows(head) or head.strip() == b"[":
                name = "json"
        elif name == "json":
            head, stream = peek_block(stream)
            if not is_json_rows(head):
                yield from self._json_text(file, stream)
                return
        if name == "lines":
            yield from read_lines(stream, rows, on_bad_row=on_bad_row)
        elif name == "jsonl":
            yield from read_jsonl(stream, rows, on_bad_row=on_bad_row)
        elif name == "json":
            yield from read_json(stream, rows, on_bad_row=on_bad_row)
        else:
            delimiter = "\t" if name == "tsv" else None
            yield from read_csv(stream, rows, delimiter=delimiter, on_bad_row=on_bad_row)

    def _json_text(self, file: SourceFile, stream: io.BufferedReader) -> Iterator[RawDocument]:
        """Read JSON that is not an array of rows as one document."""
        data = read_whole(stream, file.name, size_bytes=file.size_bytes or 0)
        if not any(map(str.isalpha, data.decode("utf-8", "replace"))):
            # Numbers, or brackets alone.
            self._skip(file, "empty", "has no letter, so it is no text")
            return
        document_id = file.document_id.removesuffix("/") or os.path.basename(file.name)  # noqa: PTH119
        document = self._document(replace(file, format="text", document_id=document_id), data, is_recoded=True)
        if document is not None:
            yield document


def _parse(file: SourceFile, content: str | bytes, content_hash: str) -> Document:
    form = FORMATS[file.format]
    if isinstance(content, bytes):
        parsed = binary_parser(file.format)(content, file.name)
    else:
        parser = text_parser(file.format)
        if parser is None:
            text = _plain(content) if form.kind == "text" else content
            return Document(
                file.document_id,
                text,
                file.source,
                kind=form.kind,
                language=file.language,
                content_hash=content_hash,
            )
        parsed = parser(content, file.name)
    return Document(
        file.document_id,
        parsed.text,
        file.source,
        title=parsed.title,
        kind=form.kind,
        line_marks=parsed.line_marks,
        blocks=parsed.blocks,
        page_marks=parsed.page_marks,
        content_hash=content_hash,
    )


def _plain(text: str) -> str:
    from embedway.collections.parsers.data_uris import without_data_uris  # noqa: PLC0415  for long texts only

    return without_data_uris(text) if len(text) > 1 << 8 else text


def _is_minified(text: str) -> bool:
    return len(text) > _MINIFIED_CHARACTERS and len(text) > _MINIFIED_LINE * (text.count("\n") + 1)


def _sniff(head: bytes) -> SourceFormat:
    """Return the format of standard input: JSON, if its first line begins as an object or as an array of objects."""
    start = head.lstrip()
    if is_json_rows(start) or start in {b"[", b"[\n"}:
        return "json"
    return "jsonl" if start.startswith(b"{") and start.rstrip().endswith(b"}") else "lines"


def _read_lines(lines: Lines, name: str) -> bytes:
    """Return the content of standard input as one document."""
    parts, size = [], 0
    while size <= MAX_FILE_BYTES and (part := lines.readline(1 << 20)):
        parts.append(part)
        size += len(part)
    data = b"".join(parts)
    check_size(data, name)
    return data


def _open_standard_input(stream: IO[bytes] | None) -> Lines:
    # A separate reader on the same descriptor: Python locks sys.stdin's at exit, so a thread that still waits in it
    # would turn an interrupted job into a crash.
    if stream is None or stream is getattr(sys.__stdin__, "buffer", None):
        return os.fdopen(0, "rb", closefd=False)
    return stream if isinstance(stream, io.BufferedIOBase) else IteratedLines(stream)
