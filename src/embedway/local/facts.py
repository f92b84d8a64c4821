"""Facts of a model folder that define vectors besides the weights: tokenizer and configuration.

Each fact is one digest of the values in use. Files that differ only in unused values share one space.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from embedway.errors import UnsupportedModelError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Names of activations: from transformers' name to the name in backends.
ACTIVATION_NAMES = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
#: RoBERTa's family counts positions from the padding id + 1, and so has that many fewer.
COUNTED = frozenset({"roberta", "xlm-roberta", "mpnet"})
#: The runtime truncates and pads regardless of the file.
_UNUSED_BY_TOKENIZER = ("truncation", "padding")


def tokenizer_fact(tokenizer_json: bytes, *, where: str, lowercase: bool) -> str:
    """Return the sha256 of tokenizer.json without truncation and padding, marked if texts are lowercased first.

    The order of object keys is ignored; the order of lists is not. Raises WeightsError unless the file is a JSON
    object.
    """
    try:
        parsed = json.loads(tokenizer_json)
        if not isinstance(parsed, dict):
            raise WeightsError(f"{where} is not a JSON object")
        used = {name: value for name, value in parsed.items() if name not in _UNUSED_BY_TOKENIZER}
        canonical = json.dumps(used, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{where} is not JSON: {error}") from error
    return hashlib.sha256(canonical.encode()).hexdigest() + (";lowercase" if lowercase else "")


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """Part of a configuration that the encoder graph reads, with transformers' defaults filled in.

    `architecture` is `onnx` for an exported graph. Its own file then contains everything except the padding id.
    """

    architecture: str
    layers: int
    heads: int
    hidden: int
    #: One of the names in backends.
    activation: str
    epsilon: float
    pad_token_id: int
    #: Id from which RoBERTa's family counts positions; None if positions are 0, 1, 2, …
    position_base: int | None
    #: Whether the model reads which of two texts a token belongs to.
    token_types: bool

    def digest(self) -> str:
        """Return the sha256 of all facts, 64 hex digits."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def graph_facts(config: Mapping[str, Any], architecture: str, pad: int, *, task: str, where: str) -> GraphFacts:
    """Read the graph's facts from a config.json.

    Defaults are transformers' (configuration_bert.py, _roberta, _xlm_roberta, _mpnet, _distilbert). Raises WeightsError
    for an invalid value and UnsupportedModelError for an unsupported activation.
    """
    token_types = task == "rerank" and _read_int(config, "type_vocab_size", 0, where, least=0) > 1
    if architecture == "onnx":
        return GraphFacts("onnx", 0, 0, 0, "", 0.0, pad, None, token_types)
    distil = architecture == "distilbert"
    name = config.get("activation" if distil else "hidden_act", "gelu")
    if not isinstance(name, str) or name not in ACTIVATION_NAMES:
        raise UnsupportedModelError(f"{where}: the activation {name!r} is not supported")
    hidden = _read_int(config, "dim" if distil else "hidden_size", 768, where)
    heads = _read_int(config, "n_heads" if distil else "num_attention_heads", 12, where)
    if hidden % heads:
        raise WeightsError(f"{where}: the hidden size {hidden} is not a multiple of the {heads} attention heads")
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
        raise WeightsError(f"{where}: {key} must be an integer of at least {least}")
    return value
