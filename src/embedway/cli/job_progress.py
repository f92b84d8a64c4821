"""Progress of the commands `run` and `sync`: a bar on a terminal, and otherwise a line a minute."""

import time
from typing import TYPE_CHECKING, Any, Protocol

from embedway.cli.options import Invocation
from embedway.cli.output import count, duration, error_console, note, start_progress, wants_progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway.collections.report import RunStatus

#: Seconds between lines. A log of a long job stays short, and its reader sees that the job is alive.
LINE_INTERVAL_S = 60.0


class JobProgress(Protocol):
    """Display of the status of a job."""

    def update(self, status: "RunStatus") -> None:
        """Show the status."""

    def stop(self) -> None:
        """End the display."""


def job_progress(invocation: Invocation) -> JobProgress:
    """Return the display for where standard error goes; with --quiet, it prints nothing."""
    return ProgressBar() if wants_progress(invocation) else ProgressLines(invocation)


class ProgressBar:
    """Bar with texts and tokens per second, and the time left if the sources' size is known."""

    def __init__(self) -> None:
        self._progress: Any = None
        self._task: Any = None

    def update(self, status: "RunStatus") -> None:
        """Show the status. The bar starts with the first batch, because a download may show its own bar before."""
        if self._progress is None:
            from rich.progress import BarColumn, Progress, TextColumn

            self._progress = Progress(
                BarColumn(bar_width=30),
                TextColumn("{task.description}", markup=False),
                console=error_console(),
                transient=True,
                redirect_stdout=False,
            )
            self._task = self._progress.add_task("", total=status.bytes_total)
            start_progress(self._progress)
        self._progress.update(self._task, completed=status.bytes_read, description=progress_text(status))

    def stop(self) -> None:
        """Remove the bar."""
        if self._progress is not None:
            self._progress.stop()


class ProgressLines:
    """Lines in a log, at most one in `LINE_INTERVAL_S`; none for a job that is shorter."""

    def __init__(self, invocation: Invocation, clock: "Callable[[], float]" = time.monotonic) -> None:
        self._invocation = invocation
        self._clock = clock
        self._last_s = clock()

    def update(self, status: "RunStatus") -> None:
        """Print the status if it is time."""
        now_s = self._clock()
        if now_s - self._last_s >= LINE_INTERVAL_S:
            self._last_s = now_s
            note(self._invocation, progress_text(status))

    def stop(self) -> None:
        """Do nothing: the lines stay."""


def progress_text(status: "RunStatus") -> str:
    """Return the status of a running job as one line."""
    parts = [
        f"{status.chunks_done:,} texts",
        f"{count(status.texts_per_s)} texts/s",
        f"{count(status.tokens_per_s)} tokens/s",
    ]
    if status.seconds_left is not None:
        parts.append(f"{duration(status.seconds_left)} left")
    return ", ".join(parts)
