"""Facts of a folder that determine vectors: each makes another space, and no hit. Everything else makes none."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway import Config, Embedder
from embedway.errors import UnsupportedModelError, WeightsError
from embedway.local.facts import graph_facts, tokenizer_fact
from embedway.space import comparable
from embedway.weights.model_files import read_optional
from tiny_models import tiny_encoder

TEXT = "The Quick Brown Fox jumps over the lazy dog"


def change_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def configured(**values):
    return lambda folder: change_json(folder / "config.json", lambda config: config.update(values))


def tokenized(change):
    return lambda folder: change_json(folder / "tokenizer.json", change)


def swapped(content):
    words = content["model"]["vocab"]
    words["fox"], words["dog"] = words["dog"], words["fox"]


def dense(folder):
    from safetensors.numpy import save_file

    modules = json.loads((folder / "modules.json").read_text())
    modules.insert(2, {"idx": 2, "path": "2_Dense", "type": "models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "2_Dense").mkdir()
    module = {"in_features": 16, "out_features": 16, "activation_function": "torch.nn.modules.activation.Tanh"}
    (folder / "2_Dense" / "config.json").write_text(json.dumps(module))
    weight = np.random.default_rng(5).normal(size=(16, 16)).astype(np.float32)
    save_file({"linear.weight": weight}, folder / "2_Dense" / "model.safetensors")


def without_normalize(folder):
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(modules[:2]))


def prompted(folder):
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"document": "passage: "}}))


def other_weights(folder):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["embeddings.word_embeddings.weight"] = tensors["embeddings.word_embeddings.weight"] + 1
    save_file(tensors, folder / "model.safetensors")


#: Changes of one fact, and the fact that must differ.
CHANGES = {
    "case": (tokenized(lambda content: content["normalizer"].update(lowercase=False)), "tokenizer"),
    "vocabulary": (tokenized(swapped), "tokenizer"),
    "special tokens": (tokenized(lambda content: content.update(post_processor=None)), "tokenizer"),
    "added tokens": (
        tokenized(
            lambda content: content["added_tokens"].append({**content["added_tokens"][0], "id": 7, "content": "ox"})
        ),
        "tokenizer",
    ),
    "lowercase": (
        lambda folder: (folder / "sentence_bert_config.json").write_text('{"do_lower_case": true}'),
        "tokenizer",
    ),
    "layers": (configured(num_hidden_layers=1), "config"),
    "heads": (configured(num_attention_heads=4), "config"),
    "activation": (configured(hidden_act="relu"), "config"),
    "epsilon": (configured(layer_norm_eps=1.0), "config"),
    "padding id": (configured(pad_token_id=1), "config"),
    "pooling": (
        lambda folder: (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}'),
        "pooling",
    ),
    "normalization": (without_normalize, "normalized"),
    "prompt": (prompted, "document_prompt"),
    "dense": (dense, "head"),
    "weights": (other_weights, "weights"),
}
#: Changes of unused content.
NOT_READ = {
    "padding": tokenized(lambda content: content.update(padding=None)),
    "truncation": tokenized(lambda content: content.update(truncation=None)),
    "order of keys": lambda folder: (folder / "tokenizer.json").write_text(
        json.dumps(json.loads((folder / "tokenizer.json").read_text()), sort_keys=True, indent=2)
    ),
    "defaults": lambda folder: change_json(folder / "config.json", lambda config: config.pop("hidden_act")),
    "other keys": configured(transformers_version="9", torch_dtype="float16", attention_probs_dropout_prob=0.5),
}


@pytest.fixture
def embed(tmp_path):
    """Embed the text with a folder's model in a new embedder; all share a cache by default."""

    def embed(folder, backend="sqlite"):
        overrides = {
            "weights.directory": str(tmp_path / "weights"),
            "weights.offline": True,
            "local.precision": "f32",
            "cache.backend": backend,
            "cache.path": str(tmp_path / "cache.sqlite"),
        }
        with Embedder(config=Config.load(environ={}, overrides=overrides)) as embedder:
            return embedder.embed([TEXT], model=str(folder))

    return embed


@pytest.mark.parametrize("name", CHANGES)
def test_a_fact_alone_is_another_space_and_no_hit(embed, tmp_path, tokenizer, name):
    change, fact = CHANGES[name]
    folder = tiny_encoder(tmp_path / "model", tokenizer)
    before = embed(folder)
    assert embed(folder).receipt.cache_hits == 1
    change(folder)
    after = embed(folder)
    assert after.receipt.cache_hits == 0
    assert after.space.id != before.space.id
    assert comparable(after.space, before.space).differing == (fact,)
    np.testing.assert_allclose(after.vectors, embed(folder, "none").vectors, atol=1e-6)


