"""Shared parts of the provider suites: each API with its server, and calls of a provider or the engine."""

import asyncio
import contextlib
import traceback
from dataclasses import dataclass, field, replace

import numpy as np

from api_servers import (
    KEY,
    AzureServer,
    ClassicAzureServer,
    CohereServer,
    CompatibleServer,
    GeminiServer,
    IndexedServer,
    JinaServer,
    LaterGeminiServer,
    MistralServer,
    NimServer,
    OpenAIServer,
    VoyageServer,
)
from embedway import AsyncEmbedder, Config
from embedway.errors import (
    AuthenticationError,
    ProtocolError,
    QuotaExceededError,
    RateLimitedError,
    RefusedInputError,
    UnavailableError,
)
from embedway.models import opening as service
from embedway.providers.base import Endpoint
from embedway.providers.fake import vector_of
from embedway.providers.registry import make_provider

MODEL = "the-model"
TEXTS = ["the first text", "the second", "and a third one"]
TIKTOKEN = "tiktoken:cl100k_base"


@dataclass(frozen=True)
class Api:
    """One way to reach a provider: its server, its name for the model, and the path before the one that it adds."""

    server: type
    model: str
    prefix: str = "/v1"
    options: dict[str, str] = field(default_factory=dict)
    width: int | None = None
    tokenizer: str = "estimate"

    @property
    def indexed(self) -> bool:
        return issubclass(self.server, (OpenAIServer, IndexedServer))

    def serve(self):
        made = self.server()
        if self.width is not None:
            made.width = self.width
        return made


OPENAI = Api(OpenAIServer, "text-embedding-3-small", width=1536, tokenizer=TIKTOKEN)
AZURE = Api(AzureServer, "my-deployment", options={"dimensions": "true"}, width=1536, tokenizer=TIKTOKEN)
COMPATIBLE = replace(OPENAI, server=CompatibleServer, width=384)
#: Provider, and after a space its variant.
APIS = {
    "openai": OPENAI,
    "azure-openai": AZURE,
    "azure-openai classic": replace(
        AZURE, server=ClassicAzureServer, prefix="", options={**AZURE.options, "api_version": "2024-10-21"}
    ),
    "openai-compatible": COMPATIBLE,
    "openai-compatible base64": replace(COMPATIBLE, options={"encoding": "base64", "dimensions": "true"}),
    "openai-compatible nim": replace(COMPATIBLE, server=NimServer, options={"input_type": "true"}),
    "cohere": Api(CohereServer, "embed-v4.0", ""),
    "voyage": Api(VoyageServer, "voyage-4"),
    "jina": Api(JinaServer, "jina-embeddings-v3"),
    "mistral": Api(MistralServer, "codestral-embed"),
    "gemini": Api(GeminiServer, "gemini-embedding-001", "/v1beta"),
    "gemini later": Api(LaterGeminiServer, "gemini-embedding-2", "/v1beta"),
}
#: A fault, its error, and whether it is retried.
FAILURES = {
    "reset": (UnavailableError, True),
    "hang up": (UnavailableError, True),
    "bad status line": (ProtocolError, True),
    "slow": (UnavailableError, True),
    "drip": (UnavailableError, True),
    "stall": (UnavailableError, True),
    "408": (UnavailableError, True),
    "409": (UnavailableError, True),
    "500": (UnavailableError, True),
    "502": (UnavailableError, True),
    "503 at once": (UnavailableError, True),
    "504": (UnavailableError, True),
    "html error": (UnavailableError, True),
    "429": (RateLimitedError, True),
    "429 at once": (RateLimitedError, True),
    "429 date": (RateLimitedError, True),
    "html": (ProtocolError, True),
    "half json": (ProtocolError, True),
    "redirect": (ProtocolError, False),
    "404": (ProtocolError, False),
    "501": (ProtocolError, False),
    "400": (RefusedInputError, False),
    "413": (RefusedInputError, False),
    "422": (RefusedInputError, False),
    "401": (AuthenticationError, False),
    "403": (AuthenticationError, False),
    "402": (QuotaExceededError, False),
    "429 quota": (QuotaExceededError, False),
}
NEVER_ENDING = {"slow", "drip", "stall"}


def timeout_for(misdeed):
    return 0.2 if misdeed in NEVER_ENDING else 20.0


INDEXED = [name for name, api in APIS.items() if api.indexed]


