"""Models that fastembed runs: its own ONNX conversions, by its names, or a folder.

Options: `device`, `batch_size` (8: on a CPU larger ones are slower and take gigabytes), `max_inputs` (256, or the batch
size if larger), `threads`, `cache_dir`, and for a folder `path`, with `pooling` (`mean` or `cls`) and `model_file`
(`onnx/model.onnx`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.local.onnx_file import depends_on_batch
from embedway.opt_out import opt_out_of_telemetry
from embedway.providers.base import Answer, Declared
from embedway.providers.library import (
    LibraryFacts,
    LoadedOnce,
    check_installed,
    device_of,
    digest_of,
    request_inputs,
    shortest_first,
)
from embedway.providers.options import known, one_of, whole
from embedway.providers.vectors import normalize
from embedway.weights.model_files import read_required_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.providers.base import Endpoint
    from embedway.providers.counting import TokenCounter
    from embedway.types import InputType, Vectors

_OPTIONS = ("device", "threads", "cache_dir", "path", "pooling", "model_file")


class FastEmbed:
    """One of fastembed's models. embedway puts the prompts before the texts and counts their tokens."""

    runtime = "fastembed"
    variant = ""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._batch_size = whole(endpoint, "batch_size", 8)
        self.declared = Declared(request_inputs(endpoint, self._batch_size), free=True, local=True)
        self._loaded = LoadedOnce(endpoint, lambda: _load(endpoint))

    async def embed(self, texts: Sequence[str], *, input_type: InputType, dimensions: int | None) -> Answer:
        del input_type, dimensions

        def compute(model: Any) -> Vectors:
            ordered, places = shortest_first(texts)
            rows = np.stack(list(model.embed(ordered, batch_size=self._batch_size))).astype(np.float32)
            return normalize(rows[places])

        return Answer(await self._loaded.compute(compute), tokens=0)

    def facts(self) -> LibraryFacts:
        """Load the model and return its dimensions and token limit. Blocking."""
        model = self._loaded.get()
        width = len(next(iter(model.embed(["a"]))))
        return LibraryFacts(width, int(model.model.tokenizer.truncation["max_length"]))

    def weights(self) -> str:
        """Return the digest of the model's weights and pooling. Blocking; loads the model.

        This also sets `declared.batch_dependent`, which is true for dynamic int8, for example.
        """
        model = self._loaded.get().model
        graph = Path(model._model_dir) / model.model_description.model_file  # noqa: SLF001  not public anywhere
        self.declared = replace(self.declared, batch_dependent=depends_on_batch(graph))
        pooling = {"pooling": self._endpoint.options.get("pooling", type(model).__name__)}
        return digest_of([graph, *graph.parent.glob(f"{graph.name}[_.]data")], pooling)

    def counter(self, max_tokens: int) -> TokenCounter:
        from embedway.providers.counting import counter_of  # noqa: PLC0415  only here

        tokenizer = self._loaded.get().model.tokenizer
        limit = int((tokenizer.truncation or {}).get("max_length", max_tokens))
        return counter_of(tokenizer.to_str(), max_tokens=min(max_tokens, limit))

    def tokenizer_json(self) -> str:
        return str(self._loaded.get().model.tokenizer.to_str())

    async def aclose(self) -> None:
        self._loaded.close()


def fastembed(endpoint: Endpoint) -> FastEmbed:
    """Create the provider, an entry of `embedway.providers`.

    Raises RuntimeUnavailableError without the extra `fastembed`.
    """
    check_installed("fastembed", "fastembed", endpoint)
    known(endpoint, _OPTIONS)
    device_of(endpoint)
    one_of(endpoint, "pooling", ("mean", "cls"))
    return FastEmbed(endpoint)


def _load(endpoint: Endpoint) -> Any:
    opt_out_of_telemetry()
    import fastembed as library  # noqa: PLC0415  an extra, and slow to import
    from fastembed.common.model_description import ModelSource, PoolingType  # noqa: PLC0415

    options = endpoint.options
    arguments: dict[str, Any] = {"lazy_load": False}
    if "threads" in options:
        arguments["threads"] = whole(endpoint, "threads", 1)
    if "cache_dir" in options:
        arguments["cache_dir"] = options["cache_dir"]
    if "path" in options:
        arguments["specific_model_path"] = options["path"]
        if endpoint.model not in {model["model"] for model in library.TextEmbedding.list_supported_models()}:
            config = read_required_json(Path(options["path"]) / "config.json")
            library.TextEmbedding.add_custom_model(
                endpoint.model,
                pooling=PoolingType.CLS if options.get("pooling") == "cls" else PoolingType.MEAN,
                normalization=True,
                sources=ModelSource(hf=endpoint.model),
                dim=int(config.get("hidden_size") or config["dim"]),
                model_file=options.get("model_file", "onnx/model.onnx"),
            )
    device = device_of(endpoint)
    if device == "mps":
        arguments["providers"] = ["CoreMLExecutionProvider", "CPUExecutionProvider"]
    elif device != "auto":
        arguments["cuda"] = device == "cuda"
    return library.TextEmbedding(endpoint.model, **arguments)
