"""Result of a verification of a collection."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from embedway.quality.equivalence import CONFIDENCE, share_at_least

#: Maximum faults of each kind that a report names.
MAX_NAMED = 1000

Fault: TypeAlias = Literal["wrong", "missing", "duplicated", "orphaned"]


@dataclass(frozen=True, slots=True)
class RowFault:
    """A fault of a row or of a document's rows; `id` is that of the row, or of the document."""

    kind: Fault
    id: str
    reason: str


@dataclass(slots=True)
class VerifyReport:  # a field for each fact of the report's JSON
    """Result of a verification.

    `wrong` counts rows whose vector is not that of their text, or that have no text, `missing` rows that documents
    should have, `duplicated` further rows with the same number, and `orphaned` rows that belong to no document of a
    source. `bound` is the largest share of wrong rows that the sample does not exclude with `confidence`; if all rows
    were recomputed, it is the share of wrong ones. All of these describe the collection before a repair, and `after`
    describes it after the repair. `tokens` and `cost_nanousd` are those of everything that was recomputed; the cost is
    None if the model has no known price.
    """

    destination: str
    space_id: str
    rows: int = 0
    documents: int = 0
    sampled: int = 0
    wrong: int = 0
    missing: int = 0
    duplicated: int = 0
    orphaned: int = 0
    bound: float = 1.0
    confidence: float = CONFIDENCE
    lowest_cosine: float | None = None
    repaired: int = 0
    removed: int = 0
    tokens: int = 0
    cost_nanousd: int | None = 0
    seconds: float = 0.0
    #: Faults by name, at most 1,000 of each kind.
    faults: list[RowFault] = field(default_factory=list)
    #: Verification after a repair; None if nothing was repaired.
    after: VerifyReport | None = None

    @property
    def faultless(self) -> bool:
        """Whether no fault is left: none was found, or none after the repair."""
        return self.after.faultless if self.after is not None else not self.faults

    def note(self, kind: Fault, name: str, reason: str) -> None:
        """Add a fault to the named ones, unless there are too many."""
        if sum(one.kind == kind for one in self.faults) < MAX_NAMED:
            self.faults.append(RowFault(kind, name, reason))

    def note_cosine(self, lowest: float) -> None:
        """Note the lowest cosine of some rows."""
        self.lowest_cosine = lowest if self.lowest_cosine is None else min(lowest, self.lowest_cosine)

    def set_bound(self) -> None:
        """Set the bound that the compared rows prove."""
        if not self.sampled:
            self.bound = 0.0 if not self.rows else 1.0
        elif self.sampled >= self.rows:
            self.bound = self.wrong / self.rows if self.rows else 0.0
        else:
            self.bound = 1.0 - share_at_least(self.sampled - self.wrong, self.sampled, self.confidence)
