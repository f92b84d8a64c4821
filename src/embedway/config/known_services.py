"""Services of providers: hosts, and environment variables of the official clients.

The variables are from the official clients, checked 2026-11-24: openai 3.57.0 (`OPENAI_BASE_URL`, `OPENAI_ORG_ID`,
`OPENAI_PROJECT_ID`; for Azure `AZURE_OPENAI_ENDPOINT` and `OPENAI_API_VERSION`), cohere 7.3.1 (`CO_API_URL`) and
google-genai 3.6.1 (`GOOGLE_GEMINI_BASE_URL`, `GOOGLE_GENAI_API_VERSION`). voyageai 0.5.0 and mistralai 3.7.0 read no
URL from the environment, and Jina has no client.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True)
class KnownService:
    """Service of a provider: variables of its key and its official client, and its own hosts."""

    #: Variables of the key. The first one that is set is used.
    keys: tuple[str, ...]
    #: Host names. A leading dot matches all subdomains.
    hosts: tuple[str, ...]
    #: Variables of the URL and of the API version; empty if the client reads none.
    address: str = ""
    version: str = ""
    #: Headers that the client sends, by variable.
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Header of the key.
    key_header: str = "authorization"


SERVICES: Mapping[str, KnownService] = MappingProxyType(
    {
        "openai": KnownService(
            ("OPENAI_API_KEY",),
            # Regional hosts, such as eu.api.openai.com, from openai/_data_residency.py.
            ("api.openai.com", ".api.openai.com"),
            address="OPENAI_BASE_URL",
            headers={"OPENAI_ORG_ID": "openai-organization", "OPENAI_PROJECT_ID": "openai-project"},
        ),
        "azure-openai": KnownService(
            ("AZURE_OPENAI_API_KEY",),
            # https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle; a resource is a subdomain.
            (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com"),
            address="AZURE_OPENAI_ENDPOINT",
            version="OPENAI_API_VERSION",
            key_header="api-key",
        ),
        "cohere": KnownService(
            ("COHERE_API_KEY", "CO_API_KEY"), ("api.cohere.com", "api.cohere.ai"), address="CO_API_URL"
        ),
        # voyageai/util.py: keys of MongoDB Atlas are sent to the second host.
        "voyage": KnownService(("VOYAGE_API_KEY",), ("api.voyageai.com", "ai.mongodb.com")),
        "jina": KnownService(("JINA_API_KEY",), ("api.jina.ai",)),
        "gemini": KnownService(
            ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
            ("generativelanguage.googleapis.com",),
            address="GOOGLE_GEMINI_BASE_URL",
            version="GOOGLE_GENAI_API_VERSION",
            key_header="x-goog-api-key",
        ),
        # Three hosts, from mistralai/client/sdkconfiguration.py.
        "mistral": KnownService(("MISTRAL_API_KEY",), ("api.mistral.ai", "api.eu.mistral.ai", "api.us.mistral.ai")),
    }
)
#: Variables of each service's key. The first one that is set is used.
KEY_VARIABLES: dict[str, tuple[str, ...]] = {name: service.keys for name, service in SERVICES.items()}

#: Providers of this package.
BUILT_IN = frozenset({*SERVICES, "openai-compatible", "fake", "fastembed", "sentence-transformers", "local"})
#: Other names of services and servers, in lower case and without separators, by the provider that calls them.
_OTHER_NAMES = {
    "openai-compatible": "ollama vllm tei textembeddingsinference lmstudio infinity nim nvidia nvidianim llamacpp "
    "llamaserver llamafile localai litellm openrouter together togetherai fireworks deepinfra xinference sglang tgi "
    "triton custom selfhosted compatible openaicompatible openaicompat openailike huggingfacetei portkey",
    "azure-openai": "azure azureopenai azureai aoai",
    "gemini": "google googleai googlegenai vertex vertexai",
    "voyage": "voyageai",
    "jina": "jinaai",
    "mistral": "mistralai",
    "cohere": "cohereai",
    "sentence-transformers": "sbert sentencetransformer huggingface hf",
}
#: The provider of each of these names.
SERVED_BY: Mapping[str, str] = MappingProxyType(
    {name: provider for provider, names in _OTHER_NAMES.items() for name in names.split()}
)


def key_header(provider: str, auth: str) -> str:
    """Return the header in which a route with this provider sends its key or token."""
    known = SERVICES.get(provider)
    return known.key_header if known is not None and auth == "key" else "authorization"


def service_variables() -> Iterator[str]:
    """Iterate over the variables of all services."""
    for service in SERVICES.values():
        yield from (*service.keys, *service.headers)
        yield from (name for name in (service.address, service.version) if name)
