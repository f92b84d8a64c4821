"""Exported ONNX files: outputs, tables and external data."""

from __future__ import annotations

import math
import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embedway.errors import UnsupportedModelError, WeightsError
from embedway.weights.held_file import HeldFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    import numpy.typing as npt

    from embedway.local.recipe import Recipe

#: Operators that scale activations by the maximum of the whole batch, including padding and other texts.
_DYNAMIC = frozenset({"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "QAttention"})
#: Number types passed to backends as views of the mapped file, as numpy type strings.
_NUMPY_KINDS = {
    "FLOAT": "<f4",
    "DOUBLE": "<f8",
    "FLOAT16": "<f2",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT8": "u1",
}
#: Smaller tensors are stored in the model: backends fold them, and some operators require them there. In bytes.
_INLINE_BYTES = 64 * 1024
#: Maximum bytes stored in the model, below protobuf's limit of 2 GB.
_MOST_INLINE_BYTES = 1_500_000_000
#: Operators that pass ids on unchanged, and operators that keep a table's rows.
_SAME_NUMBERS = frozenset({"Cast", "Identity"})
_SAME_ROWS = frozenset({"Cast", "Identity", "DequantizeLinear"})
_POOLED = ("sentence_embedding", "text_embeds", "embeddings", "pooled", "output")
_HIDDEN = ("token_embeddings", "last_hidden_state", "hidden_states")


def sentence_output(ranks: Mapping[str, int], recipe: Recipe) -> tuple[str, bool]:
    """Return the name of the output to use, and whether it is pooled.

    `ranks` maps each output to its number of axes: 2 is one vector per text, 3 is one per token. The output
    `sentence_embedding` comes first, then an output per token, to which the recipe's pooling is applied, then any other
    pooled output.
    """
    if recipe.task == "rerank":
        if "logits" in ranks:
            return "logits", True
        raise UnsupportedModelError(f"{recipe.onnx}: the classifier has no output called logits")
    if ranks.get("sentence_embedding") == 2:
        return "sentence_embedding", True
    for name in (*_HIDDEN, *ranks):
        if ranks.get(name) == 3:
            return name, False
    for name in (*_POOLED, *ranks):
        if ranks.get(name) == 2:
            return name, True
    raise UnsupportedModelError(
        f"{recipe.onnx}: none of its outputs ({', '.join(ranks)}) contains vectors of texts or tokens"
    )


def depends_on_batch(source: Path | HeldFile) -> bool:
    """Return whether a text's vector depends on the other texts of its batch, as with dynamic int8. Blocking.

    https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html: scales are computed per tensor.
    """
    return onnx_facts(source if isinstance(source, HeldFile) else HeldFile(source)).batch_dependent


@dataclass(frozen=True, slots=True)
class OnnxFacts:
    """Facts of an ONNX file that decide how it is used."""

    #: Whether a text's vector depends on the other texts of its batch.
    batch_dependent: bool
    #: Rows of the smallest table that each input indexes, by the input's name, where a table was found.
    table_rows: Mapping[str, int]


def onnx_facts(file: HeldFile) -> OnnxFacts:
    """Read the facts of an open ONNX file. Raises WeightsError if it is not an ONNX model. Blocking."""
    model = load_proto(file)
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    return OnnxFacts(_quantizes(nodes), _table_rows(model.graph))


def _table_rows(graph: Any) -> dict[str, int]:
    """Return table rows by input: follow ids from the inputs to the tables, through nodes that keep them unchanged."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    # Names of values that equal an input, with the input's name. `shapes` also has values that equal a table.
    chosen_by = {port.name: port.name for port in graph.input if port.name not in shapes}
    rows: dict[str, int] = {}
    for node in graph.node:  # in topological order: a value is defined before it is read
        first = node.input[0] if node.input else ""
        if node.op_type in _SAME_NUMBERS and first in chosen_by:
            chosen_by[node.output[0]] = chosen_by[first]
        elif node.op_type in _SAME_ROWS and first in shapes:
            shapes[node.output[0]] = shapes[first]
        elif node.op_type == "Gather" and len(node.input) == 2 and node.input[1] in chosen_by:
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
            shape = shapes.get(first, ())
            if axis == 0 and len(shape) == 2:
                name = chosen_by[node.input[1]]
                rows[name] = min(shape[0], rows.get(name, shape[0]))
    return rows


def _quantizes(nodes: Iterable[Any]) -> bool:
    for node in nodes:
        if node.op_type in _DYNAMIC:
            return True
        for attribute in node.attribute:
            if any(_quantizes(graph.node) for graph in _graphs(attribute)):
                return True
    return False


def load_proto(file: HeldFile) -> Any:
    """Parse an open ONNX file, without external data. Raises WeightsError if it is not an ONNX model. Blocking."""
    import onnx  # noqa: PLC0415  slow to import, and used only for exported models
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # noqa: PLC0415

    try:
        return onnx.load_model_from_string(file.read())
    except DecodeError:
        raise WeightsError(f"{file} is not an ONNX model, or is damaged") from None


def self_contained(recipe: Recipe) -> tuple[Any, dict[str, npt.NDArray[Any]]]:
    """Parse the recipe's ONNX model and read its external data from the open files.

    Return the model and the large tensors of its main graph by name, as views of the mapped files. These stay marked as
    external in the model; all other external data is copied into it. Raises WeightsError for data outside its file, and
    UnsupportedModelError for more data than the model can contain. Blocking.
    """
    from onnx import TensorProto  # noqa: PLC0415

    assert recipe.onnx is not None  # noqa: S101  checked by the caller
    model = load_proto(recipe.onnx)
    views: dict[str, npt.NDArray[Any]] = {}
    for tensor in model.graph.initializer:
        kind = _NUMPY_KINDS.get(TensorProto.DataType.Name(tensor.data_type))
        if kind is not None and tensor.data_location == TensorProto.EXTERNAL:
            array = _shaped(recipe, tensor, _external_bytes(recipe, tensor), kind)
            if array.nbytes > _INLINE_BYTES:
                views[tensor.name] = array
    inlined = 0
    for tensor, in_main_graph in _tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL or (in_main_graph and tensor.name in views):
            continue
        data = _external_bytes(recipe, tensor)
        inlined += len(data)
        if inlined > _MOST_INLINE_BYTES:
            raise UnsupportedModelError(f"{recipe.onnx}: too much of its external data has an unsupported number type")
        tensor.raw_data = bytes(data)
        del tensor.external_data[:]
        tensor.data_location = TensorProto.DEFAULT
    return model, views


def _external_bytes(recipe: Recipe, tensor: Any) -> memoryview:
    facts = {entry.key: entry.value for entry in tensor.external_data}
    # Normalized as in `further_weights`, when the file was hashed.
    name = posixpath.normpath(facts.get("location", ""))
    file = recipe.external.get(name)
    try:
        offset = int(facts.get("offset") or 0)
        length = int(facts["length"]) if facts.get("length") else None
    except ValueError:
        offset, length = -1, None
    if file is None or offset < 0 or (length is not None and (length < 0 or offset + length > file.size)):
        raise WeightsError(
            f"{recipe.onnx}: tensor {tensor.name!r} names external data that is missing in its folder's files"
        )
    if not file.size:
        return memoryview(b"")
    return memoryview(file.map())[offset : None if length is None else offset + length]


def _shaped(recipe: Recipe, tensor: Any, data: memoryview, kind: str) -> npt.NDArray[Any]:
    shape = tuple(tensor.dims)
    if min(shape, default=0) < 0 or math.prod(shape) * np.dtype(kind).itemsize != len(data):
        raise WeightsError(
            f"{recipe.onnx}: tensor {tensor.name!r}: the size of its external data does not match its shape"
        )
    return np.frombuffer(data, kind).reshape(shape)


def _tensors(model: Any) -> Iterator[tuple[Any, bool]]:
    """Iterate over a model's tensors, with whether each is an initializer of the main graph."""
    yield from ((tensor, True) for tensor in model.graph.initializer)
    yield from ((tensor, False) for tensor in _inner_tensors(model.graph))
    for function in model.functions:
        yield from ((tensor, False) for tensor in _node_tensors(function.node))
        yield from ((tensor, False) for tensor in _attribute_tensors(function.attribute_proto))


def _graph_tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    yield from _inner_tensors(graph)


def _inner_tensors(graph: Any) -> Iterator[Any]:
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[Any]) -> Iterator[Any]:
    for node in nodes:
        yield from _attribute_tensors(node.attribute)


def _attribute_tensors(attributes: Iterable[Any]) -> Iterator[Any]:
    for attribute in attributes:
        yield from attribute.tensors
        yield from (attribute.t,) if attribute.HasField("t") else ()
        sparse_tensor = (attribute.sparse_tensor,) if attribute.HasField("sparse_tensor") else ()
        for sparse in (*attribute.sparse_tensors, *sparse_tensor):
            yield from (sparse.values, sparse.indices)
        for graph in _graphs(attribute):
            yield from _graph_tensors(graph)


def _graphs(attribute: Any) -> tuple[Any, ...]:
    return (*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ()))
