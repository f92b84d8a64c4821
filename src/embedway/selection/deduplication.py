"""Deduplication of a stream of texts."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Bytes of a text's hash; the probability of a collision among a billion texts is 1 in 10**20.
_DIGEST_BYTES = 16


class TextDeduplicator:
    """Filter for texts that were seen before. It stores a hash of each text, not the text."""

    def __init__(self) -> None:
        self._digests: set[bytes] = set()

    def filter(self, texts: Sequence[str]) -> list[str]:
        """Return the texts that were not seen before, each once."""
        new = []
        for text in texts:
            # Half of a surrogate pair is rejected later, with its row.
            digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()
            if digest not in self._digests:
                self._digests.add(digest)
                new.append(text)
        return new
