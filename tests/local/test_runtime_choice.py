"""Choice of the runtime for a model: settings, then the tuned choice, then the rule."""

import dataclasses
import json

import pytest

from embedway import Config
from embedway.errors import RuntimeUnavailableError
from embedway.local import cpu, runtime_choice
from embedway.local.backend import SessionOptions, open_session
from embedway.local.runtime_choice import RuntimeChoice, choice_path, choose_runtime, read_choice, write_choice

WEIGHTS = "ab" * 32
SMALL, LARGE = 90_000_000, 2_000_000_000
PLAIN = cpu.CpuFacts("plain", frozenset({"avx2"}), cores=2, schedulable=2)
WIDE = cpu.CpuFacts("wide", frozenset({"avx2", "avx512f"}), cores=8, schedulable=8)
BF16 = cpu.CpuFacts("bf16", frozenset({"avx2", "avx512f", "avx512_bf16"}), cores=8, schedulable=8)


@pytest.fixture
def on(monkeypatch):
    """Pretend to run on a CPU, with or without OpenVINO."""

    def put(facts, *, openvino=True):
        monkeypatch.setattr(cpu, "facts", lambda: facts)
        monkeypatch.setattr(runtime_choice, "available", lambda backend: openvino or backend == "onnxruntime")

    return put


@pytest.fixture
def settings(tmp_path):
    def make(**local):
        given = {f"local.{key}": value for key, value in local.items()}
        return Config.load(environ={}, overrides={"tune.directory": str(tmp_path), **given})

    return make


def chosen(config, size=SMALL):
    return choose_runtime(config, weights_sha256=WEIGHTS, weights_bytes=size)


@pytest.mark.parametrize(
    ("facts", "openvino", "bulk"),
    [
        (PLAIN, True, SessionOptions("onnxruntime", "f32", 2, 2)),
        (WIDE, True, SessionOptions("openvino", "f32", 4, 8)),
        (BF16, True, SessionOptions("openvino", "bf16", 4, 8)),
        (BF16, False, SessionOptions("onnxruntime", "f32", 4, 8)),
    ],
    ids=["avx2", "avx512", "bf16", "no openvino"],
)
def test_the_rule(on, settings, facts, openvino, bulk):
    on(facts, openvino=openvino)
    found = chosen(settings())
    assert found.bulk == bulk
    assert found.single == dataclasses.replace(bulk, streams=1)


def test_a_large_model_is_held_once(on, settings):
    on(BF16)
    found = chosen(settings(), LARGE)
    assert found.bulk == found.single == SessionOptions("openvino", "bf16", 1, 8)


@pytest.mark.parametrize(
    ("given", "bulk"),
    [
        ({"precision": "f32"}, SessionOptions("openvino", "f32", 4, 8)),
        ({"backend": "onnxruntime"}, SessionOptions("onnxruntime", "f32", 4, 8)),
        ({"threads": 3}, SessionOptions("openvino", "bf16", 3, 3)),
        ({"streams": 2}, SessionOptions("openvino", "bf16", 2, 8)),
        ({"threads": 2, "streams": 5}, SessionOptions("openvino", "bf16", 2, 2)),
    ],
    ids=str,
)
def test_settings_win(on, settings, tmp_path, given, bulk):
    on(BF16)
    tuned = RuntimeChoice(SessionOptions("openvino", "bf16", 8, 8), SessionOptions("openvino", "bf16", 1, 8), 512)
    write_choice(tmp_path, WEIGHTS, tuned, model="m", measured={})
    assert chosen(settings()) == tuned
    assert chosen(settings(**given)).bulk == bulk


def test_a_token_budget_goes_with_what_was_tuned(on, settings, tmp_path):
    on(BF16)
    tuned = RuntimeChoice(SessionOptions("openvino", "bf16", 8, 8), SessionOptions("openvino", "bf16", 1, 8), 512)
    write_choice(tmp_path, WEIGHTS, tuned, model="m", measured={})
    assert chosen(settings(token_budget=64)) == dataclasses.replace(tuned, token_budget=64)


