"""OpenVINO backend: bfloat16 if the CPU multiplies it in hardware, float32 otherwise."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper

from embedway.errors import UnsupportedModelError
from embedway.forks import mark_unusable_after_fork, never_free_in_forked_processes
from embedway.local import cpu
from embedway.local.graph import build_graph, finish_output
from embedway.local.onnx_file import self_contained, sentence_output
from embedway.local.tensors import Tensors
from embedway.opt_out import opt_out_of_telemetry

if TYPE_CHECKING:
    import numpy.typing as npt

    from embedway.local.backend import Int32s, SessionOptions
    from embedway.local.recipe import Recipe
    from embedway.types import Vectors

opt_out_of_telemetry()
import openvino as ov  # noqa: E402  sends telemetry on import
from openvino import opset13 as op  # noqa: E402

# Added to this, any score is lost in bfloat16's mantissa. Far above the smallest bfloat16 number.
_MASKED_SCORE = -30_000.0


class OpenVinoOperations:
    """`Operations` as OpenVINO nodes. Constants share the mapped file's memory."""

    def __init__(self, *, token_types: bool) -> None:
        self._ids = op.parameter([-1, -1], ov.Type.i32, name="input_ids")
        self._mask = op.parameter([-1, -1], ov.Type.i32, name="attention_mask")
        self._types = op.parameter([-1, -1], ov.Type.i32, name="token_type_ids") if token_types else None
        self._arange: Any = None
        self._score_bias: Any = None
        #: Arrays that constants point into.
        self.held: list[npt.NDArray[Any]] = []

    @property
    def parameters(self) -> list[Any]:
        """Inputs of the model."""
        return [node for node in (self._ids, self._mask, self._types) if node is not None]

    def ids(self) -> Any:
        return self._ids

    def mask(self) -> Any:
        return self._mask

    def token_types(self) -> Any:
        return self._types

    def constant(self, array: npt.NDArray[Any]) -> Any:
        if array.size < 2:
            return op.constant(np.array(array))
        self.held.append(array)
        return op.constant(array, shared_memory=array.flags.writeable)

    def gather(self, table: Any, indices: Any) -> Any:
        return op.gather(table, indices, _integers(0))

    def arange(self, ids: Any) -> Any:
        if self._arange is None:
            length = op.gather(op.shape_of(ids, "i64"), _integers(1), _integers(0))
            self._arange = op.range(_integers(0), length, _integers(1), "i32")
        return self._arange

    def cumulative_sum(self, values: Any) -> Any:
        return op.cum_sum(values, _integers(1))

    def equal(self, left: Any, right: Any) -> Any:
        return op.convert(op.equal(left, right), "i32")

    def to_float(self, values: Any) -> Any:
        return op.convert(values, "f32")

    def unsqueeze(self, values: Any, axes: tuple[int, ...]) -> Any:
        return op.unsqueeze(values, _integers(axes))

    def transpose(self, values: Any, order: tuple[int, ...]) -> Any:
        return op.transpose(values, _integers(order))

    add = staticmethod(op.add)
    subtract = staticmethod(op.subtract)
    multiply = staticmethod(op.multiply)
    divide = staticmethod(op.divide)

    def linear(self, values: Any, weight: npt.NDArray[Any], bias: npt.NDArray[Any] | None) -> Any:
        product = op.matmul(values, self.constant(weight), False, True)
        return product if bias is None else op.add(product, self.constant(bias))

    def layer_norm(self, values: Any, weight: Any, bias: Any, epsilon: float) -> Any:
        scaled = op.mvn(values, _integers([-1]), True, epsilon, "INSIDE_SQRT")
        return op.add(op.multiply(scaled, weight), bias)

    def activation(self, values: Any, name: str) -> Any:
        if name == "identity":
            return values
        if name in {"gelu", "gelu_tanh"}:
            return op.gelu(values, "erf" if name == "gelu" else "tanh")
        return {"relu": op.relu, "silu": op.swish, "tanh": op.tanh, "sigmoid": op.sigmoid}[name](values)

    def attention(self, query: Any, key: Any, value: Any, *, heads: int, head_size: int, mask: Any, bias: Any) -> Any:
        def split(states: Any) -> Any:
            return op.transpose(op.reshape(states, _integers([0, 0, heads, head_size]), True), _integers([0, 2, 1, 3]))

        if self._score_bias is None:
            padding = op.subtract(op.constant(np.float32(1)), op.convert(mask, "f32"))
            masked = op.multiply(padding, op.constant(np.float32(_MASKED_SCORE)))
            self._score_bias = op.unsqueeze(masked, _integers([1, 2]))
        scores_bias = self._score_bias if bias is None else op.add(self._score_bias, bias)
        context = op.scaled_dot_product_attention(split(query), split(key), split(value), scores_bias)
        return op.reshape(op.transpose(context, _integers([0, 2, 1, 3])), _integers([0, 0, heads * head_size]), True)

    def sum_tokens(self, values: Any) -> Any:
        return op.reduce_sum(values, _integers([1]))

    def sum_last(self, values: Any) -> Any:
        return op.reduce_sum(values, _integers([1]), True)

    def normalize(self, values: Any) -> Any:
        return op.normalize_l2(values, _integers([1]), 1e-12, "max")


