"""Recipe of a model folder: architecture, pooling, length, prompts and weights files.

The files are those of sentence-transformers (`modules.json`, `N_Pooling/config.json`, `sentence_bert_config.json`,
`config_sentence_transformers.json`) and transformers' `config.json`. They take precedence; the catalog fills in only
missing facts.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedway.errors import UnsupportedModelError, WeightsError
from embedway.local.facts import COUNTED, GraphFacts, graph_facts, tokenizer_fact
from embedway.local.modules import WIDEST, DenseModule, list_modules, read_modules, refuse_prompts_left_out
from embedway.text import has_surrogate
from embedway.types import InputType, Pooling, Space
from embedway.weights.held_file import HeldFile
from embedway.weights.layout import INDEX, SAFETENSORS, further_weights, is_safe_path, weights_hash
from embedway.weights.model_files import (
    is_file,
    parse_object,
    read_optional,
    read_optional_json,
    read_required,
    read_required_json,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from embedway.catalog import ModelFacts, Task
    from embedway.weights.hashes import HashCache

_log = logging.getLogger(__name__)

ARCHITECTURES = ("bert", "roberta", "xlm-roberta", "mpnet", "distilbert")
#: transformers' names of models that share the graph of another model.
_SAME_GRAPH = {"camembert": "roberta"}
_DEFAULT_PAD = dict.fromkeys(COUNTED, 1)
#: tokenizers writes this number or a greater one for "no limit".
_NO_LIMIT = 1_000_000
#: Positions are int32.
_MOST_TOKENS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Recipe:
    """Facts that define a model's graph and vector space. One record, because the folder decides all of them."""

    name: str
    folder: Path
    task: Task
    architecture: str
    config: Mapping[str, Any]
    #: safetensors files; empty if there is only `onnx`.
    weights: tuple[HeldFile, ...]
    onnx: HeldFile | None
    #: Files with the external data of `onnx`, by their name in it, relative to its folder.
    external: Mapping[str, HeldFile]
    weights_sha256: str
    pooling: Pooling
    normalized: bool
    dense: tuple[DenseModule, ...]
    max_tokens: int
    prompts: Mapping[InputType, str]
    sizes: tuple[int, ...]
    #: Path of tokenizer.json, for errors, and its content when it was read.
    tokenizer: Path
    tokenizer_json: bytes
    #: sha256 of tokenizer.json and config.json as stored.
    settings_sha256: Mapping[str, str]
    graph: GraphFacts
    pad_token_id: int
    #: Whether texts are lowercased before they are tokenized.
    lowercase: bool = False

    @property
    def dimensions(self) -> int:
        """Full width of a vector; for rerankers, the number of labels."""
        return self.sizes[0]

    @property
    def first_position(self) -> int:
        """Position of a text's first token: the padding id + 1 in RoBERTa's family, 0 in all others."""
        return first_position(self.architecture, self.pad_token_id)

    @property
    def token_types(self) -> bool:
        """Whether the model reads token types: which of two texts a token belongs to (BERT rerankers)."""
        return self.graph.token_types

    @property
    def files(self) -> tuple[HeldFile, ...]:
        """All files that a session reads, external data included."""
        graphs = (self.onnx,) if self.onnx is not None else ()
        return (*self.weights, *graphs, *self.external.values(), *(module.weights for module in self.dense))

    def check_weights(self) -> None:
        """Open all files. Raises WeightsError if their bytes do not match `weights_sha256`. Blocking."""
        for file in self.files:
            file.hold()
        held = {file.path.relative_to(self.folder).as_posix(): file for file in self.files}
        names = {*held, INDEX} if self.weights and SAFETENSORS not in held else set(held)
        found = weights_hash(
            names,
            path_of=lambda name: self.folder / name,
            sha256_of=lambda name: held[name].sha256,
            onnx_file=self.onnx.path.relative_to(self.folder).as_posix() if self.onnx is not None else None,
        )
        if found != self.weights_sha256:
            raise WeightsError(f"{self.folder} changed while the model was opened: open it again")

    def space(self, dimensions: int, facts: ModelFacts | None, *, listed_files: bool = False) -> Space:
        """Return the vector space. Its digest is that of the weights if everything else matches the catalog.

        `listed_files` is true if the files come from the repository and commit in the catalog.
        """
        tokenizer = tokenizer_fact(self.tokenizer_json, where=str(self.tokenizer), lowercase=self.lowercase)
        config = self.graph.digest()
        as_listed = (
            facts is not None
            and not self.dense
            and facts.pooling == self.pooling
            and facts.normalized == self.normalized
            and dict(facts.prompts) == dict(self.prompts)
            and self._is_listed("tokenizer.json", tokenizer, facts.weights.tokenizer, facts, listed_files=listed_files)
            and self._is_listed("config.json", config, facts.weights.config, facts, listed_files=listed_files)
        )
        return Space(
            model=self.name.rsplit("/", 1)[-1],
            weights=self.weights_sha256,
            dimensions=dimensions,
            pooling=self.pooling,
            normalized=self.normalized,
            query_prompt=self.prompts["query"],
            document_prompt=self.prompts["document"],
            head=";".join(f"{d.activation}:{d.weights.sha256}" for d in self.dense),
            digest=self.weights_sha256[:8] if as_listed else "",
            tokenizer=tokenizer,
            config=config,
        )

    def _is_listed(
        self, file: str, fact: str, listed_fact: str | None, facts: ModelFacts, *, listed_files: bool
    ) -> bool:
        """Return whether a settings file matches the catalog by its fact, its bytes or its source."""
        if listed_fact is not None:
            return fact == listed_fact
        sha256 = facts.weights.sha256(file)
        return self.settings_sha256[file] == sha256 if sha256 is not None else listed_files


