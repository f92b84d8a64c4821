"""Concurrent tasks of one caller, and computations in Python beside the event loop."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

V = TypeVar("V")


@dataclass(slots=True)
class _Thread:
    """The thread that computes for an event loop."""

    lock: asyncio.Lock
    #: Number of computations that run in it or wait for it.
    used_by: int = 0


#: Those that are used. A lock keeps its event loop in memory, so it must not outlast its use.
_threads: dict[asyncio.AbstractEventLoop, _Thread] = {}


async def compute_in_thread(function: Callable[..., V], *arguments: Any, **more: Any) -> V:
    """Call a function in a thread and return its result; one such thread runs at a time for each event loop.

    For long computations that hold the interpreter's lock: several threads would be no faster together, and the event
    loop would wait for each of them whenever it needs the lock. A thread cannot be stopped: after a cancellation, the
    next one still waits for its end.
    """
    loop = asyncio.get_running_loop()
    thread = _threads.get(loop)
    if thread is None:
        thread = _threads[loop] = _Thread(asyncio.Lock())
    thread.used_by += 1

    def leave() -> None:
        thread.used_by -= 1
        if not thread.used_by:
            del _threads[loop]

    def end(_: object) -> None:
        thread.lock.release()
        leave()

    try:
        await thread.lock.acquire()
    except asyncio.CancelledError:
        leave()
        raise
    running = asyncio.ensure_future(asyncio.to_thread(function, *arguments, **more))
    running.add_done_callback(end)
    return await asyncio.shield(running)


async def run_together(runs: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all concurrently, and return when all tasks have ended. The first error cancels the others.

    Raises a group of all errors, in the order of time, or CancelledError if the caller is cancelled. Unlike an
    `asyncio.TaskGroup`, it does not cancel the caller's own task: in Python 3.11, a group that fails leaves a counted
    cancellation on the task, and an outer `asyncio.timeout` then raises CancelledError in place of TimeoutError.
    """
    runs = list(runs)
    if len(runs) == 1:  # needs no task
        await _run_alone(runs[0])
    elif runs:
        await _run_all(runs)


async def _run_alone(run: Coroutine[Any, Any, None]) -> None:
    try:
        await run
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001  raised in a group
        failed = error
    else:
        return
    raise BaseExceptionGroup("concurrent tasks failed", [failed])


async def _run_all(runs: Iterable[Coroutine[Any, Any, None]]) -> None:
    errors: list[BaseException] = []
    tasks = [asyncio.create_task(_collect_error(run, errors)) for run in runs]
    is_cancelled = False
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    except asyncio.CancelledError:
        is_cancelled = True
    for task in tasks:
        task.cancel()
    while unfinished := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(unfinished)
        except asyncio.CancelledError:
            is_cancelled = True
    for task in tasks:
        if not task.cancelled():
            task.exception()  # otherwise, asyncio logs that it was not retrieved
    if is_cancelled:
        raise asyncio.CancelledError
    if errors:
        raise BaseExceptionGroup("concurrent tasks failed", errors)


async def _collect_error(run: Coroutine[Any, Any, None], errors: list[BaseException]) -> None:
    try:
        await run
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        errors.append(error)
        raise
