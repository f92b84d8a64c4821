"""Limits of the search for texts that a service refuses or fails on. `dispatch/recovery.py` halves them."""

from __future__ import annotations

import asyncio
import contextlib
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from embedway.errors import BadVectorsError, EmbedwayError, RefusedInputError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

#: After this many texts of a caller failed alone on a route, and none was answered there, the others are not sent.
MOST_ALONE = 16
#: Maximum failed requests of the searches for one caller on one route, and their increase for each answered request.
_MOST_FAILED, _FAILED_PER_ANSWER = 64, 4
#: Weight in the circuit of a failure whose reason may be a text, before and after an answer during the search.
UNSURE, UNLIKELY = 1 / 2, 1 / 8
#: Good answers of a route after which refused vectors of single texts are unlikely to be its fault.
GOOD_ANSWERS = 8
#: Whether the current task or the one that created it holds the lock of a search.
_is_searching: ContextVar[bool] = ContextVar("embedway_searching", default=False)


@dataclass(slots=True)
class Findings:
    """Results of the requests with one caller's texts on one route."""

    #: Requests that were answered, and requests of searches that failed.
    answers: int = 0
    failures: int = 0
    #: Texts that failed alone, and the error of the last one.
    alone: int = 0
    last: EmbedwayError | None = None
    #: Held by the search that finds out whether any text is answered.
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    #: Failures of searches in a row, and the answers of the route before them.
    _in_a_row: int = 0
    _answers_before: int = 0

    @contextlib.asynccontextmanager
    async def one_search(self) -> AsyncIterator[None]:
        """Hold the lock, unless this task is part of a search.

        A search may fail over to another route and back, so that a second lock would wait for the first one forever.
        """
        if _is_searching.get():
            yield
            return
        async with self.lock:
            token = _is_searching.set(True)
            try:
                yield
            finally:
                _is_searching.reset(token)

    def count_alone(self, error: EmbedwayError) -> None:
        """Count a text that failed alone."""
        self.alone += 1
        self.last = error

    def failures_in_a_row(self, answers: int) -> int:
        """Return the failures of searches since the route's last answer to the call; `answers` are those so far."""
        if answers > self._answers_before:
            self._answers_before, self._in_a_row = answers, 0
        return self._in_a_row

    def begin(self, failures: int, answers: int) -> None:
        """Begin a search after failures in a row."""
        self._in_a_row = max(self.failures_in_a_row(answers), failures)

    def count_failure(self, answers: int) -> None:
        """Count a failed request of a search."""
        self._in_a_row = self.failures_in_a_row(answers) + 1
        self.failures += 1

    @property
    def is_exhausted(self) -> bool:
        """Whether no more texts are to be sent."""
        return self._has_no_answer or self.failures > _MOST_FAILED + _FAILED_PER_ANSWER * self.answers

    @property
    def _has_no_answer(self) -> bool:
        return self.alone >= MOST_ALONE and not self.answers

    def check(self, route: str) -> None:
        """Raise the error of texts that are not sent, if no more are to be sent."""
        if not self.is_exhausted:
            return
        status = getattr(self.last, "status", None)
        if not self._has_no_answer:
            raise UnavailableError(f"not sent, because {self.failures} requests failed", route=route, status=status)
        kind = RefusedInputError if isinstance(self.last, RefusedInputError) else UnavailableError
        raise kind(f"not sent, because {self.alone} texts failed alone, and none succeeded", route=route, status=status)


def may_be_the_texts(error: EmbedwayError) -> bool:
    """Return whether a text may be the reason for a failure: the request was sent, and no wait is requested."""
    if not isinstance(error, UnavailableError) or error.loading or error.of_probe:
        return False
    return error.billed and error.retry_after_s is None


def is_about_its_texts(error: EmbedwayError) -> bool:
    """Return whether the error of a text that was sent alone is about the text."""
    if isinstance(error, BadVectorsError):
        return error.billed and not error.of_probe and bool(error.rows)  # not the width of all
    return isinstance(error, RefusedInputError) or may_be_the_texts(error)
