"""Read documents from sources.

A source is a folder, a file, or `-` for standard input. Folders are walked in sorted order; each text file is
one document: Markdown, reStructuredText, text, HTML and source code. Files of rows (`.jsonl`, `.ndjson`, `.csv`,
`.tsv`, `.parquet`, and gzipped JSON Lines) inside folders are skipped, because the caller must choose the field
that contains the text: name them as separate sources. Hidden files and folders, virtual environments,
`__pycache__`, `node_modules` and empty files are skipped too. Symbolic links inside folders are not followed unless
requested; a link that is named as a source is.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import stat
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from embedway.collections.documents import MAX_FILE_BYTES, Document, SourceFormat, decode_utf8, text_fault
from embedway.collections.folders import walk_folder
from embedway.collections.html import html_to_text
from embedway.collections.rows import IteratedLines, UnpackedLines, read_csv, read_jsonl, read_lines
from embedway.collections.table import read_parquet
from embedway.errors import EmbedwayError, SourceError, UsageError
from embedway.files import READ_FLAGS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from embedway.collections.documents import ByteCounter, Kind, OnBadRow, ReadOptions
    from embedway.collections.rows import Lines

STANDARD_INPUT = "-"

_CODE = (
    ".py .pyi .js .mjs .ts .tsx .jsx .java .go .rs .c .h .cc .cpp .hpp .cs .rb .php .swift .kt .scala .sh "
    ".sql .toml .yaml .yml"
)
KINDS: dict[str, Kind] = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".rst": "rst",
    ".txt": "text",
    ".html": "html",
    ".htm": "html",
    **dict.fromkeys(_CODE.split(), "code"),
}
_ROW_FORMATS: tuple[tuple[str, SourceFormat], ...] = (
    (".jsonl", "jsonl"),
    (".ndjson", "jsonl"),
    (".jsonl.gz", "jsonl"),
    (".ndjson.gz", "jsonl"),
    (".csv", "csv"),
    (".tsv", "tsv"),
    (".parquet", "parquet"),
)
_MARKDOWN_TITLE = re.compile(r"^#{1,6}[ \t]++(\S[^\n]*)$", re.MULTILINE)
_RST_TITLE = re.compile(r"^(\S[^\n]*)\n([=\-~^\"'#*+`:.])\2{2,}[ \t]*$", re.MULTILINE)
#: Characters that are searched for a title. A later title belongs to a section, not to the document.
_TITLE_REACH_CHARACTERS = 4096


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read. `named` is true for a path given by the caller, false for a file found in a folder."""

    path: str
    format: SourceFormat
    named: bool
    size_bytes: int | None

    @property
    def name(self) -> str:
        """The path as valid text; bytes that are not UTF-8 are replaced."""
        return os.fsencode(self.path).decode("utf-8", "replace")


def find_files(
    sources: Sequence[str], options: ReadOptions, *, on_link: Callable[[str], None] = lambda _: None
) -> tuple[SourceFile, ...]:
    """Return all files to read, in reading order, without duplicates. Raises `SourceError` for an invalid source.

    The paths of links that are not followed go to `on_link`.
    """
    files: dict[str, SourceFile] = {}
    for source in sources:
        if not source.strip():
            raise UsageError("a source has an empty name; is a variable unset?")
        if source == STANDARD_INPUT:
            stream_format: SourceFormat = "text" if options.format == "auto" else options.format
            if stream_format == "parquet":
                raise SourceError("Parquet cannot be read from standard input; name the file", path=source)
            files.setdefault(source, SourceFile(source, stream_format, named=True, size_bytes=None))
            continue
        path = Path(source)
        if path.is_dir():
            for real, file in _files_in(path, options, on_link):
                files.setdefault(real, file)
        elif path.exists():
            size = path.stat().st_size if path.is_file() else None
            file = SourceFile(source, _format_of(source, options), named=True, size_bytes=size)
            files.setdefault(os.path.realpath(source), file)
        else:
            raise SourceError("there is no such file or folder", path=source)
    return tuple(files.values())


def links_note(count: int) -> str:
    """Return a note for the user about links that were not followed."""
    links = "1 link was" if count == 1 else f"{count:,} links were"
    return f"{links} not followed: --follow-links, or follow_links=True, follows links in folders"


def _files_in(folder: Path, options: ReadOptions, on_link: Callable[[str], None]) -> Iterator[tuple[str, SourceFile]]:
    """Iterate over the files of a folder, with their real paths. Raises `SourceError` if there are none."""
    links: list[str] = []
    empty = True
    for path, real, size in walk_folder(folder, KINDS, follow_links=options.follow_links, on_link=links.append):
        empty = False
        yield real, SourceFile(path, "auto", named=False, size_bytes=size)
    if empty:
        note = f"; {links_note(len(links))}" if links else ""
        raise SourceError(
            "the folder has no readable file (Markdown, reStructuredText, text, HTML, source code); name files "
            f"of rows explicitly{note}",
            path=str(folder),
        )
    for link in links:
        on_link(link)


