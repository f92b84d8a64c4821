"""Hub repositories, also without a catalog row: files that are pulled, refused, and found again."""

import dataclasses
import hashlib
import json

import pytest
from onnx import TensorProto, helper

from embedway.catalog.types import WeightFile
from embedway.errors import UnsupportedModelError, WeightsError, WeightsUnavailableError
from embedway.weights.store import WeightsStore

REPOSITORY = "acme/tiny"
COMMIT = "1234567890abcdef1234567890abcdef12345678"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def read(folder):
    paths = (path for path in folder.path.rglob("*") if path.is_file() and path.name != "embedway-origin.json")
    return {path.relative_to(folder.path).as_posix(): path.read_bytes() for path in paths}


def put(folder, files):
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def test_pull_repository_takes_what_makes_a_model(settings, files, hub):
    unwanted = {
        "pytorch_model.bin": b"pickle",
        "modeling.py": b"code",
        "README.md": b"words",
        "onnx/model.onnx": graph(),
        "2_Dense/pytorch_model.bin": b"pickle",
        "../up.json": b"{}",
    }
    wanted = {
        **files,
        "2_Dense/config.json": b"{}",
        "2_Dense/model.safetensors": b"dense",
        "sentence_bert_config.json": b"{}",
        "config_sentence_transformers.json": b"{}",
        "special_tokens_map.json": b"{}",
        "tokenizer_config.json": b"{}",
    }
    hub.repositories[REPOSITORY] = {**wanted, **unwanted}
    store = WeightsStore(settings)
    assert store.find_repository(REPOSITORY) is None
    folder = store.pull_repository(REPOSITORY)
    assert read(folder) == wanted
    assert (folder.path.name, folder.origin) == (COMMIT, "hub")
    assert folder.weights_sha256 == sha256(files["model.safetensors"])
    asked = len(hub.requests)
    assert store.find_repository(REPOSITORY) == store.find_repository(REPOSITORY, COMMIT) == folder
    assert store.pull_repository(REPOSITORY, COMMIT) == folder
    assert len(hub.requests) == asked
    assert store.find_repository(REPOSITORY, "v2") is None


def test_a_branch_that_moved(settings, files, hub):
    store = WeightsStore(settings)
    first = store.pull_repository(REPOSITORY)
    hub.refs["main"] = "f" * 40
    hub.repositories[REPOSITORY] = {**files, "model.safetensors": b"a new model"}
    second = store.pull_repository(REPOSITORY)
    assert second.path.name == "f" * 40
    assert store.find_repository(REPOSITORY) == second
    assert store.find_repository(REPOSITORY, COMMIT) == first


def test_pull_repository_in_shards(settings, files, hub):
    del files["model.safetensors"]
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    files |= {names[0]: b"one", names[1]: b"two"}
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    hub.repositories[REPOSITORY] = {**files, "model-00003-of-00003.safetensors": b"of another export"}
    folder = WeightsStore(settings).pull_repository(REPOSITORY)
    assert read(folder) == files
    lines = "".join(f"{name} {sha256(files[name])}\n" for name in names)
    assert folder.weights_sha256 == sha256(lines.encode())
    assert WeightsStore(settings).open_folder(folder.path).weights_sha256 == folder.weights_sha256


def graph(*names):
    """Return a serialized ONNX model whose tensors have their data in files of these names."""
    tensors = [TensorProto(name=f"t{n}", data_type=1, data_location=TensorProto.EXTERNAL) for n in range(len(names))]
    for tensor, name in zip(tensors, names, strict=True):
        tensor.external_data.add(key="location", value=name)
    return helper.make_model(helper.make_graph([], "graph", [], [], tensors)).SerializeToString()