def read_recipe(
    folder: Path,
    *,
    name: str,
    weights_sha256: str,
    facts: ModelFacts | None,
    onnx_file: str | None = None,
    hash_cache: HashCache | None = None,
) -> Recipe:
    """Read a model folder. Every settings file is read once; weights are opened lazily.

    `onnx_file` replaces safetensors. Raises UnsupportedModelError, and WeightsError for damaged files.
    """
    path = folder / "config.json"
    config_json = read_required(path)
    config = parse_object(config_json, path)
    architecture = architecture_of(config)
    weight_paths, onnx_path = _weight_files(folder, onnx_file)
    if onnx_path is None:
        _refuse_unsupported(folder, architecture, config)
    modules = list_modules(folder)
    task = task_by(folder, config, modules)
    pooling, dense, normalized, width = _read_head(folder, modules, facts, config, hash_cache)
    sizes = _sizes(folder, _labels(folder, config) if task == "rerank" else width, facts)
    tokenizer_json = _read_tokenizer(folder)
    pad = pad_token_id(config, architecture)
    graph = graph_facts(config, "onnx" if onnx_path else architecture, pad, task=task, where=str(path))
    return Recipe(
        name=name,
        folder=folder,
        task=task,
        architecture=architecture,
        config=config,
        weights=tuple(HeldFile(path, hash_cache) for path in weight_paths),
        onnx=None if onnx_path is None else HeldFile(onnx_path, hash_cache),
        external={} if onnx_path is None else _external_files(onnx_path, hash_cache),
        weights_sha256=weights_sha256,
        pooling=pooling,
        normalized=normalized,
        dense=dense,
        max_tokens=read_max_tokens(folder, config, facts, offset=first_position(architecture, pad)),
        prompts=read_prompts(folder, facts, modules),
        sizes=sizes,
        tokenizer=folder / "tokenizer.json",
        tokenizer_json=tokenizer_json,
        settings_sha256={"config.json": _sha256(config_json), "tokenizer.json": _sha256(tokenizer_json)},
        graph=graph,
        pad_token_id=pad,
        lowercase=bool(read_optional_json(folder / "sentence_bert_config.json").get("do_lower_case", False)),
    )


def architecture_of(config: Mapping[str, Any]) -> str:
    """Return the architecture of a model's graph."""
    model_type = str(config.get("model_type", ""))
    return _SAME_GRAPH.get(model_type, model_type)