def test_what_was_tuned_on_another_cpu_is_not_taken(on, tmp_path):
    tuned = RuntimeChoice(SessionOptions("onnxruntime", "f32", 2, 2), SessionOptions("onnxruntime", "f32", 1, 2), 512)
    on(PLAIN)
    write_choice(tmp_path, WEIGHTS, tuned, model="m", measured={})
    assert read_choice(tmp_path, WEIGHTS) == tuned
    assert read_choice(tmp_path, "cd" * 32) is None
    on(WIDE)
    assert read_choice(tmp_path, WEIGHTS) is None


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 1}', "future", "other weights", "no backend"])
def test_a_damaged_choice_counts_as_none(on, tmp_path, damage):
    on(PLAIN)
    tuned = RuntimeChoice(SessionOptions("onnxruntime", "f32", 2, 2), SessionOptions("onnxruntime", "f32", 1, 2), 512)
    path = write_choice(tmp_path, WEIGHTS, tuned, model="m", measured={})
    assert path == choice_path(tmp_path, WEIGHTS)
    stored = json.loads(path.read_text())
    changes = {
        "future": stored | {"format": 99},
        "other weights": stored | {"weights": "cd" * 32},
        "no backend": stored | {"bulk": {"backend": "onnxruntime"}},
    }
    path.write_text(json.dumps(changes[damage]) if damage in changes else damage)
    assert read_choice(tmp_path, WEIGHTS) is None


def test_a_tuned_backend_that_was_removed_is_not_taken(on, tmp_path):
    on(BF16)
    tuned = RuntimeChoice(SessionOptions("openvino", "bf16", 2, 2), SessionOptions("openvino", "bf16", 1, 2), 512)
    write_choice(tmp_path, WEIGHTS, tuned, model="m", measured={})
    on(BF16, openvino=False)
    assert read_choice(tmp_path, WEIGHTS) is None


def test_bfloat16_is_refused_where_there_is_none(on):
    on(PLAIN)
    with pytest.raises(RuntimeUnavailableError, match="use precision f32"):
        open_session(None, SessionOptions("openvino", "bf16", 1, 1))
    with pytest.raises(RuntimeUnavailableError, match="use precision f32"):
        open_session(None, SessionOptions("onnxruntime", "bf16", 1, 1))


def test_a_large_model_in_float32_is_held_once_too(on, settings):
    on(WIDE)
    found = chosen(settings(precision="f32"), LARGE)
    assert found.bulk == found.single == SessionOptions("openvino", "f32", 1, 8)


@pytest.mark.parametrize(("size", "streams"), [(400_000_000, 4), (400_000_001, 1)])
def test_where_large_begins(on, settings, size, streams):
    on(BF16)
    assert chosen(settings(), size).bulk.streams == streams


def test_a_backend_that_is_named_is_taken_on_any_cpu(on, settings):
    on(PLAIN)
    assert chosen(settings(backend="openvino")).bulk == SessionOptions("openvino", "f32", 2, 2)


def test_the_budget_of_the_rule_and_of_the_settings(on, settings):
    on(PLAIN)
    assert chosen(settings()).token_budget == runtime_choice.DEFAULT_TOKEN_BUDGET
    assert chosen(settings(token_budget=64)).token_budget == 64


def test_a_choice_that_cannot_be_written_leaves_the_last_one(on, tmp_path):
    on(PLAIN)
    tuned = RuntimeChoice(SessionOptions("onnxruntime", "f32", 2, 2), SessionOptions("onnxruntime", "f32", 1, 2), 512)
    path = write_choice(tmp_path, WEIGHTS, tuned, model="m", measured={})
    with pytest.raises(TypeError):
        write_choice(tmp_path, WEIGHTS, dataclasses.replace(tuned, token_budget=1), model="m", measured={"x": object()})
    assert read_choice(tmp_path, WEIGHTS) == tuned
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("where", "key", "value"),
    [
        ("bulk", "streams", 0),
        ("bulk", "streams", "two"),
        ("single", "threads", None),
        ("bulk", "precision", "int4"),
        ("bulk", "precision", "bf16"),
        ("single", "backend", "json"),
        ("single", "backend", None),
        ("bulk", "backend", "a.b"),
        (None, "token_budget", -5),
        (None, "token_budget", True),
    ],
)
def test_an_edited_choice_that_cannot_be_carried_out_counts_as_none(on, tmp_path, where, key, value):
    on(PLAIN)
    tuned = RuntimeChoice(SessionOptions("onnxruntime", "f32", 2, 2), SessionOptions("onnxruntime", "f32", 1, 2), 512)
    path = write_choice(tmp_path, WEIGHTS, tuned, model="m", measured={})
    stored = json.loads(path.read_text())
    (stored[where] if where else stored)[key] = value
    path.write_text(json.dumps(stored))
    assert read_choice(tmp_path, WEIGHTS) is None
