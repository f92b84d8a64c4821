"""Further abilities that a provider or reranker may have, beside its contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from embedway.providers.counting import TokenCounter
    from embedway.providers.library import LibraryFacts


@runtime_checkable
class CountsTokens(Protocol):
    """A provider, or reranker, that holds its model's tokenizer."""

    def counter(self, max_tokens: int) -> TokenCounter:
        """What counts the model's tokens as the library that runs it does. Blocking; may load the model."""


@runtime_checkable
class KnowsWeights(Protocol):
    """A provider that has a model's weights itself. `variant` is how it computes, as far as numbers depend on it."""

    @property
    def variant(self) -> str:
        """Such as a precision; empty for the usual."""

    def weights(self) -> str:
        """What tells the weights, and how they are read, from others. Blocking; loads the model."""


@runtime_checkable
class KnowsTokenizer(Protocol):
    """A provider that tokenizes itself, so that its tokenizer is a fact of the vector space."""

    def tokenizer_json(self) -> str:
        """The tokenizer as a tokenizer.json writes it. Blocking; loads the model."""


@runtime_checkable
class DescribesModel(CountsTokens, Protocol):
    """A provider whose library knows its models better than any catalog."""

    def facts(self) -> LibraryFacts:
        """Load the model and tell what it is. Blocking."""
