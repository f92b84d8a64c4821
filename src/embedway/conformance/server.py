"""The server that checks send requests to, with the vectors that several checks compare with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.conformance.rows import EQUAL, cosines, read_vectors
from embedway.conformance.texts import Texts
from embedway.conformance.verdicts import CheckFailedError, CheckSkippedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.conformance.client import Answer, Client
    from embedway.conformance.reference import Reference
    from embedway.conformance.target import Target
    from embedway.types import Vectors

#: Words of a text that is within the limit of almost every model.
_SAFE_WORDS = 80


@dataclass(slots=True)
class Server:
    """A server with its facts. Vectors that several checks need are requested once."""

    target: Target
    client: Client
    texts: Texts = field(default_factory=Texts)
    _known: Vectors | None = None

    @property
    def url(self) -> str:
        """URL of embeddings."""
        return f"{self.target.base_url}/embeddings"

    def body(self, texts: Any, **fields: Any) -> dict[str, Any]:
        """Return the body of a request."""
        return {"model": self.target.model, "input": texts, **fields}

    async def post(self, texts: Any, *, rows: int = 1, timeout_s: float | None = None, **fields: Any) -> Answer:
        """Request vectors, and return the answer as it is. Raises NoAnswerError."""
        return await self.client.post(self.url, self.body(texts, **fields), rows=rows, timeout_s=timeout_s)

    async def embed(self, texts: Sequence[str], **fields: Any) -> Vectors:
        """Return the vectors of texts, float32 (n, d), by their index. Raises CheckFailedError."""
        return read_vectors(await self.post(list(texts), rows=len(texts), **fields), len(texts))

    async def embed_one(self, text: str, **fields: Any) -> Vectors:
        """Return the vector of a text that is sent alone, as a string. Raises CheckFailedError."""
        return np.asarray(read_vectors(await self.post(text, **fields), 1)[0], np.float32)

    async def known_vectors(self) -> Vectors:
        """Return the vectors of `texts.known`, each from a request of its own. Raises CheckEndedErrors."""
        if self._known is None:
            rows = [await self.embed_one(text) for text in self.texts.known]
            if len({len(row) for row in rows}) > 1:
                raise CheckFailedError("vectors of different requests have different lengths")
            self._known = np.stack(rows)
        return self._known

    async def distinct_vectors(self) -> Vectors:
        """Return `known_vectors`. Raises CheckSkippedError if two are equal, so that they identify no text."""
        known = await self.known_vectors()
        if largest_similarity(known) >= EQUAL:
            raise CheckSkippedError("different texts have equal vectors, so rows cannot be told apart; see distinct")
        return known

    def long_text(self, words: int, number: int) -> str:
        """Return a text of about `words` words that is within the model's limit."""
        most = _SAFE_WORDS if self.target.max_tokens is None else self.target.max_tokens * 2 // 3
        return self.texts.long(min(words, most), number)

    def reference(self) -> Reference:
        """Return the tokenizer of the model. Raises CheckSkippedError."""
        if self.target.reference is None:
            raise CheckSkippedError("the tokenizer of the model is not known; name it with --tokenizer")
        return self.target.reference

    def max_tokens(self) -> int:
        """Return the most tokens of a text. Raises CheckSkippedError."""
        if self.target.max_tokens is None:
            raise CheckSkippedError("the limit of the model is not known; set it with --max-tokens")
        return self.target.max_tokens


def largest_similarity(vectors: Vectors) -> float:
    """Return the largest cosine of two different rows."""
    table = cosines(vectors, vectors)
    np.fill_diagonal(table, -1.0)
    return float(table.max())