def provider_of(name, server, *, secret=KEY, timeout_s=20.0, **more):
    api = APIS[name]
    url = server.url + api.prefix
    endpoint = Endpoint("r", api.model, url, secret=secret, timeout_s=timeout_s, options=api.options, **more)
    return make_provider(name.partition(" ")[0], endpoint)


@contextlib.asynccontextmanager
async def opened(name, server, **endpoint):
    """Open a provider and its running server; at the end, check that no connection is left."""
    async with server.running():
        provider = provider_of(name, server, **endpoint)
        try:
            yield provider
        finally:
            await provider.aclose()
            await server.deserted()


def ask(name, server, texts=TEXTS, *, input_type="document", dimensions=None, **endpoint):
    """Return the answer or error of a provider alone: one call, one request."""

    async def main():
        async with opened(name, server, **endpoint) as provider:
            return await provider.embed(texts, input_type=input_type, dimensions=dimensions)

    return asyncio.run(main())


def config_of(model, route, **settings):
    """Return settings in which `MODEL` has one route, with very short waits and without storage.

    `settings` may contain single fields of both.
    """
    single = [key for key in settings if key.startswith(("routes.r.", "models.m.")) and key.count(".") == 2]
    fields = {key: settings.pop(key) for key in single}
    route = {**route, **{key.removeprefix("routes.r."): fields[key] for key in fields if key[0] == "r"}}
    model = {**model, **{key.removeprefix("models.m."): fields[key] for key in fields if key[0] == "m"}}
    overrides = {
        "models.m": {"name": MODEL, "max_tokens": 8192, "tokenizer": "estimate", "normalized": True, **model},
        "routes.r": {"model": MODEL, **route},
        "upstream.first_wait_s": 0.001,
        "upstream.longest_wait_s": 0.002,
        "cache.backend": "none",
        "ledger.backend": "none",
        **settings,
    }
    return Config.load(environ={}, overrides=overrides)


def config_for(name, server, *, model=None, **settings):
    """Return settings in which `MODEL` is the model of a running server."""
    api = APIS[name]
    facts = {
        "dimensions": server.width,
        "matryoshka": [256] if server.width > 256 else [],
        "tokenizer": api.tokenizer,
        # Services with input types add the same prompt to a query themselves.
        "query_prompt": "query: ",
    }
    route = {
        "provider": name.partition(" ")[0],
        "upstream_model": api.model,
        "base_url": server.url + api.prefix,
        "api_key": KEY,
        "options": api.options,
    }
    return config_of({**facts, **(model or {})}, route, **settings)


@contextlib.asynccontextmanager
async def engine_over(server, configured):
    """Open the engine with the settings of `configured` once the server runs; at the end, no connection is left."""
    async with server.running():
        try:
            async with AsyncEmbedder(config=configured()) as embedder:
                yield embedder
        finally:
            await server.deserted()


def embedder_for(name, server, **settings):
    """Return an embedder for a running server."""
    return engine_over(server, lambda: config_for(name, server, **settings))


def embed(name, server, texts=TEXTS, *, settings=None, **options):
    """Return the vectors of texts through the complete engine."""

    async def main():
        async with embedder_for(name, server, **(settings or {})) as embedder:
            return await embedder.embed(texts, model=MODEL, **options)

    return asyncio.run(main())


def made_by(patch, make):
    """Make later providers with `make`, from a name and an endpoint."""
    patch.setattr(service, "make_provider", make)


def limited(patch, max_inputs):
    """Make later providers declare this maximum of inputs per request."""

    def make(name, endpoint):
        provider = make_provider(name, endpoint)
        provider.declared = replace(provider.declared, max_inputs=max_inputs)
        return provider

    made_by(patch, make)


def wanted(texts, server, width=None):
    """Return the right vectors."""
    full = getattr(server, "widest", None) or server.width
    rows = np.stack([vector_of(text, full)[: width or server.width] for text in texts])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def assert_right(vectors, texts, server, width=None):
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, wanted(texts, server, width), atol=1e-6)


def all_said(error):
    """Return the text of an error with its causes and contexts."""
    said, seen, left = [], set(), [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        said += [str(one), repr(one), repr(one.args), *traceback.format_exception_only(one)]
        left += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
    return "\n".join(said)


def assert_tells_no_secret(said, texts=TEXTS):
    assert KEY not in said
    assert not [text for text in texts if text in said]
