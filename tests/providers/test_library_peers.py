"""fastembed and sentence-transformers as providers, with the default model's own weights, against the local runtime."""

import argparse
import asyncio
import decimal
import gzip
import json
import logging
import random
import shutil
import unittest

import numpy as np
import pytest

from embedway import AsyncEmbedder, Config
from embedway.errors import ConfigError, TextTooLongError, UnsupportedModelError
from embedway.space import comparable

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]  # torch's exporter raises its own warnings

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
#: A separate name, so that it differs from the local model.
MODEL = {"name": "minilm-elsewhere", "dimensions": 384, "max_tokens": 256, "tokenizer": "library"}


@pytest.fixture(scope="module")
def probes():
    """Texts of every kind and length, some over the limit, where cuts must fall on the same token."""
    texts = ["a", "What is a coroutine?", "def f(x):\n    return x ** 2", "漢字 und ümläuts", "same words " * 40]
    texts += ["word " * 1000, "x" * 3000]
    documented = (asyncio, gzip, json, shutil, np, argparse, decimal, unittest, logging, random)
    texts += [
        paragraph for module in documented for paragraph in (module.__doc__ or "").split("\n\n") if paragraph.strip()
    ]
    return texts


def options_for(provider, folder, onnx_folder):
    if provider == "fastembed":
        return {"path": str(onnx_folder), "model_file": "model.onnx", "pooling": "mean", "device": "cpu"}
    return {"path": str(folder), "device": "cpu"}


def embedder_for(provider, options, default_model_directory, tmp_path, *, most=1000, **model):
    route = {"model": MODEL["name"], "provider": provider, "options": options}
    overrides = {
        "weights.directory": str(default_model_directory),
        "tune.directory": str(tmp_path),
        "local.precision": "f32",
        "models.m": {**MODEL, **model},
        "routes.r": route,
        "batching.max_batch_size": most,
    }
    return AsyncEmbedder(config=Config.load(environ={}, overrides=overrides))


@pytest.mark.parametrize("provider", ["fastembed", "sentence-transformers"])
def test_vectors_agree_with_the_local_runtime(provider, folder, onnx_folder, probes, default_model_directory, tmp_path):
    async def main():
        options = options_for(provider, folder, onnx_folder)
        async with embedder_for(provider, options, default_model_directory, tmp_path) as embedder:
            theirs = await embedder.embed(probes, model=MODEL["name"])
            ours = await embedder.embed(probes, model=MINILM)
        return ours, theirs

    ours, theirs = asyncio.run(main())
    cosines = np.einsum("ij,ij->i", ours.vectors, theirs.vectors)
    assert cosines.min() >= 0.999
    assert theirs.receipt.tokens == ours.receipt.tokens
    assert theirs.receipt.truncations == ours.receipt.truncations
    assert (theirs.receipt.cost_nanousd, theirs.receipt.runtime) == (0, provider)
    assert theirs.space.id != ours.space.id


@pytest.mark.parametrize("provider", ["fastembed", "sentence-transformers"])
@pytest.mark.parametrize(
    ("options", "forward", "most"),
    [
        ({"batch_size": 2}, [1, 2, 2, 2], 1000),
        ({"batch_size": 2, "max_inputs": 3}, [1, 1, 1, 2, 2], 1000),
        ({"max_inputs": 3}, [1, 3, 3], 1000),
        ({}, [3, 4], 4),
    ],
)
def test_options_limit_requests_and_forward_passes(
    provider, options, forward, most, folder, onnx_folder, default_model_directory, tmp_path, monkeypatch
):
    import fastembed.text.onnx_text_model
    import sentence_transformers

    passes = []
    onnx_embed = fastembed.text.onnx_text_model.OnnxTextModel.onnx_embed
    torch_forward = sentence_transformers.SentenceTransformer.forward

    def recorded_onnx(self, documents, **more):
        passes.append(len(documents))
        return onnx_embed(self, documents, **more)

    def recorded_torch(self, features, *more, **named):
        passes.append(len(features["input_ids"]))
        return torch_forward(self, features, *more, **named)

    monkeypatch.setattr(fastembed.text.onnx_text_model.OnnxTextModel, "onnx_embed", recorded_onnx)
    monkeypatch.setattr(sentence_transformers.SentenceTransformer, "forward", recorded_torch)
    texts = [f"text number {number}" for number in range(7)]

    async def main():
        own = {**options_for(provider, folder, onnx_folder), **options}
        async with embedder_for(provider, own, default_model_directory, tmp_path, most=most) as embedder:
            await embedder.models.describe(MODEL["name"])
            passes.clear()
            theirs = await embedder.embed(texts, model=MODEL["name"])
            ours = await embedder.embed(texts, model=MINILM)
        return theirs, ours

    theirs, ours = asyncio.run(main())
    assert sorted(passes) == forward
    assert np.einsum("ij,ij->i", ours.vectors, theirs.vectors).min() >= 0.999


