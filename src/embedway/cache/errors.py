"""Failures of a cache store: counts for the statistics, one log message for each kind, and notes for receipts."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from embedway.store_failures import StoreFailure

_log = logging.getLogger("embedway.cache")

#: Use of a store: entries are read, written or deleted; keys are leased; counts are saved; the content is inspected.
#: Each may fail while the others succeed.
Action: TypeAlias = Literal["read", "write", "delete", "lease", "count", "inspect"]
#: Actions that count as reads.
READS: frozenset[Action] = frozenset({"read", "inspect"})
#: Interval in which a kind of failure is logged once, although the store works in between, in seconds.
_REPEAT_S = 600.0
#: Failure of a lookup in this task, since it was set to None.
failed_lookup: ContextVar[StoreFailure | None] = ContextVar("embedway_failed_lookup", default=None)


@dataclass(slots=True)
class CacheErrors:
    """Failures of a store. None of them fails a request.

    `name` is the store's, such as `the cache in Redis at HOST:PORT`, without secrets. Any thread may use the methods.
    """

    failed_reads: int = 0
    failed_writes: int = 0
    evictions: int = 0
    #: Damaged files that were renamed, so that a new file can be created.
    set_aside: int = 0
    name: str = "the cache"
    #: Failure that was counted last.
    last: StoreFailure | None = None
    clock: Callable[[], float] = field(default=time.monotonic, repr=False, compare=False)
    #: Called for each counted failure with the action and the kind of failure, in the thread of the store.
    on_failure: Callable[[Action, str], None] | None = field(default=None, repr=False, compare=False)
    _reporter: _Reporter = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Create the reporter."""
        self._reporter = _Reporter()

    def counts(self) -> dict[str, int]:
        """Return the counts, by the names under which stores save them."""
        return {name: getattr(self, name) for name in ("failed_reads", "failed_writes", "evictions", "set_aside")}

    def count(self, action: Action, failure: StoreFailure | None = None) -> None:
        """Count a failure, and log the first one of each kind; None for a call that was skipped after a failure."""
        self.failed_reads += action in READS
        self.failed_writes += action not in READS
        reason = failure or self.last
        if self.on_failure is not None and reason is not None:
            self.on_failure(action, reason.kind)
        if failure is not None:
            self.last = failure
            if self._reporter.note_failure(action, failure, self.clock()):
                _log.warning(
                    "%s cannot be %s: %s, so vectors are computed again, and paid again if they are a service's. "
                    "Remedy: %s. This is logged once",
                    self.name,
                    "read" if action in READS else "written",
                    failure.reason,
                    failure.remedy or "`embedway doctor` shows more",
                )

    def note_success(self, action: Action) -> None:
        """Note a call that succeeded, and log once that the store works again."""
        if self._reporter.failing and self._reporter.note_success(action):
            _log.warning(
                "%s works again; %d reads and %d writes failed so far",
                self.name,
                self.failed_reads,
                self.failed_writes,
            )

    @contextmanager
    def unlogged(self) -> Iterator[None]:
        """Log no failure in the block, whose caller reports them itself."""
        self._reporter.silent += 1
        try:
            yield
        finally:
            self._reporter.silent -= 1

    def note_lookup(self) -> None:
        """Remember in this task that a lookup failed."""
        failed_lookup.set(self.last)

    def receipt_note(self, texts: int) -> str | None:
        """Return the note for the receipt of a request that computed `texts` texts; None if the store works."""
        some = "1 text was" if texts == 1 else f"{texts} texts were"
        failure = failed_lookup.get()
        if failure is not None:
            return f"{self.name} could not be read ({failure.reason}): {some} computed without it"
        failing = self._reporter.failing
        failure = failing.get("write") or failing.get("lease")
        if failure is not None:
            return f"{self.name} could not be written ({failure.reason}): {some} computed, and may not be stored"
        return None


class _Reporter:
    """State of the log messages: each kind of failure is logged once until the store works again.

    A store that fails and works in turn is logged at most once in ten minutes for each kind.
    """

    def __init__(self) -> None:
        self.silent = 0
        #: The failure of each action that failed when it was tried last.
        self.failing: dict[Action, StoreFailure] = {}
        #: Kinds of failures since the store worked last.
        self._kinds: set[str] = set()
        #: Time of the last message about each kind.
        self._logged_at: dict[str, float] = {}
        self._is_logged = False
        self._lock = threading.Lock()

    def note_failure(self, action: Action, failure: StoreFailure, now: float) -> bool:
        """Note a failure, and return whether it must be logged."""
        with self._lock:
            self.failing[action] = failure
            if self.silent or failure.kind in self._kinds:
                return False
            self._kinds.add(failure.kind)
            logged_at = self._logged_at.get(failure.kind)
            if logged_at is not None and now - logged_at < _REPEAT_S:
                return False
            self._logged_at[failure.kind] = now
            self._is_logged = True
            return True

    def note_success(self, action: Action) -> bool:
        """Note a success, and return whether it must be logged: all that failed works again."""
        with self._lock:
            left = {other: failure for other, failure in self.failing.items() if other != action and not failure.whole}
            is_over = bool(self.failing) and not left
            self.failing = left
            if not is_over:
                return False
            self._kinds.clear()
            is_logged, self._is_logged = self._is_logged, False
            return is_logged
