"""Report of the checks of given vectors: `embedder.quality.validate`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from embedway._public import public
from embedway.errors import BadVectorsError
from embedway.quality.checks import AnswerHistory, DiversityCheck
from embedway.quality.names import REFUSING_CHECKS
from embedway.quality.similarity import SAMPLE, check_similarity, note_of
from embedway.telemetry.hooks import Hooks
from embedway.vectors import validate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.quality.baseline_reports import SemanticCheck
    from embedway.quality.names import WarningCheck
    from embedway.quality.reading import TextComparer
    from embedway.types import Space, Vectors

_SIMILAR: WarningCheck = "high_similarity"
#: All checks of the report, in the order in which they are tried.
_CHECKS: tuple[str, ...] = (*REFUSING_CHECKS, _SIMILAR)


@public
@dataclass(frozen=True, slots=True)
class VectorCheck:
    """Result of one check. `rows` are the rows at fault; empty if it passed, or if the whole array is at fault.

    `passed` is None if it was not tried, because an earlier one failed.
    """

    name: str
    passed: bool | None
    message: str = ""
    rows: tuple[int, ...] = ()


@public
@dataclass(frozen=True, slots=True)
class VectorReport:
    """Checks of given vectors: `embedder.quality.validate`.

    Norms and similarities are of the rows that can be read; None without such rows. Similarities are cosines of a
    bounded sample of `sample` rows of different texts. A failed `high_similarity` is a warning, and leaves the
    vectors valid.
    """

    model: str
    texts: int
    valid: bool
    checks: tuple[VectorCheck, ...]
    mean_norm: float | None = None
    std_norm: float | None = None
    mean_similarity: float | None = None
    greatest_similarity: float | None = None
    sample: int = 0
    #: Size of the vectors, None for another array than (n, d), and the size that they should have.
    dimensions: int | None = None
    expected_dimensions: int = 0
    #: Accuracy of the model on the pairs of its baseline, if it was asked for. The vectors are not valid without it.
    semantic: SemanticCheck | None = None

    def check(self, name: str) -> VectorCheck:
        """Return the check with a name. Raises KeyError if there is none."""
        return {one.name: one for one in self.checks}[name]


@dataclass(slots=True)
class _Results:
    """Results by name of the check."""

    failed: dict[str, VectorCheck] = field(default_factory=dict)
    untried: set[str] = field(default_factory=set)

    def add(self, error: BadVectorsError) -> None:
        name = error.check or "type"
        self.failed[name] = VectorCheck(name, passed=False, message=error.message, rows=error.rows)

    def all(self) -> tuple[VectorCheck, ...]:
        return tuple(
            self.failed.get(name) or VectorCheck(name, passed=None if name in self.untried else True)
            for name in _CHECKS
        )


def report_on(vectors: Vectors, texts: Sequence[str], space: Space, reads: TextComparer) -> VectorReport:
    """Check vectors, an array of any shape and type, as an answer for unique texts in a space.

    The array is converted to float32 before, so its type is only wrong if it has no rows of numbers.
    """
    results = _Results()
    if vectors.ndim != 2:
        message = f"an array of shape {vectors.shape} is not one row of numbers per text"
        results.failed["type"] = VectorCheck("type", passed=False, message=message)
        results.untried.update(_CHECKS[1:])
        return VectorReport(
            space.model, len(texts), valid=False, checks=results.all(), expected_dimensions=space.dimensions
        )
    name = f"vectors for {space.model}"
    try:
        validate(vectors, count=len(texts), space=space, route=name, advises=False)
    except BadVectorsError as error:
        results.add(error)
        if not error.rows:
            results.untried.update(_CHECKS[_CHECKS.index(error.check or "type") + 1 :])
            sizes = {"dimensions": vectors.shape[1], "expected_dimensions": space.dimensions}
            return VectorReport(space.model, len(texts), valid=False, checks=results.all(), **sizes)
        _add_other_rows(results, vectors, space)
    bad = {row for check in results.failed.values() for row in check.rows}
    rows = [row for row in range(len(texts)) if row not in bad]
    good, read = vectors[rows], [texts[row] for row in rows]
    if rows:
        check = DiversityCheck(reads, AnswerHistory(), name, space.model, Hooks())
        fault = check.find_fault(good, lambda row: read[row])
        if fault is not None:
            fault.rows = tuple(rows[row] for row in fault.rows)
            results.add(fault)
    unique = list({text: row for row, text in reversed(list(enumerate(read)))}.values())[::-1]
    similar = check_similarity([read[row] for row in unique], good[unique])
    note = note_of(similar, space.model)
    if note is not None:
        results.failed[_SIMILAR] = VectorCheck(_SIMILAR, passed=False, message=note)
    lengths = np.linalg.norm(good.astype(np.float64), axis=1) if rows else np.zeros(0)
    return VectorReport(
        space.model,
        len(texts),
        valid=not results.failed.keys() - {_SIMILAR},
        checks=results.all(),
        mean_norm=float(lengths.mean()) if rows else None,
        std_norm=float(lengths.std()) if rows else None,
        mean_similarity=similar.mean_similarity,
        greatest_similarity=similar.greatest_similarity,
        sample=min(len(unique), SAMPLE) if len(unique) > 1 else 0,
        dimensions=vectors.shape[1],
        expected_dimensions=space.dimensions,
    )


def _add_other_rows(results: _Results, vectors: Vectors, space: Space) -> None:
    """Add a check for each kind of fault of rows: `validate` names only the first kind, with the rows of all."""
    (first,) = results.failed.values()
    by_check: dict[str, list[BadVectorsError]] = {}
    kinds: dict[str, list[int]] = {}
    for row in first.rows:
        try:
            name = f"vectors for {space.model}"
            validate(vectors[row : row + 1], count=1, space=space, route=name, advises=False)
        except BadVectorsError as error:
            by_check.setdefault(error.check, []).append(error)
            kinds.setdefault(error.check, []).append(row)
    results.failed.clear()
    for check, errors in by_check.items():
        results.failed[check] = VectorCheck(check, passed=False, message=errors[0].message, rows=tuple(kinds[check]))
