"""What a model folder says of itself, and what is refused by name."""

import json

import pytest

from embedway.catalog import default_catalog
from embedway.errors import UnsupportedModelError, WeightsError
from embedway.local.recipe import read_recipe

CONFIG = {"model_type": "bert", "hidden_size": 48, "max_position_embeddings": 64}
MODULES = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]


@pytest.fixture
def folder(tmp_path):
    """A whole model folder, but for the numbers in its weights, which nothing here reads."""
    write(tmp_path, "config.json", CONFIG)
    write(tmp_path, "tokenizer.json", {})
    write(tmp_path, "1_Pooling/config.json", {"pooling_mode_mean_tokens": True})
    write_modules(tmp_path, MODULES)
    (tmp_path / "model.safetensors").write_bytes(b"")
    return tmp_path


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_modules(folder, modules):
    listed = [{"idx": n, "path": path, "type": f"a.b.{kind}"} for n, (kind, path) in enumerate(modules)]
    write(folder, "modules.json", listed)


def read(folder, **more):
    options = {"name": "acme/tiny", "weights_sha256": "a" * 64, "facts": None, **more}
    return read_recipe(folder, **options)


def test_the_files_decide(folder):
    recipe = read(folder)
    assert (recipe.task, recipe.pooling, recipe.normalized, recipe.dimensions) == ("embed", "mean", True, 48)
    assert recipe.max_tokens == 64
    assert recipe.prompts == {"query": "", "document": ""}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "gpt2"}, "'gpt2'"),
        ({"model_type": ""}, "none named"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"is_decoder": True}, "is_decoder"),
        ({"quantization_config": {"bits": 8}}, "quantization_config"),
        ({"max_position_embeddings": None}, "how many tokens"),
    ],
    ids=str,
)
def test_what_is_not_built_is_named(folder, change, named):
    write(folder, "config.json", CONFIG | change)
    with pytest.raises(UnsupportedModelError, match=named):
        read(folder)


@pytest.mark.parametrize(
    ("pooling", "named"),
    [
        ({"pooling_mode_max_tokens": True}, "pooling_mode_max_tokens"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, "mean_tokens . pooling_mode_cls"),
        ({"pooling_mode_mean_tokens": False}, "none"),
        ({"pooling_mode": "weightedmean"}, "weightedmean"),
    ],
    ids=str,
)
def test_other_poolings_are_named(folder, pooling, named):
    write(folder, "1_Pooling/config.json", pooling)
    with pytest.raises(UnsupportedModelError, match=named):
        read(folder)


@pytest.mark.parametrize(
    ("pooling", "kind"),
    [
        ({"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": ["lasttoken"]}, "last"),
    ],
    ids=str,
)
def test_both_ways_of_writing_a_pooling(folder, pooling, kind):
    write(folder, "1_Pooling/config.json", pooling)
    assert read(folder).pooling == kind


@pytest.mark.parametrize(
    ("modules", "named"),
    [
        ([("Transformer", ""), ("WordWeights", "1_W"), ("Pooling", "1_Pooling")], "WordWeights"),
        ([("Transformer", ""), ("Normalize", "2"), ("Pooling", "1_Pooling")], "Normalize"),
        ([("Transformer", ""), ("Dense", "2_Dense"), ("Pooling", "1_Pooling")], "Dense"),
        ([("Transformer", "")], "no Pooling"),
        ([("Transformer", "0_Other"), ("Pooling", "1_Pooling")], "Transformer"),
    ],
    ids=str,
)
def test_modules_that_are_not_built_are_named(folder, modules, named):
    write_modules(folder, modules)
    with pytest.raises(UnsupportedModelError, match=named):
        read(folder)


def test_dropout_does_nothing(folder):
    write_modules(folder, [*MODULES[:2], ("Dropout", "2_Dropout"), ("Normalize", "3_Normalize")])
    assert read(folder).normalized


@pytest.mark.parametrize(
    ("config", "weights", "named"),
    [
        ({"out_features": 8, "activation_function": "torch.nn.Softplus"}, "model.safetensors", "Softplus"),
        ({"out_features": 8}, "pytorch_model.bin", "no model.safetensors"),
    ],
)
def test_dense_modules_that_are_not_built_are_named(folder, config, weights, named):
    write_modules(folder, [*MODULES[:2], ("Dense", "2_Dense")])
    write(folder, "2_Dense/config.json", config)
    (folder / "2_Dense" / weights).write_bytes(b"")
    with pytest.raises(UnsupportedModelError, match=named):
        read(folder)


