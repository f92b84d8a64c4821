"""Deadline of a call."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

from embedway.dispatch.request import CallDeadline, current_deadline
from embedway.errors import DeadlineError

if TYPE_CHECKING:
    from collections.abc import Awaitable

R = TypeVar("R")


async def run_in_time(work: Awaitable[R], deadline_s: float) -> R:
    """Await the work of a call. Raises DeadlineError after `deadline_s` seconds."""
    limit = asyncio.timeout(deadline_s)
    # A service is not waited for if it cannot answer before this deadline.
    token = current_deadline.set(CallDeadline(deadline_s, time.monotonic() + deadline_s))
    try:
        async with limit:
            return await work
    except DeadlineError:
        raise  # it counts its attempts
    except TimeoutError:
        if not limit.expired():
            raise
        raise DeadlineError(f"the vectors were not ready after {deadline_s:g} s", attempts=0) from None
    finally:
        current_deadline.reset(token)
