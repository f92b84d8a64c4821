"""Folders with traps, loaded by sentence-transformers: their code runs only if the user allows it."""

import json
import shutil

import pytest

from embedway import Config, Embedder
from embedway.errors import ConfigError, EmbedwayError, UnsupportedModelError
from tiny_models import tiny_reranker

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "it ran"


@pytest.fixture
def trap(folder, tmp_path, marker):
    """Return a function that adds configurations to the default model's folder, which contains a file of code."""
    made = tmp_path / "trap"
    shutil.copytree(folder, made)
    (made / "trap.py").write_text(f"open({str(marker)!r}, 'w').close()\nraise ImportError\n")

    def write(**files):
        for name, content in files.items():
            path = made / f"{name}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(content))
        return made

    return write


def opened(tmp_path, task="embed", **route):
    model = {"name": "m", "max_tokens": 64, "task": task, **({"tokenizer": "library"} if task == "embed" else {})}
    overrides = {
        "weights.directory": str(tmp_path / "weights"),
        "tune.directory": str(tmp_path / "tune"),
        "models.m": {**model, **({"dimensions": 384} if task == "embed" else {})},
        "routes.r": {"model": "m", "provider": "sentence-transformers", **route},
    }
    return Embedder(config=Config.load(environ={}, overrides=overrides))


def embed(tmp_path, folder, **options):
    with opened(tmp_path, options={"device": "cpu", "path": str(folder), **options}) as embedder:
        return embedder.embed("a text", model="m").vectors


def modules(trap, **changes):
    listed = json.loads((trap() / "modules.json").read_text())
    return [{**listed[0], **changes}, *listed[1:]]


def test_a_module_of_the_folder_is_not_imported(trap, tmp_path, marker):
    folder = trap(modules=modules(trap, type="trap.Transformer"))
    with pytest.raises(UnsupportedModelError, match=r'type = "trap\.Transformer".*options\.trust_remote_code'):
        embed(tmp_path, folder)
    assert not marker.exists()
    with pytest.raises(EmbedwayError):
        embed(tmp_path, folder, trust_remote_code="true")
    assert marker.exists()


@pytest.mark.parametrize("on_the_path", [False, True])
def test_names_in_folders_of_modules_are_not_imported(trap, tmp_path, marker, monkeypatch, on_the_path):
    listed = json.loads((trap() / "modules.json").read_text())
    dense = {"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"}
    settings = {"in_features": 384, "out_features": 384, "activation_function": "trap.Function"}
    folder = trap(modules=[*listed, dense], **{"3_Dense/config": settings})
    if on_the_path:
        monkeypatch.syspath_prepend(folder)
    with pytest.raises(UnsupportedModelError, match=r"3_Dense/config\.json contains activation_function"):
        embed(tmp_path, folder)
    assert not marker.exists()


@pytest.mark.parametrize("file", ["config", "tokenizer_config"])
def test_an_auto_map_is_not_followed(trap, tmp_path, marker, file):
    content = json.loads((trap() / f"{file}.json").read_text())
    classes = {"AutoConfig": "trap.C", "AutoModel": "trap.M", "AutoTokenizer": ["trap.T", "trap.T"]}
    folder = trap(**{file: {**content, "auto_map": classes}})
    # The libraries have their own classes for this kind of model, so it works without the folder's.
    assert embed(tmp_path, folder).shape == (1, 384)
    assert not marker.exists()


def test_weights_are_not_unpickled_where_a_configuration_asks_for_it(trap, tmp_path, monkeypatch):
    import transformers

    asked = []
    load = transformers.AutoModel.from_pretrained.__func__

    def from_pretrained(cls, *arguments, **keywords):
        asked.append(keywords.get("weights_only"))
        return load(cls, *arguments, **keywords)

    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", classmethod(from_pretrained))
    # The check of the folder is off, to test the second barrier.
    monkeypatch.setattr("embedway.providers.foreign_code._named_code", lambda folder: iter(()))
    embed(tmp_path, trap(sentence_bert_config={"max_seq_length": 64, "model_args": {"weights_only": False}}))
    assert asked == [True]


def test_a_cross_encoder_s_folder_is_checked_too(folder, tmp_path, marker):
    made = tiny_reranker(tmp_path / "reranker", folder / "tokenizer.json")
    (made / "trap.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    (made / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": "trap.Transformer"}]))
    with (
        opened(tmp_path, "rerank", options={"device": "cpu", "path": str(made)}) as embedder,
        pytest.raises(UnsupportedModelError, match=r"options\.trust_remote_code"),
    ):
        embedder.rerank("a query", ["a text"], model="m")
    assert not marker.exists()


def test_a_folder_of_the_working_directory_is_not_taken_for_a_model_of_the_hub(folder, tmp_path, monkeypatch):
    (tmp_path / "sentence-transformers").mkdir()
    (tmp_path / MINILM).symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    with opened(tmp_path) as embedder:
        with pytest.raises(ConfigError, match="otherwise use another working directory"):
            embedder.embed("a text", model=f"sentence-transformers:{MINILM}")
        assert embedder.embed("a text", model=f"sentence-transformers:./{MINILM}").vectors.shape == (1, 384)
