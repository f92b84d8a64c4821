"""A model that can be selected: its benchmark, with what the catalog and this machine add to it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedway.config import ModelBenchmark


@dataclass(frozen=True, slots=True)
class TokenEstimate:
    """Tokens of the texts for one model: of the longest text, and of all of them together.

    `own` says whether the model's own tokenizer counted, `sampled` whether `total` is reckoned from a sample.
    """

    longest: int
    total: int
    own: bool
    sampled: bool = True


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may be selected, with what the catalog and this machine add to its benchmark."""

    benchmark: ModelBenchmark
    #: Every size that it gives; empty for its benchmark's alone.
    sizes: tuple[int, ...] = ()
    max_tokens: int | None = None
    #: What it lacks to run here and now; empty for nothing.
    lacks: str = ""
    tokens: TokenEstimate | None = None
    #: A route of its that leads to a server; empty for none, None where its benchmark's provider is all that is known.
    away: str | None = None

    @property
    def gets_texts(self) -> str:
        """Why texts leave this machine with it; empty where they stay."""
        if self.away is not None:
            return f"{self.away} leads to a server" if self.away else ""
        return "" if self.benchmark.runs_here else f"{self.benchmark.provider} gets the texts"

    @property
    def context(self) -> int:
        """Tokens of a text that it reads."""
        own = self.benchmark.max_context_length
        return own if self.max_tokens is None else min(own, self.max_tokens)

    @property
    def nanousd(self) -> int | None:
        """What embedding the texts costs; None where tokens or price are unknown."""
        price = self.benchmark.cost_per_million_tokens
        if price == 0:
            return 0
        if price is None or self.tokens is None:
            return None
        return math.ceil(Fraction(price) * 1000 * self.tokens.total)


def exact(number: float) -> Fraction:
    """The decimal number that a float is written as, exactly."""
    return Fraction(str(number))