@pytest.mark.parametrize("name", NOT_READ)
def test_unused_content_changes_nothing(embed, tmp_path, tokenizer, name):
    folder = tiny_encoder(tmp_path / "model", tokenizer)
    before = embed(folder)
    NOT_READ[name](folder)
    after = embed(folder)
    assert (after.space, after.receipt.cache_hits) == (before.space, 1)
    np.testing.assert_array_equal(after.vectors, embed(folder, "none").vectors)


def test_the_default_model_keeps_its_short_id(config):
    with Embedder(config=config) as embedder:
        space = embedder.embed(TEXT).space
    assert space.id == "all-MiniLM-L6-v2@53aa5117/384"
    assert space.tokenizer
    assert space.config


def test_the_weights_of_the_catalog_with_another_tokenizer_have_no_short_id(embed, tmp_path, default_model_directory):
    import shutil

    listed = next(default_model_directory.glob("models/*MiniLM*/*/tokenizer.json")).parent
    folder = tmp_path / "model"
    shutil.copytree(listed, folder)
    same = embed(folder).space
    assert same.id == "all-MiniLM-L6-v2@53aa5117/384"
    tokenized(lambda content: content["normalizer"].update(lowercase=False))(folder)
    other = embed(folder)
    assert other.space.digest != same.digest
    assert other.receipt.cache_hits == 0
    assert comparable(other.space, same).differing == ("tokenizer",)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), json_values, max_size=5), st.dictionaries(st.text(), json_values, max_size=5))
def test_tokenizers_are_the_same_only_if_their_values_are(one, two):
    def fact(content):
        return tokenizer_fact(json.dumps(content).encode(), where="t", lowercase=False)

    used = [{k: v for k, v in content.items() if k not in {"truncation", "padding"}} for content in (one, two)]
    same = json.dumps(used[0], sort_keys=True) == json.dumps(used[1], sort_keys=True)
    assert (fact(one) == fact(two)) == same
    assert fact(one) == fact({**one, "truncation": 1, "padding": [2]})
    assert fact(one) != tokenizer_fact(json.dumps(one).encode(), where="t", lowercase=True)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"[" * 100_000, b"\xff"])
def test_a_broken_tokenizer_is_named(content):
    with pytest.raises(WeightsError, match=r"here/tokenizer\.json .*JSON"):
        tokenizer_fact(content, where="here/tokenizer.json", lowercase=False)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"num_hidden_layers": "two"}, "num_hidden_layers must be an integer"),
        ({"num_hidden_layers": True}, "num_hidden_layers"),
        ({"num_attention_heads": 0}, "num_attention_heads must be an integer of at least 1"),
        ({"num_attention_heads": 7}, "48 is not a multiple of the 7"),
        ({"layer_norm_eps": "small"}, "layer_norm_eps must be a number"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps"),
        ({"layer_norm_eps": -1}, "layer_norm_eps"),
        ({"hidden_act": ["gelu"]}, "activation"),
        ({"hidden_act": "mish"}, "'mish'"),
    ],
    ids=str,
)
def test_values_that_no_graph_can_have_are_named(config, named):
    with pytest.raises((WeightsError, UnsupportedModelError), match=named):
        graph_facts({"hidden_size": 48, **config}, "bert", 0, task="embed", where="config.json")


def test_defaults_are_filled_in():
    bert = graph_facts({}, "bert", 0, task="embed", where="")
    assert (bert.layers, bert.heads, bert.hidden, bert.activation, bert.epsilon) == (12, 12, 768, "gelu", 1e-12)
    distil = graph_facts({}, "distilbert", 0, task="embed", where="")
    assert (distil.layers, distil.heads, distil.hidden) == (6, 12, 768)
    assert graph_facts({"hidden_act": "gelu_new"}, "bert", 0, task="embed", where="").activation == "gelu_tanh"
    assert graph_facts({}, "roberta", 1, task="embed", where="").position_base == 1


def test_settings_that_are_no_files_are_refused(tmp_path):
    import os

    assert read_optional(tmp_path / "absent.json") is None
    assert read_optional(tmp_path / "absent" / "config.json") is None
    os.mkfifo(tmp_path / "fifo.json")
    for path in (tmp_path / "fifo.json", tmp_path):
        with pytest.raises(WeightsError, match=r"regular file"):
            read_optional(path)
