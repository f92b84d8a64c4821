"""Urgency of work: queries first, then higher priorities."""

from __future__ import annotations

from dataclasses import dataclass

#: Work of a priority above this never waits for other callers' work.
MAY_WAIT = 5
#: Work is due this long after it came: documents, and for each step of priority below the highest that may wait.
_DOCUMENT_SLACK_S, _STEP_S = 0.5, 0.1


@dataclass(frozen=True, slots=True)
class Urgency:
    """Priority of work, 0 to 9, and whether it is a query, for whose answer somebody waits."""

    priority: int = 0
    query: bool = False

    @property
    def never_waits(self) -> bool:
        """Whether it does not wait for other callers' work."""
        return self.priority > MAY_WAIT

    def due(self, now: float) -> float:
        """When work that comes now is due to begin."""
        return now + (0.0 if self.query else _DOCUMENT_SLACK_S) + (MAY_WAIT - self.priority) * _STEP_S


#: Documents without a priority.
DOCUMENTS = Urgency()
