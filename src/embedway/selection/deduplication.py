"""Deduplication of texts that come some at a time."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Bytes of a text's hash; two of a billion texts have the same hash with a chance of 1 in 10**20.
_DIGEST_BYTES = 16


class TextDeduplicator:
    """Finds texts that came before. Keeps a hash of each text, and not the text."""

    def __init__(self) -> None:
        self._digests: set[bytes] = set()

    def filter(self, texts: Sequence[str]) -> list[str]:
        """Return the texts that did not come before, each once."""
        new = []
        for text in texts:
            # Half of a surrogate pair is refused later, and by its row.
            digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()
            if digest not in self._digests:
                self._digests.add(digest)
                new.append(text)
        return new
