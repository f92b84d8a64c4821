"""Split documents into chunks of limited tokens; see `chunker`.

- A block is a part of a document's structure, such as a paragraph, a list or a table.
- A group has consecutive blocks that are tokenized at once; a window is a part of a text for the same purpose.
- An atom is a block, or a part of a large one, that is never cut. It has the headings that begin its section.
- A piece is the span of one chunk: consecutive atoms, or a span between natural borders.
- A chunk is a piece with its text, its context and the columns of its row.
"""

from embedway.collections.chunking.chunker import Chunker, whole_document
from embedway.collections.chunking.limits import (
    DEFAULT_CHUNK_TOKENS,
    DEFAULT_OVERLAP_TOKENS,
    MIN_ROOM_TOKENS,
    ChunkLimits,
    chunk_limits,
    count_prompt_tokens,
)

__all__ = [
    "DEFAULT_CHUNK_TOKENS",
    "DEFAULT_OVERLAP_TOKENS",
    "MIN_ROOM_TOKENS",
    "ChunkLimits",
    "Chunker",
    "chunk_limits",
    "count_prompt_tokens",
    "whole_document",
]
