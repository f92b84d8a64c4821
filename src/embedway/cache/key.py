"""Keys of cache entries. Only this module creates them.

A key is a 256-bit BLAKE2b over the fields that determine a vector: the facts of the space, the variant of the runtime,
input type and prompt, the overflow policy and its limit, the namespace, and the bytes of the text. Each field is
preceded by its length, so that no two lists of fields have the same bytes. The encoding and the size of a response are
not part of the key: every trained size is truncated from the full width.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.types import InputType, Overflow, Space

KEY_BYTES = 32
_VERSION = b"embedway 1"


class KeyMaker:
    """Creates the keys of texts that are embedded with the same options."""

    def __init__(
        self,
        space: Space,
        *,
        variant: str,
        input_type: InputType,
        on_overflow: Overflow,
        max_tokens: int,
        namespace: str = "",
    ) -> None:
        self._start = hashlib.blake2b(digest_size=KEY_BYTES)
        fields = (
            space.model,
            space.facts_digest(),
            str(space.dimensions),
            variant,
            input_type,
            space.prompt(input_type),
            on_overflow,
            str(max_tokens),
            namespace,
        )
        for field in (_VERSION, *(field.encode() for field in fields)):
            self._start.update(len(field).to_bytes(8, "little"))
            self._start.update(field)

    def keys(self, texts: Sequence[str]) -> list[bytes]:
        """Return the key of each text, 32 bytes each."""
        made = []
        copy = self._start.copy
        for text in texts:
            hashed = copy()
            # The last field needs no length prefix: nothing follows it.
            hashed.update(text.encode())
            made.append(hashed.digest())
        return made
