"""Modules of a sentence-transformers folder: pooling, Dense layers, normalization."""

from __future__ import annotations

import json
import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedway.errors import UnsupportedModelError, WeightsError
from embedway.weights.held_file import HeldFile
from embedway.weights.layout import is_safe_path
from embedway.weights.model_files import is_file, read_optional, read_required_json

if TYPE_CHECKING:
    from pathlib import Path

    from embedway.types import Pooling
    from embedway.weights.hashes import HashCache

#: Maximum width of a vector.
WIDEST = 2**20
_POOLING_MODES: dict[str, Pooling] = {
    "mean": "mean",
    "cls": "cls",
    "lasttoken": "last",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
_DENSE_ACTIVATIONS = {"Identity": "identity", "Tanh": "tanh", "ReLU": "relu", "GELU": "gelu", "Sigmoid": "sigmoid"}


@dataclass(frozen=True, slots=True)
class DenseModule:
    """Dense module of sentence-transformers: a linear layer after pooling."""

    weights: HeldFile
    activation: str


def list_modules(folder: Path) -> list[tuple[str, Path]]:
    """Return types and folders of the modules, in order; empty if the folder lists none. Raises WeightsError."""
    path = folder / "modules.json"
    written = read_optional(path)
    if written is None:
        return []
    try:
        listed = [(module["type"], module["path"]) for module in json.loads(written)]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise WeightsError(f"{path} must be a list of modules, each with type and path") from error
    for kind, place in listed:
        if not isinstance(kind, str) or not isinstance(place, str):
            raise WeightsError(f"{path}: type and path of each module must be strings")
        if (plain := posixpath.normpath(place)) != "." and not is_safe_path(plain):
            raise WeightsError(f"{path} names a module outside its folder: {place!r}")
    return [(kind.rsplit(".", 1)[-1], folder / place) for kind, place in listed]


def read_modules(
    folder: Path, modules: list[tuple[str, Path]], width: int, hash_cache: HashCache | None
) -> tuple[Pooling, tuple[DenseModule, ...], bool, int]:
    """Return pooling, Dense modules, whether vectors are normalized, and their width; `width` is the encoder's."""
    pooling: Pooling | None = None
    dense: list[DenseModule] = []
    normalized = False
    for kind, path in modules:
        if kind == "Transformer" and path.resolve() == folder.resolve():
            continue
        if kind == "Pooling" and pooling is None:
            pooling = read_pooling(path)
        elif kind == "Dense" and pooling is not None and not normalized:
            module, width = _dense(path, hash_cache)
            dense.append(module)
        elif kind == "Normalize" and pooling is not None:
            normalized = True
        elif kind != "Dropout":  # has no effect at inference
            raise UnsupportedModelError(f"{path}: the module {kind!r} is not supported at this position")
    if pooling is None:
        raise UnsupportedModelError(f"{folder / 'modules.json'} has no Pooling module")
    return pooling, tuple(dense), normalized, width


def read_pooling(path: Path) -> Pooling:
    """Read a Pooling module. Raises WeightsError and UnsupportedModelError."""
    config = read_required_json(path / "config.json")
    named = config.get("pooling_mode")
    if named is not None:
        modes = [named] if isinstance(named, str) else named
        if not isinstance(modes, list) or not all(isinstance(mode, str) for mode in modes):
            raise WeightsError(f"{path / 'config.json'}: pooling_mode must be a name or a list of names")
    else:
        modes = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    if len(modes) != 1 or modes[0] not in _POOLING_MODES:
        raise UnsupportedModelError(f"{path}: pooling {' + '.join(modes) or '(none)'!r} is not supported")
    return _POOLING_MODES[modes[0]]


def refuse_prompts_left_out(modules: list[tuple[str, Path]]) -> None:
    """Raise UnsupportedModelError if pooling excludes the tokens of a prompt."""
    for kind, path in modules:
        if kind == "Pooling" and read_required_json(path / "config.json").get("include_prompt") is False:
            raise UnsupportedModelError(f"{path}: include_prompt = false (pooling without the prompt) is not supported")


def _dense(path: Path, hash_cache: HashCache | None) -> tuple[DenseModule, int]:
    config = read_required_json(path / "config.json")
    name = str(config.get("activation_function", "Tanh")).rsplit(".", 1)[-1]
    if name not in _DENSE_ACTIVATIONS:
        raise UnsupportedModelError(f"{path}: the activation {name!r} is not supported")
    weights = path / "model.safetensors"
    if not is_file(weights):
        raise UnsupportedModelError(f"{path}: model.safetensors is missing; pickled weights are not supported")
    width = config.get("out_features")
    if type(width) is not int or not 1 <= width <= WIDEST:
        raise WeightsError(f"{path / 'config.json'}: out_features must be an integer from 1 to {WIDEST}")
    return DenseModule(HeldFile(weights, hash_cache), _DENSE_ACTIVATIONS[name]), width
