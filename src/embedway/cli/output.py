"""Output of commands: one JSON document, or tables; notes and progress on standard error."""

import csv
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeVar

from embedway.cli.options import Invocation
from embedway.cli.streams import OutputError, escape_standard_error, styled
from embedway.errors import SourceError
from embedway.interrupts import cancellable
from embedway.text import printable, single_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text

    from embedway.config import Config

T = TypeVar("T")

#: Name of standard input in errors.
STANDARD_INPUT = "standard input"
#: Maximum width of columns that are never wrapped, in characters.
FOLDED_CHARACTERS = 20
#: Minimum size of a file for progress, in bytes; smaller downloads end too quickly.
WORTH_SHOWING_BYTES = 1_000_000


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine and return its result. A signal cancels it."""
    import asyncio

    return asyncio.run(cancellable(work))


def continuation(config: "Config") -> str:
    """Return how to continue a command that a signal stopped while it computed vectors."""
    backend = config.cache.backend
    if backend in {"none", "memory"}:
        off = "off" if backend == "none" else "in memory"
        return f"the cache is {off}, so the same command starts again from the beginning"
    return f"vectors that are already in the cache ({backend}) are reused; run the same command again to continue"


def describe_destination(path: Path) -> Callable[[], str]:
    """Return a function that says whether a file was written since now."""
    before = _file_version(path)

    def describe() -> str:
        if _file_version(path) != before:
            return f"{path} is complete"
        return f"{path} is {'not written' if before is None else 'unchanged'}"

    return describe


def _file_version(path: Path) -> tuple[int, int] | None:
    """Return the identity of a file or folder, which a rename changes; None if it does not exist."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def standard_input() -> IO[bytes]:
    """Open standard input as bytes, for a thread that may still wait for it at exit.

    Python closes `sys.stdin` at exit, which fails while a thread reads from it. Raises SourceError if it is closed, or
    not readable.
    """
    if sys.stdin is None:  # its descriptor was closed when Python started
        raise SourceError("is closed", path=STANDARD_INPUT)
    try:
        os.read(0, 0)  # fails if it is open for writing only
        return os.fdopen(0, "rb", closefd=False)
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror}", path=STANDARD_INPUT) from None


def json_text(document: Any, *, indent: int | None = None) -> str:
    """Return JSON in ASCII, without control characters, for every terminal and locale."""
    # DEL is the only control character that json does not escape.
    return json.dumps(document, allow_nan=False, indent=indent).replace("\x7f", "\\u007f")


def print_json(document: Any) -> None:
    """Print one JSON document and a line end."""
    write_result(json_text(document, indent=2) + "\n")


