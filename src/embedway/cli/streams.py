"""Standard streams of a command. All output passes through them, so no control character reaches a terminal.

Commands print with `output.py`. Libraries (typer, logging, warnings, tracebacks) write to the streams that
`standard_streams` installs.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NoReturn, TextIO, cast

from embedway.interrupts import open_missing_descriptors
from embedway.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class OutputError(Exception):
    """Standard output cannot be written.

    Not an OSError: typer would end the command on a closed pipe, whichever pipe it is.
    """

    def __init__(self, error: Exception) -> None:
        #: True if the reader closed the pipe: it needs no more output, and no message.
        self.reader_left = isinstance(error, BrokenPipeError)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        super().__init__(f"standard output cannot be written: {reason}")


class SafeStream:
    r"""Text stream that writes control characters as escapes such as `\x1b`, and reports write errors to a function.

    Line ends and tabs are not changed. It has no `buffer`, so libraries cannot write bytes to the stream behind it.
    """

    def __init__(self, stream: TextIO | None, failed: Callable[[Exception], None], *, escape: bool = True) -> None:
        """Wrap a stream; None stands for a descriptor that is closed. `escape` is false for text with styles."""
        self._stream = stream
        self._failed = failed
        self._escape = escape
        with suppress(AttributeError):
            # Characters that the encoding lacks are written as escapes, so that they cause no error.
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]

    def write(self, text: str) -> int:
        """Write a text, and return its length."""
        # click writes b"" and then "" to detect a text stream, and ignores all errors. On a full disk, "" is one.
        if isinstance(text, str) and not text:
            return 0
        shown = printable(text, keep_layout=True) if self._escape else text
        if self._stream is None:
            self._failed(OSError(errno.EBADF, "it is closed"))
        else:
            self._try(self._stream.write, shown)
        return len(text)

    def flush(self) -> None:
        """Write buffered text."""
        if self._stream is not None:
            self._try(self._stream.flush)

    def styled(self) -> SafeStream:
        """Return the stream for text whose only escape sequences are our own styles."""
        return SafeStream(self._stream, self._failed, escape=False)

    @property
    def encoding(self) -> str:
        """Encoding of the text."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:
        """Treatment of characters that the encoding lacks."""
        return getattr(self._stream, "errors", None) or "backslashreplace"

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self._stream is not None and self._stream.isatty()

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor. Raises OSError if there is none."""
        if self._stream is None:
            raise OSError(errno.EBADF, "it is closed")
        return self._stream.fileno()

    def _try(self, function: Callable[..., object], *arguments: str) -> None:
        try:
            function(*arguments)
        except (OSError, ValueError) as error:
            # Buffered text would fail again when the interpreter exits, and change the exit code.
            with suppress(OSError, ValueError):
                null, number = os.open(os.devnull, os.O_WRONLY), self.fileno()
                os.dup2(null, number)
                os.close(null)
            self._failed(error)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Replace `sys.stdout` and `sys.stderr` while a command runs.

    A failed write to standard output raises OutputError. A failed write to standard error is ignored, because a message
    that nobody can read must not end the work.
    """
    open_missing_descriptors()
    kept = sys.stdout, sys.stderr
    sys.stdout = cast("TextIO", SafeStream(sys.stdout, _raise))
    sys.stderr = cast("TextIO", SafeStream(sys.stderr, _ignore))
    try:
        yield
    finally:
        # After an error, which decides the exit code. After success, output was already flushed.
        with suppress(OutputError):
            sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = kept


def styled(stream: TextIO) -> TextIO:
    """Return the stream for styled text, such as tables and progress bars, whose content is already escaped."""
    return cast("TextIO", stream.styled()) if isinstance(stream, SafeStream) else stream


def escape_standard_error() -> None:
    """Wrap a `sys.stderr` that a library has installed, to escape its text. The library restores the former one."""
    if not isinstance(sys.stderr, SafeStream):
        sys.stderr = cast("TextIO", SafeStream(sys.stderr, _ignore))


def _raise(error: Exception) -> NoReturn:
    raise OutputError(error) from error


def _ignore(error: Exception) -> None:
    """Drop the text."""
