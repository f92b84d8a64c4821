"""Checks of the vectors of an answer: their shape and numbers, and whether different texts have different vectors."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.errors import BadVectorsError
from embedway.quality.memory import AnswerMemory
from embedway.quality.sameness import Sameness, SamenessCheck
from embedway.telemetry.operations import VectorCheckDetails
from embedway.text import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from embedway.quality.reading import Difference, TextComparison
    from embedway.telemetry.hooks import Hooks
    from embedway.types import Vectors

_log = logging.getLogger("embedway.quality")


@dataclass(frozen=True, slots=True)
class AnswerHistory:
    """Checks of the answers of one route, with the vectors of its recent answers."""

    memory: AnswerMemory = field(default_factory=AnswerMemory)
    #: Kinds of warnings that were logged.
    logged: set[str] = field(default_factory=set)

    def warn(self, kind: str, message: str, *arguments: object) -> None:
        """Log a warning once for each kind."""
        if kind not in self.logged:
            self.logged.add(kind)
            _log.warning(f"{message}. This is logged once", *arguments)


@dataclass(frozen=True, slots=True)
class DiversityCheck:
    """Check of the rows of one answer for equal vectors of different texts.

    `kind` is what the vectors depend on besides the text, such as their size and the input type.
    """

    reads: TextComparison[Any]
    checks: AnswerHistory
    route: str
    model: str
    hooks: Hooks
    kind: tuple[Hashable, ...] = ()

    def find_fault(
        self,
        vectors: Vectors,
        reading: Callable[[int], Any],
        invalid: BadVectorsError | None = None,
        *,
        ordered: bool = True,
    ) -> BadVectorsError | None:
        """Return the error of all rows at fault, with those of `invalid`, which are not checked; None for no fault.

        Vectors are float32 (n, d), and `reading` returns what the model read of the text of a row. `ordered` says
        whether it is known that row i is the vector of text i.
        """
        recent = self.checks.memory.of(vectors.shape[1], *self.kind)
        check = SamenessCheck(self.reads, recent)
        if invalid is None:
            found = check.find(vectors, reading, ordered=ordered)
        else:
            good = np.delete(np.arange(len(vectors)), list(invalid.rows)).tolist()
            found = check.find(vectors[good], lambda row: reading(good[row]), ordered=ordered)
            found.rows, found.unsure = [good[row] for row in found.rows], [good[row] for row in found.unsure]
        if found.unsure:
            self._warn_unsure(len(found.unsure))
        if not found.rows:
            return invalid
        rows = sorted({*found.rows, *(() if invalid is None else invalid.rows)})
        part = f" in {len(found.rows)} of {len(vectors)} rows" if len(vectors) > 1 else ""
        if found.is_earlier:
            self.checks.warn(
                "earlier",
                "%s: a vector that was returned for one text came again for another text; vectors of earlier answers "
                "may be wrong, also in the cache and in collections",
                redact(self.route),
            )
        return BadVectorsError(self._message(found, part), route=self.route, rows=rows, check=found.check)

    def _message(self, found: Sameness, part: str) -> str:
        if found.check == "near_constant":
            return (
                f"answered with nearly equal vectors for clearly different texts{part}, so that search is meaningless: "
                "the service or model may return one result for all texts, or run with too low a precision; check "
                "them, or set quality.check_diversity = false if this is intended"
            )
        earlier = ", which an earlier answer had for another text and which is already returned," * found.is_earlier
        difference: Difference | None = found.difference
        reason = "" if difference is None else f": {self.reads.explain(difference)}"
        return f"answered with one vector{earlier} for different texts{part}{reason}"

    def _warn_unsure(self, texts: int) -> None:
        self.hooks.event(VectorCheckDetails, self.model, self.route, "same_vector", "warned", texts)
        self.checks.warn(
            "unsure",
            "%s: different texts have one vector; the model may not know their script, so that search does not "
            "distinguish them",
            redact(self.route),
        )


def report_refusal(hooks: Hooks, model: str, error: BadVectorsError, texts: int) -> None:
    """Report the failed check of an error to hooks; `texts` is the number of rows if the whole answer is refused."""
    if error.check:
        hooks.event(VectorCheckDetails, model, error.route, error.check, "refused", len(error.rows) or texts)
