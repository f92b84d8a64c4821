"""Metrics of a job, such as `embedway run`: whether and when it ended. Servers do not have them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from embedway.telemetry import names
from embedway.telemetry.route_facts import OTHER

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

_MOST_CHARACTERS = 100


class Run:
    """One run of a job, as a context manager: an exception means that the run failed.

    `rejected` is the number of rejected rows; None if it is not known. `clock` returns seconds since 1970.
    """

    def __init__(
        self, name: str, *, clock: Callable[[], float] = time.time, timer: Callable[[], float] = time.monotonic
    ) -> None:
        self.rejected: int | None = None
        self._label = run_label(name)
        self._clock = clock
        self._timer = timer
        #: Time at which it began; None before and after the run.
        self._began: float | None = None

    def __enter__(self) -> Self:
        self._began = self._timer()
        _State.run = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(succeeded=kind is None)

    def end(self, *, succeeded: bool) -> None:
        """Report the end, if the run has begun and its end was not reported."""
        from embedway.telemetry.metrics import lock, process_metrics  # noqa: PLC0415  not without metrics

        if self._began is None:
            return
        seconds, self._began = self._timer() - self._began, None
        metrics = process_metrics()
        with lock:
            metrics.child(names.RUN_SUCCESS, self._label).set(int(succeeded))
            metrics.child(names.RUN_END, self._label).set(self._clock())
            metrics.child(names.RUN_SECONDS, self._label).set(seconds)
            if self.rejected is not None:
                metrics.child(names.RUN_REJECTED, self._label).set(self.rejected)


class _State:
    """The last run of this process; None before the first."""

    run: Run | None = None


def end_unfinished_run() -> None:
    """Report a run that has not ended as failed: a signal ends the process."""
    if _State.run is not None:
        _State.run.end(succeeded=False)


def run_label(name: str) -> str:
    """Return the label of a job: the name of its metrics file without suffix, or its name at the push gateway."""
    return name if len(name) <= _MOST_CHARACTERS and name.isprintable() else OTHER
