"""Encoder graph, defined once for all backends.

`build_graph` expresses a model through `Operations`; each backend implements these for its own kind of node. Linear
layers keep the checkpoint's (out, in) layout, so no weight is copied or transposed. Shapes: b texts, s tokens, h hidden
width, a attention heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from embedway.errors import UnsupportedModelError
from embedway.local.tensors import Tensors

if TYPE_CHECKING:
    import numpy.typing as npt

    from embedway.local.recipe import Recipe
    from embedway.types import Pooling

V = TypeVar("V")


class Operations(Protocol[V]):
    """Operations of a backend. Values are symbolic; nothing is computed here."""

    def ids(self) -> V:
        """Return the token ids, int32 (b, s)."""

    def mask(self) -> V:
        """Return the mask: 1 for tokens and 0 for padding, int32 (b, s)."""

    def token_types(self) -> V:
        """Return the token types: 0 for the first text of a pair and 1 for the second, int32 (b, s)."""

    def constant(self, array: npt.NDArray[Any]) -> V:
        """Return a constant; large arrays are referenced, not copied."""

    def gather(self, table: V, indices: V) -> V:
        """Return rows of a table."""

    def arange(self, ids: V) -> V:
        """Return 0, 1, … s-1 as int32 (s,)."""

    def cumulative_sum(self, values: V) -> V:
        """Return the running sum over the last axis of int32 (b, s)."""

    def equal(self, left: V, right: V) -> V:
        """Return 1 where values are equal and 0 elsewhere, int32."""

    def to_float(self, values: V) -> V:
        """Convert int32 to float32."""

    def unsqueeze(self, values: V, axes: tuple[int, ...]) -> V:
        """Insert axes of length 1."""

    def transpose(self, values: V, order: tuple[int, ...]) -> V:
        """Permute axes."""

    def add(self, left: V, right: V) -> V:
        """Return the elementwise sum, broadcast."""

    def subtract(self, left: V, right: V) -> V:
        """Return the elementwise difference, broadcast."""

    def multiply(self, left: V, right: V) -> V:
        """Return the elementwise product, broadcast."""

    def divide(self, left: V, right: V) -> V:
        """Return the elementwise quotient, broadcast."""

    def linear(self, values: V, weight: npt.NDArray[Any], bias: npt.NDArray[Any] | None) -> V:
        """Compute values @ weight.T + bias, with weight (out, in)."""

    def layer_norm(self, values: V, weight: V, bias: V, epsilon: float) -> V:
        """Normalize over the last axis (layer normalization)."""

    def activation(self, values: V, name: str) -> V:
        """Apply `gelu`, `gelu_tanh`, `relu`, `silu`, `tanh`, `sigmoid` or `identity`."""

    def attention(self, query: V, key: V, value: V, *, heads: int, head_size: int, mask: V, bias: V | None) -> V:
        """Apply scaled dot-product attention over (b, s, h); `bias` (1, a, s, s) is added to the scores."""

    def sum_tokens(self, values: V) -> V:
        """Sum over tokens, (b, s, h) to (b, h)."""

    def sum_last(self, values: V) -> V:
        """Sum over the last axis, (b, s) to (b, 1)."""

    def normalize(self, values: V) -> V:
        """Scale rows of (b, h) to length 1."""


@dataclass(frozen=True, slots=True)
class _Names:
    """Parameter names of one layer in a checkpoint, below the encoder's prefix."""

    layer: str
    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    up: str
    down: str
    output_norm: str


_BERT_NAMES = _Names(
    "encoder.layer.{}.",
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
)
_NAMES = {
    "bert": _BERT_NAMES,
    "roberta": _BERT_NAMES,
    "xlm-roberta": _BERT_NAMES,
    "mpnet": replace(
        _BERT_NAMES,
        query="attention.attn.q",
        key="attention.attn.k",
        value="attention.attn.v",
        attention_output="attention.attn.o",
        attention_norm="attention.LayerNorm",
    ),
    "distilbert": _Names(
        "transformer.layer.{}.",
        "attention.q_lin",
        "attention.k_lin",
        "attention.v_lin",
        "attention.out_lin",
        "sa_layer_norm",
        "ffn.lin1",
        "ffn.lin2",
        "output_layer_norm",
    ),
}


