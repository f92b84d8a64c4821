"""Output of commands: one JSON document, or tables; notes and progress on standard error."""

import json
import os
import sys
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeVar

from embedway.cli.options import Invocation
from embedway.interrupts import cancellable
from embedway.text import printable, single_line

if TYPE_CHECKING:
    from rich.console import Console

    from embedway.config import Config

T = TypeVar("T")

#: Maximum width of columns that are never wrapped, in characters.
FOLDED_CHARACTERS = 20
#: Minimum size of a file for progress, in bytes; smaller downloads end too quickly.
WORTH_SHOWING_BYTES = 1_000_000


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine and return its result. A signal cancels it."""
    import asyncio

    return asyncio.run(cancellable(work))


def continuation(config: "Config") -> str:
    """Say how to continue a command that a signal stopped while it computed vectors."""
    backend = config.cache.backend
    if backend in {"none", "memory"}:
        off = "off" if backend == "none" else "in memory"
        return f"the cache is {off}, so the same command starts again from the beginning"
    return f"vectors that are already in the cache ({backend}) are reused; run the same command again to continue"


def file_version(path: Path) -> tuple[int, int] | None:
    """Return the identity of a file or folder, which a rename changes; None if it does not exist."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def standard_input() -> IO[bytes]:
    """Open standard input as bytes, for a thread that may still wait for it at exit.

    Python closes `sys.stdin` at exit, which fails while a thread reads from it.
    """
    return os.fdopen(0, "rb", closefd=False)


def print_json(document: Any) -> None:
    """Print one JSON document and a line end, in ASCII, so that it fits every terminal and locale."""
    sys.stdout.write(json.dumps(document, allow_nan=False, indent=2) + "\n")


def print_line(text: str = "") -> None:
    """Print a line of the result."""
    with suppress(AttributeError):
        # Characters that the terminal cannot show are replaced, so that they cause no error.
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    sys.stdout.write(text + "\n")


def note(invocation: Invocation, text: str) -> None:
    """Print a note for the user to standard error."""
    if not invocation.quiet:
        sys.stderr.write(f"embedway: {printable(text, keep_layout=True)}\n")


def one_line(text: str, width: int | None = None) -> str:
    """Return a text for a table's cell: without control characters, white space collapsed, truncated to a width.

    Texts come from files, and an escape sequence in one must not reach the terminal.
    """
    line = single_line(text)
    return line if width is None or len(line) <= width else line[: width - 1].rstrip() + "…"


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """Print a table: wrapped to fit on a terminal, elsewhere plain, one row per line.

    `right` contains the positions of right-aligned columns.
    """
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(columns), *rows]) for i in range(len(columns))]
    if not sys.stdout.isatty():
        for row in [list(columns), *rows]:
            cells = (
                cell.rjust(width) if i in right else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            print_line("  ".join(cells).rstrip())
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        # On a narrow terminal, only wide columns are wrapped.
        narrow = widths[i] <= FOLDED_CHARACTERS
        justify: Literal["left", "right"] = "right" if i in right else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=narrow)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


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

    return Console(stderr=True)


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
        )
        self._progress.start()
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
