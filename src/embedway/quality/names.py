"""Names of the checks of vectors, in errors, receipts, hooks and metrics."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

#: Checks of the whole answer, in the order in which they are tried.
ShapeCheckName: TypeAlias = Literal["type", "count", "dimension"]
#: Checks of single rows.
RowCheckName: TypeAlias = Literal["unreadable", "not_finite", "zero", "norm"]
#: Checks of several rows.
DiversityCheckName: TypeAlias = Literal["same_vector", "near_constant"]
#: Checks whose failure refuses vectors.
RefusingCheck: TypeAlias = ShapeCheckName | RowCheckName | DiversityCheckName
#: Checks that only warn.
WarningCheck: TypeAlias = Literal["script", "high_similarity"]
SHAPE_CHECKS: tuple[ShapeCheckName, ...] = get_args(ShapeCheckName)
ROW_CHECKS: tuple[RowCheckName, ...] = get_args(RowCheckName)
DIVERSITY_CHECKS: tuple[DiversityCheckName, ...] = get_args(DiversityCheckName)
REFUSING_CHECKS: tuple[RefusingCheck, ...] = (*SHAPE_CHECKS, *ROW_CHECKS, *DIVERSITY_CHECKS)
WARNING_CHECKS: tuple[WarningCheck, ...] = get_args(WarningCheck)

#: Minimum period of scheduled checks that cost money, in seconds.
PAID_PERIOD_S = 60.0
