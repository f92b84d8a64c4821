"""What the engine asks of a route that has been opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.types import Batch, InputType, Space, TokenizedTexts, Vectors


class OpenRoute(Protocol):
    """One provider serving one model, ready to compute."""

    @property
    def name(self) -> str:
        """Provider and model, such as `local:all-MiniLM-L6-v2`."""

    @property
    def model(self) -> str:
        """The model's full name."""

    @property
    def space(self) -> Space:
        """The space of its vectors at full width."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Widths that vectors may have, the full one first."""

    @property
    def max_tokens(self) -> int:
        """The most tokens of a text, special tokens and prompt included."""

    @property
    def token_budget(self) -> int:
        """Padded tokens of one batch at most."""

    @property
    def runtime(self) -> str:
        """How it computes, in words."""

    def cost_nanousd(self, tokens: int) -> int | None:
        """What so many tokens cost; None where no price is known."""

    def tokenize(self, texts: Sequence[str], input_type: InputType) -> TokenizedTexts:
        """Token ids with prompt and special tokens, cut at `max_tokens`. Blocking."""

    async def run(self, tokenized: TokenizedTexts, batch: Batch) -> Vectors:
        """One batch; float32 (b, full width), in the batch's order. Never computes on the event loop."""

    async def close(self) -> None:
        """Give threads and memory back."""
