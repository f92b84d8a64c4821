"""The inference process: accepts connections on a Unix socket, and computes the jobs of all clients."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from embedway.errors import ClosedError, EmbedwayError, UsageError
from embedway.local.remote import ModelSpec
from embedway.server.inference import frames
from embedway.server.inference.failures import error_to_json, unavailable
from embedway.server.inference.frames import FrameError, FrameReader, Kind
from embedway.server.inference.loaded import load_model, return_memory
from embedway.server.inference.progress import Progress
from embedway.server.inference.residency import Residents
from embedway.text import redact

if TYPE_CHECKING:
    import socket
    from collections.abc import Coroutine

    from embedway.config import Config
    from embedway.server.inference.settings import InferenceLimits

_log = logging.getLogger("embedway.server.inference")

#: Maximum models that a connection may name.
_MOST_MODELS = 1000
#: Minimum time for running batches to end, after the drain, in seconds.
_UNLOAD_S = 2.0


class InferenceService:
    """Computes the jobs of all connections. Used from one event loop."""

    def __init__(self, config: Config, limits: InferenceLimits) -> None:
        self.limits = limits
        self.progress = Progress(limits.hang_s)
        #: Jobs that were accepted and not answered.
        self.jobs = 0
        self._config = config
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="embedway-load")
        self.residents = Residents(
            self._load,
            keep_alive_s=limits.keep_alive_s,
            models_bytes=limits.models_bytes,
            load_wait_s=limits.load_wait_s,
            free=self._free,
        )
        self._connections: set[_Connection] = set()
        self._server: asyncio.AbstractServer | None = None
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self, listener: socket.socket) -> None:
        """Accept connections on a listening Unix socket, which stays open for the next process."""
        loop = asyncio.get_running_loop()
        # asyncio would remove the socket's path, which the next process uses. uvloop does not know the option.
        is_asyncio = isinstance(loop, asyncio.BaseEventLoop) and sys.version_info >= (3, 13)
        options: dict[str, Any] = {"cleanup_socket": False} if is_asyncio else {}
        self._server = await loop.create_unix_server(lambda: _Connection(self), sock=listener, **options)
        self._sweeping = asyncio.create_task(self.residents.keep_sweeping())

    async def _load(self, spec: ModelSpec) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._loader, load_model, spec, self._config, self.progress)

    async def _free(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._loader, return_memory)

    def state(self) -> dict[str, Any]:
        """Return the state of the process and of its models as plain values."""
        return {**self.health(), "models": self.residents.states()}

    def health(self) -> dict[str, Any]:
        """Return what a ping returns: whether batches make progress."""
        progress = self.progress
        return {
            "hanging": progress.is_hanging(),
            "jobs": self.jobs,
            "running": progress.running,
            "ended": progress.ended,
            "clients": len(self._connections),
        }

    def add(self, connection: _Connection) -> None:
        """Count a connection."""
        self._connections.add(connection)

    def remove(self, connection: _Connection) -> None:
        """Forget a connection that was lost."""
        self._connections.discard(connection)

    async def aclose(self, *, drain_s: float) -> None:
        """Accept no connection, answer the accepted jobs for at most `drain_s`, and unload all models.

        Models whose batches do not end are not unloaded.
        """
        until = time.monotonic() + drain_s
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.refuse_further()
        tasks = [task for connection in self._connections for task in connection.tasks()]
        if tasks:
            await asyncio.wait(tasks, timeout=drain_s)
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connection in list(self._connections):
            connection.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.residents.aclose(), max(_UNLOAD_S, until - time.monotonic()))
        self._loader.shutdown(wait=False, cancel_futures=True)


class _Connection(asyncio.Protocol):
    """Connection of one client: its models by number, and its pending calls."""

    def __init__(self, service: InferenceService) -> None:
        self._service = service
        self._reader = FrameReader()
        self._models: dict[int, ModelSpec] = {}
        self._pending: dict[int, asyncio.Task[None]] = {}
        self._transport: Any = None
        self._is_refusing = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._service.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        del error
        self._service.remove(self)
        # Nobody waits for these jobs.
        for task in self._pending.values():
            task.cancel()

    def pause_writing(self) -> None:
        # A client that does not read its answers sends no further jobs.
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        try:
            for kind, number, body in self._reader.feed(data):
                self._receive(kind, number, body)
        except FrameError as error:
            _log.warning("a client of the inference process is cut off: %s", error)
            self._answer(frames.pack_json(Kind.ERROR, 0, error_to_json(UsageError(str(error)))))
            self._transport.close()

    def _receive(self, kind: int, number: int, body: bytes) -> None:
        if kind == Kind.CANCEL:
            task = self._pending.pop(number, None)
            if task is not None:
                task.cancel()
            return
        if kind == Kind.OPEN:
            self._open(number, body)
            return
        try:
            if self._is_refusing:
                raise ClosedError("the inference process ends")
            self._begin(kind, number, body)
        except (EmbedwayError, FrameError) as error:
            told = error if isinstance(error, EmbedwayError) else UsageError(str(error))
            self._answer(frames.pack_json(Kind.ERROR, number, error_to_json(told)))

    def _open(self, number: int, body: bytes) -> None:
        try:
            if len(self._models) >= _MOST_MODELS:
                raise FrameError("a client names too many models")
            self._models[number] = ModelSpec.from_json(frames.unpack_json(body))
        except ValueError as error:
            raise FrameError(f"a model's specification is invalid: {error}") from error

    def _begin(self, kind: int, number: int, body: bytes) -> None:
        """Start a call. Raises FrameError and EmbedwayError, which are its answer."""
        if kind == Kind.JOB:
            job = frames.unpack_job(body)
            spec = self._models.get(job.model)
            if spec is None or number in self._pending:
                raise FrameError("a job names an unknown model, or has the number of another job")
            if self._service.jobs >= self._service.limits.max_jobs:
                raise unavailable(f"local:{spec.model}", "too many jobs wait; try again in 1 s", retry_after_s=1.0)
            self._service.jobs += 1
            self._start(number, self._run(spec, job, number), is_job=True)
        elif kind == Kind.WARM:
            model = frames.unpack_json(body)
            spec = self._models.get(model) if type(model) is int else None
            if spec is None or number in self._pending:
                raise FrameError("a call names an unknown model, or has the number of another call")
            self._start(number, self._warm(spec, number))
        elif kind == Kind.PING:
            self._value(number, self._service.health())
        elif kind == Kind.STATE:
            self._value(number, self._service.state())
        elif kind == Kind.KEEP:
            self._value(number, self._service.residents.keep(*_keep_of(frames.unpack_json(body))))
        else:
            raise FrameError(f"frames of kind {kind} are unknown")

    def _start(self, number: int, work: Coroutine[Any, Any, None], *, is_job: bool = False) -> None:
        task = self._pending[number] = asyncio.create_task(work)

        def done(task: asyncio.Task[None]) -> None:
            if self._pending.get(number) is task:
                del self._pending[number]
            self._service.jobs -= is_job
            if not task.cancelled() and task.exception() is not None:
                _log.error("a call of the inference process failed", exc_info=task.exception())

        task.add_done_callback(done)

    async def _run(self, spec: ModelSpec, job: frames.Job, number: int) -> None:
        try:
            vectors = await self._service.residents.run(spec, job)
            parts = frames.pack_rows(number, vectors)
        except Exception as error:  # noqa: BLE001  the client gets it
            if not isinstance(error, EmbedwayError):
                _log.warning("a batch of %s failed", redact(spec.model), exc_info=error)
            parts = frames.pack_json(Kind.ERROR, number, error_to_json(error))
        self._answer(parts)

    async def _warm(self, spec: ModelSpec, number: int) -> None:
        try:
            await self._service.residents.warm(spec)
        except EmbedwayError as error:
            self._answer(frames.pack_json(Kind.ERROR, number, error_to_json(error)))
        else:
            self._value(number, None)

    def _value(self, number: int, values: Any) -> None:
        self._answer(frames.pack_json(Kind.VALUE, number, values))

    def _answer(self, parts: list[bytes | memoryview]) -> None:
        if not self._transport.is_closing():
            self._transport.write(b"".join(parts))

    def refuse_further(self) -> None:
        """Answer further calls with ClosedError."""
        self._is_refusing = True

    def tasks(self) -> list[asyncio.Task[None]]:
        """Return the pending calls."""
        return list(self._pending.values())

    def close(self) -> None:
        """Close the connection after its answers were sent."""
        self._transport.close()


def _keep_of(values: Any) -> tuple[str, float | None]:
    """Return the model and its time from the body of a frame. Raises FrameError."""
    if not isinstance(values, list) or len(values) != 2 or not isinstance(values[0], str):
        raise FrameError("a frame must have a model and seconds")
    seconds = values[1]
    if seconds is not None and (type(seconds) not in {int, float} or not 0 <= seconds < float("inf")):
        raise FrameError("the seconds must be a number from 0, or null")
    return values[0], seconds
