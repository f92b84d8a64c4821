"""Verdicts of checks, and the exceptions that end a check early."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from embedway.text import single_line

Status: TypeAlias = Literal["passed", "failed", "skipped", "warned"]

#: Maximum characters of what was seen: a part of it may be text of the server.
_SEEN_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of a check, and what was seen, on one line without control characters."""

    status: Status
    seen: str

    def __post_init__(self) -> None:
        line = single_line(self.seen)
        cut = line if len(line) <= _SEEN_CHARACTERS else f"{line[: _SEEN_CHARACTERS - 1]}…"
        object.__setattr__(self, "seen", cut)


class CheckEndedError(Exception):
    """A check has its verdict before its end."""

    status: Status

    @property
    def verdict(self) -> Verdict:
        """The verdict of the check."""
        return Verdict(self.status, str(self))


class CheckFailedError(CheckEndedError):
    """The server does what clients do not expect."""

    status = "failed"


class NoAnswerError(CheckFailedError):
    """A request had no complete answer: the connection failed, or the time was over."""


class NoAnswerInTimeError(NoAnswerError):
    """A request had no complete answer within the time limit."""


class CheckSkippedError(CheckEndedError):
    """The check cannot judge this server."""

    status = "skipped"


def passed(seen: str) -> Verdict:
    """Return the verdict of a good server."""
    return Verdict("passed", seen)


def warned(seen: str) -> Verdict:
    """Return the verdict of a server that works, with a disadvantage."""
    return Verdict("warned", seen)