def build_graph(operations: Operations[V], recipe: Recipe, tensors: Tensors) -> V:
    """Build the whole model and return its output.

    Embedding models return float32 (b, d): pooled, passed through the Dense modules, and normalized if the recipe
    requires it. Classifiers return logits, float32 (b, labels).
    """
    encoder = _Encoder(operations, recipe, tensors)
    hidden: V = encoder.hidden_states()
    if recipe.task == "rerank":
        logits: V = encoder.logits(hidden)
        return logits
    return finish_embedding(operations, recipe, hidden)


def finish_embedding(operations: Operations[V], recipe: Recipe, hidden: V) -> V:
    """Pool (b, s, h) to (b, h), then apply Dense modules and normalization."""
    vector = _pool(operations, recipe.pooling, hidden)
    for module in recipe.dense:
        tensors = Tensors([module.weights])
        bias = tensors.get("linear.bias")
        vector = operations.activation(operations.linear(vector, tensors["linear.weight"], bias), module.activation)
    return operations.normalize(vector) if recipe.normalized else vector


def finish_output(operations: Operations[V], recipe: Recipe, output: V, *, pooled: bool) -> V:
    """Apply the steps that an exported graph lacks: pooling, Dense modules and normalization of an embedding."""
    if recipe.task == "rerank":
        return output
    if not pooled:
        return finish_embedding(operations, recipe, output)
    return operations.normalize(output) if recipe.normalized else output


def _pool(operations: Operations[V], pooling: Pooling, hidden: V) -> V:
    """Pool by a weighted sum over tokens, which works for padding on either side."""
    mask = operations.mask()
    if pooling == "mean":
        weights = operations.to_float(mask)
        total = operations.sum_tokens(operations.multiply(hidden, operations.unsqueeze(weights, (2,))))
        return operations.divide(total, operations.sum_last(weights))
    # The running count of the last token equals the number of tokens.
    wanted = operations.constant(np.array(1, np.int32)) if pooling == "cls" else operations.sum_last(mask)
    chosen = operations.multiply(operations.equal(operations.cumulative_sum(mask), wanted), mask)
    weights = operations.unsqueeze(operations.to_float(chosen), (2,))
    return operations.sum_tokens(operations.multiply(hidden, weights))


