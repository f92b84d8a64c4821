"""Facts of a model folder, and errors that name unsupported features."""

import dataclasses
import hashlib
import json

import pytest

from embedway.catalog import default_catalog
from embedway.errors import UnsupportedModelError, WeightsError
from embedway.local.recipe import read_recipe

CONFIG = {"model_type": "bert", "hidden_size": 48, "max_position_embeddings": 64}
MODULES = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]


@pytest.fixture
def folder(tmp_path):
    """Make a complete model folder, except for the values of its weights, which no test here reads."""
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
        ({"max_position_embeddings": None}, "maximum number of tokens"),
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
        ({"out_features": 8}, "pytorch_model.bin", "model.safetensors is missing"),
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
        ("tokenizer.json", UnsupportedModelError, "tokenizer.json is missing"),
        ("model.safetensors", UnsupportedModelError, "pickled weights are not supported"),
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


def write_dense(folder, activation, weights=b"dense"):
    write_modules(folder, [*MODULES[:2], ("Dense", "2_Dense")])
    write(folder, "2_Dense/config.json", {"out_features": 48, "activation_function": f"torch.nn.{activation}"})
    (folder / "2_Dense" / "model.safetensors").write_bytes(weights)


@pytest.mark.parametrize("module", ["Identity", "Tanh", "ReLU", "GELU", "Sigmoid"])
def test_every_activation_that_a_backend_knows(folder, module):
    write_dense(folder, module)
    assert read(folder).dense[0].activation == module.lower()


def test_every_dense_activation_and_hash_is_a_space_of_its_own(folder):
    ids = {read(folder).space(48, None).id}
    for activation, weights in (("Tanh", b"one"), ("Tanh", b"two"), ("ReLU", b"one")):
        write_dense(folder, activation, weights)
        space = read(folder).space(48, None)
        assert space.head == f"{activation.lower()}:{hashlib.sha256(weights).hexdigest()}"
        ids.add(space.id)
    assert len(ids) == 4


@pytest.fixture
def facts(folder):
    """Return a catalog row with the folder's own facts, except for its limit."""
    row = default_catalog().get("all-MiniLM-L6-v2")
    own = read(folder).space(48, None)
    return dataclasses.replace(
        row,
        weights=dataclasses.replace(row.weights, tokenizer=own.tokenizer, config=own.config),
        max_tokens=40,
        pooling="mean",
        normalized=True,
        prompts={"query": "", "document": ""},
        matryoshka=(),
    )


def test_what_is_as_the_catalog_has_it_is_named_by_its_weights(folder, facts):
    space = read(folder, facts=facts).space(48, facts)
    assert space.id == "tiny@aaaaaaaa/48"


@pytest.mark.parametrize(
    "change",
    [{"pooling": "cls"}, {"normalized": False}, {"prompts": {"query": "find: ", "document": ""}}],
    ids=str,
)
def test_what_differs_from_the_catalog_is_never_named_by_its_weights(folder, facts, change):
    listed = dataclasses.replace(facts, **change)
    # The folder has its own prompt, so the catalog's is not filled in.
    write(folder, "config_sentence_transformers.json", {"prompts": {"query": "ask: "}} if "prompts" in change else {})
    recipe = read(folder, facts=listed)
    assert recipe.space(48, listed).digest == recipe.space(48, None).digest != "a" * 8


def test_a_dense_module_that_the_catalog_does_not_know_is_another_space(folder, facts):
    write_modules(folder, [*MODULES[:2], ("Dense", "2_Dense"), ("Normalize", "3_Normalize")])
    write(folder, "2_Dense/config.json", {"out_features": 48})
    (folder / "2_Dense" / "model.safetensors").write_bytes(b"dense")
    recipe = read(folder, facts=facts)
    assert (recipe.dense[0].activation, recipe.normalized) == ("tanh", True)
    assert recipe.space(48, facts).digest != "a" * 8


def test_sizes_share_a_digest(folder, facts):
    recipe = read(folder, facts=dataclasses.replace(facts, matryoshka=(64, 48, 16, 8)))
    assert recipe.sizes == (48, 16, 8)
    assert recipe.space(48, None).digest == recipe.space(8, None).digest


def test_without_modules_the_catalog_names_the_pooling(folder, facts):
    (folder / "modules.json").unlink()
    recipe = read(folder, facts=dataclasses.replace(facts, pooling="cls"))
    assert (recipe.pooling, recipe.normalized) == ("cls", True)


def test_an_unnamed_pooling_is_mean_and_is_logged(folder, caplog):
    (folder / "modules.json").unlink()
    recipe = read(folder)
    assert (recipe.pooling, recipe.normalized) == ("mean", False)
    assert f"{folder} defines no pooling" in caplog.text


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, 40),
        ({"tokenizer_config.json": {"model_max_length": 16}}, 40),
        ({"sentence_bert_config.json": {"max_seq_length": 50}}, 50),
        ({"sentence_bert_config.json": {"max_seq_length": 99}}, 64),
    ],
    ids=str,
)
def test_the_catalogs_limit_applies_if_the_folder_has_none(folder, facts, files, limit):
    for name, content in files.items():
        write(folder, name, content)
    assert read(folder, facts=facts).max_tokens == limit


def test_prompts_of_the_folder_come_before_the_catalogs(folder):
    write(folder, "config_sentence_transformers.json", {"prompts": {"document": "d: "}})
    recipe = read(folder, facts=default_catalog().get("intfloat/e5-small-v2"))
    assert recipe.prompts == {"query": "", "document": "d: "}


