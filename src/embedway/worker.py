"""Thread that runs blocking calls off the event loop, one after another."""

from __future__ import annotations

import asyncio
import queue
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Worker:
    """Runs calls in order in one daemon thread.

    The threads of an executor are joined when the process exits, so one that reads an open standard input would keep an
    interrupted process alive.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def call(
        self, function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> asyncio.Future[Result]:
        """Run a function after all earlier calls. Cancelling the future does not stop the call."""
        future: asyncio.Future[Result] = self._loop.create_future()
        self._calls.put((partial(function, *args, **kwargs), future))
        return future

    def close(self) -> None:
        """End the thread after the calls made so far. Does not wait."""
        self._calls.put(None)

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            function, future = item
            result, failure = None, None
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001  passed to the caller, whatever it is
                failure = error
            # The loop is closed when the process is exiting.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_finish, future, result, failure)
            # Drop the references: only the caller owns the result, and this thread may wait long for the next call.
            del item, function, future, result, failure


def _finish(future: asyncio.Future[Any], result: Any, failure: BaseException | None) -> None:
    if future.cancelled():
        return
    if failure is None:
        future.set_result(result)
    else:
        future.set_exception(failure)
        # The caller may be gone. A retrieved exception is not reported on standard error.
        future.exception()
