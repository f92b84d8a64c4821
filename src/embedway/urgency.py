"""Urgency of work: queries first, then higher priorities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Highest priority whose work may wait for other callers' work.
MAY_WAIT = 5
#: Seconds until work is due: added for documents, and for each step of priority below the highest that may wait.
_DOCUMENT_SLACK_S, _STEP_S = 0.5, 0.1
#: Maximum texts and characters of a call whose caller is assumed to wait.
_INTERACTIVE_TEXTS, _INTERACTIVE_CHARACTERS = 16, 4096


@dataclass(frozen=True, slots=True)
class Urgency:
    """Priority of work, 0 to 9, and whether it is a query or the like, whose caller is waiting."""

    priority: int = 0
    query: bool = False

    @property
    def never_waits(self) -> bool:
        """Whether this work never waits for other callers' work."""
        return self.priority > MAY_WAIT

    def due(self, now: float) -> float:
        """Return the time at which work that arrives now is due to start."""
        return now + (0.0 if self.query else _DOCUMENT_SLACK_S) + (MAY_WAIT - self.priority) * _STEP_S


def is_interactive(texts: Sequence[str | list[int]], input_type: str) -> bool:
    """Return whether the caller of some texts is assumed to wait: for some queries, or for one short text.

    Most clients send no input type, and then all texts are documents. Many queries are bulk work like documents.
    """
    most = _INTERACTIVE_TEXTS if input_type == "query" else 1
    return len(texts) <= most and sum(map(len, texts)) <= _INTERACTIVE_CHARACTERS


#: Urgency of documents without a priority.
DOCUMENTS = Urgency()
#: Urgency of checks in the background: below every priority of a call. It is due 5.5 s after it arrives, so later calls
#: overtake it for at most that time, and it is never starved.
BACKGROUND = Urgency(priority=-45)