def _sizes(folder: Path, width: int, facts: ModelFacts | None) -> tuple[int, ...]:
    """Return the full width of a vector and the smaller sizes that the model was trained for."""
    width = width or ((facts.dimensions or 0) if facts is not None else 0)
    if not width:
        raise UnsupportedModelError(f"{folder / 'config.json'}: hidden_size or dim is required as the width of vectors")
    return (width, *(size for size in (facts.matryoshka if facts else ()) if size < width))


def _read_tokenizer(folder: Path) -> bytes:
    data = read_optional(folder / "tokenizer.json")
    if data is None:
        raise UnsupportedModelError(f"{folder}: tokenizer.json is missing; slow tokenizers are not supported")
    return data


def pad_token_id(config: Mapping[str, Any], architecture: str) -> int:
    """Return the padding id; transformers' default if config.json has none."""
    pad = config.get("pad_token_id")
    return pad if type(pad) is int else _DEFAULT_PAD.get(architecture, 0)


def first_position(architecture: str, pad: int) -> int:
    """Return the position of a text's first token."""
    return pad + 1 if architecture in COUNTED else 0


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _external_files(onnx: Path, hash_cache: HashCache | None) -> dict[str, HeldFile]:
    try:
        names = further_weights(onnx.name, onnx)
    except OSError as error:
        raise WeightsError(f"{onnx} cannot be read: {error.strerror}") from error
    return {name: HeldFile(onnx.parent / name, hash_cache) for name in names}


def _labels(folder: Path, config: Mapping[str, Any]) -> int:
    """Return the number of labels of a classifier."""
    labels = config.get("id2label")
    if "id2label" in config and (labels is None or isinstance(labels, dict)):
        return len(labels or {0: ""})
    number = config.get("num_labels", 1)
    if type(number) is not int or number < 1:
        raise WeightsError(f"{folder / 'config.json'}: num_labels must be an integer greater than 0")
    return number


def _weight_files(folder: Path, onnx_file: str | None) -> tuple[tuple[Path, ...], Path | None]:
    if onnx_file is not None:
        if not is_file(folder / onnx_file):
            raise WeightsError(f"{folder / onnx_file} is missing")
        return (), folder / onnx_file
    if is_file(folder / "model.safetensors"):
        return (folder / "model.safetensors",), None
    index = folder / "model.safetensors.index.json"
    if is_file(index):
        try:
            names = sorted(set(read_required_json(index)["weight_map"].values()))
            outside = [name for name in names if not is_safe_path(name)]
        except (KeyError, AttributeError, TypeError) as error:
            raise WeightsError(f"{index} has no weight_map from tensors to files") from error
        if outside:
            raise WeightsError(f"{index} names a file outside its folder: {outside[0]!r}")
        return tuple(folder / name for name in names), None
    for candidate in ("onnx/model.onnx", "model.onnx"):
        if is_file(folder / candidate):
            return (), folder / candidate
    raise UnsupportedModelError(
        f"{folder} contains neither model.safetensors nor onnx/model.onnx; pickled weights are not "
        "supported, because reading them can run code"
    )


def _refuse_unsupported(folder: Path, architecture: str, config: Mapping[str, Any]) -> None:
    if architecture not in ARCHITECTURES:
        raise UnsupportedModelError(
            f"{folder}: the architecture {architecture or '(none named)'!r} is not supported; supported are "
            f"{', '.join(ARCHITECTURES)}, and any other as an ONNX file"
        )
    positions = config.get("position_embedding_type", "absolute")
    if positions != "absolute":
        raise UnsupportedModelError(
            f"{folder}: position_embedding_type {positions!r} is not supported, only 'absolute'"
        )
    if config.get("is_decoder"):
        raise UnsupportedModelError(f"{folder}: is_decoder is set; only encoders are supported")
    if config.get("quantization_config"):
        raise UnsupportedModelError(f"{folder}: quantized weights (quantization_config) are not supported")


def task_of(folder: Path) -> Task:
    """Return the task of a model folder. Raises WeightsError for damaged files."""
    return task_by(folder, read_required_json(folder / "config.json"), list_modules(folder))


def task_by(folder: Path, config: Mapping[str, Any], modules: list[tuple[str, Path]]) -> Task:
    """Return the task of a model folder with this config.json and these modules. Raises WeightsError."""
    return "rerank" if is_classifier(folder, config) and not modules else "embed"


