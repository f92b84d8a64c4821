"""Split documents into chunks of limited tokens; see `chunker`."""

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