def test_prompts_reach_the_library(folder, onnx_folder, default_model_directory, tmp_path):
    async def main(provider):
        options = options_for(provider, folder, onnx_folder)
        made = embedder_for(provider, options, default_model_directory, tmp_path, query_prompt="find: ")
        async with made as embedder:
            asked = await embedder.embed(["this"], model=MODEL["name"], input_type="query")
            plain = await embedder.embed(["find: this"], model=MODEL["name"])
            texts = ["word " * 253]  # with two special tokens and the prompt's two: 257
            with pytest.raises(TextTooLongError):
                await embedder.embed(texts, model=MODEL["name"], input_type="query", on_overflow="error")
        assert float(asked.vectors[0] @ plain.vectors[0]) > 0.9999

    for provider in ("fastembed", "sentence-transformers"):
        asyncio.run(main(provider))


def test_a_model_by_its_library_s_name_can_be_described(folder, default_model_directory, tmp_path):
    name = f"sentence-transformers:{folder}"

    async def main():
        async with embedder_for("sentence-transformers", {}, default_model_directory, tmp_path) as embedder:
            described = await embedder.models.describe(name)
            result = await embedder.embed(["a text"], model=name)
            ours = await embedder.embed(["a text"], model=MINILM)
        return described, result, ours

    described, result, ours = asyncio.run(main())
    assert (described.space.dimensions, described.max_tokens, described.special_tokens) == (384, 256, 2)
    assert float(result.vectors[0] @ ours.vectors[0]) > 0.999
    assert result.receipt.cost_nanousd == 0


@pytest.mark.parametrize("provider", ["fastembed", "sentence-transformers"])
def test_another_tokenizer_is_another_space_and_no_hit(
    provider, folder, onnx_folder, default_model_directory, tmp_path
):
    """The library reads the tokenizer of its folder. With another one, a cached vector belongs to another model."""
    here = tmp_path / "model"
    shutil.copytree(onnx_folder if provider == "fastembed" else folder, here)

    async def embed():
        made = embedder_for(provider, options_for(provider, here, here), default_model_directory, tmp_path)
        async with made as embedder:
            return await embedder.embed(["The Quick Brown Fox"], model=MODEL["name"])

    first, again = asyncio.run(embed()), asyncio.run(embed())
    assert (again.receipt.cache_hits, again.space) == (1, first.space)
    tokenizer = json.loads((here / "tokenizer.json").read_text())
    for word, other in (("fox", "dog"), ("quick", "slow")):
        words = tokenizer["model"]["vocab"]
        words[word], words[other] = words[other], words[word]
    (here / "tokenizer.json").write_text(json.dumps(tokenizer))
    changed = asyncio.run(embed())
    assert changed.receipt.cache_hits == 0
    assert changed.space.tokenizer != first.space.tokenizer
    assert not comparable(changed.space, first.space)
    assert float(changed.vectors[0] @ first.vectors[0]) < 0.99


