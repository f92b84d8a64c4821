"""OpenAI's embeddings API, and everything that speaks it: Azure OpenAI, vLLM, TEI, Infinity, Ollama, LM Studio, NIM.

Request and answer: https://platform.openai.com/docs/api-reference/embeddings/create (read 2026-11-23). At most 2,048
inputs and 300,000 tokens a request; an input of at most 8,192 tokens.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.errors import BadVectorsError, ConfigError, ProtocolError
from embedway.providers.base import Answer, Declared
from embedway.providers.http import JsonHttp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.providers.base import Endpoint
    from embedway.types import InputType, Vectors

OPENAI_URL = "https://api.openai.com/v1"


class OpenAI:
    """One model behind `POST {base_url}/embeddings`.

    `encoding` is `base64` where the service is known to honour it: a quarter of the bytes of numbers as text. Of others
    `float` is asked, because some ignore the parameter and some answer zeros.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        declared: Declared,
        http: JsonHttp,
        *,
        path: str = "/embeddings",
        encoding: str = "float",
        extra: dict[str, Any] | None = None,
    ) -> None:
        self.declared = declared
        self._endpoint = endpoint
        self._http = http
        self._path = path
        self._encoding = encoding
        self._extra = extra or {}

    async def embed(self, texts: Sequence[str], *, input_type: InputType, dimensions: int | None) -> Answer:
        """Embed texts; see `Provider.embed`."""
        body: dict[str, Any] = {
            "model": self._endpoint.model,
            "input": list(texts),
            "encoding_format": self._encoding,
            **self._extra,
        }
        if dimensions is not None:
            body["dimensions"] = dimensions
        if self.declared.input_type:
            # NVIDIA NIM's name for documents (docs.nvidia.com/nim, reference of /v1/embeddings).
            body["input_type"] = "query" if input_type == "query" else "passage"
        reply = await self._http.post(self._path, body)
        vectors = read_vectors(reply.body, count=len(texts), route=self._endpoint.route)
        return Answer(vectors, tokens=_billed(reply.body), rates=reply.rates)

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()


def openai(endpoint: Endpoint) -> OpenAI:
    """OpenAI's own service: an entry of `embedway.providers`."""
    http = _http(endpoint, endpoint.base_url or OPENAI_URL)
    declared = Declared(
        max_inputs=2048,
        max_request_tokens=300_000,
        # ada-002 refuses the parameter.
        dimensions=endpoint.model.startswith("text-embedding-3"),
    )
    return OpenAI(endpoint, declared, http, encoding="base64")


def openai_compatible(endpoint: Endpoint) -> OpenAI:
    """A server with OpenAI's interface, at `base_url`.

    Options: `max_inputs` (32, the bound that TEI sets by default), `max_request_tokens`, `dimensions` (`true` where
    the server honours it), `encoding` (`float` or `base64`), `input_type` (`true` for NVIDIA NIM).
    """
    options = endpoint.options
    if not endpoint.base_url:
        raise ConfigError("must be set for openai-compatible", where=endpoint.route, key="base_url")
    tokens = options.get("max_request_tokens")
    declared = Declared(
        max_inputs=int(options.get("max_inputs", 32)),
        max_request_tokens=int(tokens) if tokens else None,
        dimensions=options.get("dimensions") == "true",
        input_type=options.get("input_type") == "true",
    )
    return OpenAI(endpoint, declared, _http(endpoint, endpoint.base_url), encoding=options.get("encoding", "float"))


def _http(endpoint: Endpoint, base_url: str) -> JsonHttp:
    headers = {"authorization": f"Bearer {endpoint.secret}"} if endpoint.secret else {}
    return JsonHttp(
        base_url,
        route=endpoint.route,
        headers=headers,
        timeout_s=endpoint.timeout_s,
        allow_http=endpoint.options.get("allow_http") == "true",
    )


def read_vectors(body: Any, *, count: int, route: str) -> Vectors:
    """The vectors of an answer in OpenAI's shape, float32 (count, d), by their `index` and not as they come.

    Raises ProtocolError for another shape, BadVectorsError for wrong counts, indexes, lengths and numbers.
    """
    rows = body.get("data") if isinstance(body, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ProtocolError("its answer has no list called data", route=route, billed=True)
    if len(rows) != count:
        raise BadVectorsError(f"answered with {len(rows)} vectors for {count} texts", route=route)
    placed: dict[int, Any] = {}
    for row in rows:
        index = row.get("index")
        if type(index) is not int or not 0 <= index < count or index in placed:
            raise BadVectorsError(f"answered with the index {index!r} among {count} texts", route=route)
        placed[index] = row.get("embedding")
    arrays = [decode(placed[index], row=index, route=route) for index in range(count)]
    widths = {len(array) for array in arrays}
    if len(widths) > 1:
        raise BadVectorsError(f"answered with vectors of {len(widths)} different lengths", route=route)
    return np.stack(arrays) if arrays else np.zeros((0, 0), np.float32)


def decode(value: Any, *, row: int, route: str) -> Vectors:
    """One vector, float32 (d,), from a list of numbers or base64 of little-endian float32."""
    if isinstance(value, str):
        try:
            raw = base64.b64decode(value, validate=True)
        except binascii.Error:
            raw = b""
        if not raw or len(raw) % 4:
            raise BadVectorsError("answered with base64 that is not float32 numbers", route=route, rows=[row])
        return np.frombuffer(raw, "<f4").astype(np.float32)
    if isinstance(value, list) and value:
        try:
            array = np.array(value, np.float32)
        except (ValueError, TypeError):
            array = np.zeros((0, 0), np.float32)
        # `null` becomes NaN on its way through numpy, and is refused with it.
        if array.ndim == 1 and np.isfinite(array).all():
            return array
    raise BadVectorsError("answered with something that is not a vector of numbers", route=route, rows=[row])


def _billed(body: Any) -> int | None:
    usage = body.get("usage")
    tokens = usage.get("total_tokens") if isinstance(usage, dict) else None
    return tokens if type(tokens) is int and tokens >= 0 else None