class OpenVinoSession:
    """Compiled model with its inference requests."""

    def __init__(self, recipe: Recipe, options: SessionOptions) -> None:
        self.options = options
        mark_unusable_after_fork("openvino")  # oneTBB's threads work for all sessions
        core = ov.Core()
        # The model and its mapped weights are dropped once the plugin has packed its own copy. Embedding tables are not
        # packed; they stay mapped through the constants' own references.
        self._tensors = Tensors(recipe.weights)
        if recipe.onnx is not None:
            model, self._held = _read_onnx(core, recipe)
        else:
            operations = OpenVinoOperations(token_types=recipe.token_types)
            output = build_graph(operations, recipe, self._tensors)
            model, self._held = ov.Model([output], operations.parameters, "encoder"), operations.held
        with self._tensors.sparing():
            self._compiled: Any = core.compile_model(
                model,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": options.precision,
                    "NUM_STREAMS": options.streams,
                    "INFERENCE_NUM_THREADS": options.threads,
                    "ENABLE_CPU_PINNING": _worth_pinning(options),
                },
            )
        never_free_in_forked_processes(self._compiled)
        self._inputs = [port.get_any_name() for port in self._compiled.inputs]
        self._types = {port.get_any_name(): port.get_element_type().to_dtype() for port in self._compiled.inputs}
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(options.streams + 1):  # one more, so that a query waits for a stream as others do
            self._requests.put(self._compiled.create_infer_request())
        self._tensors.release_pages()

    def run(self, ids: Int32s, mask: Int32s, types: Int32s | None = None) -> Vectors:
        arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        inputs = []
        for name in self._inputs:
            array = arrays[name] if arrays[name] is not None else np.zeros_like(ids)
            inputs.append(np.ascontiguousarray(array, dtype=self._types[name]))
        request = self._requests.get()
        try:
            request.infer(inputs, share_inputs=True)
            return np.array(request.get_output_tensor(0).data, dtype=np.float32)
        finally:
            self._requests.put(request)

    def close(self) -> None:
        self._compiled = None
        self._requests = queue.SimpleQueue()
        self._held = []


def _worth_pinning(options: SessionOptions) -> bool:
    """Return whether threads are pinned to cores.

    Without pinning, the helper threads of a single stream run on the core of the thread that woke them and wait for it.
    A query then takes twice as long (7.3 ms instead of 3.4, benchmarks/RESULTS.md). Threads are pinned only if the
    session uses all available cores: with fewer, every process would pin itself to the same ones.
    """
    return options.streams == 1 and options.threads > 1 and options.threads == cpu.facts().schedulable


def _read_onnx(core: Any, recipe: Recipe) -> tuple[Any, list[npt.NDArray[Any]]]:
    model, held, names = _converted(core, recipe)
    unknown = names - {"input_ids", "attention_mask", "token_type_ids"}
    if unknown:
        raise UnsupportedModelError(f"{recipe.onnx} has unsupported inputs: {', '.join(sorted(unknown))}")
    shapes = {port.get_any_name(): len(port.get_partial_shape()) for port in model.outputs}
    name, pooled = sentence_output(shapes, recipe)
    output = model.output(name).get_node().input_value(0)
    operations = OpenVinoOperations(token_types=False)
    by_name = {port.get_any_name(): port.get_node() for port in model.inputs}
    if "attention_mask" not in names:
        raise UnsupportedModelError(f"{recipe.onnx} has no input called attention_mask")
    if "attention_mask" not in by_name:  # no node reads it, so the conversion dropped it; pooling needs it
        by_name["attention_mask"] = op.parameter([-1, -1], ov.Type.i64, name="attention_mask")
    operations._ids, operations._mask = by_name["input_ids"], by_name["attention_mask"]  # noqa: SLF001
    vector = finish_output(operations, recipe, output, pooled=pooled)
    return ov.Model([vector], list(by_name.values()), "encoder"), [*held, *operations.held]


def _converted(core: Any, recipe: Recipe) -> tuple[Any, list[npt.NDArray[Any]], set[str]]:
    """Convert the open ONNX model without a path that OpenVINO would open; also return its arrays and inputs.

    Large external tensors enter the conversion as inputs, and are then replaced with constants over the mapped files.
    This also works for external data behind links, which OpenVINO refuses by path.
    """
    proto, views = self_contained(recipe)
    declared = {port.name for port in proto.graph.input} - {tensor.name for tensor in proto.graph.initializer}
    external = [tensor for tensor in proto.graph.initializer if tensor.name in views]
    inputs = [helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in external]
    for messages in (proto.graph.initializer, proto.graph.input):
        for position in reversed(range(len(messages))):
            if messages[position].name in views:
                del messages[position]
    proto.graph.input.extend(inputs)
    model = core.read_model(proto.SerializeToString())
    for parameter in model.get_parameters():
        name = next((name for name in parameter.output(0).get_names() if name in views), None)
        if name is None:
            continue
        array = views[name]
        constant = op.constant(array, shared_memory=array.flags.writeable)
        for target in list(parameter.output(0).get_target_inputs()):
            target.replace_source_output(constant.output(0))
        model.remove_parameter(parameter)
    model.validate_nodes_and_infer_types()
    return model, list(views.values()), declared


def _integers(values: Any) -> Any:
    return op.constant(np.array(values, np.int64))