def is_classifier(folder: Path, config: Mapping[str, Any]) -> bool:
    """Return whether a config.json is that of a classifier. Raises WeightsError."""
    names = config.get("architectures")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise WeightsError(f"{folder / 'config.json'}: architectures must be a list of names")
    return any(name.endswith("ForSequenceClassification") for name in names or ())


def _read_head(
    folder: Path,
    modules: list[tuple[str, Path]],
    facts: ModelFacts | None,
    config: Mapping[str, Any],
    hash_cache: HashCache | None,
) -> tuple[Pooling, tuple[DenseModule, ...], bool, int]:
    """Return pooling, Dense modules, whether vectors are normalized, and their width."""
    width = config.get("hidden_size") or config.get("dim") or 0
    if type(width) is not int or not 0 <= width <= WIDEST:
        raise WeightsError(f"{folder / 'config.json'}: hidden_size must be an integer from 1 to {WIDEST}")
    if not modules:
        if facts is not None and facts.pooling is not None:
            return facts.pooling, (), bool(facts.normalized), width
        if not is_classifier(folder, config):
            _log.warning("%s defines no pooling; using mean, as sentence-transformers does", folder)
        return "mean", (), False, width
    return read_modules(folder, modules, width, hash_cache)


def read_max_tokens(folder: Path, config: Mapping[str, Any], facts: ModelFacts | None, *, offset: int) -> int:
    """Return the maximum tokens of a text; `offset` is the position of its first token."""
    limits: list[int] = []
    positions = _limit(config, "max_position_embeddings", folder / "config.json")
    if positions is not None:
        limits.append(positions - offset)
    sentences = folder / "sentence_bert_config.json"
    length = _limit(read_optional_json(sentences), "max_seq_length", sentences)
    tokenizer_limit = read_optional_json(folder / "tokenizer_config.json").get("model_max_length")
    if length is not None:
        limits.append(length)
    elif facts is not None:
        limits.append(facts.max_tokens)
    elif type(tokenizer_limit) is int and tokenizer_limit < _NO_LIMIT:
        limits.append(tokenizer_limit)
    if not limits:
        raise UnsupportedModelError(f"{folder}: no file defines the maximum number of tokens")
    if not 1 <= min(limits) <= _MOST_TOKENS:
        raise WeightsError(f"{folder}: the maximum number of tokens is invalid: {min(limits)}")
    return min(limits)


def _limit(config: Mapping[str, Any], key: str, path: Path) -> int | None:
    value = config.get(key)
    if value is not None and type(value) is not int:
        raise WeightsError(f"{path}: {key} must be an integer")
    return value


def read_prompts(folder: Path, facts: ModelFacts | None, modules: list[tuple[str, Path]]) -> dict[InputType, str]:
    """Return the prompts of a model folder by input type."""
    path = folder / "config_sentence_transformers.json"
    config = read_optional_json(path)
    given = config.get("prompts") or {}
    if not isinstance(given, dict) or not all(value is None or _is_text(value) for value in given.values()):
        raise WeightsError(f"{path}: prompts must map names to strings")
    named = {str(key): value or "" for key, value in given.items()}
    name = config.get("default_prompt_name")
    if name is not None and (not isinstance(name, str) or name not in named):
        raise WeightsError(f"{path}: default_prompt_name {name!r} is not among its prompts")
    default = named.get(str(name), "")
    # Prompt names that sentence-transformers' encode_document tries, in its order.
    documents = (named[key] for key in ("document", "passage", "corpus") if named.get(key))
    prompts: dict[InputType, str] = {"query": named.get("query") or default, "document": next(documents, default)}
    if not any(prompts.values()) and facts is not None:
        prompts = {"query": facts.prompts.get("query", ""), "document": facts.prompts.get("document", "")}
    if any(prompts.values()):
        refuse_prompts_left_out(modules)
    return prompts


def _is_text(value: object) -> bool:
    """Return whether a value is a string that can be encoded as UTF-8."""
    return isinstance(value, str) and not has_surrogate(value)
