"""SQLite file that one thread reads and writes, so that no call blocks the event loop."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import sqlite3
import threading
import weakref
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

from embedway import sqlite
from embedway.errors import EmbedwayError, UsageError
from embedway.files import place_of
from embedway.forks import at_fork
from embedway.third_party import INVALID_VALUE_ERRORS
from embedway.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

P = ParamSpec("P")
R = TypeVar("R")

#: Errors of a file: of SQLite, of the disk, and of invalid values in it.
_FAILURES = (sqlite3.Error, OSError, *INVALID_VALUE_ERRORS)
#: Maximum calls that share a transaction.
_BATCH = 128
#: Maximum wait of a call that nothing waits for, in seconds: it shares the transaction of the next call.
LATER_S = 0.01


@dataclass(slots=True)
class _Call:
    """Call that waits for a transaction, and its outcome."""

    function: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None

    def deliver(self) -> None:
        """Pass the outcome to the caller, if there still is one. On the event loop."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class Watch(Protocol):
    """Checks that a file is not replaced while a process uses it. Each method may raise."""

    def check(self) -> None:
        """Check the file before it is opened or used."""

    def note(self) -> None:
        """Remember the file after a use that succeeded."""

    def begin(self, connection: sqlite3.Connection) -> None:
        """Check the content at the start of a transaction."""

    def commit(self) -> None:
        """Remember the content after a transaction was committed."""


class SqliteThread:
    """One worker thread with one connection. The file is opened at the first call, and again after `disconnect`.

    `on_error` decides how a failure is handled. After the rollback, it receives the sqlite3.Error or OSError of a call,
    or the error of Python for an invalid value in the file. Its return value is the result of the call, and its
    exception is the error of the call. Other errors are raised unchanged, such as the ConfigError of a file that is not
    of this format.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        form: sqlite.Format,
        on_error: Callable[[Exception], Any],
        *,
        pragmas: tuple[str, ...] = (),
        extra: tuple[str, ...] = (),
        busy_s: float = sqlite.BUSY_S,
        watch: Watch | None = None,
    ) -> None:
        """Create the thread lazily; see `sqlite.connect` for `pragmas`, `extra` and `busy_s`."""
        self._watch = watch
        self.connection: sqlite3.Connection | None = None
        #: Device and inode of the file that was opened last; None for none.
        self.place: tuple[int, int] | None = None
        self._name = name
        self._path = path
        self._open = partial(sqlite.connect, path, form, *pragmas, extra=extra, busy_s=busy_s)
        self._on_error = on_error
        self._worker: Worker | None = None
        self._waiting: collections.deque[_Call] = collections.deque()
        #: The worker that has a run before it, which sees all waiting calls.
        self._summoned: Worker | None = None
        #: Timer of the waiting calls that are not urgent.
        self._timer: asyncio.TimerHandle | None = None
        # A call during `aclose` starts a new thread.
        self._lock = threading.RLock()
        _threads.add(self)

    def submit(self, function: Callable[P, R], *arguments: P.args, **options: P.kwargs) -> asyncio.Future[R]:
        """Run a function on the thread, after all earlier submissions."""
        if self._worker is None:
            self._worker = Worker(self._name)
        return self._worker.call(function, *arguments, **options)

    def use(
        self, function: Callable[Concatenate[sqlite3.Connection, P], R], *arguments: P.args, **options: P.kwargs
    ) -> R:
        """Call a function with the connection. Only for functions that run on the thread."""
        with self._lock:
            try:
                result = function(self._ready(), *arguments, **options)
            except _FAILURES as error:
                if _is_own(error):
                    raise
                if self.connection is not None and self.connection.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        self.connection.rollback()
                return cast("R", self._on_error(error))
            if self._watch is not None:
                self._watch.note()
            return result

    async def transact(
        self, function: Callable[Concatenate[sqlite3.Connection, P], R], *arguments: P.args, **options: P.kwargs
    ) -> R:
        """Call a function with the connection, in a transaction shared with other waiting calls."""
        return await self._transact(partial(_with_connection, function, arguments, options), is_urgent=True)

    async def transact_later(
        self, function: Callable[Concatenate[sqlite3.Connection, P], R], *arguments: P.args, **options: P.kwargs
    ) -> R:
        """Call a function as `transact`, in the transaction of the next call, or after `LATER_S`.

        Calls run in the order in which they were made, whether urgent or not.
        """
        return await self._transact(partial(_with_connection, function, arguments, options), is_urgent=False)

    async def _transact(self, function: Callable[[sqlite3.Connection], R], *, is_urgent: bool) -> R:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append(_Call(function, future))
        if self._worker is None or self._worker is not self._summoned:
            if is_urgent:
                self._run_soon()
            elif self._timer is None:
                self._timer = loop.call_later(LATER_S, self._run_soon)
        try:
            return await future
        except _FAILURES as error:
            if _is_own(error):
                raise
            return cast("R", self._on_error(error))

    def _run_soon(self) -> None:
        """Run the waiting calls on the thread."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch: list[_Call] = []
        if self._worker is None:
            self._worker = Worker(self._name)
        self._summoned = self._worker  # before the thread can reset it
        done = self.submit(self._run_waiting, batch)

        def deliver(_: object) -> None:
            failure = None if done.cancelled() else done.exception()
            for call in batch:
                if failure is not None and not call.future.done():
                    call.future.set_exception(failure)
                call.deliver()
            # Without a timer, or with a full batch, urgent calls may be left.
            is_due = self._timer is None or len(batch) == _BATCH
            if self._waiting and is_due and self._worker is not self._summoned:
                self._run_soon()

        done.add_done_callback(deliver)

    def _run_waiting(self, batch: list[_Call]) -> None:
        """Run waiting calls in one transaction, and list them; if one fails, run each in a separate transaction."""
        # From now on, a new call submits a further run: this one may not see it.
        self._summoned = None
        with contextlib.suppress(IndexError):
            while len(batch) < _BATCH:
                batch.append(self._waiting.popleft())
        # An earlier run may have run all of them.
        transactions = collections.deque([batch] if batch else ())
        while transactions:
            calls = transactions.popleft()
            try:
                with self._lock:
                    self._run_together(calls)
            except Exception as error:  # noqa: BLE001  passed to the caller
                if len(calls) == 1:
                    calls[0].error = error
                else:
                    transactions.extend([call] for call in calls)

    def _run_together(self, calls: list[_Call]) -> None:
        # As a context manager, a connection commits, or rolls back after an error.
        with self._ready() as connection:
            # A transaction that starts as a reader cannot become a writer while another process writes.
            connection.execute("BEGIN IMMEDIATE")
            if self._watch is not None:
                self._watch.begin(connection)
            for call in calls:
                call.result = call.function(connection)
        if self._watch is not None:
            self._watch.commit()

    def reopen_if_replaced(self) -> None:
        """Close the connection to a removed or replaced file, because writes to it are lost."""
        if self.connection is not None and place_of(self._path) != self.place:
            self.disconnect()

    def disconnect(self) -> None:
        """Close the connection; the next call reopens the file. Only for functions that run on the thread."""
        with self._lock:
            connection, self.connection = self.connection, None
            if connection is not None:
                with contextlib.suppress(sqlite3.Error):
                    connection.close()

    def before_fork(self) -> None:
        """Wait for the call that runs, hold the lock, and close the connection. The next call reopens the file."""
        self._lock.acquire()
        self.disconnect()

    def after_fork(self) -> None:
        """Release the lock."""
        self._lock.release()

    async def aclose(self) -> None:
        """Close the file after the calls made so far, and end the thread. A later call starts both again."""
        if self._timer is not None:
            self._run_soon()
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.call(self.disconnect)
            worker.close()

    def _ready(self) -> sqlite3.Connection:
        """Return the open connection, after a check of its file."""
        if self._watch is not None:
            self._watch.check()
        return self.connection or self._connect()

    def _connect(self) -> sqlite3.Connection:
        self.place = place_of(self._path)
        self.connection = self._open()
        self.place = place_of(self._path)
        return self.connection


