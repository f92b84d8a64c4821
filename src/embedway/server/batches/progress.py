"""Progress of a batch: each function returns the next state of a batch, or None if nothing changes.

The functions are pure, because a store may call them several times for one change. A worker holds a lease of a part
under a token, so that its late result is refused after another worker has taken the part over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from embedway.server.batches.base import Change, Segment
from embedway.server.batches.values import LineError, Part, StoredFile, new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from embedway.server.batches.values import Batch, Status, Stop

#: Maximum pause after a temporary failure, in seconds. A longer one was written while the clock was ahead.
_LONGEST_PAUSE_S = 3600.0
#: Pause after a temporary failure, unless the answer names a longer one. It doubles up to the maximum.
_PAUSE_S, _MOST_PAUSE_S = 1.0, 60.0
#: Maximum parts that are computed, or wait to be computed again.
_MOST_PARTS = 1_000


@dataclass(frozen=True, slots=True)
class PartResult:
    """Result of the computation of a part, without the lines themselves."""

    #: Lines that are finished, by their number in the part.
    done: frozenset[int] = frozenset()
    completed: int = 0
    failed: int = 0
    tokens: int = 0
    #: Whether a line failed temporarily, and the wait that the answers name, in seconds; 0 if they name none.
    is_paused: bool = False
    wait_s: float = 0.0


def _is_held(until: float, now: float) -> bool:
    return now < until <= now + _LONGEST_PAUSE_S


def _at(batch: Batch, status: Status, now: float) -> Batch:
    return replace(batch, status=status, times={**batch.times, status: int(now)})


def begin_check(batch: Batch, now: float, token: str, lease_s: float) -> Batch | None:
    """Take the lease of the check of the input file."""
    if batch.status != "validating" or _is_held(batch.validator_until, now):
        return None
    return replace(batch, validator=token, validator_until=now + lease_s)


def end_check(
    batch: Batch, now: float, token: str, *, total: int, model: str, errors: Sequence[LineError]
) -> Batch | None:
    """End the check of the input file: the batch is in progress, or has failed."""
    if batch.status != "validating" or batch.validator != token:
        return None
    batch = replace(batch, validator="", validator_until=0.0)
    if errors:
        return _at(replace(batch, errors=tuple(errors)), "failed", now)
    return _at(replace(batch, total=total, model=model), "in_progress", now)


def waiting_part(batch: Batch, now: float) -> Part | None:
    """Return a part that no worker computes, and that may be computed now."""
    if _is_paused(batch, now):
        return None
    return next((part for part in batch.parts if not _is_held(part.until, now)), None)


def may_cut(batch: Batch, now: float) -> bool:
    """Return whether the next part may be cut from the input file."""
    has_rest = bool(batch.total) and batch.cursor < batch.input_size
    return has_rest and not _is_paused(batch, now) and len(batch.parts) < _MOST_PARTS


def _is_paused(batch: Batch, now: float) -> bool:
    return not batch.stop and _is_held(batch.paused_until, now)


def resume(batch: Batch, now: float, token: str, lease_s: float) -> Batch | None:
    """Take the lease of a part that waits, or whose worker has not renewed its lease."""
    part = waiting_part(batch, now)
    if part is None or batch.has_ended:
        return None
    return _with_part(batch, part, replace(part, worker=token, until=now + lease_s))


def extend(batch: Batch, now: float, token: str, lease_s: float, *, offset: int, size: int, lines: int) -> Batch | None:
    """Cut a part from the rest of the input file, and take its lease; None if the rest begins elsewhere by now."""
    if batch.cursor != offset or batch.has_ended or not may_cut(batch, now):
        return None
    part = Part(new_id("part_"), offset, size, lines, tuple(range(lines)), token, now + lease_s)
    return replace(batch, cursor=offset + size, parts=(*batch.parts, part))


def part_of(batch: Batch, token: str) -> Part | None:
    """Return the part whose lease has a token."""
    return next((part for part in batch.parts if part.worker == token), None)


def holds(batch: Batch, token: str) -> bool:
    """Return whether a worker still holds its lease of a part, or of the check of the input file."""
    return batch.validator == token or part_of(batch, token) is not None


def watch(batch: Batch, now: float, tokens: Collection[str], lease_s: float) -> Batch | None:
    """Renew leases whose half has passed, and stop a batch whose window has passed."""
    stopped = expire(batch, now)
    renewed = stopped or batch
    soon, until = now + lease_s / 2, now + lease_s
    parts = tuple(
        replace(part, until=until) if part.worker in tokens and part.until < soon else part for part in renewed.parts
    )
    if parts != renewed.parts:
        renewed = replace(renewed, parts=parts)
    if renewed.validator in tokens and renewed.validator_until < soon:
        renewed = replace(renewed, validator_until=until)
    return None if renewed is batch else renewed


def expire(batch: Batch, now: float) -> Batch | None:
    """Stop a batch whose window has passed."""
    return stop(batch, now, "expired") if now >= batch.expires_at else None


def stop(batch: Batch, now: float, why: Stop) -> Batch | None:
    """Stop a batch: its finished lines stay, and the others fail."""
    if batch.has_ended or batch.stop:
        return None
    batch = replace(batch, stop=why, validator="", validator_until=0.0)
    return _at(batch, "cancelling" if why == "cancelled" else "finalizing", now)


def commit(
    batch: Batch, now: float, token: str, result: PartResult, segments: Sequence[Segment | None]
) -> Change | None:
    """Record the finished lines of a part with their results; None if another worker has taken it over.

    `segments` are those of the output and of the errors, in any position; None for those without lines.
    """
    part = part_of(batch, token)
    if part is None:
        return None
    todo = tuple(number for number in part.todo if number not in result.done)
    # The pause grows only while no line is finished: under a rate limit, most parts have some that are.
    failures = 0 if result.done else batch.failures + result.is_paused
    backoff_s = min(_PAUSE_S * math.ldexp(1, min(max(failures, 1), 10) - 1), _MOST_PAUSE_S)
    pause_s = min(max(result.wait_s, backoff_s), _LONGEST_PAUSE_S)
    paused_until = now + pause_s if result.is_paused else batch.paused_until
    rest = replace(part, todo=todo, worker="", until=0.0, tries=part.tries + result.is_paused) if todo else None
    sizes = [0 if segment is None else segment.size for segment in segments]
    changed = replace(
        _with_part(batch, part, rest),
        completed=batch.completed + result.completed,
        failed=batch.failed + result.failed,
        tokens=batch.tokens + result.tokens,
        failures=failures,
        paused_until=paused_until,
        segments=batch.segments + 1,
        output_size=batch.output_size + sizes[0],
        error_size=batch.error_size + sizes[1],
    )
    return Change(changed, tuple(one._replace(position=batch.segments) for one in segments if one is not None))


def _with_part(batch: Batch, part: Part, changed: Part | None) -> Batch:
    parts = (changed if one is part else one for one in batch.parts)
    return replace(batch, parts=tuple(one for one in parts if one is not None))


_END: dict[Stop, Status] = {"": "completed", "cancelled": "cancelled", "expired": "expired", "storage": "completed"}


def finish(batch: Batch, now: float) -> Change | None:
    """End a batch whose lines have ended, and show the files of its results."""
    # A batch that was stopped before its lines were counted has none.
    has_rest = batch.cursor < batch.input_size if batch.total else not batch.stop
    if batch.has_ended or batch.parts or has_rest:
        return None
    if not batch.stop:
        batch = _at(batch, "finalizing", now)
    ended = _at(batch, _END[batch.stop], now)
    results = ((ended.output_file_id, "output", ended.output_size), (ended.error_file_id, "error", ended.error_size))
    files = tuple(
        StoredFile(
            id=file_id,
            tenant=ended.tenant,
            created_at=now,
            name=f"{ended.id}_{kind}.jsonl",
            purpose="batch_output",
            size=size,
            expires_at=now + ended.keep_s,
        )
        for file_id, kind, size in results
        if size
    )
    return Change(ended, (), files)


def changing(function: Callable[[Batch, float], Batch | None]) -> Callable[[Batch, float], Change | None]:
    """Return a function for `BatchStore.change` from one that returns a batch."""

    def change(batch: Batch, now: float) -> Change | None:
        changed = function(batch, now)
        return None if changed is None else Change(changed)

    return change
