"""Reading the outputs of an ONNX file that somebody else exported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.errors import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from embedway.local.recipe import Recipe

#: Operators that scale activations by the largest number of the whole batch, padding and neighbours among them.
_DYNAMIC = frozenset({"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "QAttention"})
_POOLED = ("sentence_embedding", "text_embeds", "embeddings", "pooled", "output")
_HIDDEN = ("token_embeddings", "last_hidden_state", "hidden_states")


def sentence_output(ranks: Mapping[str, int], recipe: Recipe) -> tuple[str, bool]:
    """The output to use, by name, and whether it is pooled already.

    `ranks` maps each output to its number of axes: 2 is one vector for a text, 3 one for a token. An output that is
    named as a sentence's goes first, then one for tokens, which the recipe's pooling finishes, then any other pooled.
    """
    if recipe.task == "rerank":
        if "logits" in ranks:
            return "logits", True
        raise UnsupportedModelError(f"{recipe.onnx}: a classifier without an output called logits")
    if ranks.get("sentence_embedding") == 2:
        return "sentence_embedding", True
    for name in (*_HIDDEN, *ranks):
        if ranks.get(name) == 3:
            return name, False
    for name in (*_POOLED, *ranks):
        if ranks.get(name) == 2:
            return name, True
    raise UnsupportedModelError(
        f"{recipe.onnx}: none of its outputs ({', '.join(ranks)}) holds vectors of texts or tokens"
    )


def depends_on_batch(path: Path) -> bool:
    """Whether a text's vector depends on the other texts of its batch, as with dynamic int8. Blocking: reads the graph.

    https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html: scales are computed per tensor.
    """
    import onnx  # noqa: PLC0415  slow to import, and read for models that others exported alone

    graph = onnx.load(str(path), load_external_data=False).graph
    return any(node.op_type in _DYNAMIC for node in graph.node)
