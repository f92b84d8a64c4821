"""Report of a judged server: its verdicts, as values and as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedway._version import __version__

if TYPE_CHECKING:
    from embedway.conformance.target import Target
    from embedway.conformance.verdicts import Status, Verdict

#: All verdicts, in the order of a summary.
STATUSES: tuple[Status, ...] = ("passed", "failed", "warned", "skipped")


@dataclass(frozen=True, slots=True)
class Result:
    """One check with its verdict, the reason why it matters, and its duration."""

    name: str
    why: str
    verdict: Verdict
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """All results for a server."""

    target: Target
    results: tuple[Result, ...]

    @property
    def has_failures(self) -> bool:
        """Whether a check failed."""
        return any(result.verdict.status == "failed" for result in self.results)

    def counts(self) -> dict[Status, int]:
        """Return the number of checks by verdict."""
        found = Counter(result.verdict.status for result in self.results)
        return {status: found[status] for status in STATUSES}

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        target = self.target
        return {
            "url": target.base_url,
            "model": target.model,
            "tokenizer": target.reference.name if target.reference is not None else None,
            "max_tokens": target.max_tokens,
            "version": __version__,
            "counts": self.counts(),
            "checks": [
                {
                    "name": result.name,
                    "verdict": result.verdict.status,
                    "seen": result.verdict.seen,
                    "why": result.why,
                    "seconds": round(result.seconds, 3),
                }
                for result in self.results
            ],
        }
