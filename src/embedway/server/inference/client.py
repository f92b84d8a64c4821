"""Client of the inference process: sends batches, and receives their vectors."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedway.errors import ClosedError, EmbedwayError, UnavailableError
from embedway.server.inference import frames
from embedway.server.inference.failures import error_from_json, unavailable
from embedway.server.inference.frames import FrameError, FrameReader, Kind
from embedway.server.inference.settings import ClientLimits
from embedway.types import Batch

if TYPE_CHECKING:
    from pathlib import Path

    from embedway.local.remote import ModelSpec
    from embedway.types import TokenizedTexts, Vectors
    from embedway.urgency import Urgency

#: Route in errors of calls that are about no model.
_PROCESS = "inference process"
#: Pause between two tries to connect, in seconds.
_AGAIN_S = 0.05
#: Wait that errors request, in seconds.
_RETRY_S = 1.0
_LOST = "the process that computes local models ended; it is being restarted"
_SILENT = "the process that computes local models does not answer; it is being restarted"


@dataclass(eq=False, slots=True)
class _Call:
    """A call that waits for its answer."""

    number: int
    parts: list[bytes | memoryview]
    future: asyncio.Future[Any]
    #: Model that the connection must name first; None for calls about no model.
    model: RemoteModelClient | None
    sent: int = 0


class InferenceClient:
    """Client of the inference process. Used from one event loop.

    It connects at the first call, and again after the connection is lost. A call whose process died is sent once more.
    """

    def __init__(self, path: Path, limits: ClientLimits | None = None) -> None:
        """Create the client of a socket. Connects at the first call."""
        self._path = path
        self._limits = ClientLimits() if limits is None else limits
        self._numbers = itertools.count(1)
        self._model_numbers = itertools.count(1)
        self._calls: dict[int, _Call] = {}
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        #: Models that the current connection has named.
        self._named: set[int] = set()
        self._closed = False

    def model(self, spec: ModelSpec) -> RemoteModelClient:
        """Return a model of the process. Sends nothing."""
        return RemoteModelClient(self, spec, next(self._model_numbers))

    async def ping(self) -> dict[str, Any]:
        """Return the health of the process: `hanging`, and counts of its jobs, batches and clients."""
        health: dict[str, Any] = await self._ask(Kind.PING)
        return health

    async def state(self) -> dict[str, Any]:
        """Return the health of the process with the state of each model under `models`."""
        state: dict[str, Any] = await self._ask(Kind.STATE)
        return state

    async def keep(self, model: str, keep_alive_s: float | None) -> int:
        """Set the time after which an unused model is unloaded, None for never; return how many models have the name.

        `model` is the canonical name, as in receipts and states.
        """
        found: int = await self._ask(Kind.KEEP, [model, keep_alive_s])
        return found

    async def _ask(self, kind: Kind, values: Any = None) -> Any:
        number = next(self._numbers)
        return await self.call(number, frames.pack_json(kind, number, values), None)

    def next_number(self) -> int:
        """Return the number of the next call."""
        return next(self._numbers)

    async def call(self, number: int, parts: list[bytes | memoryview], model: RemoteModelClient | None) -> Any:
        """Send a call and return its answer. Raises the errors of the process, UnavailableError and ClosedError."""
        if self._closed:
            raise ClosedError("the embedder is closed; create a new one")
        call = _Call(number, parts, asyncio.get_running_loop().create_future(), model)
        self._calls[number] = call
        try:
            if self._connection is None:
                self._connect()
            else:
                self._send(call, self._connection)
            return await call.future
        finally:
            if self._calls.pop(number, None) is not None and call.sent and self._connection is not None:
                self._connection.write(frames.pack(Kind.CANCEL, number))

    def _send(self, call: _Call, connection: _Connection) -> None:
        call.sent += 1
        model = call.model
        if model is not None and model.number not in self._named:
            self._named.add(model.number)
            connection.write(frames.pack_json(Kind.OPEN, model.number, model.spec.to_json()))
        connection.write(call.parts)
        if self._timer is None:
            self._watch(connection)

    def _watch(self, connection: _Connection) -> None:
        """Ping while calls are pending, so that a process that hangs is noticed."""
        connection.heard = time.monotonic()
        loop = asyncio.get_running_loop()

        def look() -> None:
            self._timer = None
            if not self._calls or self._connection is not connection:
                return
            if time.monotonic() - connection.heard > self._limits.silent_s:
                connection.abort()
                return
            connection.write(frames.pack(Kind.PING, 0))
            self._timer = loop.call_later(self._limits.ping_every_s, look)

        self._timer = loop.call_later(self._limits.ping_every_s, look)

    def _connect(self) -> None:
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._try_to_connect())

    async def _try_to_connect(self) -> None:
        loop, until = asyncio.get_running_loop(), time.monotonic() + self._limits.connect_s
        try:
            while True:
                with suppress(OSError):
                    _, connection = await loop.create_unix_connection(lambda: _Connection(self), str(self._path))
                    if not connection.ended.is_set():
                        break
                if time.monotonic() >= until:
                    self._fail(_SILENT)
                    return
                await asyncio.sleep(_AGAIN_S)
        finally:
            self._connecting = None
        self._connection, self._named = connection, set()
        for call in list(self._calls.values()):
            self._send(call, connection)

    def _fail(self, message: str, *, after_sends: int = 0) -> None:
        """End the calls that were sent at least `after_sends` times."""
        for call in self._calls.values():
            if call.sent >= after_sends and not call.future.done():
                call.future.set_exception(unavailable(_route(call), message, retry_after_s=_RETRY_S))

    def lost(self, connection: _Connection) -> None:
        """Send the pending calls of a lost connection once more, on a new one."""
        if self._connection is not connection:
            return
        self._connection = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._closed:
            return
        self._fail(_LOST, after_sends=self._limits.max_sends)
        if any(not call.future.done() for call in self._calls.values()):
            self._connect()

    def answer(self, kind: int, number: int, body: bytes) -> None:
        """Pass an answer to its call. Raises FrameError."""
        call = self._calls.get(number)
        if call is None or call.future.done():
            return
        if kind == Kind.ROWS:
            result: Any = frames.unpack_rows(body)
        elif kind == Kind.VALUE:
            result = frames.unpack_json(body)
        elif kind == Kind.ERROR:
            result = error_from_json(frames.unpack_json(body), route=_route(call))
        else:
            raise FrameError(f"answers of kind {kind} are unknown")
        del self._calls[number]  # the process has forgotten it: no cancellation is sent
        if not isinstance(result, EmbedwayError):
            call.future.set_result(result)
        elif isinstance(result, ClosedError) and call.sent < self._limits.max_sends:
            # The process ends, and the next one will answer.
            self._calls[number] = call
        else:
            call.future.set_exception(_as_unavailable(result, call))

    async def aclose(self) -> None:
        """Close the connection. Pending calls raise ClosedError."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        for call in self._calls.values():
            if not call.future.done():
                call.future.set_exception(ClosedError("the embedder is closed; create a new one"))
        if self._connection is not None:
            self._connection.abort()
            await self._connection.ended.wait()


