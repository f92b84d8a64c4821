"""Models that sentence-transformers runs: any hub model, or a folder.

Options: `device`, `batch_size` (32), `max_inputs` (256, or the batch size if larger), `dtype` (such as `float16`),
`path` (a folder instead of the hub), `revision`, and `trust_remote_code` (`true` to run code from a repository; the
catalog's `remote_code` = `needed` means that the model does not load without it). Some model cards require
`max_seq_length`, `padding_side` and `append_eos`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.errors import ConfigError, UnsupportedModelError
from embedway.opt_out import opt_out_of_telemetry
from embedway.providers.base import Answer, Declared
from embedway.providers.foreign_code import model_source
from embedway.providers.library import LibraryFacts, LoadedOnce, check_installed, device_of, digest_of, request_inputs
from embedway.providers.options import known, one_of, whole, yes
from embedway.providers.vectors import normalize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from embedway.providers.base import Endpoint
    from embedway.providers.counting import TokenCounter
    from embedway.types import InputType, Vectors

OPTIONS = ("device", "dtype", "path", "revision", "trust_remote_code", "remote_code")
_EMBED_OPTIONS = ("max_seq_length", "padding_side", "append_eos")
#: Options that change vectors, besides the choice of weights.
_DECIDING = frozenset({"padding_side", "append_eos"})
#: Files of a folder that determine vectors.
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "*.json", "*/config.json", "*/*.safetensors")


class SentenceTransformers:
    """A hub model. Its prompts are passed separately from the texts, because some models exclude them from pooling."""

    runtime = "sentence-transformers"

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._batch_size = whole(endpoint, "batch_size", 32)
        self.declared = Declared(request_inputs(endpoint, self._batch_size), input_type=True, free=True, local=True)
        self._append_eos = yes(endpoint, "append_eos")
        #: Precision is not part of a space, but it changes the numbers.
        self.variant = endpoint.options.get("dtype", "")
        self._prompts = dict(endpoint.prompts)
        self._loaded = LoadedOnce(endpoint, lambda: _load(endpoint))

    async def embed(self, texts: Sequence[str], *, input_type: InputType, dimensions: int | None) -> Answer:
        del dimensions

        def compute(model: Any) -> Vectors:
            # The library sorts by length itself.
            rows = model.encode(
                [text + model.tokenizer.eos_token for text in texts] if self._append_eos else list(texts),
                # An empty prompt overrides the library's default prompt.
                prompt=self._prompts.get(input_type, ""),
                batch_size=self._batch_size,
                show_progress_bar=False,
                convert_to_numpy=True,
            )
            return normalize(np.asarray(rows, np.float32))

        return Answer(await self._loaded.compute(compute), tokens=0)

    def facts(self) -> LibraryFacts:
        """Load the model and return its dimensions, limit and prompts; `embed` then uses these prompts. Blocking."""
        model = self._loaded.get()
        prompts = {name: str(text or "") for name, text in model.prompts.items()}
        default = prompts.get(str(model.default_prompt_name), "")
        documents = (prompts[name] for name in ("document", "passage", "corpus") if prompts.get(name))
        self._prompts = {"query": prompts.get("query") or default, "document": next(documents, default)}
        return LibraryFacts(
            int(model.get_embedding_dimension()),
            int(model.max_seq_length or model.tokenizer.model_max_length),
            self._prompts["query"],
            self._prompts["document"],
        )

    def weights(self) -> str:
        options = {name: value for name, value in self._endpoint.options.items() if name in _DECIDING}
        return weights_of(self._loaded.get()[0].auto_model, self._endpoint, options)

    def counter(self, max_tokens: int) -> TokenCounter:
        model = self._loaded.get()
        limit = min(max_tokens, int(model.max_seq_length or max_tokens)) - self._append_eos
        return fast_counter(model.tokenizer, limit)

    def tokenizer_json(self) -> str:
        return fast_tokenizer(self._loaded.get().tokenizer)

    async def aclose(self) -> None:
        self._loaded.close()


def sentence_transformers(endpoint: Endpoint) -> SentenceTransformers:
    """Create the provider, an entry of `embedway.providers`.

    Raises RuntimeUnavailableError without the extra `sentence-transformers`.
    """
    check(endpoint, (*OPTIONS, *_EMBED_OPTIONS))
    return SentenceTransformers(endpoint)


def check(endpoint: Endpoint, options: Sequence[str]) -> None:
    """Raise RuntimeUnavailableError without the library, ConfigError for unknown options."""
    check_installed("sentence_transformers", "sentence-transformers", endpoint)
    known(endpoint, options)
    device_of(endpoint)
    one_of(endpoint, "padding_side", ("right", "left"))
    if endpoint.options.get("remote_code") == "needed" and not yes(endpoint, "trust_remote_code"):
        raise ConfigError(
            f"{endpoint.model} needs code from its repository, which is run only if you allow it: set "
            "true on a route of the model",
            where=endpoint.route,
            key="options.trust_remote_code",
        )


def weights_of(model: Any, endpoint: Endpoint, options: Mapping[str, str]) -> str:
    """Return the digest of a transformers model's weights (hub commit or folder files) and options. Blocking."""
    folder = Path(endpoint.options.get("path", endpoint.model))
    if folder.is_dir():
        return digest_of([path for pattern in _WEIGHTS for path in folder.glob(pattern)], options)
    commit = str(getattr(model.config, "_commit_hash", None) or endpoint.options.get("revision", "main"))
    return digest_of([], {"commit": commit, **options})


