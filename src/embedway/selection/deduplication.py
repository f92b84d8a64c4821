"""Texts that come some at a time, and are looked at once each."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Of the hash by which a text is known again; two of a billion texts share one with a chance of 1 in 10**20.
_DIGEST_BYTES = 16


class TextDeduplicator:
    """Knows texts again without keeping them."""

    def __init__(self) -> None:
        self._digests: set[bytes] = set()

    def filter(self, texts: Sequence[str]) -> list[str]:
        """Those of the texts that never came before, each once."""
        new = []
        for text in texts:
            # Half of a surrogate pair is refused later, and by its row.
            digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()
            if digest not in self._digests:
                self._digests.add(digest)
                new.append(text)
        return new
