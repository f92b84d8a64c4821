"""What every place that serves weights has in common."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from embedway.weights.files import Blobs
    from embedway.weights.types import ProgressSink


class PlaceError(Exception):
    """A place could not give the files; the text says why, without secrets."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to be had. `sha256` is None where no hash is known, `size` (bytes) where no size is.

    `trusted_before` is set when the hash is not the catalog's but that of the first time the file was pulled.
    """

    path: str
    sha256: str | None = None
    size: int | None = None
    trusted_before: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """What is pulled: a repository at a revision (None: whatever is current) and its files.

    With `force`, files are fetched although they are here.
    """

    repository: str
    revision: str | None
    files: tuple[Wanted, ...]
    force: bool = False


@dataclass(frozen=True, slots=True)
class Delivery:
    """What came: sha256 by path, all of them kept as blobs; `revision` is a commit, None where not known."""

    files: Mapping[str, str]
    revision: str | None
    origin: str


class Place(Protocol):
    """Something that may have a model's files."""

    @property
    def name(self) -> str:
        """How the place is called in errors."""

    def fetch(self, order: Order, blobs: Blobs, sink: ProgressSink) -> Delivery:
        """Put every file of an order among the blobs, skipping those that are there unless `force`.

        Raises PlaceError, or WrongBytesError for a file with other bytes than wanted.
        """


def missing(order: Order, blobs: Blobs) -> tuple[dict[str, str], Sequence[Wanted]]:
    """The files that are here already, by path, and those that are not."""
    here = {
        file.path: file.sha256
        for file in order.files
        if not order.force and file.sha256 is not None and blobs.good(file.sha256)
    }
    return here, [file for file in order.files if file.path not in here]


def key_of(*parts: str) -> str:
    """A name for a lock or a temporary file, different for different parts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]


def clean(text: str, *secrets: str | None) -> str:
    """A message of somebody else's on one line, without credentials in addresses and without the secrets."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    text = re.sub(r"(\w+://)[^/@\s]*@", r"\1***@", text)
    text = re.sub(r"(\w+://[^\s?]*)\?\S*", r"\1?***", text)
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:500]
