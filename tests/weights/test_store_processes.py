"""Pulls in separate processes: two at once, and killed at any moment."""

import contextlib
import hashlib
import subprocess
import threading

import pytest

from embedway.weights.store import WeightsStore

CHUNK = 256 * 1024


@contextlib.contextmanager
def process(command):
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout.readline() == "ready\n"
            yield child
        finally:
            child.kill()


def begin(child):
    child.stdin.write("\n")
    child.stdin.flush()


def have(child, size):
    """Wait until that many bytes are on the child's disk."""
    for line in child.stdout:
        if line.startswith("have ") and int(line.split()[1]) >= size:
            return
    raise AssertionError("the child ended early")


def test_two_processes_at_once_leave_one_good_copy(settings, weights, files, hub, hold, puller):
    hub.holds["model.safetensors"] = gate = hold(CHUNK)
    command = puller(settings, weights)
    with process(command) as one, process(command) as two:
        begin(one)
        begin(two)
        assert gate.reached.wait(30)
        gate.release.set()
        ends = [child.communicate()[0].splitlines()[-1] for child in (one, two)]
    folder = WeightsStore(settings).find(weights)
    assert ends == [f"pulled {folder.path}"] * 2
    for path, data in files.items():
        assert (folder.path / path).read_bytes() == data
        assert len(hub.gets(path)) == 1
    assert len(list((settings.root / "blobs").iterdir())) == len(files)
    assert not list((settings.root / "partial").iterdir())


def test_a_killed_pull_goes_on_where_it_was(settings, weights, files, hub, hold, puller):
    hub.large.clear()
    data = files["model.safetensors"]
    hub.holds["model.safetensors"] = hold(2 * CHUNK + 1000)
    with process(puller(settings, weights)) as child:
        begin(child)
        have(child, 2 * CHUNK)
        child.kill()
        child.wait()
    hub.holds.pop("model.safetensors").release.set()
    store = WeightsStore(settings)
    assert store.find(weights) is None
    folder = store.pull(weights)
    assert (folder.path / "model.safetensors").read_bytes() == data
    first, second = hub.gets("model.safetensors")
    assert "Range" not in first
    begins = int(second["Range"].removeprefix("bytes=").removesuffix("-"))
    assert 2 * CHUNK <= begins < len(data)


@pytest.mark.parametrize("line", [0, 1, 2, 4, 7, 10, 12, 14])
def test_killed_at_any_moment_nothing_passes_for_whole(settings, weights, files, puller, line):
    with process(puller(settings, weights)) as child:
        begin(child)
        for _ in range(line):
            child.stdout.readline()
        child.kill()
        child.wait()
    store = WeightsStore(settings)
    found = store.find(weights)
    if found is not None:
        store.verify(found)
    folder = store.pull(weights)
    store.verify(folder)
    assert {path: (folder.path / path).read_bytes() for path in files} == files


def test_a_killed_holder_of_the_lock_blocks_no_process(settings, weights, hub, hold, puller):
    hub.holds["config.json"] = gate = hold(3)
    with process(puller(settings, weights)) as child:
        begin(child)
        assert gate.reached.wait(30)
        waiting = threading.Thread(target=WeightsStore(settings).pull, args=(weights,))
        waiting.start()
        child.kill()
        child.wait()
        gate.release.set()
        waiting.join(30)
    assert not waiting.is_alive()
    folder = WeightsStore(settings).find(weights)
    assert hashlib.sha256((folder.path / "model.safetensors").read_bytes()).hexdigest() == folder.weights_sha256