class _Encoder:
    def __init__(self, operations: Operations[Any], recipe: Recipe, tensors: Tensors) -> None:
        self.operations = operations
        self.recipe = recipe
        self.tensors = tensors
        self.shape = recipe.graph
        self.names = _NAMES[recipe.architecture]
        self.prefix = encoder_prefix(tensors)

    def hidden_states(self) -> Any:
        operations = self.operations
        states = self._embeddings()
        mask = operations.mask()
        bias = self._relative_bias() if self.recipe.architecture == "mpnet" else None
        for index in range(self.shape.layers):
            states = self._layer(states, self.prefix + self.names.layer.format(index), mask, bias)
        return states

    def logits(self, hidden: Any) -> Any:
        # transformers takes the first position; the runtime pads on the right.
        operations = self.operations
        first = operations.equal(operations.arange(operations.ids()), operations.constant(np.array(0, np.int32)))
        weights = operations.unsqueeze(operations.to_float(first), (0, 2))
        state = operations.sum_tokens(operations.multiply(hidden, weights))
        architecture = self.recipe.architecture
        if architecture == "bert":
            state = operations.activation(self._linear(state, self.prefix + "pooler.dense"), "tanh")
            return self._linear(state, "classifier")
        if architecture == "distilbert":
            state = operations.activation(self._linear(state, "pre_classifier"), "relu")
            return self._linear(state, "classifier")
        state = operations.activation(self._linear(state, "classifier.dense"), "tanh")
        return self._linear(state, "classifier.out_proj")

    def _embeddings(self) -> Any:
        operations, ids = self.operations, self.operations.ids()
        prefix = self.prefix + "embeddings."
        states = operations.gather(operations.constant(self.tensors[prefix + "word_embeddings.weight"]), ids)
        table = operations.constant(self.tensors[prefix + "position_embeddings.weight"])
        states = operations.add(states, operations.gather(table, self._positions(ids)))
        types = prefix + "token_type_embeddings.weight"
        if types in self.tensors:
            if self.recipe.token_types:
                rows = operations.gather(operations.constant(self.tensors[types]), operations.token_types())
            else:
                rows = operations.constant(np.array(self.tensors[types][0]))
            states = operations.add(states, rows)
        return self._norm(states, prefix + "LayerNorm")

    def _positions(self, ids: Any) -> Any:
        operations, base = self.operations, self.shape.position_base
        if base is None:
            return operations.arange(ids)
        # As transformers' create_position_ids_from_input_ids: padding has the padding id as its position.
        one, pad = (operations.constant(np.array(value, np.int32)) for value in (1, base))
        real = operations.subtract(one, operations.equal(ids, pad))
        return operations.add(operations.multiply(operations.cumulative_sum(real), real), pad)

    def _layer(self, states: Any, prefix: str, mask: Any, bias: Any) -> Any:
        operations, names, shape = self.operations, self.names, self.shape
        query, key, value = (self._linear(states, prefix + name) for name in (names.query, names.key, names.value))
        context = operations.attention(
            query, key, value, heads=shape.heads, head_size=shape.hidden // shape.heads, mask=mask, bias=bias
        )
        attended = operations.add(self._linear(context, prefix + names.attention_output), states)
        attended = self._norm(attended, prefix + names.attention_norm)
        inner = operations.activation(self._linear(attended, prefix + names.up), shape.activation)
        output = operations.add(self._linear(inner, prefix + names.down), attended)
        return self._norm(output, prefix + names.output_norm)

    def _relative_bias(self) -> Any:
        """Return MPNet's learned bias by token distance, (1, a, s, s), shared by all layers."""
        operations = self.operations
        limit = self.recipe.max_tokens
        learned = np.asarray(self.tensors[self.prefix + "encoder.relative_attention_bias.weight"])
        buckets = _relative_buckets(np.arange(-(limit - 1), limit), buckets=learned.shape[0])
        table = operations.constant(np.ascontiguousarray(learned[buckets]))
        positions = operations.arange(operations.ids())
        distance = operations.subtract(operations.unsqueeze(positions, (0,)), operations.unsqueeze(positions, (1,)))
        rows = operations.gather(table, operations.add(distance, operations.constant(np.array(limit - 1, np.int32))))
        return operations.unsqueeze(operations.transpose(rows, (2, 0, 1)), (0,))

    def _linear(self, values: Any, name: str) -> Any:
        bias = self.tensors.get(name + ".bias")
        return self.operations.linear(values, self.tensors[name + ".weight"], bias)

    def _norm(self, values: Any, name: str) -> Any:
        # Checkpoints converted from TensorFlow use the names gamma and beta.
        weight, bias = (
            self.operations.constant(self.tensors[name + new if name + new in self.tensors else name + old])
            for new, old in ((".weight", ".gamma"), (".bias", ".beta"))
        )
        return self.operations.layer_norm(values, weight, bias, self.shape.epsilon)


def encoder_prefix(tensors: Tensors) -> str:
    """Return the prefix of the encoder's tensor names, such as `bert.`; empty for a bare encoder."""
    ending = "embeddings.word_embeddings.weight"
    for name in tensors:
        if name.endswith(ending):
            return name.removesuffix(ending)
    raise UnsupportedModelError(f"no tensor name ends with {ending}: this is not a checkpoint of a BERT-like encoder")


def _relative_buckets(distance: npt.NDArray[np.int64], *, buckets: int) -> npt.NDArray[np.int64]:
    """Return T5's bidirectional buckets as MPNet uses them, up to distance 128 (transformers, modeling_mpnet.py).

    `distance` is key position - query position.
    """
    half = buckets // 2
    exact = half // 2
    away = np.abs(distance)
    scale = (half - exact) / math.log(128 / exact)
    # float32, as in transformers: at some distances a wider type selects another bucket.
    steps = np.log(np.maximum(away, 1).astype(np.float32) / np.float32(exact)) * np.float32(scale)
    far = exact + steps.astype(np.int64)
    return np.where(distance > 0, half, 0) + np.where(away < exact, away, np.minimum(far, half - 1))
