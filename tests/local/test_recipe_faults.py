"""Model folders with wrong values and wrong kinds of files: they embed, or raise one of our own errors."""

import contextlib
import json
import os
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from embedway import Config, Embedder
from embedway.errors import EmbedwayError, WeightsError
from tiny_models import tiny_encoder

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "alpha", "beta"]
WIDE = 16

#: JSON values. Each has a wrong type or is out of range for most keys.
VALUES = [
    "null",
    "true",
    "5",
    "-1",
    "1" + "0" * 400,
    "1e999",
    "0.5",
    '""',
    '"a"',
    '"a\\u0000"',
    '"\\ud800"',
    f'"{"x" * 5000}"',
    "[]",
    "[5]",
    "[{}]",
    '["\\ud800"]',
    "{}",
    '{"a": 5}',
    '{"a": ["a"]}',
]
#: Keys that are read, by file; a dot leads into an object or a list.
KEYS = {
    "config.json": (
        "architectures model_type hidden_size dim num_hidden_layers num_attention_heads hidden_act layer_norm_eps "
        "pad_token_id type_vocab_size max_position_embeddings position_embedding_type is_decoder quantization_config"
    ),
    "modules.json": "0 0.type 0.path 1 1.type 1.path 2.path 3.path",
    "1_Pooling/config.json": "pooling_mode pooling_mode_mean_tokens include_prompt",
    "2_Dense/config.json": "activation_function out_features",
    "sentence_bert_config.json": "max_seq_length do_lower_case",
    "tokenizer_config.json": "model_max_length",
    "config_sentence_transformers.json": "prompts prompts.query prompts.document default_prompt_name",
    "tokenizer.json": (
        "truncation padding added_tokens normalizer pre_tokenizer post_processor decoder model model.type model.vocab "
        "model.vocab.beta model.unk_token post_processor.special_tokens post_processor.single"
    ),
    "model.safetensors.index.json": "weight_map weight_map.a",
}
RERANKER_KEYS = {
    "config.json": (
        "architectures id2label num_labels type_vocab_size sentence_transformers sentence_transformers.activation_fn "
        "sbert_ce_default_activation_function"
    )
}
OPTIONAL = [
    "modules.json",
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "2_Dense/model.safetensors",
    "sentence_bert_config.json",
    "tokenizer_config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "tokenizer.json",
]


def dump(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a folder with every file that is read, and six words."""
    root = tmp_path_factory.mktemp("whole")
    tokenizer = Tokenizer(models.WordLevel({word: row for row, word in enumerate(WORDS)}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [("[CLS]", 1), ("[SEP]", 2)]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", special)
    tokenizer.save(str(root / "tokenizer.json"))
    folder = tiny_encoder(root / "model", root / "tokenizer.json", vocab_size=len(WORDS))
    tensors = load_file(folder / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    save_file({**tensors, name: tensors[name][: len(WORDS)].copy()}, folder / "model.safetensors")
    modules = json.loads((folder / "modules.json").read_text())
    dump(folder / "modules.json", [*modules[:2], {"path": "2_Dense", "type": "models.Dense"}, *modules[2:]])
    dump(folder / "2_Dense" / "config.json", {"activation_function": "torch.nn.Tanh", "out_features": WIDE})
    dense = {"linear.weight": np.eye(WIDE, dtype=np.float32), "linear.bias": np.zeros(WIDE, np.float32)}
    save_file(dense, folder / "2_Dense" / "model.safetensors")
    dump(folder / "sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": False})
    dump(folder / "tokenizer_config.json", {"model_max_length": 64})
    dump(folder / "config_sentence_transformers.json", {"prompts": {"query": "alpha", "document": "beta"}})
    return folder


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    overrides = {
        "weights.directory": str(tmp_path_factory.mktemp("weights")),
        "weights.offline": True,
        "local.backend": "onnxruntime",
        "local.precision": "f32",
        "cache.backend": "none",
    }
    with Embedder(config=Config.load(environ={}, overrides=overrides)) as embedder:
        yield embedder


def put(path, key, value):
    """Replace the value of a dotted key by JSON text."""
    content = place = json.loads(path.read_text()) if path.exists() else {}
    *above, last = key.split(".")
    for name in above:
        place = place[int(name)] if isinstance(place, list) else place.setdefault(name, {})
    place[int(last) if isinstance(place, list) else last] = "@"
    path.write_text(json.dumps(content).replace('"@"', value))


def tried(embedder, folder, task="embed"):
    """Return the name of the error, or an empty string."""
    try:
        if task == "rerank":
            embedder.rerank("alpha", ["beta"], model=str(folder))
        else:
            vectors = embedder.embed(["alpha", "beta " * 90], model=str(folder), on_overflow="truncate").vectors
            assert np.isfinite(vectors).all()
    except EmbedwayError as error:
        str(error).encode()
        return type(error).__name__
    return ""


@pytest.mark.parametrize(("file", "key"), [(file, key) for file, keys in KEYS.items() for key in keys.split()])
def test_any_value_of_a_key_embeds_or_is_an_error_of_our_own(embedder, whole, tmp_path, file, key):
    for number, value in enumerate(VALUES):
        folder = shutil.copytree(whole, tmp_path / str(number))
        if "index" in file:
            (folder / "model.safetensors").unlink()
        put(folder / file, key, value)
        assert tried(embedder, folder) != "BatchError", value


@pytest.mark.parametrize("key", RERANKER_KEYS["config.json"].split())
def test_any_value_of_a_reranker_s_key_is_an_error_of_our_own(embedder, whole, tmp_path, key):
    for number, value in enumerate(VALUES):
        folder = shutil.copytree(whole, tmp_path / str(number))
        (folder / "modules.json").unlink()
        put(folder / "config.json", "architectures", '["BertForSequenceClassification"]')
        put(folder / "config.json", key, value)
        tried(embedder, folder, "rerank")


@pytest.mark.parametrize("file", KEYS)
def test_any_value_in_place_of_a_file_is_an_error_of_our_own(embedder, whole, tmp_path, file):
    for number, value in enumerate(VALUES):
        folder = shutil.copytree(whole, tmp_path / str(number))
        if "index" in file:
            (folder / "model.safetensors").unlink()
        (folder / file).write_text(value)
        tried(embedder, folder)


@pytest.mark.parametrize("kind", ["a link to nothing", "a pipe", "a folder"])
@pytest.mark.parametrize("file", OPTIONAL)
def test_a_name_that_is_no_regular_file_never_counts_as_absent(embedder, whole, tmp_path, file, kind):
    folder = shutil.copytree(whole, tmp_path / "model")
    with contextlib.suppress(FileNotFoundError):
        (folder / file).unlink()
    if file == "model.safetensors.index.json":
        (folder / "model.safetensors").unlink()
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"")
    {
        "a link to nothing": lambda path: path.symlink_to("absent"),
        "a pipe": os.mkfifo,
        "a folder": os.mkdir,
    }[kind](folder / file)
    with pytest.raises(WeightsError, match=f"{file}|{os.path.basename(file)}"):  # noqa: PTH119
        embedder.embed(["alpha"], model=str(folder))


def test_the_whole_folder_embeds(embedder, whole):
    assert tried(embedder, whole) == ""
