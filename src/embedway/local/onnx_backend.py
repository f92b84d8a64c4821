"""ONNX Runtime backend: the encoder graph in float32, on any CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from embedway.errors import UnsupportedModelError
from embedway.forks import never_free_in_forked_processes
from embedway.local.graph import build_graph, finish_output
from embedway.local.onnx_file import self_contained, sentence_output
from embedway.local.tensors import Tensors
from embedway.opt_out import opt_out_of_telemetry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from embedway.local.backend import Int32s, SessionOptions
    from embedway.local.recipe import Recipe
    from embedway.types import Vectors

opt_out_of_telemetry()
import onnxruntime as ort  # noqa: E402  reads its environment variables on import

# Opset 20 is the first with Gelu. IR 9 is the oldest version that supports it, so older runtimes load the model.
_OPSET = 20
_IR_VERSION = 9
#: Constants with fewer elements are stored in the graph, where ONNX Runtime may fold them.
_INLINE_NUMBERS = 256
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class OnnxOperations:
    """`Operations` as ONNX nodes; values are node names. Large constants stay outside the graph."""

    def __init__(self, prefix: str = "ew_") -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.external: dict[str, npt.NDArray[Any]] = {}
        self._prefix = prefix
        self._names: dict[int, str] = {}
        self._constants: dict[tuple[str, bytes, tuple[int, ...]], str] = {}
        self._arange: str | None = None
        self._unpadded: str | None = None

    def _node(self, kind: str, inputs: Sequence[str], domain: str = "", **attributes: Any) -> str:
        name = f"{self._prefix}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, domain=domain, **attributes))
        return name

    def ids(self) -> str:
        return "input_ids"

    def mask(self) -> str:
        return "attention_mask"

    def token_types(self) -> str:
        return "token_type_ids"

    def constant(self, array: npt.NDArray[Any]) -> str:
        if array.size > _INLINE_NUMBERS:
            name = f"{self._prefix}w{len(self.external)}"
            self.external[name] = array
            return name
        key = (array.dtype.str, array.tobytes(), array.shape)
        if key not in self._constants:
            self._constants[key] = f"{self._prefix}c{len(self._constants)}"
            self.initializers.append(numpy_helper.from_array(np.array(array), self._constants[key]))
        return self._constants[key]

    def _integers(self, values: Sequence[int]) -> str:
        return self.constant(np.array(values, np.int64))

    def gather(self, table: str, indices: str) -> str:
        return self._node("Gather", [table, indices], axis=0)

    def arange(self, ids: str) -> str:
        if self._arange is None:
            length = self._node("Shape", [ids], start=1, end=2)
            scalar = self._node("Squeeze", [length])
            zero, one = (self.constant(np.array(value, np.int32)) for value in (0, 1))
            self._arange = self._node("Range", [zero, self._node("Cast", [scalar], to=TensorProto.INT32), one])
        return self._arange

    def cumulative_sum(self, values: str) -> str:
        return self._node("CumSum", [values, self.constant(np.array(1, np.int64))])

    def equal(self, left: str, right: str) -> str:
        return self._node("Cast", [self._node("Equal", [left, right])], to=TensorProto.INT32)

    def to_float(self, values: str) -> str:
        return self._node("Cast", [values], to=TensorProto.FLOAT)

    def unsqueeze(self, values: str, axes: tuple[int, ...]) -> str:
        return self._node("Unsqueeze", [values, self._integers(axes)])

    def transpose(self, values: str, order: tuple[int, ...]) -> str:
        return self._node("Transpose", [values], perm=list(order))

    def add(self, left: str, right: str) -> str:
        return self._node("Add", [left, right])

    def subtract(self, left: str, right: str) -> str:
        return self._node("Sub", [left, right])

    def multiply(self, left: str, right: str) -> str:
        return self._node("Mul", [left, right])

    def divide(self, left: str, right: str) -> str:
        return self._node("Div", [left, right])

    def linear(self, values: str, weight: npt.NDArray[Any], bias: npt.NDArray[Any] | None) -> str:
        # Gemm accepts the checkpoint's layout unchanged (transB), but only flat inputs.
        shape = self._node("Shape", [values], start=0, end=-1)
        flat = self._node("Reshape", [values, self._integers([-1, weight.shape[1]])])
        inputs = [flat, self.constant(weight)] + ([] if bias is None else [self.constant(bias)])
        product = self._node("Gemm", inputs, transB=1)
        full = self._node("Concat", [shape, self._integers([weight.shape[0]])], axis=0)
        return self._node("Reshape", [product, full])

    def layer_norm(self, values: str, weight: str, bias: str, epsilon: float) -> str:
        return self._node("LayerNormalization", [values, weight, bias], axis=-1, epsilon=epsilon)

    def activation(self, values: str, name: str) -> str:
        if name == "identity":
            return values
        if name == "silu":
            return self.multiply(values, self._node("Sigmoid", [values]))
        if name == "gelu_tanh":
            return self._node("Gelu", [values], approximate="tanh")
        return self._node({"gelu": "Gelu", "relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid"}[name], [values])

    def attention(
        self, query: str, key: str, value: str, *, heads: int, head_size: int, mask: str, bias: str | None
    ) -> str:
        del head_size  # the operator derives it from the width and the heads

        def attend(inputs: list[str]) -> Any:
            output = f"{self._prefix}{len(self.nodes)}_{len(inputs)}"
            return helper.make_node(
                "MultiHeadAttention",
                inputs,
                [output],
                domain="com.microsoft",
                num_heads=heads,
                mask_filter_value=-30_000.0,
            )

        masked = attend([query, key, value, "", mask, bias or ""])
        if bias is not None:
            self.nodes.append(masked)
            return str(masked.output[0])
        # With a mask, the operator keeps all scores in memory at once: 4.3 GB for 8,192 tokens and 16 heads. Without
        # one, it processes them in blocks (contrib_ops/cpu/bert/multihead_attention.cc). So an unpadded batch uses no
        # mask.
        branches = {}
        for name, node in (("then_branch", attend([query, key, value])), ("else_branch", masked)):
            result = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, ["b", "s", None])
            branches[name] = helper.make_graph([node], name, [], [result])
        return self._node("If", [self._nothing_padded()], **branches)

    def _nothing_padded(self) -> str:
        if self._unpadded is None:
            least = self._node("ReduceMin", [self.mask()], keepdims=0)
            self._unpadded = self._node("Cast", [least], to=TensorProto.BOOL)
        return self._unpadded

    def sum_tokens(self, values: str) -> str:
        return self._node("ReduceSum", [values, self._integers([1])], keepdims=0)

    def sum_last(self, values: str) -> str:
        return self._node("ReduceSum", [values, self._integers([1])], keepdims=1)

    def normalize(self, values: str) -> str:
        # ReduceL2 accepts its axes as an input only from opset 18 on, and many exported files use an older one.
        squares = self._node("ReduceSum", [self.multiply(values, values), self._integers([1])], keepdims=1)
        length = self._node("Sqrt", [squares])
        return self._node("Div", [values, self._node("Max", [length, self.constant(np.array(1e-12, np.float32))])])


class OnnxSession:
    """ONNX Runtime session; its threads sleep between runs instead of spinning."""

    def __init__(self, recipe: Recipe, options: SessionOptions) -> None:
        self.options = options
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = max(1, options.threads // options.streams)
        settings.inter_op_num_threads = 1
        # Spinning threads starve the event loop that feeds them (onnxruntime, session options reference).
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.log_severity_level = 3
        # The arena keeps the memory of the largest batch and grows in powers of two. Exact steps avoid the excess.
        settings.enable_mem_pattern = False
        self._values: list[Any] = []
        self._tensors = Tensors(recipe.weights)
        if recipe.onnx is None:
            model = _build_own_model(recipe, self._tensors, settings, self._values)
        else:
            model = _extend_foreign_model(recipe, settings, self._values)
        with self._tensors.sparing():
            self._session: Any = ort.InferenceSession(
                model, settings, providers=[("CPUExecutionProvider", {"arena_extend_strategy": "kSameAsRequested"})]
            )
        never_free_in_forked_processes(self._session)
        kinds = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
        self._inputs = {port.name: kinds[port.type] for port in self._session.get_inputs()}
        self._output = self._session.get_outputs()[0].name
        self._tensors.release_pages()

    def run(self, ids: Int32s, mask: Int32s, types: Int32s | None = None) -> Vectors:
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        feed = {}
        for name, kind in self._inputs.items():
            array = given[name]
            feed[name] = np.zeros(ids.shape, kind) if array is None else array.astype(kind, copy=False)
        return np.asarray(self._session.run([self._output], feed)[0], dtype=np.float32)

    def close(self) -> None:
        self._session = None
        self._values = []


def _build_own_model(recipe: Recipe, tensors: Tensors, settings: Any, values: list[Any]) -> bytes:
    operations = OnnxOperations()
    output = build_graph(operations, recipe, tensors)
    names = _INPUTS if recipe.token_types else _INPUTS[:2]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT32, ["b", "s"]) for name in names]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["b", None])]
    graph = helper.make_graph(operations.nodes, "encoder", inputs, outputs, operations.initializers)
    _attach_external(graph, operations, settings, values)
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="embedway")
    serialized: bytes = model.SerializeToString()
    return serialized


def _attach_external(graph: Any, operations: OnnxOperations, settings: Any, values: list[Any]) -> None:
    """Declare large constants as external data, past protobuf's limit of 2 GB, and attach their memory.

    ONNX Runtime references this memory (for weights, the maps of the open files), so that it opens no path itself.
    """
    for name, array in operations.external.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        graph.initializer.append(
            TensorProto(name=name, data_type=kind, dims=array.shape, data_location=TensorProto.EXTERNAL)
        )
        graph.initializer[-1].external_data.add(key="location", value=name)
    _add_initializers(operations.external, settings, values)


def _add_initializers(arrays: Mapping[str, npt.NDArray[Any]], settings: Any, values: list[Any]) -> None:
    if arrays:
        given = [ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array)) for array in arrays.values()]
        settings.add_external_initializers(list(arrays), given)
        values.extend(given)


def _extend_foreign_model(recipe: Recipe, settings: Any, values: list[Any]) -> bytes:
    """Return an exported ONNX model, with pooling and normalization appended if it lacks them."""
    model, views = self_contained(recipe)
    input_names = {port.name for port in model.graph.input}
    unknown = input_names - set(_INPUTS)
    if unknown or "attention_mask" not in input_names:
        raise UnsupportedModelError(
            f"{recipe.onnx} has the inputs {', '.join(sorted(input_names))}; supported are "
            f"{', '.join(_INPUTS)}, and attention_mask is required"
        )
    ranks = {port.name: len(port.type.tensor_type.shape.dim) for port in model.graph.output}
    name, pooled = sentence_output(ranks, recipe)
    operations = OnnxOperations("embedway_")
    # Exporters use int64 masks; our operations use int32.
    mask = operations._node("Cast", ["attention_mask"], to=TensorProto.INT32)  # noqa: SLF001
    operations.mask = lambda: mask  # type: ignore[method-assign]
    output = finish_output(operations, recipe, name, pooled=pooled)
    model.graph.node.extend(operations.nodes)
    model.graph.initializer.extend(operations.initializers)
    _attach_external(model.graph, operations, settings, values)
    _add_initializers(views, settings, values)
    chosen = next((port for port in model.graph.output if port.name == output), None)
    del model.graph.output[:]
    model.graph.output.append(chosen or helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
    serialized: bytes = model.SerializeToString()
    return serialized
