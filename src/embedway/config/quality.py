"""Section of the settings for checks of vectors, and for baselines."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from embedway.config.types import Flag, Seconds, Section


class QualitySettings(Section):
    """`[quality]`: checks of vectors, and comparison with a baseline."""

    #: Whether an answer is refused if different texts have the same vector, or all vectors are nearly equal. Vectors
    #: that cannot be read, are zero, or have a wrong size or length are always refused.
    check_diversity: Flag = True
    #: Whether texts in a script that the model does not know are reported.
    check_scripts: Flag = True
    #: Time between two comparisons with the baselines in a long-running process, in seconds; unset for none. A
    #: model that costs money is compared at most once a minute.
    check_every_s: Annotated[Seconds, Field(ge=1)] | None = None
    #: A route that differs from its baseline: only a warning, or not used any more until it agrees again.
    on_drift: Literal["warn", "quarantine"] = "warn"
    #: Minimum accuracy, divided by the baseline's.
    min_accuracy_ratio: Annotated[float, Field(strict=True, gt=0, le=1, allow_inf_nan=False)] = 0.9
