"""Tiny random models of every architecture, against transformers."""

import json

import numpy as np
import pytest

from embedway.local import cpu
from embedway.local.backend import SessionOptions, open_session
from embedway.local.recipe import read_recipe
from inside import graph_encoder

pytestmark = pytest.mark.peers

WIDTHS = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
KINDS = ("bert", "roberta", "xlm-roberta", "mpnet", "distilbert")
BACKENDS = ("onnxruntime", "openvino")
LENGTHS = (3, 17, 40, 9, 1)


def make_config(kind, **more):
    import transformers

    distil = {"dim": 48, "n_layers": 3, "n_heads": 4, "hidden_dim": 96}
    sizes = distil if kind == "distilbert" else dict(WIDTHS)
    if kind in {"roberta", "xlm-roberta", "mpnet"}:
        sizes |= {"pad_token_id": 1}
    made = transformers.AutoConfig.for_model(kind, vocab_size=200, max_position_embeddings=64, **sizes, **more)
    made.hidden_dropout_prob = 0.0
    return made


def randomize(model):
    """Set random weights in every tensor: new tensors have zero biases and unit norms, which hide mistakes."""
    import torch

    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            spread = torch.randn(tensor.shape, generator=generator) * 0.15
            tensor.copy_(1 + spread if "norm" in name.lower() and name.endswith("weight") else spread)
    return model.eval()


def save(model, folder, tokenizer_path, **files):
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(tokenizer_path.read_bytes())
    for name, content in files.items():
        target = folder / name.replace("__", "/")
        target = target.with_suffix(".json")
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(content))
    return read_recipe(folder, name="tiny", weights_sha256="0" * 64, facts=None)


def modules(*kinds):
    return [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (kind, path) in enumerate(kinds)
    ]


@pytest.fixture(scope="session")
def tokenizer_path(default_model_directory):
    return next(default_model_directory.glob("models/*/*/tokenizer.json"))


def padded(pad, side):
    generator = np.random.default_rng(3)
    ids = np.full((len(LENGTHS), max(LENGTHS)), pad, np.int32)
    mask = np.zeros_like(ids)
    for row, length in enumerate(LENGTHS):
        place = slice(0, length) if side == "right" else slice(max(LENGTHS) - length, None)
        ids[row, place] = generator.integers(5, 200, length)
        mask[row, place] = 1
    return ids, mask


def hidden_states(model, ids, mask):
    import torch

    with torch.no_grad():
        arguments = {"input_ids": torch.tensor(ids).long(), "attention_mask": torch.tensor(mask).long()}
        return model(**arguments).last_hidden_state.numpy()


def pool(hidden, mask, pooling):
    rows = []
    for states, row in zip(hidden, mask, strict=True):
        real = states[row == 1]
        rows.append({"mean": real.mean(axis=0), "cls": real[0], "last": real[-1]}[pooling])
    return np.stack(rows)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("kind", KINDS)