def read_files(
    files: Sequence[SourceFile],
    options: ReadOptions,
    *,
    on_bad_row: OnBadRow,
    counter: ByteCounter,
    standard_input: IO[bytes] | None = None,
) -> Generator[Document, None, None]:
    """Stream the documents of all files, in order.

    The error of a row, or of one file of a folder, goes to `on_bad_row`. Raises `SourceError` if a file cannot be
    read further. `standard_input` is the stream for `-`; by default the process's own.
    """
    sizes = [file.size_bytes for file in files]
    counter.total = None if None in sizes else sum(size or 0 for size in sizes)
    for file in files:
        if file.path == STANDARD_INPUT:
            stream = _open_standard_input(standard_input)
            yield from _read_stream(stream, file, options, on_bad_row=on_bad_row, advance=counter.advance)
        elif file.format == "auto":
            yield from _read_whole(file, options, on_bad_row=on_bad_row, counter=counter)
        else:
            yield from _read_rows(file, options, on_bad_row=on_bad_row, counter=counter)


def _format_of(source: str, options: ReadOptions) -> SourceFormat:
    """Return the format of a named file: `auto` for one document, anything else for rows."""
    lowered = source.lower()
    for ending, row_format in _ROW_FORMATS:
        if lowered.endswith(ending):
            return row_format
    if Path(lowered).suffix in KINDS:
        return "auto"
    if options.format == "auto":
        raise SourceError(
            "the format is unknown from the file's extension; set it: text, jsonl, csv, tsv or parquet",
            path=source,
        )
    return "auto" if options.format == "text" else options.format


def _read_bytes(file: SourceFile, *, follow_links: bool) -> bytes:
    """Return the content of a file. Raises `SourceError` for a large file, and OSError.

    A file of a folder may have become a link or a pipe since the folder was listed.
    """
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
    if not file.named:
        flags = READ_FLAGS | (0 if follow_links else getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(os.open(file.path, flags), "rb") as opened:
        if not file.named and not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise SourceError("is not a regular file", path=file.name)
        data = opened.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise SourceError(
            f"has more than {MAX_FILE_BYTES:,} bytes, the limit for one document; split it, or pass it to standard "
            "input, where each line is a document",
            path=file.name,
        )
    return data


def _read_whole(
    file: SourceFile, options: ReadOptions, *, on_bad_row: OnBadRow, counter: ByteCounter
) -> Iterator[Document]:
    try:
        text = decode_utf8(_read_bytes(file, follow_links=options.follow_links), file.name)
    except SourceError as error:
        on_bad_row(error)
        return
    except OSError as error:
        on_bad_row(SourceError(f"cannot be read: {error.strerror}", path=file.name))
        return
    finally:
        counter.advance(file.size_bytes or 0)
    kind = KINDS.get(Path(file.path).suffix.lower(), "text")
    title: str | None = None
    marks: Sequence[tuple[int, int]] = ()
    if kind == "html":
        text, title, marks = html_to_text(text)
    elif kind in {"markdown", "rst"}:
        title = _title(text, _MARKDOWN_TITLE if kind == "markdown" else _RST_TITLE)
    if reason := text_fault(text):
        # Empty files such as `__init__.py` are common and contain nothing to embed.
        if file.named:
            on_bad_row(SourceError(reason, path=file.name))
        return
    yield Document(id=file.name, text=text, source=file.name, title=title, kind=kind, line_marks=marks)


def _title(text: str, pattern: re.Pattern[str]) -> str | None:
    found = pattern.search(text, 0, _TITLE_REACH_CHARACTERS)
    if found is None:
        return None
    title = found[1].strip()
    if pattern is _MARKDOWN_TITLE:
        # Without the closing sequence of a heading. A regular expression for it takes cubic time.
        title = title.rstrip("#").rstrip() or title[0]
    return title


def _read_rows(
    file: SourceFile, options: ReadOptions, *, on_bad_row: OnBadRow, counter: ByteCounter
) -> Iterator[Document]:
    if file.format == "parquet":
        size = file.size_bytes or 0
        yield from read_parquet(
            file.path, file.name, options, size_bytes=size, on_bad_row=on_bad_row, advance=counter.advance
        )
        return
    try:
        with Path(file.path).open("rb") as raw:
            if file.path.lower().endswith(".gz"):
                with gzip.open(raw) as unpacked:
                    lines = UnpackedLines(raw, unpacked, file.name, counter.advance)
                    # The compressed bytes are already counted.
                    yield from _read_stream(lines, file, options, on_bad_row=on_bad_row, advance=lambda _: None)
            else:
                yield from _read_stream(raw, file, options, on_bad_row=on_bad_row, advance=counter.advance)
    except EmbedwayError:
        raise
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"cannot be read completely: {error}", path=file.name) from error


def _open_standard_input(stream: IO[bytes] | None) -> Lines:
    # A separate reader on the same descriptor: Python locks sys.stdin's at exit, so a thread that still waits in it
    # would turn an interrupted job into a crash.
    if stream is None or stream is getattr(sys.__stdin__, "buffer", None):
        return os.fdopen(0, "rb", closefd=False)
    return stream if isinstance(stream, io.BufferedIOBase) else IteratedLines(stream)


def _read_stream(
    lines: Lines,
    file: SourceFile,
    options: ReadOptions,
    *,
    on_bad_row: OnBadRow,
    advance: Callable[[int], None],
) -> Iterator[Document]:
    if file.format == "text":
        return read_lines(lines, file.name, on_bad_row=on_bad_row, advance=advance)
    if file.format == "jsonl":
        return read_jsonl(lines, file.name, options, on_bad_row=on_bad_row, advance=advance)
    delimiter = "\t" if file.format == "tsv" else ","
    return read_csv(lines, file.name, options, delimiter=delimiter, on_bad_row=on_bad_row, advance=advance)
