"""Interface of a process that computes local models for other processes.

A model that is opened with it knows its tokenizer, space and limits, and loads no weights: token ids are sent to the
process, which merges the batches of all its clients.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from embedway.local.backend import BACKENDS, SessionOptions
from embedway.local.runtime_choice import RuntimeChoice

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway.local.recipe import Recipe
    from embedway.types import Batch, TokenizedTexts, Vectors
    from embedway.urgency import Urgency

#: Largest number of streams, threads and tokens that a client may ask for.
_MOST_STREAMS, _MOST_TOKENS = 4096, 1 << 24


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model as one process asks another for it. Equal specifications compute equal numbers from token ids."""

    #: Name that `loading.resolve` accepts: of the catalog, of a repository with `hf:`, or an absolute path.
    name: str
    #: Canonical name, for messages and states.
    model: str
    task: Literal["embed", "rerank"]
    #: Whether the normalization at the end is left out.
    raw: bool
    #: Hash of the weights and of all facts that decide on the numbers.
    digest: str
    #: Size of the weights files.
    weights_bytes: int
    choice: RuntimeChoice

    @classmethod
    def of(cls, name: str, recipe: Recipe, choice: RuntimeChoice, *, raw: bool = False) -> ModelSpec:
        """Return the specification of a model whose files are open. `recipe` is that of the files, also if `raw`."""
        facts = {
            "weights": recipe.weights_sha256,
            "files": dict(recipe.settings_sha256),
            "pooling": recipe.pooling,
            "normalized": recipe.normalized,
            "dense": [[module.activation, module.weights.sha256] for module in recipe.dense],
            "max_tokens": recipe.max_tokens,
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        size = sum(file.size for file in recipe.files)
        return cls(name, recipe.name, recipe.task, raw, digest, size, choice)

    def to_json(self) -> dict[str, Any]:
        """Return the specification as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> ModelSpec:
        """Return the specification from plain values of another process. Raises ValueError."""
        kinds = {"name": str, "model": str, "task": str, "raw": bool, "digest": str, "weights_bytes": int}
        _check_fields(values, cls)
        if any(type(values[key]) is not kind for key, kind in kinds.items()):
            raise ValueError("a field of the model has the wrong type")
        if values["task"] not in {"embed", "rerank"} or values["weights_bytes"] < 0:
            raise ValueError("a field of the model has an invalid value")
        return cls(**{**values, "choice": _choice_from(values["choice"])})


def _choice_from(values: Any) -> RuntimeChoice:
    _check_fields(values, RuntimeChoice)
    budget = values["token_budget"]
    if type(budget) is not int or not 0 < budget <= _MOST_TOKENS:
        raise ValueError("token_budget is out of range")
    return RuntimeChoice(_options_from(values["bulk"]), _options_from(values["single"]), budget)


def _options_from(values: Any) -> SessionOptions:
    _check_fields(values, SessionOptions)
    if values["backend"] not in BACKENDS or values["precision"] not in {"f32", "bf16"}:
        raise ValueError("the backend or the precision is unknown")
    for key in ("streams", "threads"):
        if type(values[key]) is not int or not 0 < values[key] <= _MOST_STREAMS:
            raise ValueError(f"{key} is out of range")
    return SessionOptions(**values)


def _check_fields(values: Any, kind: type[Any]) -> None:
    if type(values) is not dict or cast("dict[str, Any]", values).keys() != {one.name for one in fields(kind)}:
        raise ValueError(f"it must have the fields of {kind.__name__}")


class RemoteModel(Protocol):
    """A model in another process."""

    async def run(self, tokenized: TokenizedTexts, batch: Batch, urgency: Urgency, behind_s: float) -> Vectors:
        """Compute one batch, float32 (b, full width), in the batch's order.

        Jobs of the most urgent callers of all clients are computed first; `behind_s` delays a job, in seconds. Raises
        UnavailableError if the process does not answer, or if the model is still being loaded.
        """

    async def warm(self) -> None:
        """Load the model in the process. Raises as `run`."""


class Inference(Protocol):
    """Connection to a process that computes local models. Used from one event loop."""

    def model(self, spec: ModelSpec) -> RemoteModel:
        """Return a model of the process. Sends nothing, and may be called from any thread."""

    async def state(self) -> dict[str, Any]:
        """Return the health of the process, and under `models` the state of each model, as plain values."""

    async def keep(self, model: str, keep_alive_s: float | None) -> int:
        """Set the time after which an unused model is unloaded, by its canonical name; None for never.

        Returns the number of models of that name in memory.
        """

    async def aclose(self) -> None:
        """Close the connection. Pending calls raise ClosedError."""


if TYPE_CHECKING:
    #: Opens a connection for one event loop.
    OpenInference = Callable[[], Inference]
