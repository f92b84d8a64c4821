"""Layout of a model repository: files to fetch, weights files, and the hash of the weights."""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import posixpath
import re
from typing import TYPE_CHECKING

from embedway.errors import UnsupportedModelError, WeightsError
from embedway.files import open_regular, read_regular
from embedway.text import has_surrogate
from embedway.weights.model_files import is_file
from embedway.weights.onnx_external import external_files

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from pathlib import Path

SAFETENSORS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ONNX = ("onnx/model.onnx", "model.onnx")

#: Maximum size of an index in bytes. It names each tensor once.
_MAX_INDEX_BYTES = 256 * 1024 * 1024
#: Settings, tokenizers and Dense modules. Pickles (`.bin`) and code are excluded: reading those can run code.
_SETTINGS = re.compile(
    r"""config\.json | [^/]+/config\.json | modules\.json | config_sentence_transformers\.json
    | sentence_[^/]*config\.json | tokenizer[^/]*\.json | special_tokens_map\.json
    | \d+_[^/]+/model\.safetensors""",
    re.VERBOSE,
)


def is_safe_path(path: str) -> bool:
    """Return whether an untrusted name is a plain relative path that stays in its folder, on every system."""
    parts = path.split("/")
    return not (has_surrogate(path) or set(path) & set('\\:*?"<>|\0') or any(part in {"", ".", ".."} for part in parts))


def first_weights(names: Collection[str], onnx_file: str | None = None) -> str | None:
    """Return the file that a model is loaded from: safetensors, their index or an ONNX file; None if missing.

    `onnx_file` names an ONNX file to use instead.
    """
    return next((name for name in _candidates(onnx_file) if name in names), None)


def refuse_irregular(folder: Path, onnx_file: str | None = None) -> None:
    """Raise WeightsError if a file that a model may be loaded from exists and is not a regular file.

    Otherwise other weights would silently replace it.
    """
    for name in _candidates(onnx_file):
        is_file(folder / name)


def _candidates(onnx_file: str | None) -> tuple[str, ...]:
    return (onnx_file,) if onnx_file is not None else (SAFETENSORS, INDEX, *ONNX)


def further_weights(name: str, path: Path) -> tuple[str, ...]:
    """Return the files that the first weights file names: shards of an index, external data of an ONNX file; sorted.

    `name` is the file's name in its repository, `path` is where its bytes are stored. Raises WeightsError.
    """
    if name.endswith(".json"):
        try:
            found = {str(shard) for shard in json.loads(_read_index(path))["weight_map"].values()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise WeightsError(f"{path} is not an index of safetensors files") from None
    elif name.endswith(".onnx"):
        found = _external_data(path)
    else:
        return ()
    folder = posixpath.dirname(name)
    names = sorted(posixpath.join(folder, posixpath.normpath(item)) for item in found)
    for item in names:
        if not is_safe_path(item):
            raise WeightsError(f"{path} names a file outside its folder: {item!r}")
    return tuple(names)


def _read_index(path: Path) -> bytes:
    data = read_regular(path, most_bytes=_MAX_INDEX_BYTES)
    if data is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return data


def _external_data(path: Path) -> set[str]:
    if path.stat().st_size == 0:
        return set()
    with os.fdopen(open_regular(path), "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return external_files(data, where=str(path))


def weights_hash(
    names: Collection[str],
    *,
    path_of: Callable[[str], Path],
    sha256_of: Callable[[str], str],
    onnx_file: str | None = None,
) -> str:
    """Return the hash of a model's weights, as described in ModelFolder.

    Raises UnsupportedModelError if there are no weights, and WeightsError if a part of them is missing.
    """
    first = _require_weights(names, onnx_file)
    further = further_weights(first, path_of(first))
    for name in further:
        if name not in names:
            raise WeightsError(f"{path_of(first)} names {name}, which is missing")
    # The shards contain all facts about the weights that an index contains.
    parts = further if first.endswith(".json") else (first, *further)
    if len(parts) == 1:
        return sha256_of(parts[0])
    return combine_hashes((name, sha256_of(name)) for name in parts)


def combine_hashes(pairs: Iterable[tuple[str, str]]) -> str:
    """Return the sha256 over sorted `name sha256` lines."""
    lines = sorted(f"{name} {sha256}\n" for name, sha256 in pairs)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def choose_files(names: Collection[str], onnx_file: str | None = None) -> tuple[str, ...]:
    """Return the files to fetch from a repository, without those of `further_weights`; sorted.

    Raises UnsupportedModelError if no file contains weights that are safe to read.
    """
    first = _require_weights(names, onnx_file)
    return tuple(sorted({first, *(name for name in names if _SETTINGS.fullmatch(name))}))


def is_settings(name: str) -> bool:
    """Return whether a file of a repository contains settings or a tokenizer, and no weights."""
    return _SETTINGS.fullmatch(name) is not None and not name.endswith(".safetensors")


def _require_weights(names: Collection[str], onnx_file: str | None) -> str:
    """Return the file that a model is loaded from. Raises UnsupportedModelError with the reason if it is missing."""
    if (first := first_weights(names, onnx_file)) is not None:
        return first
    if onnx_file is not None:
        raise UnsupportedModelError(f"{onnx_file} is missing")
    onnx = sorted(name for name in names if name.endswith(".onnx"))
    hint = f"; choose one of its ONNX files: {', '.join(onnx[:5])}" if onnx else ""
    pickled = any(name.endswith((".bin", ".pt", ".ckpt")) for name in names)
    why = "; pickled weights are not supported, because reading them can run code" if pickled else ""
    raise UnsupportedModelError(f"neither {SAFETENSORS} nor {ONNX[0]} exists{why}{hint}")
