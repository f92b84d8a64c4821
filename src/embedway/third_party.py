"""Errors of third-party code in this process (hooks, progress sinks, providers, libraries), and of stored values."""

from __future__ import annotations

import asyncio
import logging
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: Errors of Python that result from stored values that no version of embedway writes.
INVALID_VALUE_ERRORS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)

_log = logging.getLogger(__name__)


def must_pass(error: BaseException) -> bool:
    """Return whether an error must be raised again: an interrupt, a cancellation of this task, or GeneratorExit.

    All other errors, also SystemExit and PyO3's PanicException, are failures of the code that raised them.
    """
    if isinstance(error, asyncio.CancelledError):
        return _is_cancelled()
    return isinstance(error, GeneratorExit) or is_interrupt(error)


def is_interrupt(error: BaseException) -> bool:
    """Return whether an error is an interrupt of the program; only the main thread receives interrupts."""
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


def _is_cancelled() -> bool:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop in this thread
        return False
    return task is not None and task.cancelling() > 0


def place_of(error: BaseException) -> str:
    """Return the class and location of a third-party error, without its message, which may repeat a text."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


def guarded(function: Callable[..., object], name: str) -> Callable[..., None]:
    """Return a wrapper of a caller's function. If it raises, the first error is logged with `name`; all are ignored."""
    failed = False

    def call(*arguments: object) -> None:
        nonlocal failed
        try:
            function(*arguments)
        except BaseException as error:
            if is_interrupt(error):
                raise
            if not failed:
                failed = True
                _log.warning(
                    "%s failed with %s and is ignored; its later failures are not logged", name, place_of(error)
                )

    return call
