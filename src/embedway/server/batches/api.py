"""Endpoints of files and batches. Each is a function of a request and its caller."""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from embedway.errors import EmbedwayError
from embedway.server.batches import progress
from embedway.server.batches.base import Content, Listing
from embedway.server.batches.contents import UPLOAD, ContentWriter, read_content
from embedway.server.batches.refusals import ApiError, invalid, missing_batch, missing_file
from embedway.server.batches.shapes import batch_object, file_object, page_object
from embedway.server.batches.uploads import read_upload, storage_full
from embedway.server.batches.values import (
    ENDPOINT,
    KEY_LENGTH,
    LONGEST_S,
    MOST_BATCHES,
    MOST_FILES,
    MOST_PAIRS,
    SHORTEST_S,
    VALUE_LENGTH,
    Batch,
    BatchLimits,
    StoredFile,
    new_id,
)
from embedway.server.caller import Caller

if TYPE_CHECKING:
    from embedway.server.batches.base import BatchStore, Change
    from embedway.server.batches.uploads import Upload

_log = logging.getLogger("embedway.batches")

Handler: TypeAlias = Callable[[Request, Caller], Awaitable[Response]]

#: Time for which an upload that is not finished is kept, in seconds.
_UPLOAD_S = 6 * 3600.0
#: Maximum size of a JSON body, in bytes.
_BODY_BYTES = 2**16
#: The API's default items of a list of batches.
_BATCHES = 20


class Route(NamedTuple):
    """An endpoint, with a path as Starlette writes it."""

    method: str
    path: str
    handler: Handler