def test_a_dense_module_sets_the_width(folder):
    write_modules(folder, [*MODULES[:2], ("Dense", "2_Dense")])
    write(folder, "2_Dense/config.json", {"out_features": 8, "activation_function": "torch.nn.modules.linear.Identity"})
    (folder / "2_Dense" / "model.safetensors").write_bytes(b"")
    recipe = read(folder)
    assert (recipe.dimensions, recipe.dense[0].activation) == (8, "identity")


@pytest.mark.parametrize(
    ("gone", "error", "named"),
    [
        ("config.json", WeightsError, "config.json is missing"),
        ("1_Pooling/config.json", WeightsError, "1_Pooling.config.json is missing"),
        ("tokenizer.json", UnsupportedModelError, "no tokenizer.json"),
        ("model.safetensors", UnsupportedModelError, "pickled weights are not read"),
    ],
)
def test_missing_files_are_named(folder, gone, error, named):
    (folder / gone).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(error, match=named):
        read(folder)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_broken_config_is_named(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(WeightsError, match=r"config\.json .*JSON"):
        read(folder)


def test_a_missing_onnx_file_is_named(folder):
    with pytest.raises(WeightsError, match=r"onnx.model_quantized\.onnx is missing"):
        read(folder, onnx_file="onnx/model_quantized.onnx")


def test_shards_are_all_taken(folder):
    (folder / "model.safetensors").unlink()
    write(folder, "model.safetensors.index.json", {"weight_map": {"b": "2.safetensors", "a": "1.safetensors"}})
    assert [path.name for path in read(folder).weights] == ["1.safetensors", "2.safetensors"]


@pytest.mark.parametrize(
    ("config", "files", "limit"),
    [
        ({}, {}, 64),
        ({}, {"sentence_bert_config.json": {"max_seq_length": 32}}, 32),
        ({}, {"sentence_bert_config.json": {"max_seq_length": 512}}, 64),
        ({}, {"sentence_bert_config.json": {"max_seq_length": None}}, 64),
        ({}, {"tokenizer_config.json": {"model_max_length": 16}}, 16),
        ({}, {"tokenizer_config.json": {"model_max_length": 10**30}}, 64),
        ({"model_type": "roberta", "pad_token_id": 1}, {}, 62),
        ({"model_type": "xlm-roberta", "pad_token_id": 1, "max_position_embeddings": 514}, {}, 512),
        ({"model_type": "mpnet", "pad_token_id": 1, "max_position_embeddings": 514}, {}, 512),
    ],
    ids=str,
)
def test_the_smallest_limit_holds(folder, config, files, limit):
    write(folder, "config.json", CONFIG | config)
    for name, content in files.items():
        write(folder, name, content)
    assert read(folder).max_tokens == limit


@pytest.mark.parametrize(
    ("config", "query", "document"),
    [
        ({"prompts": {"query": "q: ", "document": "d: "}}, "q: ", "d: "),
        ({"prompts": {"query": "q: ", "passage": "p: "}}, "q: ", "p: "),
        ({"prompts": {"query": "q: "}, "default_prompt_name": None}, "q: ", ""),
        ({"prompts": {"query": "q: ", "all": "a: "}, "default_prompt_name": "all"}, "q: ", "a: "),
        ({}, "", ""),
    ],
    ids=str,
)
def test_prompts(folder, config, query, document):
    write(folder, "config_sentence_transformers.json", config)
    assert read(folder).prompts == {"query": query, "document": document}


def test_the_catalog_fills_in_prompts_that_the_folder_does_not_have(folder):
    facts = default_catalog().get("intfloat/e5-small-v2")
    assert read(folder, facts=facts).prompts == {"query": "query: ", "document": "passage: "}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True}),
        ("config_sentence_transformers.json", {"prompts": {"query": "find: "}}),
        ("modules.json", [{"path": "", "type": "Transformer"}, {"path": "1_Pooling", "type": "Pooling"}]),
    ],
)
def test_the_same_weights_used_in_another_way_are_another_space(folder, name, content):
    before = read(folder).space(48, None)
    write(folder, name, content)
    after = read(folder).space(48, None)
    assert before.weights == after.weights
    assert before.id != after.id


def test_a_classifier_is_a_reranker_with_its_labels_as_width(folder):
    (folder / "modules.json").unlink()
    write(folder, "config.json", CONFIG | {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "x"}})
    recipe = read(folder)
    assert (recipe.task, recipe.dimensions) == ("rerank", 1)
