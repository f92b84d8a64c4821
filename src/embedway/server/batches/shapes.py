"""Files and batches as the API shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedway.server.batches.values import ENDPOINT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.server.batches.values import Batch, LineError, Status, StoredFile

#: Statuses whose times a batch shows.
_TIMED: tuple[Status, ...] = (
    "in_progress",
    "finalizing",
    "completed",
    "failed",
    "expired",
    "cancelling",
    "cancelled",
)


def file_object(file: StoredFile) -> dict[str, Any]:
    """Return a file as JSON."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size,
        "created_at": int(file.created_at),
        "expires_at": int(file.expires_at),
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def batch_object(batch: Batch) -> dict[str, Any]:
    """Return a batch as JSON."""
    has_results = batch.has_ended and batch.status != "failed"
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": ENDPOINT,
        "model": batch.model or None,
        "errors": {"object": "list", "data": [_error(one) for one in batch.errors]} if batch.errors else None,
        "input_file_id": batch.input_file_id,
        "completion_window": "24h",
        "status": batch.status,
        "output_file_id": batch.output_file_id if has_results and batch.output_size else None,
        "error_file_id": batch.error_file_id if has_results and batch.error_size else None,
        "created_at": int(batch.created_at),
        "expires_at": int(batch.expires_at),
        **{f"{status}_at": batch.times.get(status) for status in _TIMED},
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "usage": _usage(batch.tokens),
        "metadata": batch.metadata,
    }


def page_object(items: Sequence[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """Return a part of a list as JSON."""
    first, last = (items[0]["id"], items[-1]["id"]) if items else (None, None)
    return {"object": "list", "data": list(items), "first_id": first, "last_id": last, "has_more": has_more}


def _error(error: LineError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "param": error.param, "line": error.line}


def _usage(tokens: int) -> dict[str, Any]:
    return {
        "input_tokens": tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tokens,
    }
