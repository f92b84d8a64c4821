"""URLs of services as people paste them, completed to the URL at which a provider's API starts.

A provider appends its own path, such as `/embeddings`, so a pasted one is removed, and a missing version is added where
the service is known. The scheme, the host and the port are never changed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

from embedway.config.addresses import belongs_to_hosts
from embedway.config.known_services import SERVICES, KnownService

if TYPE_CHECKING:
    from collections.abc import Mapping

_PARTS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://[^/?#]*)([^?#]*)(?:\?([^#]*))?")
#: Paths that the providers append, by provider; those of `""` are common to all.
_APPENDED: Mapping[str, tuple[str, ...]] = {
    "": ("/embeddings", "/rerank"),
    "cohere": ("/v2/embed", "/v2/rerank"),
}
#: Version in the path of a service, added to a URL of its own hosts that has no path.
_VERSIONS = {"openai": "/v1", "voyage": "/v1", "jina": "/v1", "mistral": "/v1", "gemini": "/v1beta"}
_GEMINI_MODEL = re.compile(r"/models(/[^/]*)?$")
_DEPLOYMENT = re.compile(r"(.*)/openai/deployments/([^/]+)")
_AZURE_V1 = "/openai/v1"
#: Values of Azure's `api-version` with the v1 URL; others are dates of the URL with the deployment in its path.
AZURE_V1_VERSIONS = frozenset({"v1", "preview", "latest"})


@dataclass(frozen=True, slots=True)
class BaseUrl:
    """URL at which an API starts, and the options and the deployment that the given URL contained."""

    url: str
    options: Mapping[str, str] = field(default_factory=dict)
    model: str = ""


def complete_base_url(provider: str, text: str, *, version: str = "") -> BaseUrl:
    """Return the URL at which the API of a provider starts, from a URL that may be longer or shorter.

    `version` is Azure's API version, if a setting names one. Raises ValueError, which says what to write, for a query
    that the provider cannot send. URLs of other packages' providers, and invalid ones, are returned unchanged.
    """
    text = text.strip()
    found = _PARTS.fullmatch(text)
    if found is None or provider not in {*SERVICES, "openai-compatible"}:
        return BaseUrl(text)
    root, path, query = found[1], re.sub("/{2,}", "/", found[2]).rstrip("/"), found[3]
    path = _without_appended(provider, path)
    if provider == "azure-openai":
        return _complete_azure(root, path, query, version)
    if query is not None:
        azure = belongs_to_hosts(root, SERVICES["azure-openai"].hosts)
        instead = '; write provider = "azure-openai"' if azure else "; a key in it belongs in headers"
        shown = f", such as {root}{path}" if "@" not in root + path else ""
        raise ValueError(f"must be a URL without ?{shown}{instead}")
    if belongs_to_hosts(root, SERVICES.get(provider, KnownService((), ())).hosts):
        path = _with_version(provider, path)
    return BaseUrl(root + path)


def _without_appended(provider: str, path: str) -> str:
    for ending in (*_APPENDED.get(provider, ()), *_APPENDED[""]):
        if path.endswith(ending):
            return path[: -len(ending)]
    return _GEMINI_MODEL.sub("", path) if provider == "gemini" else path


def _with_version(provider: str, path: str) -> str:
    """Return the path of a URL of the service's own hosts, with its version."""
    if provider == "cohere":
        return path if path not in {"/v1", "/v2"} else ""  # its own paths start with the version
    if provider == "gemini":
        path = path.removesuffix("/openai")
    return path or _VERSIONS.get(provider, "")


def _complete_azure(root: str, path: str, query: str | None, version: str) -> BaseUrl:
    """Return the v1 URL, or with a version that is a date, the resource's URL before `/openai/deployments`."""
    given = parse_qsl(query or "", keep_blank_values=True)
    if any(name != "api-version" for name, _ in given) or len(given) > 1:
        raise ValueError("must have no other query than ?api-version=; a key in it belongs in api_key")
    named = version or (given[0][1] if given else "")
    options = {"api_version": named} if named else {}
    deployed = _DEPLOYMENT.fullmatch(path)
    if deployed is not None:
        model = unquote(deployed[2])
        if named and named not in AZURE_V1_VERSIONS:
            return BaseUrl(root + deployed[1], options, model)
        if named:
            return BaseUrl(f"{root}{deployed[1]}{_AZURE_V1}", options, model)
        raise ValueError(
            'has a deployment in its path, so the API version must be set too: write options = { api_version = "…" } '
            f'with its date, or base_url = "{root}{_AZURE_V1}" and the deployment as upstream_model'
        )
    resource = path.removesuffix("/v1").removesuffix("/openai") if path.endswith((_AZURE_V1, "/openai")) else path
    if named and named not in AZURE_V1_VERSIONS:
        return BaseUrl(root + resource, options)
    # A gateway may have any path.
    return BaseUrl(root + (f"{resource}{_AZURE_V1}" if resource != path or not path else path), options)