def _route(call: _Call) -> str:
    return _PROCESS if call.model is None else call.model.route


def _as_unavailable(error: EmbedwayError, call: _Call) -> EmbedwayError:
    """Return a ClosedError of the process as an error of its caller, whose embedder is open."""
    return unavailable(_route(call), _LOST, retry_after_s=_RETRY_S) if isinstance(error, ClosedError) else error


class RemoteModelClient:
    """A model of the inference process; implements `local/remote.py: RemoteModel`."""

    def __init__(self, client: InferenceClient, spec: ModelSpec, number: int) -> None:
        self.spec = spec
        #: Number of the model on each connection of the client.
        self.number = number
        self.route = f"local:{spec.model.rsplit('/', 1)[-1]}"
        self._client = client
        #: Largest request that may have all threads; see `local/lanes.py`.
        choice = spec.choice
        self._whole_tokens = choice.token_budget if choice.single.streams == 1 < choice.bulk.streams else 0

    async def run(self, tokenized: TokenizedTexts, batch: Batch, urgency: Urgency, behind_s: float) -> Vectors:
        """Compute one batch; see `RemoteModel.run`."""
        # A part of a large request leaves the threads to its other parts.
        is_whole = len(batch.rows) == len(tokenized.ids) or tokenized.tokens <= self._whole_tokens
        job = frames.Job(self.number, tokenized, Batch(batch.rows, batch.width, not is_whole), urgency, behind_s)
        number = self._client.next_number()
        vectors: Vectors = await self._client.call(number, frames.pack_job(number, job), self)
        return vectors

    async def warm(self) -> None:
        """Load the model in the process; waits for as long as that takes."""
        while True:
            number = self._client.next_number()
            try:
                await self._client.call(number, frames.pack_json(Kind.WARM, number, self.number), self)
            except UnavailableError as error:
                if not error.loading:
                    raise
            else:
                return


class _Connection(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self, client: InferenceClient) -> None:
        self._client = client
        self._reader = FrameReader()
        self._transport: Any = None
        #: Time of the last data.
        self.heard = 0.0
        self.ended = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def write(self, parts: list[bytes | memoryview]) -> None:
        """Send a frame, unless the connection is lost."""
        if not self._transport.is_closing():
            self._transport.write(b"".join(parts))

    def data_received(self, data: bytes) -> None:
        self.heard = time.monotonic()
        try:
            for frame in self._reader.feed(data):
                self._client.answer(*frame)
        except FrameError:
            self.abort()  # whatever it is, it is not our process

    def connection_lost(self, error: Exception | None) -> None:
        del error
        self.ended.set()
        self._client.lost(self)

    def abort(self) -> None:
        """Close the connection at once."""
        self._transport.abort()