def test_code_of_a_repository_runs_only_when_the_user_says_so(tmp_path, default_model_directory):
    sly, marker = tmp_path / "sly", tmp_path / "it ran"
    sly.mkdir()
    (sly / "config.json").write_text(
        json.dumps({"model_type": "sly", "auto_map": {"AutoConfig": "code.C", "AutoModel": "code.M"}})
    )
    (sly / "code.py").write_text(f"open({str(marker)!r}, 'w').close()\n")

    async def main(options):
        made = embedder_for(
            "sentence-transformers", {"path": str(sly), **options}, default_model_directory, tmp_path / "tune"
        )
        async with made as embedder:
            await embedder.embed(["a"], model=MODEL["name"])

    with pytest.raises(UnsupportedModelError, match=r"options\.trust_remote_code"):
        asyncio.run(main({}))
    assert not marker.exists()
    with pytest.raises(UnsupportedModelError):  # it contains no model, but it was read
        asyncio.run(main({"trust_remote_code": "true"}))
    assert marker.exists()


def test_nv_embed_says_what_it_needs_before_anything_is_fetched(tmp_path):
    async def main():
        async with AsyncEmbedder(
            config=Config.load(environ={}, overrides={"tune.directory": str(tmp_path)})
        ) as embedder:
            await embedder.embed(["a"], model="nvidia/NV-Embed-v2")

    with pytest.raises(ConfigError, match="code from its repository"):
        asyncio.run(main())


@pytest.mark.parametrize("provider", ["fastembed", "sentence-transformers"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": "tpu"}, "one of auto, cpu, cuda, mps"),
        ({"batch_size": "0"}, "integer"),
        ({"batchsize": "3"}, "is not an option"),
    ],
)
def test_a_wrong_option_is_an_error(provider, options, said, default_model_directory, tmp_path):
    async def main():
        async with embedder_for(provider, options, default_model_directory, tmp_path) as embedder:
            await embedder.embed(["a"], model=MODEL["name"])

    with pytest.raises(ConfigError, match=said):
        asyncio.run(main())


def test_other_weights_and_other_ways_to_read_them_are_another_space(
    folder, onnx_folder, default_model_directory, tmp_path
):
    other = tmp_path / "other"
    shutil.copytree(folder, other, symlinks=False)
    pooling = next(other.glob("1_Pooling/config.json"))
    pooling.write_text(pooling.read_text().replace('"pooling_mode_cls_token": false', '"pooling_mode_cls_token": true'))

    async def space(provider, options):
        async with embedder_for(provider, options, default_model_directory, tmp_path) as embedder:
            return (await embedder.models.describe(MODEL["name"])).space.id

    def spaces(provider, *variants):
        return [asyncio.run(space(provider, options)) for options in variants]

    theirs = {"path": str(folder), "device": "cpu"}
    first, again, side, moved = spaces(
        "sentence-transformers",
        theirs,
        {**theirs, "batch_size": "8"},
        {**theirs, "padding_side": "left"},
        {**theirs, "path": str(other)},
    )
    assert first == again
    assert len({first, side, moved}) == 3
    mean, cls = spaces(
        "fastembed",
        options_for("fastembed", folder, onnx_folder),
        {**options_for("fastembed", folder, onnx_folder), "pooling": "cls"},
    )
    assert mean != cls


def test_vectors_of_dynamic_int8_are_never_kept(onnx_folder, default_model_directory, tmp_path):
    from onnxruntime.quantization import quantize_dynamic

    int8 = tmp_path / "int8"
    shutil.copytree(onnx_folder, int8, symlinks=False)
    quantize_dynamic(onnx_folder / "model.onnx", int8 / "model.onnx")

    async def main(path):
        options = {"path": str(path), "model_file": "model.onnx", "device": "cpu"}
        async with embedder_for("fastembed", options, default_model_directory, tmp_path) as embedder:
            hits = []
            for model in (MODEL["name"], str(path)):  # in fastembed, and on the built-in runtime
                await embedder.embed(["a text"], model=model)
                hits.append((await embedder.embed(["a text"], model=model)).receipt.cache_hits)
            return hits

    assert asyncio.run(main(onnx_folder)) == [1, 1]
    assert asyncio.run(main(int8)) == [0, 0]
