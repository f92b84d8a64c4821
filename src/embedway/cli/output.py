"""Output of commands: one JSON document, or tables; notes and progress on standard error."""

import json
import os
import sys
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Literal, TypeVar

from embedway.cli.options import Invocation
from embedway.text import printable, single_line

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

#: Columns up to this width are never folded.
FOLDED_CHARACTERS = 20
#: Smaller files come too quickly to be shown.
WORTH_SHOWING_BYTES = 1_000_000


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end."""
    import asyncio

    return asyncio.run(work)


def standard_input() -> IO[bytes]:
    """Standard input as bytes, for a thread that may still wait for it when the program ends.

    `sys.stdin` is taken apart at the end, which Python cannot do while a thread reads from it.
    """
    return os.fdopen(0, "rb", closefd=False)


def print_json(document: Any) -> None:
    """One JSON document and a line end. ASCII alone, so that it fits every terminal and locale."""
    sys.stdout.write(json.dumps(document, allow_nan=False, indent=2) + "\n")


def print_line(text: str = "") -> None:
    """A line of the result."""
    with suppress(AttributeError):
        # A name or snippet with a character that the terminal lacks is shown with a stand-in, not an error.
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    sys.stdout.write(text + "\n")


def note(invocation: Invocation, text: str) -> None:
    """Print a note for the user to standard error."""
    if not invocation.quiet:
        sys.stderr.write(f"embedway: {printable(text, keep_layout=True)}\n")


def one_line(text: str, width: int | None = None) -> str:
    """Text for a table's cell: no control characters, white space made single, cut to a width.

    Texts come from files, and an escape sequence in one must not reach the terminal.
    """
    line = single_line(text)
    return line if width is None or len(line) <= width else line[: width - 1].rstrip() + "…"


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """A table. On a terminal it is drawn and folded to fit; elsewhere it is plain, a row per line.

    `right` holds the positions of columns that are set to the right.
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
        # Where there is too little room, wide columns are folded and the others stay as they are.
        narrow = widths[i] <= FOLDED_CHARACTERS
        justify: Literal["left", "right"] = "right" if i in right else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=narrow)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def count(number: float) -> str:
    """A number as people read it: 1,234, and 12.3 below a hundred."""
    return f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:,.1f}"


def duration(seconds: float) -> str:
    """A time as people read it: 0.4 s, 75 s, 12 min 30 s, 2 h 05 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(number: float) -> str:
    """Bytes as people read them: 90.9 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def error_console() -> "Console":
    """The console that progress is drawn on."""
    from rich.console import Console

    return Console(stderr=True)


def wants_progress(invocation: Invocation) -> bool:
    """Whether progress may be drawn: only on a terminal."""
    return not invocation.quiet and sys.stderr.isatty()


class DownloadProgress:
    """A progress bar for files that are fetched; draws only on a terminal. Safe to use from any thread."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        self._progress: Any = None
        self._task: Any = None

    def start(self, name: str, total: int | None) -> None:
        """A file begins; `total` is its size in bytes, where it is known."""
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
        """`n` more bytes have arrived."""
        if self._progress is not None:
            self._progress.advance(self._task, n)

    def done(self) -> None:
        """The file is here, or failed."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