def test_encoders_equal_transformers(kind, pooling, side, backend, tmp_path, tokenizer_path):
    import transformers

    model = randomize(transformers.AutoModel.from_config(make_config(kind)))
    mode = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}[pooling]
    recipe = save(
        model,
        tmp_path,
        tokenizer_path,
        modules=modules(("Transformer", ""), ("Pooling", "1_Pooling")),
        **{"1_Pooling__config": {"word_embedding_dimension": 48, f"pooling_mode_{mode}": True}},
    )
    ids, mask = padded(recipe.pad_token_id, side)
    ours = open_session(recipe, SessionOptions(backend, "f32", 1, 1)).run(ids, mask)
    theirs = pool(hidden_states(model, ids, mask), mask, pooling)
    assert np.abs(ours - theirs).max() <= 1e-4


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("activation", ["Tanh", "Identity"])
def test_dense_and_normalize_equal_sentence_transformers(backend, activation, tmp_path, tokenizer_path):
    import sentence_transformers
    import torch
    import transformers

    model = randomize(transformers.AutoModel.from_config(make_config("bert")))
    linear = torch.nn.Linear(48, 24)
    dense = tmp_path / "2_Dense"
    dense.mkdir()
    from safetensors.torch import save_file

    save_file(
        {"linear.weight": linear.weight.detach(), "linear.bias": linear.bias.detach()}, dense / "model.safetensors"
    )
    names = {"Tanh": "torch.nn.modules.activation.Tanh", "Identity": "torch.nn.modules.linear.Identity"}
    recipe = save(
        model,
        tmp_path,
        tokenizer_path,
        modules=modules(
            ("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense"), ("Normalize", "3_Normalize")
        ),
        sentence_bert_config={"max_seq_length": 32},
        **{
            "1_Pooling__config": {"word_embedding_dimension": 48, "pooling_mode_mean_tokens": True},
            "2_Dense__config": {
                "in_features": 48,
                "out_features": 24,
                "bias": True,
                "activation_function": names[activation],
            },
        },
    )
    (tmp_path / "3_Normalize").mkdir()
    assert (recipe.dimensions, recipe.max_tokens, recipe.normalized) == (24, 32, True)
    ids, mask = padded(recipe.pad_token_id, "right")
    ours = open_session(recipe, SessionOptions(backend, "f32", 1, 1)).run(ids, mask)
    peer = sentence_transformers.SentenceTransformer(str(tmp_path), device="cpu")
    features = {"input_ids": torch.tensor(ids).long(), "attention_mask": torch.tensor(mask).long()}
    with torch.no_grad():
        theirs = peer(features)["sentence_embedding"].numpy()
    assert np.abs(ours - theirs).max() <= 1e-4


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_classifiers_equal_transformers(kind, labels, backend, tmp_path, tokenizer_path):
    import torch
    import transformers

    made = make_config(kind, num_labels=labels)
    model = randomize(transformers.AutoModelForSequenceClassification.from_config(made))
    recipe = save(model, tmp_path, tokenizer_path)
    assert (recipe.task, recipe.dimensions) == ("rerank", labels)
    ids, mask = padded(recipe.pad_token_id, "right")
    types = np.zeros_like(ids)
    types[:, 2:] = mask[:, 2:]
    arguments = {"input_ids": torch.tensor(ids).long(), "attention_mask": torch.tensor(mask).long()}
    if recipe.token_types:
        arguments["token_type_ids"] = torch.tensor(types).long()
    with torch.no_grad():
        theirs = model(**arguments).logits.numpy()
    session = open_session(recipe, SessionOptions(backend, "f32", 1, 1))
    ours = session.run(ids, mask, types if recipe.token_types else None)
    assert np.abs(ours - theirs).max() <= 1e-4


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bit_checkpoints_load(dtype, backend, tmp_path, tokenizer_path):
    import torch
    import transformers

    model = randomize(transformers.AutoModel.from_config(make_config("bert"))).to(getattr(torch, dtype))
    recipe = save(model, tmp_path, tokenizer_path)
    ids, mask = padded(recipe.pad_token_id, "right")
    ours = open_session(recipe, SessionOptions(backend, "f32", 1, 1)).run(ids, mask)
    theirs = pool(hidden_states(model.float(), ids, mask), mask, "mean")
    assert np.abs(ours - theirs).max() <= 1e-4


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("output", ["last_hidden_state", "sentence_embedding"])
def test_an_onnx_file_alone_is_loaded_and_completed(output, backend, tmp_path, tokenizer_path):
    import transformers
    from onnx import TensorProto, helper

    from embedway.local.graph import finish_embedding
    from embedway.local.onnx_backend import OnnxOperations
    from embedway.local.tensors import Tensors

    model = randomize(transformers.AutoModel.from_config(make_config("bert")))
    source, folder = tmp_path / "source", tmp_path / "model"
    source.mkdir()
    recipe = save(model, source, tokenizer_path)
    operations = OnnxOperations()
    hidden = graph_encoder(operations, recipe, Tensors(recipe.weights)).hidden_states()
    value = hidden if output == "last_hidden_state" else finish_embedding(operations, recipe, hidden)
    operations.nodes.append(helper.make_node("Identity", [value], [output]))
    from onnx import numpy_helper

    weights = [numpy_helper.from_array(np.array(array), name) for name, array in operations.external.items()]
    shape = ["b", "s", 48] if output == "last_hidden_state" else ["b", 48]
    graph_proto = helper.make_graph(
        operations.nodes,
        "g",
        [helper.make_tensor_value_info(n, TensorProto.INT32, ["b", "s"]) for n in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
        operations.initializers + weights,
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    (folder / "onnx").mkdir(parents=True)
    proto = helper.make_model(graph_proto, opset_imports=opsets, ir_version=9)
    (folder / "onnx" / "model.onnx").write_bytes(proto.SerializeToString())
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    normalizing = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    (folder / "modules.json").write_text(json.dumps(modules(*normalizing)))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    found = read_recipe(folder, name="tiny", weights_sha256="0" * 64, facts=None)
    assert found.onnx is not None
    ids, mask = padded(found.pad_token_id, "right")
    theirs = pool(hidden_states(model, ids, mask), mask, "mean")
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    ours = open_session(found, SessionOptions(backend, "f32", 1, 1)).run(ids, mask)
    assert np.abs(ours - theirs).max() <= 1e-4


@pytest.mark.skipif(not cpu.facts().bf16, reason="this CPU has no bfloat16, and the error for that is tested elsewhere")
@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_stays_near(kind, tmp_path, tokenizer_path):
    import transformers

    recipe = save(randomize(transformers.AutoModel.from_config(make_config(kind))), tmp_path, tokenizer_path)
    ids, mask = padded(recipe.pad_token_id, "right")
    exact = open_session(recipe, SessionOptions("openvino", "f32", 1, 1)).run(ids, mask)
    near = open_session(recipe, SessionOptions("openvino", "bf16", 1, 1)).run(ids, mask)
    cosines = (exact * near).sum(axis=1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(near, axis=1)
    assert cosines.min() >= 0.999
