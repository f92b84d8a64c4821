"""Fields of requests for embeddings that a server claims in its OpenAPI document."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from embedway.conformance.verdicts import NoAnswerError

if TYPE_CHECKING:
    from embedway.conformance.server import Server

_SCHEMA = "#/components/schemas/"


async def claims_field(server: Server, name: str) -> bool:
    """Return whether `/openapi.json` has a field in the request of a path that ends with `/embeddings`."""
    base = server.target.base_url
    parts = urlsplit(base)
    for root in dict.fromkeys((f"{parts.scheme}://{parts.netloc}", re.sub(r"/v\d+$", "", base))):
        try:
            answer = await server.client.get(f"{root}/openapi.json", is_document=True)
        except NoAnswerError:
            continue
        if answer.is_ok and has_field(answer.value, name):
            return True
    return False


def has_field(document: Any, name: str) -> bool:
    """Return whether an OpenAPI document has a field in a request for embeddings. References are followed once."""
    paths = document.get("paths") if isinstance(document, dict) else None
    left = [one for path, one in paths.items() if path.endswith("/embeddings")] if isinstance(paths, dict) else []
    components = document.get("components") if isinstance(document, dict) else None
    schemas = components.get("schemas") if isinstance(components, dict) else None
    followed: set[str] = set()
    while left:
        value = left.pop()
        if isinstance(value, list):
            left += value
        if not isinstance(value, dict):
            continue
        fields, reference = value.get("properties"), value.get("$ref")
        if isinstance(fields, dict) and name in fields:
            return True
        if isinstance(reference, str) and reference not in followed and isinstance(schemas, dict):
            followed.add(reference)
            left.append(schemas.get(reference.removeprefix(_SCHEMA)))
        # Of an operation, only the request: answers may repeat a field.
        left += [one for key, one in value.items() if key != "responses"]
    return False
