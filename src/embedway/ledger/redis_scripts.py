"""Script on a Redis server, called by its hash. Calls of one iteration of the event loop share a round trip."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


class SharedScript:
    """A script with fixed keys. The server runs each call separately and atomically, in the order of the calls."""

    def __init__(self, client: Any, script: str, keys: Sequence[str], *, cluster: bool) -> None:
        self._client = client
        self._script = script
        self._hash = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()  # as the server does
        self._keys = tuple(keys)
        #: The client of a cluster has no pipelines for scripts.
        self._cluster = cluster
        self._waiting: list[tuple[tuple[str, ...], asyncio.Future[Any]]] = []
        self._sending: set[asyncio.Task[None]] = set()

    async def run(self, *arguments: str) -> Any:
        """Run the script once, and return its answer. Raises the errors of the client and of the script.

        A call that was made is not withdrawn if its caller is cancelled.
        """
        if self._cluster:
            return await self._run_alone(arguments)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((arguments, future))
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._send_waiting)
        return await future

    def _send_waiting(self) -> None:
        calls, self._waiting = self._waiting, []
        task = asyncio.create_task(self._send(calls))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, calls: list[tuple[tuple[str, ...], asyncio.Future[Any]]]) -> None:
        try:
            answers = await self._run_together([arguments for arguments, _ in calls])
        except Exception as error:  # noqa: BLE001  passed to the callers, whatever it is
            answers = [error] * len(calls)
        except BaseException:
            for _, future in calls:
                future.cancel()
            raise
        for (_, future), answer in zip(calls, answers, strict=True):
            if future.cancelled():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    async def _run_together(self, calls: list[tuple[str, ...]]) -> list[Any]:
        import redis.exceptions  # noqa: PLC0415  already loaded by the client

        if len(calls) == 1:
            return [await self._run_alone(calls[0])]
        async with self._client.pipeline(transaction=False) as pipeline:
            for arguments in calls:
                pipeline.evalsha(self._hash, len(self._keys), *self._keys, *arguments)
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        for number, answer in enumerate(answers):
            if isinstance(answer, redis.exceptions.NoScriptError):  # it did not run
                answers[number] = await self._load(calls[number])
        return answers

    async def _run_alone(self, arguments: tuple[str, ...]) -> Any:
        import redis.exceptions  # noqa: PLC0415  already loaded by the client

        try:
            return await self._client.evalsha(self._hash, len(self._keys), *self._keys, *arguments)
        except redis.exceptions.NoScriptError:  # it did not run
            return await self._load(arguments)

    async def _load(self, arguments: tuple[str, ...]) -> Any:
        """Run the script by its text, which the server then keeps."""
        return await self._client.eval(self._script, len(self._keys), *self._keys, *arguments)
