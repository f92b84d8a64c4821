"""External data of ONNX files: found at any position and in any order of fields, hashed, and read as hashed."""

import contextlib
import os
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, external_data_helper, helper

from embedway import Config, Embedder
from embedway.errors import BatchError, UnsupportedModelError, WeightsError
from embedway.weights.onnx_external import external_files
from tiny_models import tiny_encoder

WIDE, VOCABULARY = 16, 30522


def external(name, location, *, shape=(), **more):
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def value_first(raw, name):
    """Return the same message with the value before the key in each location."""
    value = name.encode()
    key, text = b"\x0a\x08location", b"\x12" + varint(len(value)) + value
    assert key + text in raw
    return raw.replace(key + text, text + key)


names = st.text(st.characters(codec="utf-8", min_codepoint=33, exclude_characters="/\\"), min_size=1, max_size=60)


@st.composite
def models(draw):
    """Generate models with tensors at every possible position, and the names of their external files."""
    expected = set()

    def tensor():
        inline = draw(st.booleans())
        if inline:
            return TensorProto(name="t", data_type=1, dims=[1], raw_data=b"\0" * 4)
        location = draw(names)
        expected.add(location)
        return external("t", location, offset=draw(st.integers(0, 2**40)))

    def graph(depth):
        nodes = []
        for _ in range(draw(st.integers(0, 2))):
            node = helper.make_node("Op", ["a"], ["b"], value=tensor(), values=[tensor()])
            if depth:
                node.attribute.append(helper.make_attribute("body", graph(depth - 1)))
            nodes.append(node)
        made = helper.make_graph(nodes, "g", [], [], [tensor() for _ in range(draw(st.integers(0, 2)))])
        made.sparse_initializer.add(values=tensor(), indices=tensor())
        return made

    model = helper.make_model(graph(2))
    model.functions.add(name="f").node.add(op_type="Op").attribute.append(helper.make_attribute("value", tensor()))
    model.training_info.add().initialization.CopyFrom(graph(0))
    return model, expected


@given(models())
def test_every_name_is_found_in_both_orders(made):
    model, expected = made
    raw = model.SerializeToString()
    assert external_files(raw, where="m") == expected
    turned = raw
    for name in sorted(expected, key=len, reverse=True):
        if b"\x0a\x08location\x12" + varint(len(name.encode())) + name.encode() in turned:
            turned = value_first(turned, name)
    assert ModelProto.FromString(turned) == model
    assert external_files(turned, where="m") == expected


@given(st.binary(max_size=300) | models().flatmap(lambda made: damaged(made[0].SerializeToString())))
def test_other_bytes_end_in_an_error_of_ours_or_in_names(raw):
    with contextlib.suppress(WeightsError):
        assert all(isinstance(name, str) for name in external_files(raw, where="the file"))


@st.composite
def damaged(draw, raw):
    if not raw:
        return raw
    at = draw(st.integers(0, len(raw) - 1))
    return draw(st.sampled_from([raw[:at], raw[:at] + bytes([draw(st.integers(0, 255))]) + raw[at + 1 :]]))


def test_nesting_without_end_is_an_error():
    message = b""
    for _ in range(3000):
        message = b"\x32" + varint(len(message)) + message  # a graph in an attribute
        message = b"\x2a" + varint(len(message)) + message  # an attribute in a node
        message = b"\x0a" + varint(len(message)) + message  # a node in a graph
    with pytest.raises(WeightsError, match="nested too deep"):
        external_files(b"\x3a" + varint(len(message)) + message, where="m")


def test_a_name_without_the_mark_of_external_data_is_none():
    tensor = external("t", "w.bin")
    tensor.data_location = TensorProto.DEFAULT
    model = helper.make_model(helper.make_graph([], "g", [], [], [tensor]))
    assert external_files(model.SerializeToString(), where="m") == set()


# ---------------------------------------------------------------- complete models


@pytest.fixture(params=["onnxruntime", "openvino"])
def embed(request, tmp_path):
    def embed(folder, cache="sqlite"):
        overrides = {
            "weights.directory": str(tmp_path / "weights"),
            "weights.offline": True,
            "local.backend": request.param,
            "local.precision": "f32",
            "cache.backend": cache,
            "cache.path": str(tmp_path / "cache.sqlite"),
        }
        with Embedder(config=Config.load(environ={}, overrides=overrides)) as embedder:
            return embedder.embed(["hello world", "a second text"], model=str(folder))

    return embed


def table(seed):
    return np.random.default_rng(seed).normal(size=(VOCABULARY, WIDE)).astype(np.float32)