def test_pull_repository_with_onnx_alone(settings, files, hub):
    del files["model.safetensors"]
    files |= {"onnx/model.onnx": graph("model.onnx_data", "Constant_7"), "onnx/model.onnx_data": b"data"}
    files["onnx/Constant_7"] = b"more"
    hub.repositories[REPOSITORY] = {
        **files,
        "onnx/model_O2.onnx": graph(),
        "pytorch_model.bin": b"pickle",
    }
    store = WeightsStore(settings)
    folder = store.pull_repository(REPOSITORY)
    assert read(folder) == files
    assert store.open_folder(folder.path).weights_sha256 == folder.weights_sha256
    named = store.pull_repository(REPOSITORY, onnx_file="onnx/model_O2.onnx")
    assert named.weights_sha256 == sha256(graph())
    assert store.find_repository(REPOSITORY, onnx_file="onnx/model_O2.onnx") == named
    assert store.find_repository(REPOSITORY, COMMIT) == folder


def test_an_onnx_file_never_shadows_safetensors_pulled_before(settings, weights, files, hub):
    """Two pulls of one commit may name different weights; each must still load its own."""
    hub.repositories[REPOSITORY]["onnx/model.onnx"] = graph()
    onnx = [WeightFile("config.json"), WeightFile("onnx/model.onnx")]
    only_onnx = dataclasses.replace(weights, files=tuple(onnx))
    store = WeightsStore(settings)
    first, second = store.pull(only_onnx), store.pull_repository(REPOSITORY)
    assert first.path != second.path
    assert store.find(only_onnx) == first
    assert store.open_folder(first.path).weights_sha256 == first.weights_sha256 == sha256(graph())
    assert store.open_folder(second.path).weights_sha256 == sha256(files["model.safetensors"])


@pytest.mark.parametrize(
    ("name", "content"), [("onnx/model.onnx", graph("../../up")), ("model.safetensors.index.json", b"[]")]
)
def test_weights_that_name_what_they_may_not(settings, files, hub, name, content):
    del files["model.safetensors"]
    hub.repositories[REPOSITORY] = {**files, name: content}
    with pytest.raises(WeightsError, match=r"outside its folder|is not an index"):
        WeightsStore(settings).pull_repository(REPOSITORY)


def test_a_shard_that_is_not_there(settings, files, hub):
    del files["model.safetensors"]
    files["model.safetensors.index.json"] = json.dumps({"weight_map": {"a": "gone.safetensors"}}).encode()
    hub.repositories[REPOSITORY] = files
    with pytest.raises(WeightsUnavailableError, match=r"names gone\.safetensors, which is missing"):
        WeightsStore(settings).pull_repository(REPOSITORY)


def test_pickles_alone_are_refused(settings, hub):
    hub.repositories[REPOSITORY] = {"config.json": b"{}", "pytorch_model.bin": b"pickle", "onnx/a.onnx": b""}
    with pytest.raises(UnsupportedModelError, match=r"acme/tiny.*pickled.*onnx/a\.onnx"):
        WeightsStore(settings).pull_repository(REPOSITORY)


def test_a_repository_that_is_not_there(settings):
    with pytest.raises(WeightsUnavailableError, match="404"):
        WeightsStore(settings).pull_repository("acme/absent")
    with pytest.raises(WeightsUnavailableError, match="404"):
        WeightsStore(settings).pull_repository(REPOSITORY, "no/such/branch")


def test_pull_repository_from_a_folder(settings, files, tmp_path):
    put(tmp_path / "models" / REPOSITORY, files)
    offline = dataclasses.replace(settings, offline=True, places=("folder", "hub"), folders=(tmp_path / "models",))
    store = WeightsStore(offline)
    folder = store.pull_repository(REPOSITORY)
    assert read(folder) == files
    assert folder.origin == "folder"
    assert folder.path.name.startswith("content-")
    assert store.find_repository(REPOSITORY) == folder
    with pytest.raises(WeightsUnavailableError, match="the revision of a folder is unknown"):
        store.pull_repository(REPOSITORY, COMMIT)
