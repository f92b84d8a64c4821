"""Every id and position that a model may receive has a row in its tables, otherwise the model is not opened."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic

from embedway import Config, Embedder
from embedway.errors import WeightsError
from embedway.local.onnx_file import onnx_facts
from embedway.weights.held_file import HeldFile
from tiny_models import tiny_encoder, tiny_reranker

WIDE = 16


@pytest.fixture(params=["onnxruntime", "openvino"])
def embedder(request, tmp_path):
    overrides = {
        "weights.directory": str(tmp_path / "weights"),
        "weights.offline": True,
        "local.backend": request.param,
        "local.precision": "f32",
        "cache.backend": "none",
    }
    with Embedder(config=Config.load(environ={}, overrides=overrides)) as embedder:
        yield embedder


def change(path, function):
    content = json.loads(path.read_text())
    function(content)
    path.write_text(json.dumps(content))


def added(*words):
    def change(content):
        for word in words:
            token = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
            content["added_tokens"].append({"id": 90_000, "content": word, **token})

    return change


def template(content):
    content["post_processor"]["special_tokens"]["[SEP]"]["ids"] = [30_522]


def pair(content):
    content["post_processor"] = {"type": "BertProcessing", "sep": ["[SEP]", 40_000], "cls": ["[CLS]", 101]}


def in_a_sequence(content):
    pair(content)
    content["post_processor"] = {"type": "Sequence", "processors": [content["post_processor"]]}


@pytest.mark.parametrize(
    ("file", "function", "said"),
    [
        ("tokenizer", added("zzbig", "qqbig"), r"tokenizer\.json produces .* word table up to 30523.* 30522 rows"),
        ("tokenizer", template, r"word table up to 30522"),
        ("tokenizer", pair, r"word table up to 40000"),
        ("tokenizer", in_a_sequence, r"word table up to 40000"),
        ("config", lambda config: config.update(pad_token_id=30_522), "pad_token_id is 30522"),
        ("config", lambda config: config.update(pad_token_id=-1), "pad_token_id is -1"),
        ("config", lambda config: config.update(pad_token_id=-(10**30)), "pad_token_id is -1000"),
        ("config", lambda config: config.update(max_position_embeddings=65), r"config\.json: 65 tokens need 65 pos"),
        ("config", lambda config: config.update(model_type="roberta"), None),
        ("config", lambda config: config.update(model_type="roberta", max_position_embeddings=65), "need 65 positions"),
    ],
)
def test_an_id_or_position_without_a_row_is_an_error_when_the_model_is_opened(
    embedder, tmp_path, tokenizer, file, function, said
):
    folder = tiny_encoder(tmp_path / "model", tokenizer)
    change(folder / f"{file}.json", function)
    if said is None:
        assert np.isfinite(embedder.embed(["word " * 100], model=str(folder), on_overflow="truncate").vectors).all()
        return
    with pytest.raises(WeightsError, match=said):
        embedder.embed(["alpha"], model=str(folder))


@pytest.mark.parametrize(
    ("function", "said"),
    [(lambda content: content["post_processor"]["pair"][-1]["SpecialToken"].update(type_id=2), "up to 2"), (None, "")],
    ids=["a third type", "as it is"],
)
def test_a_token_type_without_a_row_is_an_error_for_rerankers(embedder, tmp_path, tokenizer, function, said):
    folder = tiny_reranker(tmp_path / "reranker", tokenizer)
    if function is None:
        assert np.isfinite(embedder.rerank("alpha", ["beta"], model=str(folder)).scores).all()
        return
    change(folder / "tokenizer.json", function)
    with pytest.raises(WeightsError, match=f"token type table {said}"):
        embedder.rerank("alpha", ["beta"], model=str(folder))


def graph_file(path, *, rows, type_rows=2, cast=False):
    """Return an ONNX encoder that is the sum of its two tables."""
    ids = ["input_ids"]
    nodes = []
    if cast:
        nodes.append(helper.make_node("Cast", ["input_ids"], ["whole"], to=TensorProto.INT32))
        ids = ["whole"]
    nodes += [
        helper.make_node("Gather", ["word", *ids], ["words"]),
        helper.make_node("Gather", ["type", "token_type_ids"], ["types"]),
        helper.make_node("Add", ["words", "types"], ["last_hidden_state"]),
    ]
    random = np.random.default_rng(1)
    tables = [
        numpy_helper.from_array(random.normal(size=(count, WIDE)).astype(np.float32), name)
        for name, count in (("word", rows), ("type", type_rows))
    ]
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "s"]) for name in names]
    output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["b", "s", WIDE])
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, [output], tables), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 9
    path.parent.mkdir(exist_ok=True)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("cast", [False, True])
@pytest.mark.parametrize("rows", [30_521, 30_522])
def test_ids_of_an_onnx_file_are_compared_with_its_own_table(embedder, tmp_path, tokenizer, rows, cast):
    folder = tiny_encoder(tmp_path / "model", tokenizer)
    (folder / "model.safetensors").unlink()
    graph_file(folder / "onnx" / "model.onnx", rows=rows, cast=cast)
    if rows == 30_522:
        assert embedder.embed(["alpha"], model=str(folder)).vectors.shape == (1, WIDE)
        return
    with pytest.raises(WeightsError, match="word table up to 30521, but that table has 30521 rows"):
        embedder.embed(["alpha"], model=str(folder))


def test_tables_of_an_onnx_file_are_found_behind_quantization(tmp_path):
    plain = graph_file(tmp_path / "plain.onnx", rows=30, type_rows=3)
    quantize_dynamic(plain, tmp_path / "quantized.onnx")
    assert "DequantizeLinear" in {node.op_type for node in onnx.load(tmp_path / "quantized.onnx").graph.node}
    for path in (plain, tmp_path / "quantized.onnx"):
        assert onnx_facts(HeldFile(path)).table_rows == {"input_ids": 30, "token_type_ids": 3}
