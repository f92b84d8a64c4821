"""Files that change while a model is open: the hashed file is the file that is read, otherwise there is an error."""

import mmap
import os
import threading

import numpy as np
import pytest

from embedway import Config, Embedder
from embedway.errors import WeightsError
from embedway.weights.hashes import HashCache, hash_file
from embedway.weights.held_file import CLOCK_TICK_NS, HeldFile, Stamp, check_all
from tiny_models import tiny_encoder

DOCUMENTS = ["alpha beta gamma delta " * 5, "epsilon zeta " * 6, "eta theta iota"]
QUERY = ["alpha beta"]


def old(path):
    """Set a file's time back by 10 s, and return its path."""
    os.utime(path, ns=(path.stat().st_mtime_ns - 10**10,) * 2)
    return path


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"first")
    return path


def test_a_held_file_is_read_as_it_was_hashed(file):
    held = HeldFile(file)
    assert held.sha256 == hash_file(file)
    file.with_name("new").write_bytes(b"other")
    file.with_name("new").replace(file)
    assert held.read() == b"first"
    held.check()
    assert HeldFile(file).sha256 == hash_file(file) != held.sha256


@pytest.mark.parametrize("change", [b"other", b"longer than it was", b"cut", b""], ids=str)
def test_a_file_that_is_written_to_is_a_permanent_error(file, change):
    held = HeldFile(file)
    before = held.sha256
    file.write_bytes(change)
    with pytest.raises(WeightsError, match=r"model\.safetensors was written to while the model was open"):
        held.check()
    file.write_bytes(b"first")
    with pytest.raises(WeightsError, match="create a new embedder"):
        held.check()
    assert HeldFile(file).sha256 == before


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.chmod(0o600),
        lambda path: os.link(path, path.with_name("another name")),
        lambda path: path.rename(path.with_name("renamed")),
        lambda path: path.unlink(),
        os.utime,
        lambda path: path.write_bytes(path.read_bytes()),
    ],
    ids=["mode", "link", "rename", "unlink", "touch", "same bytes"],
)
def test_a_stamp_that_changes_without_other_bytes_is_accepted(file, change):
    held = HeldFile(file)
    assert held.sha256
    change(file)
    held.check()
    assert held.read() == b"first"


def test_bytes_that_changed_and_came_back_during_a_computation_are_an_error(file):
    held = HeldFile(file)
    assert held.sha256
    before = check_all([held])
    file.write_bytes(b"other")
    file.write_bytes(b"first")
    with pytest.raises(WeightsError, match="while vectors were computed"):
        check_all([held], before)
    held.check()


def test_a_file_that_was_never_hashed_may_not_change(file):
    held = HeldFile(old(file))
    held.hold()
    held.check()
    file.write_bytes(b"other")
    with pytest.raises(WeightsError, match="was written to"):
        held.check()


def test_only_regular_files_are_held(tmp_path):
    with pytest.raises(WeightsError, match="is missing"):
        HeldFile(tmp_path / "absent").hold()
    with pytest.raises(WeightsError, match="not a regular file"):
        HeldFile(tmp_path).hold()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(WeightsError, match="not a regular file"):
        HeldFile(tmp_path / "fifo").hold()


def test_hashes_of_the_store_are_remembered_only_for_old_stamps(tmp_path):
    file = tmp_path / "store" / "blobs" / "blob"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"first")
    hash_cache = HashCache(tmp_path / "store")
    assert Stamp.of(file).fresh
    held = HeldFile(file, hash_cache)
    assert held.sha256 == hash_file(file)
    stamp = Stamp.of(file)
    assert not stamp.fresh
    assert hash_cache.get(file, stamp) == held.sha256
    hash_cache.put(file, stamp, "remembered")
    for opened_later in (hash_cache, HashCache(tmp_path / "store")):
        assert HeldFile(file, opened_later).sha256 == "remembered"


def test_hashes_of_other_files_are_remembered_for_one_opening(file, tmp_path):
    hash_cache = HashCache(tmp_path / "store")
    (tmp_path / "store" / "hashes").mkdir(parents=True)
    held = HeldFile(file, hash_cache)
    assert hash_cache.get(file, Stamp.of(file)) is None
    sha256 = held.sha256
    assert hash_cache.get(file, held.check()) == sha256 == hash_file(file)
    assert HashCache(tmp_path / "store").get(file, held.check()) is None
    assert not list((tmp_path / "store" / "hashes").iterdir())


