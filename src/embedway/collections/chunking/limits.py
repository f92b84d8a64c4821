"""Limits of chunks, in the model's tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from embedway.errors import UsageError

if TYPE_CHECKING:
    from embedway.types import PlainTokenizer

DEFAULT_CHUNK_TOKENS = 256
DEFAULT_OVERLAP_TOKENS = 32
#: Minimum room for text beside prompt and special tokens; one character can need that many tokens.
MIN_ROOM_TOKENS = 16


@dataclass(frozen=True, slots=True)
class ChunkLimits:
    """Limits of chunks. All counts are in the model's tokens.

    `chunk_tokens` is the maximum for one chunk, special tokens, prompt and context included; `overlap_tokens` is the
    maximum that two neighbouring chunks share.
    """

    chunk_tokens: int
    overlap_tokens: int
    special_tokens: int
    prompt: str = field(default="", repr=False)


def chunk_limits(
    *,
    max_tokens: int,
    special_tokens: int,
    prompt_tokens: int,
    prompt: str,
    chunk_tokens: int | None = None,
    overlap_tokens: int | None = None,
) -> ChunkLimits:
    """Return the requested limits, or the defaults (256 and 32, less if the model accepts less).

    Raises `UsageError` if the model accepts less than requested, or if no room is left for text.
    """
    tokens = min(max_tokens, DEFAULT_CHUNK_TOKENS) if chunk_tokens is None else chunk_tokens
    if tokens > max_tokens:
        raise UsageError(f"chunks of {tokens} tokens are over the model's limit; use at most {max_tokens}")
    room = tokens - special_tokens - prompt_tokens
    if room < MIN_ROOM_TOKENS:
        least = special_tokens + prompt_tokens + MIN_ROOM_TOKENS
        raise UsageError(
            f"chunks of {tokens} tokens leave no room for text; "
            f"this model's special tokens and prompt need at least {least}"
        )
    overlap = min(DEFAULT_OVERLAP_TOKENS, room // 4) if overlap_tokens is None else overlap_tokens
    if not 0 <= overlap <= room // 2:
        raise UsageError(f"an overlap of {overlap} tokens is invalid for chunks of {tokens}: use 0 to {room // 2}")
    return ChunkLimits(tokens, overlap, special_tokens, prompt)


def count_prompt_tokens(tokenizer: PlainTokenizer, prompt: str) -> int:
    """Return the number of tokens of a prompt, without special tokens."""
    return len(tokenizer.encode(prompt, add_special_tokens=False).ids) if prompt else 0