@dataclass(frozen=True, slots=True)
class BatchApi:
    """Endpoints over a store. `wake` is called after there is work for the runner."""

    store: BatchStore
    limits: BatchLimits
    wake: Callable[[], None]

    def routes(self) -> tuple[Route, ...]:
        """Return the endpoints. They raise nothing but the cancellation of the request."""
        return tuple(
            Route(method, path, _guarded(handler))
            for method, path, handler in (
                ("POST", "/v1/files", self.upload_file),
                ("GET", "/v1/files", self.list_files),
                ("GET", "/v1/files/{file_id}", self.get_file),
                ("DELETE", "/v1/files/{file_id}", self.delete_file),
                ("GET", "/v1/files/{file_id}/content", self.get_content),
                ("POST", "/v1/batches", self.create_batch),
                ("GET", "/v1/batches", self.list_batches),
                ("GET", "/v1/batches/{batch_id}", self.get_batch),
                ("POST", "/v1/batches/{batch_id}/cancel", self.cancel_batch),
            )
        )

    async def upload_file(self, request: Request, caller: Caller) -> Response:
        """Store a file; the answer comes after it is durable."""
        if _content_length(request) > self.limits.file_bytes + _BODY_BYTES:
            message = f"The file is larger than the maximum of {self.limits.file_bytes} bytes."
            raise ApiError(413, message, param="file", code="file_too_large")
        now = await self.store.now()
        file_id = new_id("file-")
        content = Content(file_id, caller.tenant, now + _UPLOAD_S)
        writer = ContentWriter(self.store, content, UPLOAD, self.limits.tenant_bytes)
        try:
            content_type = request.headers.get("content-type", "")
            upload = await read_upload(content_type, request.stream(), writer, self.limits.file_bytes)
            file = self._uploaded(file_id, caller, upload, await self.store.now())
            segments = [] if upload.segment is None else [upload.segment]
            if not await self.store.add_file(file, segments, self.limits.tenant_files):
                raise storage_full()
        except (ApiError, ClientDisconnect):
            await self.store.drop_content(file_id)
            raise
        return _json(file_object(file))

    def _uploaded(self, file_id: str, caller: Caller, upload: Upload, now: float) -> StoredFile:
        fields = upload.fields
        if "purpose" not in fields:
            raise invalid("Missing required parameter: 'purpose'.", "purpose", "missing_required_parameter")
        if fields["purpose"] != "batch":
            raise invalid("'purpose' must be 'batch'; this server has no other files.", "purpose", "invalid_value")
        anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
        keep_s = self.limits.retention_s
        if anchor is not None or seconds is not None:
            number = int(seconds) if seconds and seconds.isascii() and seconds.isdigit() and len(seconds) < 9 else None
            keep_s = _keep_s({"anchor": anchor, "seconds": number}, "expires_after")
        return StoredFile(file_id, caller.tenant, now, upload.name, "batch", upload.size, now + keep_s)

    async def list_files(self, request: Request, caller: Caller) -> Response:
        """List the tenant's files."""
        query = request.query_params
        order = query.get("order", "desc")
        if order not in {"asc", "desc"}:
            raise invalid("'order' must be 'asc' or 'desc'.", "order", "invalid_value")
        after, purpose = query.get("after", ""), query.get("purpose", "")
        limit = _limit(request, MOST_FILES, MOST_FILES)
        page = await self.store.list_files(Listing(caller.tenant, limit, after, order == "asc", purpose))
        if page is None:
            raise missing_file(after, "after")
        return _json(page_object([file_object(one) for one in page.items], has_more=page.has_more))

    async def get_file(self, request: Request, caller: Caller) -> Response:
        """Describe a file."""
        return _json(file_object(await self._file(request, caller)))

    async def delete_file(self, request: Request, caller: Caller) -> Response:
        """Delete a file that no batch reads."""
        file_id = request.path_params["file_id"]
        done = await self.store.delete_file(caller.tenant, file_id)
        if done == "missing":
            raise missing_file(file_id)
        if done == "in use":
            message = f"File {file_id} is the input of a batch that has not ended; cancel the batch first."
            raise invalid(message, "id", "file_in_use")
        return _json({"id": file_id, "object": "file", "deleted": True})

    async def get_content(self, request: Request, caller: Caller) -> Response:
        """Send the content of a file."""
        file = await self._file(request, caller)
        segments = await self.store.segments(file.id)
        headers = {"content-length": str(sum(one.size for one in segments))}
        content = read_content(self.store, segments)
        return StreamingResponse(content, headers=headers, media_type="application/octet-stream")

    async def _file(self, request: Request, caller: Caller) -> StoredFile:
        file_id = request.path_params["file_id"]
        file = await self.store.get_file(caller.tenant, file_id)
        if file is None:
            raise missing_file(file_id)
        return file

    async def create_batch(self, request: Request, caller: Caller) -> Response:
        """Create a batch of an uploaded file."""
        body = await _body(request)
        for name in ("input_file_id", "endpoint", "completion_window"):
            if not isinstance(body.get(name), str):
                raise invalid(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")
        if body["endpoint"] != ENDPOINT:
            raise invalid(f"'endpoint' must be '{ENDPOINT}'.", "endpoint", "invalid_value")
        if body["completion_window"] != "24h":
            raise invalid("'completion_window' must be '24h'.", "completion_window", "invalid_value")
        keep_s = self.limits.retention_s
        if body.get("output_expires_after") is not None:
            keep_s = _keep_s(body["output_expires_after"], "output_expires_after")
        metadata = _metadata(body.get("metadata"))
        file = await self.store.get_file(caller.tenant, body["input_file_id"])
        if file is None:
            raise missing_file(body["input_file_id"], "input_file_id")
        if file.purpose != "batch":
            raise invalid("The input file must have the purpose 'batch'.", "input_file_id", "invalid_value")
        now = await self.store.now()
        batch = Batch(
            id=new_id("batch_"),
            tenant=caller.tenant,
            key_name=caller.key_name,
            input_file_id=file.id,
            input_size=file.size,
            output_file_id=new_id("file-"),
            error_file_id=new_id("file-"),
            created_at=now,
            expires_at=now + self.limits.window_s,
            keep_s=keep_s,
            metadata=metadata,
        )
        added = await self.store.add_batch(batch, self.limits.tenant_files)
        if added == "no file":
            raise missing_file(file.id, "input_file_id")
        if added == "too many":
            message = "You have reached the maximum number of batches; ended ones are deleted after some time."
            raise ApiError(429, message, code="batch_limit_exceeded")
        self.wake()
        return _json(batch_object(batch))

    async def list_batches(self, request: Request, caller: Caller) -> Response:
        """List the tenant's batches, the latest first."""
        after = request.query_params.get("after", "")
        page = await self.store.list_batches(Listing(caller.tenant, _limit(request, _BATCHES, MOST_BATCHES), after))
        if page is None:
            raise missing_batch(after)
        return _json(page_object([batch_object(one) for one in page.items], has_more=page.has_more))

    async def get_batch(self, request: Request, caller: Caller) -> Response:
        """Describe a batch."""
        batch_id = request.path_params["batch_id"]
        batch = await self.store.get_batch(caller.tenant, batch_id)
        if batch is None:
            raise missing_batch(batch_id)
        return _json(batch_object(batch))

    async def cancel_batch(self, request: Request, caller: Caller) -> Response:
        """Stop a batch that has not ended."""
        batch_id = request.path_params["batch_id"]
        before: list[Batch] = []

        def cancel(batch: Batch, now: float) -> Change | None:
            before[:] = [batch]
            return progress.changing(functools.partial(progress.stop, why="cancelled"))(batch, now)

        batch = await self.store.change(caller.tenant, batch_id, cancel)
        if batch is None:
            raise missing_batch(batch_id)
        if batch.stop != "cancelled" or before[0].has_ended:
            message = f"Cannot cancel a batch with status '{batch.status}'."
            raise ApiError(409, message, code="batch_not_cancellable")
        self.wake()
        return _json(batch_object(batch))


def _guarded(handler: Handler) -> Handler:
    """Return a handler that answers errors in the shape of the API."""

    @functools.wraps(handler)
    async def run(request: Request, caller: Caller) -> Response:
        try:
            return await handler(request, caller)
        except ApiError as error:
            return error.response()
        except ClientDisconnect:
            return ApiError(400, "The client closed the connection.").response()
        except EmbedwayError as error:
            # The message has names of this machine, for the log only.
            _log.warning("files and batches: %s", error)
            message = "The files and batches cannot be used at the moment; try again later."
            headers = {"retry-after": "5"}
            return ApiError(503, message, code="store_unavailable", headers=headers).response()

    return run


def _json(value: object) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")


def _content_length(request: Request) -> int:
    given = request.headers.get("content-length", "")
    return int(given) if given.isascii() and given.isdigit() and len(given) < 20 else 0


def _limit(request: Request, default: int, most: int) -> int:
    given = request.query_params.get("limit")
    if given is None:
        return default
    number = int(given) if given.isascii() and given.isdigit() and len(given) < 9 else 0
    if not 1 <= number <= most:
        raise invalid(f"'limit' must be a number from 1 to {most}.", "limit", "invalid_value")
    return number


async def _body(request: Request) -> dict[str, Any]:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > _BODY_BYTES:
            raise ApiError(413, f"The request body is larger than {_BODY_BYTES} bytes.", code="body_too_large")
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise invalid("The request body must be a JSON object.", None, "invalid_json")
    return body


def _keep_s(given: object, name: str) -> int:
    """Return the seconds of an expiration policy."""
    if not isinstance(given, dict) or given.get("anchor") != "created_at":
        raise invalid(f"'{name}.anchor' must be 'created_at'.", name, "invalid_value")
    seconds = given.get("seconds")
    if type(seconds) is not int or not SHORTEST_S <= seconds <= LONGEST_S:
        message = f"'{name}.seconds' must be a number from {SHORTEST_S} to {LONGEST_S}."
        raise invalid(message, name, "invalid_value")
    return seconds


def _metadata(given: object) -> dict[str, str] | None:
    if given is None:
        return None
    if not isinstance(given, dict) or len(given) > MOST_PAIRS:
        raise invalid(f"'metadata' must be an object of up to {MOST_PAIRS} pairs.", "metadata", "invalid_value")
    for key, value in given.items():
        if len(key) > KEY_LENGTH or not isinstance(value, str) or len(value) > VALUE_LENGTH:
            message = (
                f"'metadata' must have keys of up to {KEY_LENGTH} characters, and strings of up to {VALUE_LENGTH} "
                "characters as values."
            )
            raise invalid(message, "metadata", "invalid_value")
    return given
