"""ASGI application of the gateway: finds the endpoint, reads the body, checks the caller, and sends one answer."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from embedway.server.batches.service import CALLER, PATHS
from embedway.server.bodies import read_body
from embedway.server.calls import resolved_model
from embedway.server.client_watch import ClientWatch
from embedway.server.dialects import openai
from embedway.server.endpoint import Exchange
from embedway.server.origins import check_browser, cors_headers
from embedway.server.problems import BodyError, problem_of
from embedway.server.replies import Reply, problem_headers
from embedway.server.routing import Routes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from starlette.types import Receive, Scope, Send

    from embedway.server.access import Access
    from embedway.server.batches.service import BatchService
    from embedway.server.bulk import BulkProxy
    from embedway.server.endpoint import Endpoint
    from embedway.server.gateway import Gateway
    from embedway.server.problems import Problem
    from embedway.server.replies import Header


#: Status in logs of a request whose client disconnected, as nginx writes it.
_CLIENT_LEFT = 499
_METHOD_NOT_ALLOWED = 405
#: Status of an answer before the body is complete: the rest of it is not waited for.
_TOO_LARGE = 413
#: Sent with each answer: it is no page, and must not be guessed to be one, framed or stored.
_SECURITY: tuple[Header, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
)


class GatewayApp:
    """The endpoints of a gateway as an ASGI application."""

    def __init__(
        self,
        gateway: Gateway,
        endpoints: Iterable[Endpoint],
        access: Access,
        batches: BatchService | None = None,
        bulk: BulkProxy | None = None,
    ) -> None:
        """Create the application. `batches` answers requests for files and batches; `bulk` forwards bulk requests."""
        self._gateway = gateway
        self._access = access
        self._batches = batches
        self._bulk = bulk
        self._stats = gateway.stats
        self._settings = gateway.config.server
        self._routes = Routes(endpoints)
        self._origins = self._settings.cors_origins
        self._ids = os.urandom(6).hex()
        self._count = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        if self._origins and scope["method"] == "OPTIONS":
            headers = cors_headers(scope["headers"], self._origins, preflight=True)
            await _send(send, Reply(b"", 204, headers=headers), b"", scope)
            return
        started = time.perf_counter()
        self._count += 1
        request_id = f"{self._ids}-{self._count:x}"
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        endpoint, argument = self._routes.find(method, scope["path"])
        exchange = Exchange(self._gateway, self._access.nobody, b"", request_id, scope["query_string"], argument)
        code = ""
        try:
            if self._bulk is not None and self._bulk.is_bulk(scope) and await self._bulk.forward(scope, receive, send):
                return
            if endpoint is None and self._batches is not None and scope["path"].startswith(PATHS):
                await self._answer_with_batches(self._batches, exchange, scope, receive, send)
                return
            reply = await self._answer(endpoint or self._unknown(method, scope["path"]), exchange, scope, receive)
        except ConnectionError:
            self._stats.end(endpoint, exchange, _CLIENT_LEFT, time.perf_counter() - started, "client_left")
            return
        except Exception as error:  # noqa: BLE001  each error is an answer
            problem = problem_of(error, is_admin=exchange.caller.admin)
            reply, code = self._refusal(endpoint, problem, scope["path"]), problem.code
        if self._origins:
            reply = replace(reply, headers=(*reply.headers, *cors_headers(scope["headers"], self._origins)))
        self._stats.end(endpoint, exchange, reply.status, time.perf_counter() - started, code)
        await _send(send, reply, request_id.encode(), scope)

    async def _answer_with_batches(
        self, batches: BatchService, exchange: Exchange, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Let the application of files and batches answer a request, which may be large.

        Raises its error if no answer has begun.
        """
        started, status, code = time.perf_counter(), 0, ""
        cors = cors_headers(scope["headers"], self._origins) if self._origins else ()

        async def send_with_headers(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = ((b"x-embedway-request-id", exchange.request_id.encode()), *_SECURITY, *cors)
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        try:
            await self._identify(exchange, scope["headers"])
            await batches.app({**scope, CALLER: exchange.caller}, receive, send_with_headers)
        except Exception as error:
            if not status:
                raise
            code = problem_of(error).code
        self._stats.end(None, exchange, status, time.perf_counter() - started, code)

    async def _answer(self, endpoint: Endpoint, exchange: Exchange, scope: Scope, receive: Receive) -> Reply:
        """Check the caller, read the body, and run the handler; it is cancelled if the client disconnects."""
        headers: Sequence[Header] = scope["headers"]
        if endpoint.access != "open":
            await self._identify(exchange, headers)
            if endpoint.access == "admin" and not exchange.caller.admin:
                raise BodyError("this address needs an admin key", status=403, code="permission_denied")
        if endpoint.method == "POST":
            exchange.body = await read_body(receive, headers, most_bytes=self._settings.body_mib << 20)
        watch = ClientWatch(receive)
        resolved_model.set("")  # a pipelined request runs in a copy of the context of the one before it
        try:
            return await endpoint.handler(exchange)
        except asyncio.CancelledError:
            if watch.has_left:
                watch.uncancel()
                raise ConnectionError from None
            raise
        finally:
            watch.end()
            exchange.model = exchange.model or resolved_model.get()

    async def _identify(self, exchange: Exchange, headers: Sequence[Header]) -> None:
        """Find the caller of a request. Raises BodyError for a page of another origin, and AccessError."""
        check_browser(headers, self._origins, loopback_only=self._access.is_loopback_only)
        exchange.caller = await self._access.caller_of(headers)

    def _refusal(self, endpoint: Endpoint | None, problem: Problem, path: str) -> Reply:
        """Return the answer to a problem, in the form of the endpoint, or of the API of an unknown path."""
        headers = problem_headers(problem)
        if endpoint is not None:
            return Reply(endpoint.errors(problem), endpoint.status_of(problem), headers=headers)
        if problem.status == _METHOD_NOT_ALLOWED:
            headers = (*headers, (b"allow", ", ".join(self._routes.methods(path)).encode()))
        family = self._routes.family(path)
        form = openai.error if family is None else family.errors
        return Reply(form(problem), problem.status, headers=headers)

    def _unknown(self, method: str, path: str) -> NoReturn:
        """Raise BodyError for an address that is not served."""
        known = self._routes.methods(path)
        if not known:
            raise BodyError("there is no such address; GET /openapi.json lists all", status=404, code="not_found")
        raise BodyError(
            f"this address has no method {method[:20]!a}; use {' or '.join(known)}",
            status=_METHOD_NOT_ALLOWED,
            code="method_not_allowed",
        )


async def _send(send: Send, reply: Reply, request_id: bytes, scope: Scope) -> None:
    headers = [
        (b"content-type", reply.media),
        (b"content-length", b"%d" % len(reply.body)),
        (b"x-embedway-request-id", request_id),
        *_SECURITY,
        *reply.headers,
    ]
    if reply.status == _TOO_LARGE:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else reply.body})
