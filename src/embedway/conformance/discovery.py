"""Discovery of a server's API and model, before it is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedway.conformance.verdicts import NoAnswerError
from embedway.errors import AuthenticationError, ProtocolError, UnavailableError, UsageError
from embedway.text import shown_name

if TYPE_CHECKING:
    from embedway.conformance.client import Answer, Client

#: Names of models that an error lists.
_SHOWN = 20
#: Fields in which servers list the most tokens of a text.
_LIMITS = ("max_model_len", "max_tokens", "max_input_tokens", "max_input_length", "context_length")
_LARGEST_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True)
class Found:
    """URL of an API, the model to ask for, and what the server's list says about it."""

    base_url: str
    model: str
    max_tokens: int | None


async def discover(client: Client, model: str | None) -> Found:
    """Find the URL at which the API starts, and the model.

    Raises UpstreamErrors if the server cannot be judged, and UsageError if it has several models and none is named.
    """
    listing: Answer | None = None
    base_url = client.place.base_urls[0]
    for base_url in client.place.base_urls:
        answer = await _asked(client, base_url)
        if answer.status not in {404, 405}:
            listing = answer
            break
    rows = [] if listing is None else _rows(listing)
    if model is None:
        model = _only_model(rows, base_url, listing)
    if listing is None or not rows:
        base_url = await _first_that_embeds(client, model)
        return Found(base_url, model, None)
    row = next((row for row in rows if row["id"] == model), None)
    limits = [value for name in _LIMITS if type(value := (row or {}).get(name)) is int]
    limit = next((value for value in limits if 0 < value <= _LARGEST_LIMIT), None)
    return Found(base_url, model, limit)


async def _asked(client: Client, base_url: str) -> Answer:
    """Ask for the list of models. Raises UnavailableError and AuthenticationError."""
    try:
        answer = await client.get(f"{base_url}/models")
    except NoAnswerError as error:
        raise UnavailableError(str(error), route=base_url) from None
    if answer.status in {401, 403}:
        given = "the server refuses the key" if client.place.key else "the server needs a key; use --api-key-env"
        raise AuthenticationError(given, route=base_url, status=answer.status)
    return answer


def _rows(listing: Answer) -> list[dict[str, Any]]:
    data = listing.value.get("data") if listing.is_ok and isinstance(listing.value, dict) else None
    rows = data if isinstance(data, list) else []
    return [row for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)]


def _only_model(rows: list[dict[str, Any]], base_url: str, listing: Answer | None) -> str:
    names = list(dict.fromkeys(row["id"] for row in rows))
    if len(names) == 1:
        return str(names[0])
    if not names:
        seen = "has no list of models" if listing is None else f"answers {base_url}/models with {listing.status}"
        raise ProtocolError(f"the server {seen}, or lists none; name a model with --model", route=base_url)
    listed = ", ".join(map(shown_name, names[:_SHOWN])) + (", …" if len(names) > _SHOWN else "")
    raise UsageError(f"the server has {len(names)} models; name one with --model: {listed}")


async def _first_that_embeds(client: Client, model: str) -> str:
    """Return the first URL that embeds a text. Raises UpstreamErrors."""
    for base_url in client.place.base_urls:
        try:
            answer = await client.post(f"{base_url}/embeddings", {"model": model, "input": "a test"})
        except NoAnswerError as error:
            raise UnavailableError(str(error), route=base_url) from None
        if answer.status not in {404, 405}:
            return base_url
    raise ProtocolError("the server has no /embeddings, or no such model", route=client.place.base_urls[0], status=404)