def loading(endpoint: Endpoint, source: str) -> dict[str, Any]:
    """Return the arguments of the library's constructors for a folder or a hub name."""
    import torch  # noqa: PLC0415  an extra, and slow to import

    options = endpoint.options
    device = device_of(endpoint)
    if device == "auto":
        mps = torch.backends.mps.is_available()
        device = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    arguments: dict[str, Any] = {
        "device": device,
        # Code from a repository runs only if the user allows it.
        "trust_remote_code": yes(endpoint, "trust_remote_code"),
    }
    if "revision" in options:
        arguments["revision"] = options["revision"]
    if not arguments["trust_remote_code"]:
        # A folder is complete. Without this, the library queries the hub for its name and for what its files refer to.
        arguments["local_files_only"] = Path(source).is_dir()
        # A configuration must not cause objects other than tensors to be unpickled, because that runs code.
        arguments["model_kwargs"] = {"weights_only": True}
    if "dtype" in options:
        arguments.setdefault("model_kwargs", {})["torch_dtype"] = options["dtype"]
    return arguments


def fast_counter(tokenizer: Any, max_tokens: int) -> TokenCounter:
    """Return the counter of a transformers tokenizer. Raises UnsupportedModelError if it is written in Python."""
    from embedway.providers.counting import counter_of  # noqa: PLC0415  only here

    return counter_of(fast_tokenizer(tokenizer), max_tokens=max_tokens)


def fast_tokenizer(tokenizer: Any) -> str:
    """Return a transformers tokenizer in the format of tokenizer.json.

    Raises UnsupportedModelError if it is written in Python.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise UnsupportedModelError("its tokenizer is not from the tokenizers library: exact counts are not possible")
    return str(tokenizer.backend_tokenizer.to_str())


def _load(endpoint: Endpoint) -> Any:
    source = model_source(endpoint)
    opt_out_of_telemetry()
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415  an extra, and slow to import

    options = endpoint.options
    model = SentenceTransformer(source, **loading(endpoint, source))
    if "max_seq_length" in options:
        model.max_seq_length = whole(endpoint, "max_seq_length", 1)
    if "padding_side" in options:
        model.tokenizer.padding_side = options["padding_side"]
    return model
