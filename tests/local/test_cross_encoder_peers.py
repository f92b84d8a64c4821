"""Cross-encoders on the local runtime against sentence-transformers, with tiny random models."""

import asyncio
import json

import numpy as np
import pytest

from embedway import AsyncEmbedder, Config
from embedway.errors import InputError, TextTooLongError, UnsupportedModelError, UsageError

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

WORDS = ["where", "is", "the", "loop", "run", "a", "coroutine", "of", "python", "stops", "late", "early"]
QUERY = "where is the loop"


@pytest.fixture(scope="module")
def documents():
    chance = np.random.default_rng(5)
    texts = [" ".join(chance.choice(WORDS, size)) for size in (3, 1, 30, 12, 7, 3, 90, 45)]
    return [*texts, texts[0], "漢字 loop"]


def make_model(folder, kind, *, labels=1, activation=None):
    import torch
    import transformers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocabulary = {"[CLS]": 0, "[PAD]": 1, "[SEP]": 2, "[UNK]": 3} | {word: n for n, word in enumerate(WORDS, 4)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.NFC(), pre_tokenizers.Whitespace()
    twice = "[SEP] [SEP]" if kind == "xlm-roberta" else "[SEP]"
    second = "0" if kind == "xlm-roberta" else "1"
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair=f"[CLS] $A {twice} $B:{second} [SEP]:{second}",
        special_tokens=[("[CLS]", 0), ("[SEP]", 2)],
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",  # noqa: S106
        unk_token="[UNK]",  # noqa: S106
        cls_token="[CLS]",  # noqa: S106
        sep_token="[SEP]",  # noqa: S106
        model_max_length=64,
        model_input_names=["input_ids", "attention_mask", *(["token_type_ids"] if kind == "bert" else [])],
    )
    config = transformers.AutoConfig.for_model(
        kind,
        vocab_size=len(vocabulary),
        max_position_embeddings=66 if kind == "xlm-roberta" else 64,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        pad_token_id=1,
        num_labels=labels,
        type_vocab_size=1 if kind == "xlm-roberta" else 2,
    )
    if activation:
        config.sentence_transformers = {"activation_fn": activation}
    torch.manual_seed(3)
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            spread = torch.randn(tensor.shape) * 0.4
            tensor.copy_(1 + spread if "norm" in name.lower() and name.endswith("weight") else spread)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def embedder(tmp_path, **overrides):
    settings = {"tune.directory": str(tmp_path / "tune"), "weights.directory": str(tmp_path / "weights"), **overrides}
    return AsyncEmbedder(config=Config.load(environ={}, overrides=settings))


def rerank(tmp_path, model, documents, overrides=None, **options):
    async def main():
        async with embedder(tmp_path, **(overrides or {})) as made:
            return await made.rerank(QUERY, documents, model=str(model), **options)

    return asyncio.run(main())


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
@pytest.mark.parametrize("activation", [None, "torch.nn.modules.linear.Identity"])
def test_scores_equal_sentence_transformers(kind, backend, activation, tmp_path, documents):
    from sentence_transformers import CrossEncoder

    folder = make_model(tmp_path / "model", kind, activation=activation)
    ours = rerank(tmp_path, folder, documents, {"local.backend": backend, "local.precision": "f32"})
    peer = CrossEncoder(str(folder), device="cpu")
    theirs = peer.predict([(QUERY, document) for document in documents], show_progress_bar=False)
    assert theirs.std() > 0.01
    np.testing.assert_allclose(ours.scores, theirs, atol=1e-4)
    assert [theirs[n] for n in ours.order] == sorted(theirs, reverse=True)
    assert ours.order.index(0) < ours.order.index(8)  # equal scores keep the order of the documents
    assert ours.receipt.unique_texts == len(documents) - 1
    assert {cut.row for cut in ours.receipt.truncations} == {6}
    cut = ours.receipt.truncations[0]
    assert cut.kept_tokens == 64
    assert cut.lost_tokens == 90 - (64 - 4 - (4 if kind == "xlm-roberta" else 3))
    assert documents[6][: cut.kept_characters].split() == documents[6].split()[: 90 - cut.lost_tokens]


@pytest.mark.parametrize("how", ["name", "route"])
def test_sentence_transformers_gives_the_same_scores_as_a_route(how, tmp_path, documents):
    folder = make_model(tmp_path / "model", "bert")
    ours = rerank(tmp_path, folder, documents, {"local.precision": "f32"})
    name = f"sentence-transformers:{folder}"
    overrides = {}
    if how == "route":
        name = "sentence-transformers:mine"
        options = {"path": str(folder), "device": "cpu"}
        overrides = {"routes.r": {"model": name, "provider": "sentence-transformers", "options": options}}
    theirs = rerank(tmp_path, name, documents, overrides)
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)
    assert theirs.order == ours.order
    assert (theirs.receipt.runtime, theirs.receipt.cost_nanousd) == ("sentence-transformers", 0)
    assert [cut.row for cut in theirs.receipt.truncations] == [6]


def test_what_cannot_be_scored(tmp_path, documents):
    folder = make_model(tmp_path / "model", "bert")
    with pytest.raises(TextTooLongError, match="text 6: has 97 tokens"):
        rerank(tmp_path, folder, documents, on_overflow="error")
    with pytest.raises(InputError, match="text 1: it is empty"):
        rerank(tmp_path, folder, ["loop", " "])
    result = rerank(tmp_path, folder, ["loop", " ", "run", "run " * 90], on_overflow="error", partial=True)
    assert set(result.errors) == {1, 3}
    assert np.isnan(result.scores[[1, 3]]).all()
    assert sorted(result.order) == [0, 2]
    assert (
        rerank(tmp_path, folder, ["loop", "run", "a"], top_n=2).order
        == rerank(tmp_path, folder, ["loop", "run", "a"]).order[:2]
    )
    assert rerank(tmp_path, folder, []).order == ()
    with pytest.raises(UsageError, match="top_n"):
        rerank(tmp_path, folder, documents, top_n=0)


def test_a_query_that_leaves_no_room_is_an_error(tmp_path):
    folder = make_model(tmp_path / "model", "bert")

    async def main():
        async with embedder(tmp_path) as made:
            await made.rerank("loop " * 33, ["run"], model=str(folder))

    with pytest.raises(InputError, match="the query has 33 tokens, more than half of the 64"):
        asyncio.run(main())


def test_classifiers_of_several_labels_and_other_activations_are_no_rerankers(tmp_path, documents):
    with pytest.raises(UnsupportedModelError, match="3 labels"):
        rerank(tmp_path, make_model(tmp_path / "three", "bert", labels=3), documents)
    folder = make_model(tmp_path / "odd", "bert", activation="torch.nn.modules.activation.Tanh")
    with pytest.raises(UnsupportedModelError, match="Tanh"):
        rerank(tmp_path, folder, documents)
    assert json.loads((folder / "config.json").read_text())["sentence_transformers"]
