"""Errors of the endpoints of files and batches, in the shape of the API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Mapping


class ApiError(Exception):
    """A request is refused, or cannot be answered now. `param` is the parameter that is wrong."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = headers
        super().__init__(message)

    def response(self) -> Response:
        """Return the answer."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        body = orjson.dumps({"error": error})
        return Response(body, self.status, self.headers, media_type="application/json")


def invalid(message: str, param: str | None, code: str | None = None) -> ApiError:
    """Return the error of a wrong parameter."""
    return ApiError(400, message, param=param, code=code)


def missing_file(file_id: str, param: str = "id") -> ApiError:
    """Return the error of an unknown file, which is also that of another tenant's."""
    return ApiError(404, f"No such File object: {file_id[:100]}", param=param)


def missing_batch(batch_id: str) -> ApiError:
    """Return the error of an unknown batch, which is also that of another tenant's."""
    return ApiError(404, f"No batch found with id '{batch_id[:100]}'.", param="batch_id")
