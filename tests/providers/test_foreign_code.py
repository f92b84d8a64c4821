"""Model folders that name code: refused before sentence-transformers reads them."""

import errno
import json
import os

import pytest

from embedway.errors import ConfigError, UnsupportedModelError
from embedway.providers.base import Endpoint
from embedway.providers.foreign_code import model_source

MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]


@pytest.fixture
def model(tmp_path):
    """Return a function that writes JSON files into a model's folder, besides the standard ones."""
    folder = tmp_path / "model"

    def write(**files):
        harmless = {
            "modules": MODULES,
            "config": {"model_type": "bert", "architectures": ["BertModel"]},
            "tokenizer_config": {"tokenizer_class": "BertTokenizer"},
            "2_Dense/config": {"activation_function": "torch.nn.modules.activation.Tanh"},
            "3_Words/wordembedding_config": {
                "tokenizer_class": "sentence_transformers.models.tokenizer.WhitespaceTokenizer"
            },
        }
        for name, content in {**harmless, **files}.items():
            path = folder / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))
        return folder

    return write


def source(folder, **options):
    return model_source(Endpoint("routes.r", "OWNER/NAME", options={"path": str(folder), **options}))


def test_a_folder_that_names_the_library_s_own_classes_is_loaded(model):
    folder = model()
    assert source(folder) == str(folder)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "modules",
            [{**MODULES[0], "type": "modeling.Transformer"}],
            'modules.json contains type = "modeling.Transformer"',
        ),
        ("modules", [{**MODULES[0], "type": "sentence_transformers.util.torch"}], "sentence_transformers.util.torch"),
        ("modules", [{**MODULES[0], "type": "sentence_transformers_evil.Module"}], "sentence_transformers_evil"),
        ("modules", [{**MODULES[0], "path": "../other"}], 'refers to "../other"'),
        ("modules", [{**MODULES[0], "path": "/other"}], 'refers to "/other"'),
        ("2_Dense/config", {"activation_function": "os.abort"}, "2_Dense/config.json contains activation_function"),
        ("2_Dense/config", {"activation_function": "torch.hub.Load"}, "torch.hub.Load"),
        ("router_config", {"types": {"query_0_X": "evil.Module"}}, 'router_config.json contains types = "evil.Module"'),
        ("a/b/config", {"types": {"x": "evil.Module"}}, "a/b/config.json"),
        ("3_Words/wordembedding_config", {"tokenizer_class": "evil.Words"}, "tokenizer_class"),
        ("config", {"sentence_transformers": {"activation_fn": "evil.Function"}}, "activation_fn"),
        ("config", {"sbert_ce_default_activation_function": "evil.Function"}, "sbert_ce_default_activation_function"),
        ("sentence_bert_config", {"model_args": {"weights_only": False}}, "weights_only = false"),
        ("sentence_bert_config", {"model_kwargs": {"allow_all_kernels": True}}, "allow_all_kernels = true"),
    ],
)
def test_a_folder_that_names_other_code_is_refused_unless_the_user_allows_it(model, name, content, said):
    folder = model(**{name: content})
    with pytest.raises(UnsupportedModelError) as caught:
        source(folder)
    assert said in str(caught.value)
    assert "options.trust_remote_code" in str(caught.value)
    assert source(folder, trust_remote_code="true") == str(folder)


def test_names_behind_links_are_found(model, tmp_path):
    folder, elsewhere = model(), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "config.json").write_text(json.dumps({"activation_function": "evil.Function"}))
    (folder / "4_Dense").symlink_to(elsewhere)
    (elsewhere / "round").symlink_to(folder)
    with pytest.raises(UnsupportedModelError, match=r"4_Dense/config\.json"):
        source(folder)


def test_a_configuration_too_large_to_be_checked_is_refused(model):
    folder = model()
    with (folder / "modules.json").open("a") as file:
        file.write(" " * 2**24)
    with pytest.raises(
        UnsupportedModelError, match=r"modules\.json cannot be checked \(it has more than 16,777,216 bytes\)"
    ):
        source(folder)


@pytest.mark.parametrize("name", ["x.json", "1_Pooling/config.json", "model.safetensors", "tokenizer.json"])
def test_a_pipe_is_refused_and_not_waited_for(model, name):
    folder = model()
    (folder / name).parent.mkdir(exist_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(UnsupportedModelError, match="cannot be checked"):
        source(folder)


def test_a_link_that_leads_nowhere_is_refused(model):
    folder = model()
    (folder / "router_config.json").symlink_to("absent")
    with pytest.raises(UnsupportedModelError, match=r"router_config\.json cannot be checked"):
        source(folder)


def test_a_configuration_that_is_nested_too_deep_is_refused(model):
    folder = model()
    (folder / "router_config.json").write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(UnsupportedModelError, match="nested too deep"):
        source(folder)


def test_a_folder_that_cannot_be_listed_is_refused(model, monkeypatch):
    folder, listed = model(**{"2_Dense/config": {"activation_function": "evil.Function"}}), os.scandir

    def scandir(place):
        if str(place).endswith("2_Dense"):
            raise PermissionError(errno.EACCES, "Permission denied", str(place))
        return listed(place)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UnsupportedModelError, match="2_Dense cannot be listed"):
        source(folder)


@pytest.mark.parametrize("name", ["BAAI/bge-small-en-v1.5", "bge-small-en-v1.5"])
def test_a_name_of_the_hub_is_never_a_folder_of_the_working_directory(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert model_source(Endpoint("routes.r", name)) == name
    (tmp_path / name).mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"options\.path") as caught:
        model_source(Endpoint("routes.r", name))
    assert f'"./{name}"' in str(caught.value)
    for plain in (f"./{name}", str(tmp_path / name)):
        assert model_source(Endpoint("routes.r", plain)) == str(tmp_path / name)
        assert model_source(Endpoint("routes.r", name, options={"path": plain})) == str(tmp_path / name)


def test_a_path_that_is_no_folder_is_not_asked_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="'models/mine' is not a folder"):
        source("models/mine")