@pytest.mark.parametrize(
    ("prompts", "default", "expected"),
    [
        ({"all": "a: "}, "all", ("a: ", "a: ")),
        ({"document": "d: ", "passage": "p: "}, None, ("", "d: ")),
        ({"query": None, "document": "d: "}, None, ("", "d: ")),
    ],
    ids=str,
)
def test_default_prompts_replace_missing_ones(folder, prompts, default, expected):
    write(folder, "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": default})
    found = read(folder).prompts
    assert (found["query"], found["document"]) == expected


@pytest.mark.parametrize(
    "name",
    [
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "tokenizer_config.json",
        "config_sentence_transformers.json",
        "model.safetensors.index.json",
    ],
)
@pytest.mark.parametrize("content", ["{", "[]", "\xff"])
def test_every_broken_file_is_named(folder, name, content):
    (folder / "model.safetensors").unlink()
    write(folder, "model.safetensors.index.json", {"weight_map": {"a": "1.safetensors"}})
    (folder / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(WeightsError, match="JSON") as caught:
        read(folder)
    assert str(folder / name) in str(caught.value)


def test_any_architecture_runs_as_an_onnx_file(folder):
    write(folder, "config.json", CONFIG | {"model_type": "nomic_bert", "position_embedding_type": "rotary"})
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"")
    with pytest.raises(UnsupportedModelError, match="'nomic_bert'"):
        read(folder)
    recipe = read(folder, onnx_file="onnx/model.onnx")
    assert (recipe.weights, recipe.onnx.path) == ((), folder / "onnx" / "model.onnx")
    (folder / "model.safetensors").unlink()
    assert read(folder).onnx.path == folder / "onnx" / "model.onnx"


def test_camembert_is_built_as_roberta(folder):
    write(folder, "config.json", CONFIG | {"model_type": "camembert", "pad_token_id": 1})
    recipe = read(folder)
    assert (recipe.architecture, recipe.max_tokens, recipe.pad_token_id) == ("roberta", 62, 1)


def test_distilbert_calls_its_width_dim(folder):
    write(folder, "config.json", {"model_type": "distilbert", "dim": 24, "max_position_embeddings": 64})
    assert read(folder).dimensions == 24


@pytest.mark.parametrize(
    ("more", "labels"), [({"id2label": {"0": "a", "1": "b", "2": "c"}}, 3), ({"num_labels": 2}, 2), ({}, 1)], ids=str
)
def test_a_reranker_is_as_wide_as_it_has_labels(folder, more, labels):
    (folder / "modules.json").unlink()
    write(folder, "config.json", CONFIG | {"architectures": ["BertForSequenceClassification"]} | more)
    assert read(folder).dimensions == labels


@pytest.mark.parametrize(("types", "told"), [(2, True), (1, False)])
def test_only_rerankers_receive_token_types(folder, types, told):
    write(
        folder, "config.json", CONFIG | {"type_vocab_size": types, "architectures": ["BertForSequenceClassification"]}
    )
    assert not read(folder).token_types
    (folder / "modules.json").unlink()
    assert read(folder).token_types == told


@pytest.mark.parametrize("content", ["{", '{"a": 1}', '[{"type": "Pooling"}]', "3"])
def test_a_broken_list_of_modules_is_named(folder, content):
    (folder / "modules.json").write_text(content)
    with pytest.raises(WeightsError, match=r"modules\.json"):
        read(folder)


def test_a_broken_index_of_shards_is_named(folder):
    (folder / "model.safetensors").unlink()
    write(folder, "model.safetensors.index.json", {})
    with pytest.raises(WeightsError, match=r"index\.json has no weight_map"):
        read(folder)


@pytest.mark.parametrize(
    ("config", "named"),
    [({"prompts": ["a"]}, "map names"), ({"prompts": {"a": "b"}, "default_prompt_name": "c"}, "'c' is not among")],
)
def test_broken_prompts_are_named(folder, config, named):
    write(folder, "config_sentence_transformers.json", config)
    with pytest.raises(WeightsError, match=named):
        read(folder)


def test_prompts_left_out_of_pooling_are_refused_where_there_are_prompts(folder):
    write(folder, "1_Pooling/config.json", {"pooling_mode_mean_tokens": True, "include_prompt": False})
    assert read(folder).pooling == "mean"
    write(folder, "config_sentence_transformers.json", {"prompts": {"query": "q: "}})
    with pytest.raises(UnsupportedModelError, match="include_prompt"):
        read(folder)


def test_no_width_and_no_length_are_errors(folder):
    write(folder, "config.json", {key: value for key, value in CONFIG.items() if key != "hidden_size"})
    with pytest.raises(UnsupportedModelError, match="hidden_size or dim is required"):
        read(folder)
    write(folder, "config.json", CONFIG)
    write(folder, "sentence_bert_config.json", {"max_seq_length": 0})
    with pytest.raises(WeightsError, match="maximum number of tokens is invalid: 0"):
        read(folder)


def test_the_padding_id_of_its_family_where_none_is_named(folder):
    write(folder, "config.json", CONFIG | {"model_type": "roberta", "max_position_embeddings": 514})
    recipe = read(folder)
    assert (recipe.pad_token_id, recipe.max_tokens) == (1, 512)


def test_lowercasing_is_read(folder):
    assert not read(folder).lowercase
    write(folder, "sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": True})
    assert read(folder).lowercase
