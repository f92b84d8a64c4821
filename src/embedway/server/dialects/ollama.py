"""Ollama's API of embeddings and models.

Source: https://github.com/ollama/ollama, `api/types.go` and `server/routes.go`, read 2026-11-27. Names of models may
end in the tag `:latest`. Options of the runtime have no effect on vectors and are accepted. `keep_alive` has an effect
if the caller may decide for others: without keys, or with an admin key.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import orjson
from pydantic import Field

from embedway._version import __version__
from embedway.server.bodies import Body, parse
from embedway.server.dialects.additions import EmbedAdditions
from embedway.server.dialects.fields import Dimensions, Model, Text, overflow_of, placed, texts_of
from embedway.server.endpoint import Endpoint
from embedway.server.model_cards import model_card, model_cards
from embedway.server.problems import BodyError
from embedway.server.replies import Reply, encoded, float_array, float_rows, json_reply, receipt_headers

if TYPE_CHECKING:
    from embedway.server.endpoint import Exchange
    from embedway.server.model_cards import ModelCard
    from embedway.server.problems import Problem

_TAG = ":latest"
_PART = r"\d{1,9}(\.\d{1,9})?(ns|us|µs|ms|s|m|h)"
#: One of Go's durations, such as `1h30m`.
_Duration = Annotated[str, Field(pattern=rf"^-?(0|({_PART}){{1,6}})$")]
KeepAlive = Annotated[
    Annotated[float, Field(allow_inf_nan=False)] | _Duration,
    Field(
        description="Time to keep the model loaded, in seconds or as `5m`; below 0 for ever. Without it, or without an "
        "admin key where keys are needed, `server.keep_alive_s` decides."
    ),
]
#: Units of Go's durations, in seconds.
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PARTS = re.compile(r"([0-9.]+)([^0-9.]+)")
#: Longest time in seconds; longer ones are for ever.
_LONGEST_S = 1e9
Options = Annotated[
    dict[str, bool | int | float | str | list[str] | None],
    Field(description="Accepted; `num_ctx` below the model's limit is refused."),
]


_EXPECTED = {"keep_alive": "a number of seconds, or a duration such as 5m"}


class _LoadingBody(EmbedAdditions):
    """Fields of both bodies: the model, and how it is loaded."""

    expected: ClassVar[dict[str, str]] = _EXPECTED

    model: Model
    keep_alive: KeepAlive | None = None
    options: Options | None = None


class OllamaEmbedBody(_LoadingBody):
    """Body of `POST /api/embed`."""

    expected: ClassVar[dict[str, str]] = {**_EXPECTED, "input": "a text or a list of texts"}

    #: No text has no vector.
    input: Annotated[str, Field(max_length=0)] | Text | list[Text]
    truncate: bool | None = None
    dimensions: Dimensions | None = None


class OllamaEmbeddingsBody(_LoadingBody):
    """Body of `POST /api/embeddings`, which is older."""

    prompt: Annotated[str, Field(max_length=0)] | Text


class OllamaShowBody(Body):
    """Body of `POST /api/show`."""

    model: Model
    verbose: bool | None = None


async def embed(exchange: Exchange) -> Reply:
    """Answer `POST /api/embed`: vectors of length 1, as Ollama."""
    started = time.perf_counter_ns()
    body = parse(OllamaEmbedBody, exchange.body)
    name = await _name(exchange, body)
    if not body.input:
        return json_reply({"model": body.model, "embeddings": []})
    overflow = overflow_of(body.truncate is not False)
    call = body.embed_call(texts_of(body.input), name, None, body.dimensions, overflow, normalize=True)
    result = await exchange.embed(call)
    await _keep(exchange, body)
    answer = b'{"model":%b,"embeddings":%b,"total_duration":%d,"load_duration":0,"prompt_eval_count":%d}' % (
        orjson.dumps(body.model),
        await encoded(result.vectors, float_array, result.vectors),
        time.perf_counter_ns() - started,
        result.receipt.input_tokens,
    )
    return Reply(answer, headers=receipt_headers(result.receipt))


async def embeddings(exchange: Exchange) -> Reply:
    """Answer `POST /api/embeddings`: the vector as the model returns it."""
    body = parse(OllamaEmbeddingsBody, exchange.body)
    name = await _name(exchange, body)
    if not body.prompt:
        return json_reply({"embedding": []})
    result = await exchange.embed(body.embed_call([body.prompt], name, on_overflow="truncate"))
    await _keep(exchange, body)
    answer = b'{"embedding":%b}' % float_rows(result.vectors)[0]
    return Reply(answer, headers=receipt_headers(result.receipt))


async def _keep(exchange: Exchange, body: _LoadingBody) -> None:
    """Keep the model that answered loaded for the time that the body asks for."""
    if body.keep_alive is not None and exchange.caller.admin:
        await exchange.gateway.keep(exchange.model, seconds_of(body.keep_alive))


def seconds_of(asked: float | str) -> float | None:
    """Return a time in seconds, from a number or a duration; None for ever."""
    if isinstance(asked, str):
        sign = -1.0 if asked.startswith("-") else 1.0
        asked = sign * sum(float(number) * _UNITS[unit] for number, unit in _PARTS.findall(asked.lstrip("-")))
    return None if asked < 0 or asked > _LONGEST_S else asked


async def _name(exchange: Exchange, body: _LoadingBody) -> str:
    """Return the canonical name of a model. Raises NotServedError, and BodyError if an option would change vectors."""
    name = await exchange.gateway.served.resolve(body.model.removesuffix(_TAG), exchange.caller)
    asked = (body.options or {}).get("num_ctx")
    if asked is not None:
        most = (await model_card(exchange.gateway, exchange.caller, name)).max_tokens
        if type(asked) is not int or (most is not None and 0 < asked < most):
            raise BodyError(
                f"options.num_ctx must be an integer, and at least the model's limit ({most} tokens); leave it out",
                param="options",
            )
    return name


async def tags(exchange: Exchange) -> Reply:
    """Answer `GET /api/tags`: the served models of embeddings."""
    cards = await model_cards(exchange.gateway, exchange.caller)
    return json_reply({"models": [_model(card) for card in cards if card.task == "embed"]})


async def processes(exchange: Exchange) -> Reply:
    """Answer `GET /api/ps`: the loaded models."""
    cards = await model_cards(exchange.gateway, exchange.caller)
    loaded = [card for card in cards if card.task == "embed" and card.loaded]
    return json_reply(
        {"models": [{**_model(card), "size_vram": 0, "context_length": card.max_tokens or 0} for card in loaded]}
    )


async def show(exchange: Exchange) -> Reply:
    """Answer `POST /api/show`: facts of a model."""
    body = parse(OllamaShowBody, exchange.body)
    card = await model_card(exchange.gateway, exchange.caller, body.model.removesuffix(_TAG))
    family = card.architecture or "unknown"
    return json_reply(
        {
            "license": card.licence or "",
            "details": _details(card),
            "model_info": {
                "general.architecture": family,
                "general.basename": card.name,
                "general.parameter_count": card.parameters,
                f"{family}.context_length": card.max_tokens or 0,
                f"{family}.embedding_length": card.dimensions or 0,
            },
            "capabilities": ["embedding"] if card.task == "embed" else [],
        }
    )


async def version(exchange: Exchange) -> Reply:
    """Answer `GET /api/version`: that of embedway."""
    del exchange
    return json_reply({"version": __version__})


def _model(card: ModelCard) -> dict[str, Any]:
    name = card.name + _TAG
    return {"name": name, "model": name, "size": card.size_bytes, "digest": card.sha256, "details": _details(card)}


def _details(card: ModelCard) -> dict[str, Any]:
    parameters = f"{card.parameters / 1e6:.0f}M" if card.parameters else ""
    return {
        "parent_model": "",
        "format": "safetensors" if card.sha256 else "",
        "family": card.architecture,
        "families": [card.architecture] if card.architecture else [],
        "parameter_size": parameters,
        "quantization_level": "",
    }


def error(problem: Problem) -> bytes:
    """Return an error in Ollama's form."""
    return orjson.dumps({"error": placed(problem, "input")})


