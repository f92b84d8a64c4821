"""Output of `embedway sync --watch`: one line for each round, and what a stop leaves."""

from typing import TYPE_CHECKING

from embedway.cli.job_report import stopped_job, tell_rejected
from embedway.cli.options import Invocation
from embedway.cli.output import duration, flush_result, print_line, print_message

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway.collections.job import Kept
    from embedway.collections.sync import SyncSummary
    from embedway.config import Config
    from embedway.errors import EmbedwayError


class WatchRounds:
    """Printer of the rounds of a watch."""

    def __init__(self, invocation: Invocation, config: "Config", destination: str) -> None:
        self._invocation = invocation
        self._config = config
        self._destination = destination
        #: Describes what the round has left that is running, or that failed; None if the collection is in step.
        self._stopped: Callable[[], str] | None = None
        self.begin()

    def begin(self) -> "Kept":
        """Begin a round."""
        from embedway.collections.job import Kept

        kept = Kept()
        self._stopped = stopped_job(self._config, self._destination, kept)
        return kept

    def done(self, summary: "SyncSummary") -> None:
        """Print one line about a round."""
        self._stopped = None
        kept = f", {summary.kept:,} kept" if summary.kept else ""
        print_line(
            f"{summary.added:,} added, {summary.updated:,} updated, {summary.removed:,} removed, "
            f"{summary.unchanged:,} unchanged{kept} in {duration(summary.seconds)}"
        )
        flush_result()
        tell_rejected(self._invocation, summary.rejected, summary.rejects_path)

    def failed(self, error: "EmbedwayError") -> None:
        """Print the error of a round."""
        print_message("\n".join((f"error: {error}", *getattr(error, "__notes__", ()), "waiting for the next change")))

    def is_idle(self) -> bool:
        """Return whether nothing is left to do."""
        return self._stopped is None

    def explain(self) -> str:
        """Return what a watch that is stopped now leaves."""
        if self._stopped is not None:
            return self._stopped()
        from embedway.collections.stores.redaction import shown

        return f"{shown(self._destination)} has all changes as of the last sync; the same command watches again"
