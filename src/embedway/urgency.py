"""How soon work is wanted: queries first, then higher priorities."""

from __future__ import annotations

from dataclasses import dataclass

#: Work of a priority above this never waits for other callers' work.
_MAY_WAIT = 5
#: How long after it came work is due: documents this long after queries, and each step of priority so much sooner.
_DOCUMENT_SLACK_S, _STEP_S = 0.5, 0.1


@dataclass(frozen=True, slots=True)
class Urgency:
    """How soon work is wanted: its priority, 0 to 9, and whether somebody waits for the answer to a query."""

    priority: int = 0
    query: bool = False

    @property
    def never_waits(self) -> bool:
        """Whether it is not to wait for other callers' work."""
        return self.priority > _MAY_WAIT

    def due(self, now: float) -> float:
        """When it is to have begun, if it comes now."""
        return now + (0.0 if self.query else _DOCUMENT_SLACK_S) + (_MAY_WAIT - self.priority) * _STEP_S