def onnx_folder(folder, tokenizer, *, seed=1, location="w.bin", turned=False, **facts):
    """Make a folder with a model that looks up rows of an external table and adds a small external vector."""
    shutil.rmtree(folder, ignore_errors=True)
    tiny_encoder(folder, tokenizer)
    (folder / "model.safetensors").unlink()
    weights, bias = table(seed), np.full(WIDE, 0.25, np.float32)
    (folder / "w.bin").write_bytes(weights.tobytes() + bias.tobytes())
    given = {"offset": 0, "length": weights.nbytes, **facts}
    tensors = [
        external("t", location, shape=weights.shape, **given),
        external("bias", location, shape=bias.shape, offset=weights.nbytes, length=bias.nbytes),
    ]
    nodes = [
        helper.make_node("Gather", ["t", "input_ids"], ["rows"]),
        helper.make_node("Add", ["rows", "bias"], ["last_hidden_state"]),
    ]
    inputs = [helper.make_tensor_value_info(name, 7, ["b", "s"]) for name in ("input_ids", "attention_mask")]
    output = helper.make_tensor_value_info("last_hidden_state", 1, ["b", "s", WIDE])
    graph = helper.make_graph(nodes, "g", inputs, [output], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    raw = model.SerializeToString()
    (folder / "model.onnx").write_bytes(value_first(raw, location) if turned else raw)
    return folder


def truth(tokenizer, seed):
    from tokenizers import Tokenizer

    reader = Tokenizer.from_file(str(tokenizer))
    reader.no_padding()
    ids = [reader.encode(text).ids for text in ("hello world", "a second text")]
    means = np.array([(table(seed)[row] + 0.25).mean(axis=0) for row in ids])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


@pytest.mark.parametrize("turned", [False, True])
def test_other_external_weights_are_another_space(embed, tmp_path, tokenizer, turned):
    first = embed(onnx_folder(tmp_path / "m", tokenizer, seed=1, turned=turned))
    second = embed(onnx_folder(tmp_path / "m", tokenizer, seed=2, turned=turned))
    assert first.space.weights != second.space.weights
    assert second.receipt.cache_hits == 0
    np.testing.assert_allclose(first.vectors, truth(tokenizer, 1), atol=1e-5)
    np.testing.assert_allclose(second.vectors, truth(tokenizer, 2), atol=1e-5)


def test_external_data_behind_links_is_read(embed, tmp_path, tokenizer):
    """The weights store and the hub's cache contain files named by hash, and links to them."""
    plain = onnx_folder(tmp_path / "plain", tokenizer)
    linked = tmp_path / "linked"
    shutil.copytree(plain, linked)
    (tmp_path / "blobs").mkdir()
    for name in ("model.onnx", "w.bin"):
        (linked / name).rename(tmp_path / "blobs" / f"hash-of-{name}")
        (linked / name).symlink_to(f"../blobs/hash-of-{name}")
    result = embed(linked)
    assert result.space.weights == embed(plain).space.weights
    np.testing.assert_allclose(result.vectors, truth(tokenizer, 1), atol=1e-5)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    "location", ["../outside.bin", "/outside.bin", "a/../../outside.bin", "*/_ORT_MEM_ADDR_/*", ""]
)
def test_external_data_outside_of_the_folder_is_refused(embed, tmp_path, tokenizer, location, turned):
    (tmp_path / "outside.bin").write_bytes(table(9).tobytes())
    folder = onnx_folder(tmp_path / "m", tokenizer, location=location, turned=turned)
    with pytest.raises(WeightsError, match=r"outside its folder|which is missing"):
        embed(folder)


@pytest.mark.parametrize(
    "facts",
    [
        {"offset": 10**9},
        {"length": 10**9},
        {"length": 4},
        {"offset": -4},
        {"offset": "many"},
        {"length": 2 * VOCABULARY * WIDE},
    ],
    ids=str,
)
def test_external_data_that_does_not_fit_is_refused(embed, tmp_path, tokenizer, facts):
    with pytest.raises(WeightsError, match=r"tensor 't'"):
        embed(onnx_folder(tmp_path / "m", tokenizer, **facts))


def test_external_data_that_is_written_to_is_an_error(tmp_path, tokenizer):
    folder = onnx_folder(tmp_path / "m", tokenizer)
    overrides = {"weights.directory": str(tmp_path / "weights"), "weights.offline": True, "cache.backend": "none"}
    with Embedder(config=Config.load(environ={}, overrides=overrides)) as embedder:
        embedder.embed("a text", model=str(folder))
        with (folder / "w.bin").open("r+b") as file:
            file.write(table(2).tobytes())
        with pytest.raises(WeightsError, match=r"w\.bin was written to"):
            embedder.embed("another", model=str(folder))


def test_a_file_that_is_no_model_is_an_error_of_ours(embed, tmp_path, tokenizer):
    folder = onnx_folder(tmp_path / "m", tokenizer)
    for content in (b"\x08\x08", b"", os.urandom(64)):
        (folder / "model.onnx").write_bytes(content)
        with pytest.raises((WeightsError, UnsupportedModelError, BatchError)):
            embed(folder)


def test_the_library_agrees(tmp_path, tokenizer):
    folder = onnx_folder(tmp_path / "m", tokenizer)
    import onnx

    model = onnx.load(folder / "model.onnx", load_external_data=False)
    theirs = {external_data_helper.ExternalDataInfo(tensor).location for tensor in model.graph.initializer}
    assert external_files((folder / "model.onnx").read_bytes(), where="m") == theirs
