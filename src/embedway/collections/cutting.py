"""Chunks of documents, with the settings that a collection records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.collections.chunking import Chunker, chunk_limits, count_prompt_tokens, whole_document
from embedway.collections.record import ChunkSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.collections.chunks import Chunk
    from embedway.collections.documents import Document
    from embedway.collections.options import RunOptions
    from embedway.types import ModelDescription


def open_chunker(described: ModelDescription, options: RunOptions) -> tuple[Chunker | None, ChunkSettings]:
    """Return the chunker, None if documents are not split, and the settings that the collection records.

    Raises `UsageError` for sizes or a context that are not possible.
    """
    if not options.chunk:
        settings = ChunkSettings(
            chunk=False, context=options.context, max_tokens=described.max_tokens, on_overflow=options.on_overflow
        )
        return None, settings
    prompt = described.space.document_prompt
    limits = chunk_limits(
        max_tokens=described.max_tokens,
        special_tokens=described.special_tokens,
        prompt_tokens=count_prompt_tokens(described.tokenizer, prompt),
        prompt=prompt,
        chunk_tokens=options.chunk_tokens,
        overlap_tokens=options.overlap_tokens,
    )
    settings = ChunkSettings(
        chunk_tokens=limits.chunk_tokens,
        overlap_tokens=limits.overlap_tokens,
        context=options.context,
        max_tokens=described.max_tokens,
        on_overflow=options.on_overflow,
    )
    return Chunker(described.tokenizer, limits, settings), settings


def cut_document(document: Document, chunker: Chunker | None, fingerprint: str = "") -> Sequence[Chunk]:
    """Return the chunks of a document, in order, with the fingerprint of the document."""
    return [whole_document(document, fingerprint)] if chunker is None else list(chunker.chunks(document, fingerprint))
