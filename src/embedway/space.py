"""Vector spaces: the facts that make vectors comparable, and the comparison of two spaces.

Two vectors may be compared only if all deciding facts are equal. `comparable` is the only function that decides this;
ids are for people. docs/spaces.md lists every fact, and where it is stored.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, get_args

from embedway._public import public
from embedway.errors import newer_version

if TYPE_CHECKING:
    from collections.abc import Mapping

InputType: TypeAlias = Literal["query", "document"]
INPUT_TYPES: tuple[InputType, ...] = get_args(InputType)
#: `service`: a service pools behind its API.
Pooling: TypeAlias = Literal["mean", "cls", "last", "service"]

#: Version of a space's JSON form. Version 1 has no `tokenizer`, `config` and `version`.
VERSION = 2
_TEXTS = ("model", "weights", "query_prompt", "document_prompt", "head", "digest")


class SpaceVersionError(ValueError):
    """The record of a space has a newer version than this package reads."""


@public
@dataclass(frozen=True, slots=True)
class Space:
    """The facts that make vectors comparable.

    `weights` is the sha256 (64 hex digits) of the weights, or the provider's name for a revision if the weights cannot
    be hashed here. `digest` is part of `id`: the first 8 digits of `weights` if all other facts are the catalog's for
    these weights, else the first 8 digits of `facts_digest`.
    """

    model: str
    weights: str
    dimensions: int
    pooling: Pooling
    normalized: bool
    query_prompt: str = ""
    document_prompt: str = ""
    #: Dense layers after pooling, by activation and hash; empty for none.
    head: str = ""
    digest: str = ""
    #: sha256 of the parsed tokenizer.json without truncation and padding, with `;lowercase` if texts are lowercased
    #: first. Empty if a service tokenizes; None if the record is from an older version without this fact.
    tokenizer: str | None = None
    #: sha256 of the configuration that the graph reads, with defaults filled in. Empty and None as above.
    config: str | None = None

    def __post_init__(self) -> None:
        """Fill in the digest if it is empty."""
        if not self.digest:
            object.__setattr__(self, "digest", self.facts_digest()[:8])

    def facts_digest(self) -> str:
        """Return the sha256 of all facts except the model's name and the dimensions, as 64 hex digits."""
        facts = [self.weights, self.pooling, self.normalized, self.query_prompt, self.document_prompt, self.head]
        if self.tokenizer or self.config:
            # Backward compatible: spaces of services keep the digests from before these facts existed.
            facts += [self.tokenizer or "", self.config or ""]
        return hashlib.sha256(json.dumps(facts, ensure_ascii=True).encode()).hexdigest()

    @property
    def unknown(self) -> tuple[str, ...]:
        """Facts missing because an older version wrote the record; always empty for a service."""
        return () if self.pooling == "service" else tuple(name for name in _ADDED if getattr(self, name) is None)

    @property
    def id(self) -> str:
        """Readable name, such as `all-MiniLM-L6-v2@53aa5117/384`."""
        return f"{self.model}@{self.digest}/{self.dimensions}"

    def prompt(self, input_type: InputType) -> str:
        """Return the prompt to put before a text of this input type."""
        return self.query_prompt if input_type == "query" else self.document_prompt

    def to_json(self) -> dict[str, str | int | bool]:
        """Return all facts and the id, as stored in collections and pins.

        Facts that a space does not have are left out, so that older versions can read the spaces of services.
        """
        found = {"id": self.id, **{field.name: getattr(self, field.name) for field in fields(self)}}
        more = {name: value for name in _ADDED if (value := found.pop(name))}
        return {**found, **more, "version": VERSION} if more else found

    @classmethod
    def from_json(cls, facts: object) -> Self:
        """Read the output of `to_json` of this version or an older one; facts missing in an older one are None.

        Raises SpaceVersionError for a newer version, ValueError for anything else.
        """
        if not isinstance(facts, dict):
            raise ValueError("is not a table of facts")  # noqa: TRY004  one error type for every invalid space
        version = facts.get("version", 1)
        if type(version) is not int or version < 1:
            raise ValueError("has no valid version")
        if version > VERSION:
            raise SpaceVersionError(newer_version(version, VERSION, of="spaces"))
        own = {name: value for name, value in facts.items() if name not in {"id", "version"}}
        if not _is_space(own):
            raise ValueError("does not contain the facts of a space")
        space = cls(**own)
        if facts.get("id") != space.id:
            raise ValueError("has an id that does not match its facts")
        return space

    def with_facts(self, known: Space) -> Space:
        """Return this space with its missing facts filled in from another space; its id does not change."""
        return replace(self, **{name: getattr(known, name) for name in _ADDED if getattr(self, name) is None})


#: Facts missing in records of version 1.
_ADDED = ("tokenizer", "config")
#: Facts that decide whether vectors can be compared. The digest is derived from them, and is for people.
_DECIDING = tuple(field.name for field in fields(Space) if field.name != "digest")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Result of comparing two spaces; true if their vectors may be compared.

    `differing` names the facts that differ. `unknown` names facts that exist but are missing in the stored record: they
    are accepted and reported to the user.
    """

    differing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not self.differing


def comparable(query_space: Space, stored_space: Space) -> Comparison:
    """Return whether vectors of one space may be compared with stored vectors of another."""
    differing, unknown = [], []
    for name in _DECIDING:
        asked, stored = getattr(query_space, name), getattr(stored_space, name)
        if name in _ADDED and (asked is None or stored is None):
            if asked or stored:
                unknown.append(name)
        elif asked != stored:
            differing.append(name)
    return Comparison(tuple(differing), tuple(unknown))


def score_space(model: str, weights: str) -> Space:
    """Return the space of a reranker's scores, with one dimension: scores of one model are comparable."""
    return Space(model.rsplit("/", 1)[-1], weights, dimensions=1, pooling="service", normalized=False)


def explained(asked: Space, comparison: Comparison, stored: Space) -> str:
    """Return the id of the requested space, with the differing facts if both models have the same name."""
    return asked.id if asked.model != stored.model else f"{asked.id} (different {', '.join(comparison.differing)})"


def _is_space(facts: Mapping[str, Any]) -> bool:
    needed = {field.name for field in fields(Space)} - set(_ADDED)
    return (
        needed <= set(facts) <= needed | set(_ADDED)
        and all(isinstance(facts[name], str) for name in (*_TEXTS, *(set(_ADDED) & set(facts))))
        and type(facts["dimensions"]) is int
        and facts["dimensions"] > 0
        and facts["pooling"] in get_args(Pooling)
        and isinstance(facts["normalized"], bool)
        and bool(facts["digest"])
    )
