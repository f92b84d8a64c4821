"""Files and batches of a gateway: their store, endpoints and runner, and the computation of a line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route

from embedway.errors import UsageError
from embedway.ledger.records import UnreadableRecordError
from embedway.server.batches.api import BatchApi, Handler
from embedway.server.batches.computing import Answer
from embedway.server.batches.opening import open_batch_store
from embedway.server.batches.refusals import ApiError
from embedway.server.batches.runner import BatchRunner
from embedway.server.batches.values import BatchLimits
from embedway.server.bodies import parse
from embedway.server.caller import ANYONE
from embedway.server.dialects import openai
from embedway.server.keys import find_key
from embedway.server.problems import problem_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from embedway.config import Config
    from embedway.ledger.records import Records
    from embedway.server.caller import Caller
    from embedway.server.gateway import Gateway

#: Starts of the paths of files and batches.
PATHS = ("/v1/files", "/v1/batches")
#: Name of the caller in the scope of a request that is passed on.
CALLER = "embedway.caller"
_METHOD_NOT_ALLOWED = 405


class BatchService:
    """Files and batches of a gateway; `app` is the ASGI application of their endpoints."""

    def __init__(self, config: Config, gateway: Gateway, records: Records | None) -> None:
        self._gateway = gateway
        self._records = records
        self._store = open_batch_store(config)
        limits = BatchLimits()
        self._runner = BatchRunner(self._store, self.compute, self._find_caller, limits=limits)
        api = BatchApi(self._store, limits, self._runner.wake)
        handlers: dict[str, dict[str, Handler]] = {}
        for one in api.routes():
            handlers.setdefault(one.path, {})[one.method] = one.handler
        # One route for a path, so that an answer of 405 names all of its methods.
        routes = [Route(path, _mounted(own), methods=list(own)) for path, own in handlers.items()]
        self.app = Starlette(routes=routes, exception_handlers={HTTPException: _refused})
        # A redirect behind a proxy with TLS would send the key without it.
        self.app.router.redirect_slashes = False

    def start(self) -> None:
        """Start to compute the batches of the store."""
        self._runner.start()

    async def aclose(self) -> None:
        """Stop computing, and close the store."""
        await self._runner.aclose()
        await self._store.aclose()

    async def compute(self, caller: Caller, body: dict[str, Any]) -> Answer:
        """Return the answer of `POST /v1/embeddings` to the body of a line."""
        try:
            parsed = parse(openai.EmbeddingsBody, orjson.dumps(body))
            result = await self._gateway.embed(caller, parsed.call(), background=True)
        except Exception as error:  # noqa: BLE001  each error is an answer
            problem = problem_of(error, is_admin=caller.admin)
            return Answer(problem.status, openai.error(problem), problem.retry_after_s)
        return Answer(200, openai.answer(result, parsed.encoding), None, result.receipt.input_tokens)

    async def _find_caller(self, key_name: str) -> Caller | None:
        """Return the caller of a key; None if it was revoked."""
        if not key_name:
            return ANYONE
        if self._records is None:
            return None
        try:
            key = await find_key(self._records, key_name)
        except (UsageError, UnreadableRecordError):  # it was removed, or is damaged
            return None
        return None if key.revoked is not None else key.caller()


async def _refused(request: Request, error: Exception) -> Response:
    """Answer a request for an unknown address or method in the form of the API."""
    del request
    assert isinstance(error, HTTPException)  # noqa: S101  registered for it
    if error.status_code == _METHOD_NOT_ALLOWED:
        message, code = "this address does not have this method; see the header allow", "method_not_allowed"
    else:
        message, code = "there is no such address; GET /openapi.json lists all", "not_found"
    return ApiError(error.status_code, message, code=code, headers=error.headers).response()


def _mounted(handlers: Mapping[str, Handler]) -> Callable[[Request], Awaitable[Response]]:
    """Return the handler of a path, which calls that of the method."""

    async def endpoint(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        return await handlers[method](request, request.scope[CALLER])

    return endpoint