def test_descriptors_are_given_back(file):
    held = HeldFile(file)
    descriptor = held.hold()
    os.fstat(descriptor)
    del held
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_threads_share_one_descriptor(file):
    held = HeldFile(file)
    found = []
    threads = [threading.Thread(target=lambda: found.append((held.hold(), held.sha256))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


# ---------------------------------------------------------------- models


@pytest.fixture(params=["onnxruntime", "openvino"])
def make(request, tmp_path):
    def make(cache="none"):
        overrides = {
            "weights.directory": str(tmp_path / "weights"),
            "weights.offline": True,
            "local.backend": request.param,
            "local.precision": "f32",
            "cache.backend": cache,
            "cache.path": str(tmp_path / "cache.sqlite"),
        }
        return Embedder(config=Config.load(environ={}, overrides=overrides))

    return make


def replace(new, path):
    copy = path.with_name("copy")
    copy.write_bytes(new.read_bytes())
    copy.replace(path)


def write(new, path):
    with path.open("r+b") as file:
        file.write(new.read_bytes())


@pytest.mark.parametrize("before_the_first_session", [True, False])
def test_an_opened_model_is_unchanged_by_a_new_save_of_its_folder(make, tmp_path, tokenizer, before_the_first_session):
    folder = tiny_encoder(tmp_path / "model", tokenizer, seed=1)
    new = tiny_encoder(tmp_path / "new", tokenizer, seed=2)
    with make() as embedder:
        true = embedder.embed(
            [*DOCUMENTS, *QUERY], model=str(tiny_encoder(tmp_path / "same", tokenizer, seed=1))
        ).vectors
        other = embedder.embed([*DOCUMENTS, *QUERY], model=str(new)).vectors
    with make("sqlite") as embedder:
        space = embedder.models.describe(str(folder)).space
        if before_the_first_session:
            replace(new / "model.safetensors", folder / "model.safetensors")
        documents = embedder.embed(DOCUMENTS, model=str(folder))
        replace(new / "model.safetensors", folder / "model.safetensors")
        query = embedder.embed(QUERY, model=str(folder), input_type="query")
        assert documents.space == query.space == space
        np.testing.assert_allclose(np.concatenate([documents.vectors, query.vectors]), true, atol=1e-4)
    with make("sqlite") as embedder:
        now = embedder.embed(DOCUMENTS, model=str(folder))
        assert (now.receipt.cache_hits, now.space == space) == (0, False)
        np.testing.assert_allclose(now.vectors, other[: len(DOCUMENTS)], atol=1e-4)


@pytest.mark.parametrize("before_the_first_session", [True, False])
def test_a_folder_that_is_written_to_is_an_error_and_never_a_mixture(
    make, tmp_path, tokenizer, before_the_first_session
):
    folder = tiny_encoder(tmp_path / "model", tokenizer, seed=1)
    new = tiny_encoder(tmp_path / "new", tokenizer, seed=2)
    with make("sqlite") as embedder:
        embedder.models.describe(str(folder))
        if not before_the_first_session:
            embedder.embed(DOCUMENTS, model=str(folder))
        write(new / "model.safetensors", folder / "model.safetensors")
        for texts, input_type in ((QUERY, "query"), (["others"], "document"), (["of a batch", "of two"], "document")):
            with pytest.raises(WeightsError, match="was written to while the model was open"):
                embedder.embed(texts, model=str(folder), input_type=input_type)
    with make() as embedder:
        true = embedder.embed(QUERY, model=str(new), input_type="query").vectors
    with make("sqlite") as embedder:
        now = embedder.embed(QUERY, model=str(folder), input_type="query")
        assert now.receipt.cache_hits == 0
        np.testing.assert_allclose(now.vectors, true, atol=1e-4)


def test_a_write_through_a_shared_map_is_another_space_for_a_new_embedder(make, tmp_path, tokenizer):
    folder = tiny_encoder(tmp_path / "model", tokenizer, seed=1)
    new = tiny_encoder(tmp_path / "new", tokenizer, seed=2)
    with make() as embedder:
        true = embedder.embed(DOCUMENTS, model=str(new))
    with (folder / "model.safetensors").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        # These pages are dirty already, so later writes do not change the file's time.
        mapped[:] = (folder / "model.safetensors").read_bytes()
        old(folder / "model.safetensors")
        with make("sqlite") as embedder:
            before = embedder.embed(DOCUMENTS, model=str(folder))
        mapped[:] = (new / "model.safetensors").read_bytes()
        with make("sqlite") as embedder:
            now = embedder.embed(DOCUMENTS, model=str(folder))
    assert (now.receipt.cache_hits, now.space == before.space) == (0, False)
    assert now.space.weights == true.space.weights
    np.testing.assert_allclose(now.vectors, true.vectors, atol=1e-4)


def test_a_folder_that_changes_while_it_is_opened_is_an_error(tmp_path, tokenizer, monkeypatch):
    from embedway.local import recipe

    folder = tiny_encoder(tmp_path / "model", tokenizer, seed=1)
    new = tiny_encoder(tmp_path / "new", tokenizer, seed=2)
    check = recipe.Recipe.check_weights

    def late(self):
        replace(new / "model.safetensors", folder / "model.safetensors")
        check(self)

    monkeypatch.setattr(recipe.Recipe, "check_weights", late)
    overrides = {"weights.directory": str(tmp_path / "weights"), "weights.offline": True}
    with (
        Embedder(config=Config.load(environ={}, overrides=overrides)) as embedder,
        pytest.raises(WeightsError, match="changed while the model was opened"),
    ):
        embedder.embed(QUERY, model=str(folder))


def test_a_tick_is_longer_than_the_clock_of_this_disk(tmp_path):
    """Two writes separated by more than a tick have different stamps."""
    import time

    path = tmp_path / "file"
    path.write_bytes(b"a")
    first = Stamp.of(path)
    time.sleep(CLOCK_TICK_NS / 1e9)
    path.write_bytes(b"b")
    assert Stamp.of(path) != first
