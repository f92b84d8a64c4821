"""Runner of batches: background tasks of a process, which compute parts of batches under leases."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

from embedway.errors import EmbedwayError, StateError
from embedway.server.batches import progress
from embedway.server.batches.base import CHUNK_BYTES, Content
from embedway.server.batches.computing import add_answers, compute_lines, fail_revoked, fail_stopped, joined, read_part
from embedway.server.batches.contents import ContentWriter, InputReader, read_content
from embedway.server.batches.lines import InputCheck, cut
from embedway.server.batches.values import WINDOW_S, BatchLimits, new_id
from embedway.third_party import place_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from embedway.server.batches.base import BatchStore, OpenBatch, Segment
    from embedway.server.batches.computing import Compute, PartLines
    from embedway.server.batches.lines import Line
    from embedway.server.batches.values import Batch, Part
    from embedway.server.caller import Caller

#: Results of a batch that has not ended are kept for a year after its window.
_KEEP_S = 365 * WINDOW_S
#: Lines of a part that are not computed any more.
_STOPPED_LINES = 2_000
#: Time between two deletions of what has expired, and the most items at once.
_SWEEP_S, _SWEEP_ITEMS = 60.0, 100
#: Time for which a batch is left alone after an error of its store, in seconds.
_BROKEN_S = 10.0
#: Pauses between tries to store results, in seconds: the first, and the longest; and the time for all of them.
_STORE_AGAIN_S, _STORE_AGAIN_MOST_S, _STORE_UNTIL_S = 0.25, 5.0, 600.0

_log = logging.getLogger("embedway.batches")


class FindCaller(Protocol):
    """Looks a key up."""

    async def __call__(self, key_name: str) -> Caller | None:
        """Return the caller of a key; None if the key was revoked or is unknown. May raise EmbedwayError."""


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    """Settings of a runner. Times are seconds."""

    #: Lines that are computed at once.
    lines_at_once: int = 32
    #: Lines and embedding inputs of a part; the computation of at most `lines_at_once` lines is lost by a crash.
    part_lines: int = 16
    part_inputs: int = 512
    #: Time after which others take the parts of a killed process over.
    lease_s: float = 30.0
    #: Time between two looks for work, and between two looks whether a running batch was cancelled.
    poll_s: float = 1.0
    watch_s: float = 0.5
    #: Time for running parts to be stored after `aclose`.
    close_s: float = 10.0


@dataclass(eq=False, slots=True)
class _Running:
    """A step of a batch that runs, with the token of its lease."""

    batch: OpenBatch
    token: str
    has_lease: bool = False
    #: Set if its lines must not be computed any longer.
    stopped: asyncio.Event = field(default_factory=asyncio.Event)


class BatchRunner:
    """Computes batches of a store until it is closed. Several runners share the parts of each batch."""

    def __init__(
        self,
        store: BatchStore,
        compute: Compute,
        find_caller: FindCaller,
        *,
        limits: BatchLimits | None = None,
        settings: RunnerSettings | None = None,
    ) -> None:
        self._store = store
        self._compute = compute
        self._find_caller = find_caller
        self._limits = limits or BatchLimits()
        self._settings = settings or RunnerSettings()
        self._reader = InputReader(store)
        self._awake = asyncio.Event()
        self._claiming = asyncio.Lock()
        self._is_closing = False
        self._running: dict[asyncio.Task[None], _Running] = {}
        self._loops: list[asyncio.Task[None]] = []
        #: When a batch without work, by its ID, is looked at again, and when a tenant was last served.
        self._idle_until: dict[str, float] = {}
        self._served: dict[str, float] = {}
        #: Batches whose last step failed, which was logged.
        self._broken: set[str] = set()
        self._sweep_at = 0.0

    def start(self) -> None:
        """Start the background tasks in the running event loop."""
        self._loops = [
            asyncio.ensure_future(self._repeat(self._turn, self._wait_for_work)),
            asyncio.ensure_future(self._repeat(self._watch, lambda: asyncio.sleep(self._settings.watch_s))),
        ]

    def wake(self) -> None:
        """Look for work now. Call it after a batch was created or cancelled by this process."""
        self._idle_until.clear()
        self._awake.set()

    async def aclose(self) -> None:
        """Stop computing. Finished lines are stored, and other processes take the rest over at once."""
        self._is_closing = True
        for one in self._running.values():
            one.stopped.set()
        tasks = [*self._running]
        if tasks:
            await asyncio.wait(tasks, timeout=self._settings.close_s)
        for task in (*tasks, *self._loops):
            task.cancel()
        await asyncio.gather(*tasks, *self._loops, return_exceptions=True)
        self._loops = []

    async def _repeat(self, work: Callable[[], Awaitable[None]], pause: Callable[[], Awaitable[None]]) -> None:
        """Call a method again and again. Its first error is logged, until it succeeds again."""
        is_failing = False
        while not self._is_closing:
            try:
                await work()
                is_failing = False
            except Exception as error:  # noqa: BLE001  the store may be used again later
                if not is_failing:
                    _log.warning("batches wait: %s", _shown(error))
                is_failing = True
            await pause()

    async def _wait_for_work(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._awake.wait(), self._settings.poll_s)

    # Looking for work

    async def _turn(self) -> None:
        self._awake.clear()
        await self._sweep()
        free = max(1, self._settings.lines_at_once // self._settings.part_lines) - len(self._running)
        if free <= 0:
            return
        batches = await self._store.open_batches()
        now = time.monotonic()
        known = {one.id for one in batches}
        self._idle_until = {one: until for one, until in self._idle_until.items() if one in known and until > now}
        self._broken &= known
        self._served = {one.tenant: self._served.get(one.tenant, 0.0) for one in batches}
        ready = [one for one in batches if one.id not in self._idle_until]
        for _ in range(free):
            if not ready or self._is_closing:
                return
            chosen = min(ready, key=self._load)
            self._served[chosen.tenant] = time.monotonic()
            self._begin(_Running(chosen, new_id("part_")))

    def _load(self, one: OpenBatch) -> tuple[int, float, int]:
        """Return the order of a batch: tenants with less running work first, then those that have waited longest."""
        tenants = [running.batch.tenant for running in self._running.values()]
        of_batch = sum(running.batch.id == one.id for running in self._running.values())
        return tenants.count(one.tenant), self._served.get(one.tenant, 0.0), of_batch

    def _begin(self, running: _Running) -> None:
        task = asyncio.ensure_future(self._run(running))
        self._running[task] = running
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self._awake.set()

    async def _run(self, running: _Running) -> None:
        one = running.batch.id
        try:
            idle_s = 0.0 if await self._step(running) else self._settings.poll_s
            self._broken.discard(one)
        except Exception as error:  # noqa: BLE001  other batches go on
            idle_s = _BROKEN_S
            if one not in self._broken:
                _log.warning("batch %s waits: %s", one, _shown(error))
            self._broken.add(one)
        self._idle_until[one] = time.monotonic() + idle_s

    async def _sweep(self) -> None:
        if time.monotonic() >= self._sweep_at:
            deleted = await self._store.sweep(_SWEEP_ITEMS)
            self._sweep_at = time.monotonic() + (0.0 if deleted == _SWEEP_ITEMS else _SWEEP_S)

    async def _watch(self) -> None:
        """Renew the leases of running parts, and stop those of batches that were stopped, or taken over."""
        by_batch: dict[OpenBatch, list[_Running]] = {}
        for one in self._running.values():
            by_batch.setdefault(one.batch, []).append(one)
        for opened, running in by_batch.items():
            tokens = {one.token for one in running}
            held = frozenset(one.token for one in running if one.has_lease)
            batch = await self._change(opened, partial(progress.watch, tokens=tokens, lease_s=self._settings.lease_s))
            has_stopped = batch is None or batch.stop or batch.has_ended
            for one in running:
                if has_stopped or (one.token in held and batch is not None and not progress.holds(batch, one.token)):
                    one.stopped.set()

    # One step of a batch

    async def _step(self, running: _Running) -> bool:
        """Check the input file, compute a part, or end the batch. Returns whether there was anything to do."""
        # One after another, so that steps of this process do not cut the same part.
        async with self._claiming:
            batch = await self._change(running.batch, progress.expire)
            claimed = await self._claim(running, batch)
        if batch is None or batch.has_ended:
            return False
        if batch.status == "validating":
            return await self._check(running)
        if claimed is not None:
            batch, part = claimed
            await self._compute_part(running, batch, part)
            return True
        ended = await self._store.change(batch.tenant, batch.id, progress.finish)
        if ended is None or not ended.has_ended:
            return False
        for file_id, size in ((ended.output_file_id, ended.output_size), (ended.error_file_id, ended.error_size)):
            if not size:
                await self._store.drop_content(file_id)
        return True

    async def _change(self, one: OpenBatch, function: Callable[[Batch, float], Batch | None]) -> Batch | None:
        return await self._store.change(one.tenant, one.id, progress.changing(function))

    async def _check(self, running: _Running) -> bool:
        lease_s, token = self._settings.lease_s, running.token
        batch = await self._change(running.batch, partial(progress.begin_check, token=token, lease_s=lease_s))
        if batch is None or batch.validator != token:
            return False
        running.has_lease = True
        check = InputCheck(self._limits)
        async for data in read_content(self._store, await self._store.segments(batch.input_file_id)):
            await asyncio.to_thread(check.feed, data)
            if check.is_done or running.stopped.is_set():
                break
        if running.stopped.is_set():
            return False
        await asyncio.to_thread(check.finish)
        end = partial(progress.end_check, token=token, total=check.total, model=check.model, errors=tuple(check.errors))
        await self._change(running.batch, end)
        return True

    async def _claim(self, running: _Running, batch: Batch | None) -> tuple[Batch, Part] | None:
        """Take the lease of a part; None if there is none to compute now."""
        token, lease_s = running.token, self._settings.lease_s
        while batch is not None and not batch.has_ended:
            now = await self._store.now()
            if progress.waiting_part(batch, now) is not None:
                batch = await self._change(running.batch, partial(progress.resume, token=token, lease_s=lease_s))
            elif progress.may_cut(batch, now):
                size, lines = await self._cut(batch)
                cut_part = partial(progress.extend, offset=batch.cursor, size=size, lines=lines)
                batch = await self._change(running.batch, partial(cut_part, token=token, lease_s=lease_s))
            else:
                break
            part = None if batch is None else progress.part_of(batch, token)
            if batch is not None and part is not None:
                running.has_lease = True
                return batch, part
            # Another process was first.
        return None

    async def _cut(self, batch: Batch) -> tuple[int, int]:
        """Return the size and the number of lines of the next part."""
        settings = self._settings
        most_lines = _STOPPED_LINES if batch.stop else min(settings.part_lines, settings.lines_at_once)
        most_inputs = self._limits.inputs if batch.stop else settings.part_inputs
        size, wanted = 0, CHUNK_BYTES
        while not size:
            data = await self._reader.read(batch.input_file_id, batch.input_size, batch.cursor, wanted)
            is_end = batch.cursor + len(data) >= batch.input_size
            size, lines = await asyncio.to_thread(
                cut, data, is_end=is_end, most_lines=most_lines, most_inputs=most_inputs
            )
            if not size and is_end:
                raise StateError("the input file ends before its size", file=batch.input_file_id)
            wanted *= 2
        return size, lines

    async def _compute_part(self, running: _Running, batch: Batch, part: Part) -> None:
        data = await self._reader.read(batch.input_file_id, batch.input_size, part.offset, part.size)
        lines, results = await asyncio.to_thread(read_part, data, part)
        if not batch.stop and await self._store.used_bytes(batch.tenant) > self._limits.tenant_bytes:
            batch = await self._change(running.batch, partial(progress.stop, why="storage")) or batch
        if batch.stop:
            fail_stopped(lines, results, batch.stop)
        else:
            await self._compute_lines(running, batch, part, lines, results)
        await self._store_results(running, batch, results)

    async def _compute_lines(
        self, running: _Running, batch: Batch, part: Part, lines: dict[int, Line], results: PartLines
    ) -> None:
        try:
            caller = await self._find_caller(batch.key_name)
        except EmbedwayError as error:
            _log.warning("batch %s waits for its key: %s", batch.id, error)
            results.is_paused = True
            return
        if caller is None or caller.tenant != batch.tenant:
            fail_revoked(lines, results)
            return
        answers = await compute_lines(self._compute, caller, lines, running.stopped)
        await asyncio.to_thread(add_answers, lines, answers, results, part.tries)

    async def _store_results(self, running: _Running, batch: Batch, results: PartLines) -> None:
        """Store the results of a part. They are computed, and may be paid, so a failing store is tried again."""
        result, pause_s = results.result(), _STORE_AGAIN_S
        until = time.monotonic() + _STORE_UNTIL_S
        while True:
            try:
                output = await self._write(batch, batch.output_file_id, results.output)
                errors = await self._write(batch, batch.error_file_id, results.errors)
                commit = partial(progress.commit, token=running.token, result=result, segments=(output, errors))
                await self._store.change(batch.tenant, batch.id, commit)
            except StateError as error:
                if time.monotonic() > until:
                    raise
                _log.warning("results of batch %s wait %g s: %s", batch.id, pause_s, error)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _STORE_AGAIN_MOST_S)
            else:
                return

    async def _write(self, batch: Batch, file_id: str, lines: list[bytes]) -> Segment | None:
        if not lines:
            return None
        content = Content(file_id, batch.tenant, batch.expires_at + batch.keep_s + _KEEP_S)
        writer = ContentWriter(self._store, content, new_id("part_"), None)
        await writer.write(await asyncio.to_thread(joined, lines))
        return await writer.finish(0)


def _shown(error: Exception) -> str:
    """Return an error for the log; without its message if it may repeat a text."""
    return str(error) if isinstance(error, EmbedwayError) else place_of(error)
