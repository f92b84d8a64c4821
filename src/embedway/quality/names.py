"""Names of the checks of vectors, in errors, receipts, hooks and metrics."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

#: Checks whose failure refuses vectors.
RefusingCheck: TypeAlias = Literal[
    "count", "dimension", "type", "unreadable", "not_finite", "zero", "norm", "same_vector", "near_constant"
]
#: Checks that only warn.
WarningCheck: TypeAlias = Literal["script", "high_similarity"]
REFUSING_CHECKS: tuple[RefusingCheck, ...] = get_args(RefusingCheck)
WARNING_CHECKS: tuple[WarningCheck, ...] = get_args(WarningCheck)

#: Minimum period of scheduled checks that cost money, in seconds.
PAID_PERIOD_S = 60.0
