"""Choice of the output of a third-party ONNX file."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic

from embedway.errors import UnsupportedModelError
from embedway.local.onnx_file import depends_on_batch, sentence_output

EMBED = SimpleNamespace(task="embed", onnx="model.onnx")
RERANK = SimpleNamespace(task="rerank", onnx="model.onnx")


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ({"last_hidden_state": 3}, ("last_hidden_state", False)),
        ({"last_hidden_state": 3, "pooler_output": 2}, ("last_hidden_state", False)),
        ({"token_embeddings": 3, "sentence_embedding": 2}, ("sentence_embedding", True)),
        ({"out": 3}, ("out", False)),
        ({"some_pooled": 2, "embeddings": 2}, ("embeddings", True)),
        ({"some_pooled": 2}, ("some_pooled", True)),
        ({"logits": 3, "last_hidden_state": 3}, ("last_hidden_state", False)),
        ({"last_hidden_state": 3, "token_embeddings": 3}, ("token_embeddings", False)),
        ({"text_embeds": 2, "last_hidden_state": 3}, ("last_hidden_state", False)),
        ({"sentence_embedding": 3}, ("sentence_embedding", False)),
        ({"last_hidden_state": 4, "output": 2}, ("output", True)),
    ],
    ids=str,
)
def test_the_output_and_whether_it_is_pooled(ranks, expected):
    assert sentence_output(ranks, EMBED) == expected


def test_a_reranker_needs_logits():
    assert sentence_output({"logits": 2, "hidden": 3}, RERANK) == ("logits", True)
    with pytest.raises(UnsupportedModelError, match="has no output called logits"):
        sentence_output({"hidden": 3}, RERANK)


def test_outputs_that_are_no_vectors_are_named():
    with pytest.raises(UnsupportedModelError, match=r"model\.onnx: .*a, b"):
        sentence_output({"a": 1, "b": 4}, EMBED)


def test_dynamic_quantization_is_seen(tmp_path):
    weights = numpy_helper.from_array(np.random.default_rng(1).standard_normal((8, 8)).astype(np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8])],
        [weights],
    )
    plain, quantized = tmp_path / "model.onnx", tmp_path / "model_quantized.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), plain)
    quantize_dynamic(plain, quantized)
    assert not depends_on_batch(plain)
    assert depends_on_batch(quantized)