def print_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a CSV table with a header."""
    writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def print_line(text: str = "") -> None:
    """Print a line of the result."""
    write_result(printable(text) + "\n")


def write_result(text: str) -> None:
    """Write a part of the result to standard output. Raises OutputError, now or in `flush_result`."""
    sys.stdout.write(text)


def flush_result() -> None:
    """Write the buffered part of the result. Raises OutputError."""
    sys.stdout.flush()


@contextmanager
def report_of_work(invocation: Invocation, *, as_json: bool = False) -> Iterator[None]:
    """Print, in the block, a report of finished work: the result is a file, a store or a setting.

    The command succeeds even if the report cannot be printed, unless the report is requested with --json.
    """
    try:
        yield
        flush_result()
    except OutputError as error:
        if not error.reader_left:
            note(invocation, f"the work is done, but its report is incomplete: {error}")
        if as_json:
            raise


def note(invocation: Invocation, text: str) -> None:
    """Print a note for the user to standard error."""
    if not invocation.quiet:
        print_message(text)


def note_skipped(invocation: Invocation, skipped: Mapping[str, Any]) -> None:
    """Note how many files were skipped and why, from `SkippedFiles.to_json`; with --verbose, name them."""
    from embedway.collections.skipped import SkippedFiles

    files = SkippedFiles.of_json(skipped)
    if invocation.verbose:
        for line in files.lines():
            note(invocation, line)
    if files.total:
        note(invocation, files.summary(names_hint=not invocation.verbose))


def note_pipes(invocation: Invocation, sources: Sequence[str]) -> None:
    """Note which sources are named pipes: reading one waits for its writer."""
    for source in sources:
        # A shell opens the pipe of `<(command)` itself.
        if Path(source).is_fifo() and not source.startswith(("/dev/", "/proc/")):
            note(invocation, f"{source} is a pipe: it is read until its writer closes it")


def print_message(text: str) -> None:
    """Print a message for the user to standard error."""
    sys.stderr.write(f"embedway: {printable(text, keep_layout=True)}\n")


class LogHandler(logging.Handler):
    """Handler that prints log lines to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line."""
        print_to_standard_error(f"{self.format(record)}\n")


def print_traceback(error: BaseException) -> None:
    """Print the traceback of an error to standard error."""
    print_to_standard_error("".join(traceback.format_exception(error)))


def print_to_standard_error(text: str) -> None:
    """Print lines of a log or a traceback to standard error, unchanged except for control characters."""
    sys.stderr.write(printable(text, keep_layout=True))


def is_terminal() -> bool:
    """Return whether standard output is a terminal."""
    return sys.stdout.isatty()


def print_styled(text: "Text") -> None:
    """Print a text with styles on standard output, which is a terminal."""
    from rich.console import Console

    Console(file=styled(sys.stdout), highlight=False).print(text)


def wrapped(text: "Text", indent: int) -> "Sequence[Text]":
    """Return the lines of a text on the terminal, which leave `indent` columns free."""
    from rich.console import Console

    console = Console(file=styled(sys.stdout))
    return list(text.wrap(console, max(20, console.width - indent)))


def print_prompt(text: str) -> None:
    """Print a prompt on standard error, without a line end."""
    sys.stderr.write(text)
    sys.stderr.flush()


def one_line(text: str, width: int | None = None) -> str:
    """Return a text for a table's cell: without control characters, white space collapsed, truncated to a width.

    Texts come from files, and an escape sequence in one must not reach the terminal.
    """
    line = single_line(text)
    return line if width is None or len(line) <= width else line[: width - 1].rstrip() + "…"


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), in_blocks: bool = False
) -> None:
    """Print a table: wrapped to fit on a terminal, elsewhere plain, one row per line.

    `right` contains the positions of right-aligned columns. With `in_blocks`, a table that is too wide for the terminal
    is one block per row instead, with a line for each cell, so that names and numbers stay whole.
    """
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(_cells(row[i]) for row in [list(columns), *rows]) for i in range(len(columns))]
    if not sys.stdout.isatty():
        for row in [list(columns), *rows]:
            padded = (_pad(cell, widths[i], right=i in right) for i, cell in enumerate(row))
            print_line("  ".join(padded).rstrip())
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=styled(sys.stdout))
    if in_blocks and sum(widths) + 2 * (len(widths) - 1) > console.width:
        _print_blocks(columns, rows)
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        # On a narrow terminal, only wide columns are wrapped.
        narrow = widths[i] <= FOLDED_CHARACTERS
        justify: Literal["left", "right"] = "right" if i in right else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=narrow)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def _print_blocks(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a block for each row: its first cell, and the others with the names of their columns."""
    for row in rows:
        print_line(row[0])
        for column, cell in zip(columns[1:], row[1:], strict=True):
            print_line(f"  {column}: {cell}")


def _pad(text: str, width: int, *, right: bool) -> str:
    padding = " " * (width - _cells(text))
    return padding + text if right else text + padding


def _cells(text: str) -> int:
    """Return the width of a text on a terminal: characters of East Asian scripts take two columns."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def count(number: float) -> str:
    """Format a number for people: 1,234, and 12.3 below a hundred."""
    return f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:,.1f}"


def duration(seconds: float) -> str:
    """Format a time for people: 0.4 s, 75 s, 12 min 30 s, 2 h 05 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(number: float) -> str:
    """Format a number of bytes for people: 90.9 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def error_console() -> "Console":
    """Return the console for progress, on standard error."""
    from rich.console import Console

    return Console(file=styled(sys.stderr))


def start_progress(progress: "Progress") -> None:
    """Start a progress bar. What is written to standard error meanwhile appears above it."""
    progress.start()
    # rich replaces sys.stderr by its own stream, which does not escape control characters.
    escape_standard_error()


def wants_progress(invocation: Invocation) -> bool:
    """Return whether progress may be shown: only on a terminal, and not with --quiet."""
    return not invocation.quiet and sys.stderr.isatty()


class DownloadProgress:
    """Progress bar for downloads, on a terminal only. Thread-safe."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        self._progress: Any = None
        self._task: Any = None

    def start(self, name: str, total: int | None) -> None:
        """Start a file; `total` is its size in bytes, if known."""
        if total is not None and total < WORTH_SHOWING_BYTES:
            return
        if not wants_progress(self._invocation):
            note(self._invocation, f"fetching {one_line(name)}" + (f" ({size(total)})" if total else ""))
            return
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        self.done()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=error_console(),
            redirect_stdout=False,
        )
        start_progress(self._progress)
        self._task = self._progress.add_task(one_line(name, 50), total=total)

    def advance(self, n: int) -> None:
        """Add `n` received bytes."""
        if self._progress is not None:
            self._progress.advance(self._task, n)

    def done(self) -> None:
        """End the file: it is complete, or it failed."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
