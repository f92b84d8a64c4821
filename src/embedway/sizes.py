"""Vector sizes that a model supports: listed ones, or any size of a range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedway._public import public

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Smallest size that is advised for vectors that a service truncates. OpenAI published scores down to this size
#: (https://openai.com/index/new-embedding-models-and-api-updates/, read 2026-11-26).
ADVISED_MIN_DIMENSIONS = 256


@public
@dataclass(frozen=True, slots=True)
class VectorSizes:
    """Sizes of a model: those that its maker trained or evaluated, full size first, and a range if it has one."""

    listed: tuple[int, ...]
    #: Smallest size if every size up to the full one is supported; None for the listed sizes only.
    least: int | None = None

    def __contains__(self, size: int) -> bool:
        return size in self.listed or (self.least is not None and self.least <= size <= self.listed[0])

    def __str__(self) -> str:
        """Return the sizes in words, such as `1 to 1536`, or `1024, 512` without a range."""
        if self.least is None:
            return ", ".join(map(str, self.listed))
        return f"{self.least} to {self.listed[0]}"

    def notes(self, model: str, size: int) -> Iterator[str]:
        """Yield a sentence for each reason why vectors of a supported size may be worse than expected."""
        if self.least is None:
            return
        if size not in self.listed:
            known = ", ".join(map(str, self.listed))
            yield f"{model}: the vector size {size} is not one that its maker trained or evaluated ({known})"
        if size < ADVISED_MIN_DIMENSIONS:
            yield f"{model}: the vector size {size} is below the advised minimum of {ADVISED_MIN_DIMENSIONS}"


def min_dimensions_fault(least: int, full: int, listed: tuple[int, ...]) -> str:
    """Return why a smallest size is invalid; empty if it is valid."""
    if least >= full:
        return f"must be below dimensions, which is {full}"
    if listed and least > min(listed):
        return f"must not be above the smallest size of matryoshka, which is {min(listed)}"
    return ""
