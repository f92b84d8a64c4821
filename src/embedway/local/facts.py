"""The facts of a model folder that decide on vectors beside the weights: tokenizer and configuration.

Each is one digest of the values in use, so that files which differ only in unused values make one space.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from embedway.errors import UnsupportedModelError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: transformers' names of activations, by the names that backends know.
ACTIVATION_NAMES = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
#: RoBERTa's family counts positions from the padding id + 1, and so holds that many fewer.
COUNTED = frozenset({"roberta", "xlm-roberta", "mpnet"})
#: The runtime cuts and pads, whatever the file says.
_UNUSED_BY_TOKENIZER = ("truncation", "padding")


def tokenizer_fact(tokenizer_json: bytes, *, where: str, lowercase: bool) -> str:
    """sha256 of a parsed tokenizer.json without truncation and padding, marked where texts are lowercased first.

    The order of keys does not count, that of lists does. Raises WeightsError for what is no JSON object.
    """
    try:
        parsed = json.loads(tokenizer_json)
        if not isinstance(parsed, dict):
            raise WeightsError(f"{where} holds no JSON object")
        used = {name: value for name, value in parsed.items() if name not in _UNUSED_BY_TOKENIZER}
        canonical = json.dumps(used, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{where} is not JSON: {error}") from error
    return hashlib.sha256(canonical.encode()).hexdigest() + (";lowercase" if lowercase else "")


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """The part of a configuration that the encoder graph reads, with transformers' defaults filled in.

    `architecture` is `onnx` for a graph that somebody else exported; then its own file holds all but the padding id.
    """

    architecture: str
    layers: int
    heads: int
    hidden: int
    #: One of the names that backends know.
    activation: str
    epsilon: float
    pad_token_id: int
    #: The id that RoBERTa's family counts positions from; None where positions are 0, 1, 2, …
    position_base: int | None
    #: Whether the model is told which of two texts a token belongs to.
    token_types: bool

    def digest(self) -> str:
        """sha256 of all facts, 64 hex digits."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def graph_facts(config: Mapping[str, Any], architecture: str, pad: int, *, task: str, where: str) -> GraphFacts:
    """Read the graph's facts from a config.json.

    Defaults are transformers' (configuration_bert.py, _roberta, _xlm_roberta, _mpnet, _distilbert). Raises WeightsError
    for a value that no graph can have, UnsupportedModelError for an activation that is not built.
    """
    token_types = task == "rerank" and _read_int(config, "type_vocab_size", 0, where, least=0) > 1
    if architecture == "onnx":
        return GraphFacts("onnx", 0, 0, 0, "", 0.0, pad, None, token_types)
    distil = architecture == "distilbert"
    name = config.get("activation" if distil else "hidden_act", "gelu")
    if not isinstance(name, str) or name not in ACTIVATION_NAMES:
        raise UnsupportedModelError(f"{where}: the activation {name!r} is not built")
    hidden = _read_int(config, "dim" if distil else "hidden_size", 768, where)
    heads = _read_int(config, "n_heads" if distil else "num_attention_heads", 12, where)
    if hidden % heads:
        raise WeightsError(f"{where}: a hidden size of {hidden} cannot be shared among {heads} attention heads")
    epsilon = 1e-12 if distil else config.get("layer_norm_eps", 1e-12)
    if isinstance(epsilon, bool) or not isinstance(epsilon, (int, float)) or not 0 <= epsilon <= 1:
        raise WeightsError(f"{where}: layer_norm_eps must be a number from 0 to 1")
    return GraphFacts(
        architecture=architecture,
        layers=_read_int(config, "n_layers" if distil else "num_hidden_layers", 6 if distil else 12, where),
        heads=heads,
        hidden=hidden,
        activation=ACTIVATION_NAMES[name],
        epsilon=float(epsilon),
        pad_token_id=pad,
        position_base=pad if architecture in COUNTED else None,
        token_types=token_types,
    )


def _read_int(config: Mapping[str, Any], key: str, default: int, where: str, *, least: int = 1) -> int:
    value = config.get(key, default)
    if type(value) is not int or value < least:
        raise WeightsError(f"{where}: {key} must be a whole number of {least} or more")
    return value
