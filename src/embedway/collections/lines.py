"""Binary streams of lines in UTF-8, from files, standard input, gzip and other encodings, in bounded memory."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from typing import IO, TYPE_CHECKING, Protocol

from typing_extensions import Buffer, override

from embedway.collections.documents import MAX_RATIO, MAX_ROW_BYTES, RATIO_FAULT, UNCHECKED_BYTES
from embedway.collections.encodings import binary_fault, chosen_encoding, mark_of, unmarked_fault
from embedway.errors import SourceError
from embedway.remedies import option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Advance = Callable[[int], None]

#: Bytes of the beginning of a stream that decide on its encoding, format and separator.
HEAD_BYTES = 1 << 16
_GZIP_MAGIC = b"\x1f\x8b\x08"
#: Maximum bytes of a line that is skipped because it is too long; beyond it, the file is an error.
MAX_SKIPPED_BYTES = 1 << 30
_SKIPPED_PART_BYTES = 1 << 20


class StreamError(SourceError):
    """A stream cannot be read further, so its other rows cannot be either."""


class Lines(Protocol):
    """A binary stream that is read by lines."""

    def readline(self, size: int, /) -> bytes:
        """Return the next line, or its first `size` bytes; nothing at the end."""


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


class CountedLines:
    """Lines of a stream. Counts the bytes as they are used."""

    def __init__(self, lines: Lines, advance: Advance) -> None:
        self._lines = lines
        self._advance = advance

    def readline(self, size: int, /) -> bytes:
        """Return the next line."""
        return self._counted(self._lines.readline(size))

    def read1(self, size: int, /) -> bytes:
        """Return the next bytes."""
        return self._counted(_read_block(self._lines, size))

    def _counted(self, part: bytes) -> bytes:
        self._advance(len(part))
        return part


class UnpackedLines:
    """Lines of a compressed file. Counts the compressed bytes as they are used."""

    def __init__(self, raw: IO[bytes], source: str, advance: Advance) -> None:
        self._raw = raw
        self._unpacked = gzip.GzipFile(fileobj=raw)
        self._source = source
        self._advance = advance
        self._packed_bytes = self._unpacked_bytes = 0

    def readline(self, size: int, /) -> bytes:
        """Return the next line. Raises `SourceError` if the file unpacks to far more than text does."""
        return self._checked(self._unpacked.readline, size)

    def read1(self, size: int, /) -> bytes:
        """Return the next bytes. Raises as `readline` does."""
        return self._checked(self._unpacked.read1, size)

    def _checked(self, read: Callable[[int], bytes], size: int) -> bytes:
        try:
            part = read(size)
        except (OSError, EOFError, zlib.error) as error:
            raise StreamError(f"cannot be read completely: {read_reason(error)}", path=self._source) from error
        packed = self._raw.tell()
        if packed != self._packed_bytes:
            self._advance(packed - self._packed_bytes)
            self._packed_bytes = packed
        self._unpacked_bytes += len(part)
        if self._unpacked_bytes > max(UNCHECKED_BYTES, MAX_RATIO * packed):
            raise StreamError(RATIO_FAULT, path=self._source)
        return part


def _read_block(lines: Lines, size: int) -> bytes:
    """Return at most `size` bytes of what is ready, which is faster than lines. A stream of lines alone returns one."""
    if isinstance(lines, (io.BufferedReader, io.BytesIO, CountedLines, UnpackedLines)):
        return lines.read1(size)
    return lines.readline(size)


def read_reason(error: OSError | EOFError | zlib.error) -> str:
    """Return why a stream cannot be read, without bytes of it."""
    if isinstance(error, gzip.BadGzipFile):
        # The message of the library has bytes of the file.
        return "it is not a gzip file, or is damaged"
    return str(error.strerror if isinstance(error, OSError) and error.strerror else error)


class _Rewound(io.RawIOBase):
    """A stream whose first bytes were read already. `convert` changes each block; it gets nothing at the end."""

    def __init__(self, head: bytes, lines: Lines, convert: Callable[[bytes], bytes] | None = None) -> None:
        self._head = head
        self._lines = lines
        self._convert = convert
        self._ready = b"" if convert else head
        self._started = convert is None
        self._ended = False

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer)
        while not self._ready and not self._ended:
            if self._started:
                block = _read_block(self._lines, HEAD_BYTES)
            else:
                block, self._started = self._head or _read_block(self._lines, HEAD_BYTES), True
            self._ended = not block
            self._ready = self._convert(block) if self._convert else block
        size = min(len(view), len(self._ready))
        view[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size


class _TellingRaw(_Rewound):
    """A rewound stream that knows how many bytes were read from it, for the ratio of compressed ones."""

    def __init__(self, head: bytes, lines: Lines) -> None:
        super().__init__(head, lines)
        self._position = 0

    @override
    def readinto(self, buffer: Buffer, /) -> int:
        size = super().readinto(buffer)
        self._position += size
        return size

    @override
    def tell(self) -> int:
        return self._position


def open_lines(lines: Lines, source: str, *, encoding: str | None, carriage_returns: bool = False) -> io.BufferedReader:
    """Return a stream of lines in UTF-8 without byte order mark, which can be read only once.

    A mark decides on the encoding, then the beginning as in `chosen_encoding`. A gzipped stream is unpacked. With
    `carriage_returns`, lines may end with a carriage return alone. Raises SourceError for a binary stream.
    """
    head = lines.readline(HEAD_BYTES)
    if head.startswith(_GZIP_MAGIC):
        lines = UnpackedLines(io.BufferedReader(_TellingRaw(head, lines)), source, lambda _: None)
        head = lines.readline(HEAD_BYTES)
    marked = mark_of(head)
    if fault := binary_fault(head, encoding=encoding):
        raise SourceError(fault, path=source)
    if marked is None and encoding is None and (fault := unmarked_fault(head)):
        raise SourceError(fault, path=source)
    if encoding is not None and marked is None:
        while len(head) < HEAD_BYTES and head.isascii() and (more := lines.readline(HEAD_BYTES)):
            head += more
        encoding = chosen_encoding(head, encoding, complete=False)
    name, skip = marked or (encoding or "utf-8", 0)
    head = head[skip:]
    if codecs.lookup(name).name != "utf-8":
        lines = io.BufferedReader(_Rewound(head, lines, _Recoder(name, source)), HEAD_BYTES)
        head = lines.readline(HEAD_BYTES)
    convert = _line_feeds if carriage_returns and b"\r" in head.rstrip(b"\r\n") and b"\n" not in head else None
    return io.BufferedReader(_Rewound(head, lines, convert), HEAD_BYTES)


def as_stream(lines: Lines) -> io.BufferedReader:
    """Return lines as a stream of bytes."""
    return io.BufferedReader(_Rewound(b"", lines))


def peek_line(stream: io.BufferedReader) -> tuple[bytes, io.BufferedReader]:
    """Return the beginning of a stream, its first line or less, and a stream that contains it still."""
    head = stream.readline(HEAD_BYTES)
    return head, io.BufferedReader(_Rewound(head, stream), HEAD_BYTES)


def peek_block(stream: io.BufferedReader) -> tuple[bytes, io.BufferedReader]:
    """Return the first bytes of a stream, and a stream that contains them still."""
    head = stream.read(HEAD_BYTES)
    return head, io.BufferedReader(_Rewound(head, stream), HEAD_BYTES)


def numbered_lines(
    stream: Lines, source: str, on_bad_row: Callable[[SourceError], None], *, limit: int | None = None
) -> Iterator[tuple[int, bytes]]:
    """Iterate over lines and their numbers, from 1. A line that is too long is a bad row."""
    limit = limit or MAX_ROW_BYTES
    number = 0
    while raw := stream.readline(limit + 1):
        number += 1
        if len(raw) > limit:
            fault = SourceError(f"the line has more than {limit:,} bytes; split it", path=source, line=number)
            on_bad_row(fault)
            if not raw.endswith(b"\n"):
                _skip_line(stream, fault)
            continue
        yield number, raw


class _Recoder:
    """Converter of blocks in an encoding to UTF-8."""

    def __init__(self, encoding: str, source: str) -> None:
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._encoding = encoding
        self._source = source
        self._lines = 0

    def __call__(self, block: bytes) -> bytes:
        try:
            text = self._decoder.decode(block, final=not block)
        except UnicodeError:
            reason = f"is not valid {self._encoding}; is {option('encoding')} right?"
            raise StreamError(reason, path=self._source, line=self._lines + 1) from None
        self._lines += text.count("\n")
        return text.encode("utf-8", "surrogatepass")


def _line_feeds(block: bytes) -> bytes:
    return block.replace(b"\r", b"\n")


def _skip_line(stream: Lines, fault: SourceError) -> None:
    """Skip the rest of a line. Raises its error if the line does not end."""
    skipped = 0
    while part := stream.readline(_SKIPPED_PART_BYTES):
        skipped += len(part)
        if part.endswith(b"\n"):
            return
        if skipped > MAX_SKIPPED_BYTES:
            raise fault