_ERROR_SCHEMA = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_NUMBERS = {"type": "array", "items": {"type": "number"}}
_EMBEDDED = {
    "type": "object",
    "required": ["model", "embeddings"],
    "properties": {
        "model": {"type": "string"},
        "embeddings": {"type": "array", "items": _NUMBERS},
        "total_duration": {"type": "integer"},
        "load_duration": {"type": "integer"},
        "prompt_eval_count": {"type": "integer"},
    },
}
_MODELS = {
    "type": "object",
    "required": ["models"],
    "properties": {
        "models": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "model", "size", "digest", "details"],
                "properties": {
                    "name": {"type": "string"},
                    "model": {"type": "string"},
                    "size": {"type": "integer"},
                    "digest": {"type": "string"},
                    "details": {"type": "object"},
                },
            },
        }
    },
}
_SHOWN = {
    "type": "object",
    "required": ["details", "model_info", "capabilities"],
    "properties": {
        "details": {"type": "object"},
        "model_info": {"type": "object"},
        "capabilities": {"type": "array", "items": {"type": "string"}},
    },
}
_VERSION = {"type": "object", "required": ["version"], "properties": {"version": {"type": "string"}}}
_EMBEDDING = {"type": "object", "required": ["embedding"], "properties": {"embedding": _NUMBERS}}


def _post(path: str, handler: Any, summary: str, body: type[Body], answer: Any) -> Endpoint:
    return Endpoint("POST", path, handler, summary, error, "ollama", body, answer, error_schema=_ERROR_SCHEMA)


def _get(path: str, handler: Any, summary: str, answer: Any) -> Endpoint:
    return Endpoint("GET", path, handler, summary, error, "ollama", None, answer, error_schema=_ERROR_SCHEMA)


_OWN = (
    _post("/api/embed", embed, "Vectors of texts, as Ollama", OllamaEmbedBody, _EMBEDDED),
    _post("/api/embeddings", embeddings, "The vector of a text, as Ollama", OllamaEmbeddingsBody, _EMBEDDING),
    _post("/api/show", show, "Facts of a model, as Ollama", OllamaShowBody, _SHOWN),
    _get("/api/tags", tags, "Served models, as Ollama", _MODELS),
    _get("/api/ps", processes, "Loaded models, as Ollama", _MODELS),
    _get("/api/version", version, "Version, as Ollama", _VERSION),
)
ENDPOINTS = (*_OWN, *(one.under("/ollama") for one in _OWN))