def _with_connection(
    function: Callable[..., R], arguments: tuple[Any, ...], options: dict[str, Any], connection: sqlite3.Connection
) -> R:
    return function(connection, *arguments, **options)


def _is_own(error: Exception) -> bool:
    """Return whether an error is embedway's own. A UsageError results from an invalid value in the file."""
    return isinstance(error, EmbedwayError) and not isinstance(error, UsageError)


def transacted(
    method: Callable[Concatenate[Any, sqlite3.Connection, P], R],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """Run a method with a connection in a transaction of `self._file`, a SqliteThread. Callers pass no connection."""

    async def run(self: Any, /, *arguments: P.args, **options: P.kwargs) -> R:
        return cast("R", await self._file.transact(partial(method, self), *arguments, **options))

    return run


_threads: weakref.WeakSet[SqliteThread] = weakref.WeakSet()
#: Held during a fork: two threads may fork at once.
_forking = threading.Lock()
#: Threads whose lock is held during a fork.
_held: list[SqliteThread] = []


def _before_fork() -> None:
    """Close all connections: SQLite takes no locks in a child for a file that was open in its parent."""
    _forking.acquire()
    while True:
        with contextlib.suppress(RuntimeError):  # another thread creates one
            _held.extend(_threads)
            break
        _held.clear()
    for one in _held:
        one.before_fork()


def _after_fork() -> None:
    while _held:
        _held.pop().after_fork()
    _forking.release()


at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
