"""OpenAI's embeddings API, and compatible servers: Azure OpenAI, vLLM, TEI, Infinity, Ollama, LM Studio, NIM.

Request and answer: https://platform.openai.com/docs/api-reference/embeddings/create (read 2026-11-23). At most 2,048
inputs and 300,000 tokens per request; an input of at most 8,192 tokens.
"""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedway.config.base_urls import AZURE_V1_VERSIONS
from embedway.errors import BadVectorsError, ConfigError
from embedway.providers.base import Answer, Declared
from embedway.providers.http import HttpModel, make_http, make_http_with_key
from embedway.providers.options import known, most_inputs, one_of, whole_or_none, yes
from embedway.providers.usage import read_tokens
from embedway.providers.vectors import normalize, read_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from embedway.providers.base import Endpoint
    from embedway.providers.http import JsonHttp
    from embedway.types import InputType

OPENAI_URL = "https://api.openai.com/v1"
_COMPATIBLE = (
    "dimensions",
    "encoding",
    "input_type",
    "batch_dependent",
    "allow_http",
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """Parameter names and values of a service with OpenAI's request format."""

    #: Fields of every request besides the model and the texts.
    more: Mapping[str, Any]
    dimensions: str = "dimensions"
    #: Parameter for the input type, if the provider declares it, and its two values. The defaults are those of NVIDIA
    #: NIM (docs.nvidia.com/nim, reference of /v1/embeddings).
    input_type: str = "input_type"
    query: str = "query"
    document: str = "passage"
    #: Whether vectors are normalized here.
    normalize: bool = False


#: A quarter of the bytes of numbers as text, for services that are known to support it. The default for other servers
#: is `float`, because some ignore the parameter and some return zeros.
BASE64 = Dialect({"encoding_format": "base64"})


class EmbeddingsApi(HttpModel):
    """One model of a service with the interface of OpenAI's `POST /embeddings`."""

    def __init__(
        self, endpoint: Endpoint, http: JsonHttp, declared: Declared, dialect: Dialect, *, path: str = "/embeddings"
    ) -> None:
        super().__init__(endpoint, http, declared)
        self._dialect = dialect
        self._path = path

    async def embed(self, texts: Sequence[str], *, input_type: InputType, dimensions: int | None) -> Answer:
        dialect = self._dialect
        body: dict[str, Any] = {"model": self._endpoint.model, "input": list(texts), **dialect.more}
        if self.declared.input_type:
            body[dialect.input_type] = dialect.query if input_type == "query" else dialect.document
        if dimensions is not None:
            body[dialect.dimensions] = dimensions
        reply = await self._http.post(self._path, body, texts=len(texts))
        route = self._endpoint.route
        try:
            vectors, by_position = await reply.read(read_rows, reply.body, count=len(texts), route=route)
        except BadVectorsError as error:
            error.billed_tokens = read_tokens(reply.body)
            raise
        if dialect.normalize:
            vectors = normalize(vectors)
        return Answer(vectors, tokens=read_tokens(reply.body), rates=reply.rates, by_position=by_position)


def openai(endpoint: Endpoint) -> EmbeddingsApi:
    """Create the provider for OpenAI's own service, an entry of `embedway.providers`."""
    http = make_http_with_key(endpoint, OPENAI_URL, variable="OPENAI_API_KEY")
    declared = Declared(
        max_inputs=2048,
        max_request_tokens=300_000,
        # ada-002 refuses the parameter.
        dimensions=endpoint.model.startswith("text-embedding-3"),
    )
    return EmbeddingsApi(endpoint, http, declared, BASE64)


def openai_compatible(endpoint: Endpoint) -> EmbeddingsApi:
    """Create the provider for a server with OpenAI's interface, at `base_url`.

    Options: `max_inputs` or `batch_size` (32, TEI's default limit), `max_request_tokens`, `dimensions` (`true` if the
    server supports it), `encoding` (`float` or `base64`), `input_type` (`true` for NVIDIA NIM), `batch_dependent`
    (`true` if a vector depends on the other texts in its request, as with dynamic int8: such vectors are not cached).
    """
    known(endpoint, _COMPATIBLE)
    if not endpoint.base_url:
        raise ConfigError("must be set for openai-compatible", where=endpoint.route, key="base_url")
    declared = Declared(
        max_inputs=most_inputs(endpoint, 32),
        max_request_tokens=whole_or_none(endpoint, "max_request_tokens"),
        dimensions=yes(endpoint, "dimensions"),
        input_type=yes(endpoint, "input_type"),
        batch_dependent=yes(endpoint, "batch_dependent"),
    )
    encoding = one_of(endpoint, "encoding", ("float", "base64"))
    return EmbeddingsApi(endpoint, make_http(endpoint), declared, Dialect({"encoding_format": encoding}))


def azure(endpoint: Endpoint) -> EmbeddingsApi:
    """Create the provider for Azure OpenAI; the model is the name of a deployment.

    `base_url` is the v1 URL, such as `https://NAME.openai.azure.com/openai/v1`. With the option `api_version`, it is
    the resource's URL, `https://NAME.openai.azure.com`, and the deployment is in the path
    (https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle, read 2026-11-23). If the route sets
    neither, `AZURE_OPENAI_ENDPOINT` and `OPENAI_API_VERSION` apply.
    """
    if not endpoint.base_url:
        raise ConfigError(
            "must be set for azure-openai, such as https://NAME.openai.azure.com/openai/v1; or set "
            "AZURE_OPENAI_ENDPOINT to https://NAME.openai.azure.com",
            where=endpoint.route,
            key="base_url",
        )
    options = ("api_version", "dimensions")
    http = make_http_with_key(endpoint, "", variable="AZURE_OPENAI_API_KEY", header="api-key", options=options)
    version = endpoint.options.get("api_version", "")
    query = f"?{urllib.parse.urlencode({'api-version': version})}" if version not in {"", "v1"} else ""
    # Other versions are dates, of the URL with the deployment in its path.
    is_v1 = not version or version in AZURE_V1_VERSIONS
    deployed = "" if is_v1 else f"/openai/deployments/{urllib.parse.quote(endpoint.model, safe='')}"
    path = f"{deployed}/embeddings{query}"
    # A deployment's name does not identify its model, so the user sets whether it supports the parameter.
    declared = Declared(max_inputs=2048, max_request_tokens=300_000, dimensions=yes(endpoint, "dimensions"))
    return EmbeddingsApi(endpoint, http, declared, BASE64, path=path)
