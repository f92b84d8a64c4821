"""`normalize`: vectors without the model's final normalization, or of length 1, each in its own space."""

import asyncio
import dataclasses
import json
import shutil

import numpy as np
import pytest

from books import MODEL, PaidServer, settings_of, sqlite_books
from embedway import AsyncEmbedder, Config, Embedder
from embedway.errors import SpaceMismatchError, UsageError
from embedway.space import comparable

TEXTS = ["a short text", "Vectors of two spaces are never compared.", "a short text"]


def config_of(directory, tmp_path, **more):
    settings = {"weights.directory": str(directory), "tune.directory": str(tmp_path), "cache.backend": "memory"}
    return Config.load(environ={}, overrides={**settings, **more})


def lengths(result):
    return np.linalg.norm(result.vectors, axis=1)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_raw_vectors_have_the_direction_of_normalized_ones(default_model_directory, tmp_path, backend):
    config = config_of(default_model_directory, tmp_path, **{"local.backend": backend, "local.precision": "f32"})
    with Embedder(config=config) as embedder:
        unit, raw, again = (embedder.embed(TEXTS, normalize=choice) for choice in (None, False, True))
    assert np.allclose(lengths(unit), 1, atol=1e-4)
    assert (lengths(raw) > 2).all()
    assert np.allclose(raw.vectors / lengths(raw)[:, None], unit.vectors, atol=1e-5)
    assert (raw.space.normalized, unit.space.normalized) == (False, True)
    assert again.space == unit.space
    # The same model: nothing was computed again.
    assert again.receipt.cache_hits == 2
    assert raw.receipt.cache_hits == 0
    assert raw.space.id != unit.space.id
    assert comparable(raw.space, unit.space).differing == ("normalized",)


def test_raw_vectors_are_those_before_the_module(default_model_directory, tmp_path):
    """A copy of the model without its Normalize module returns the same vectors, in the same space but for the name."""
    folder = next(default_model_directory.glob("models/*MiniLM*/*/config.json")).parent
    copied = shutil.copytree(folder, tmp_path / "copy")
    modules = json.loads((copied / "modules.json").read_text())
    (copied / "modules.json").unlink()
    (copied / "modules.json").write_text(json.dumps([one for one in modules if not one["type"].endswith("Normalize")]))
    with Embedder(config=config_of(default_model_directory, tmp_path)) as embedder:
        raw, own = embedder.embed(TEXTS, normalize=False), embedder.embed(TEXTS, model=str(copied))
        unit, made = embedder.embed(TEXTS), embedder.embed(TEXTS, model=str(copied), normalize=True)
        kept = embedder.embed(TEXTS, model=str(copied), normalize=False)
    assert np.array_equal(raw.vectors, own.vectors)
    assert not own.space.normalized
    assert comparable(raw.space, own.space) or own.space.model != raw.space.model
    assert kept.space == own.space
    assert np.allclose(made.vectors, unit.vectors, atol=1e-5)
    assert made.space.normalized
    assert made.space.digest != own.space.digest


def test_a_plan_has_the_space(default_model_directory, tmp_path):
    with Embedder(config=config_of(default_model_directory, tmp_path)) as embedder:
        assert embedder.plan(TEXTS, normalize=False).space == embedder.embed(TEXTS, normalize=False).space
        assert embedder.plan(TEXTS, normalize=False).cached_texts == 2
        assert embedder.plan(TEXTS).cached_texts == 0


def test_a_collection_keeps_its_normalization(default_model_directory, tmp_path):
    with Embedder(config=config_of(default_model_directory, tmp_path)) as embedder:
        first = embedder.embed(TEXTS, collection="raw", normalize=False)
        assert embedder.embed_query("text", collection="raw").space == first.space
        assert embedder.embed(["more"], collection="raw").space == first.space
        assert embedder.pins.prove("raw", TEXTS[:2], first.vectors[:2]) > 0.999
        with pytest.raises(SpaceMismatchError, match="normalized"):
            embedder.embed(["more"], collection="raw", normalize=True)
        assert embedder.embed(["more"]).space.normalized


def test_long_texts_are_averaged_without_normalization(default_model_directory, tmp_path):
    long = ["word " * 700]
    with Embedder(config=config_of(default_model_directory, tmp_path)) as embedder:
        raw = embedder.embed(long, normalize=False, on_overflow="mean")
    assert lengths(raw)[0] > 1.5


def test_services_say_that_they_have_only_normalized_vectors(tmp_path):
    async def main():
        server = PaidServer()
        async with (
            server.running(),
            AsyncEmbedder(config=settings_of(server, sqlite_books(tmp_path))) as embedder,
        ):
            with pytest.raises(UsageError, match="normalize is False, but acme/m"):
                await embedder.embed(TEXTS, model=MODEL, normalize=False)
            assert not server.log
            assert (await embedder.embed(TEXTS, model=MODEL, normalize=True)).space.normalized

    asyncio.run(main())


def test_raw_vectors_of_a_service_can_be_normalized(tmp_path):
    class Raw(PaidServer):
        def answer(self, body):
            answer = super().answer(body)
            rows = [{**row, "embedding": [3 * x for x in row["embedding"]]} for row in answer["data"]]
            return {**answer, "data": rows}

    async def main():
        server = Raw()
        async with server.running():
            model = {"name": MODEL, "dimensions": 16, "max_tokens": 512, "normalized": False}
            config = settings_of(server, sqlite_books(tmp_path), **{"models.m": model, "cache.backend": "memory"})
            async with AsyncEmbedder(config=config) as embedder:
                raw = await embedder.embed(TEXTS, model=MODEL)
                made = await embedder.embed([*TEXTS, ""], model=MODEL, normalize=True, partial=True)
                again = await embedder.embed(TEXTS, model=MODEL, normalize=False)
        return raw, made, again

    raw, made, again = asyncio.run(main())
    assert np.allclose(lengths(raw), 3, atol=1e-4)
    assert np.allclose(lengths(made)[:3], 1, atol=1e-6)
    assert np.isnan(made.vectors[3]).all()
    assert np.array_equal(raw.vectors, again.vectors)
    assert again.space == raw.space
    assert dataclasses.replace(made.space, normalized=False, digest="") == raw.space
    assert made.receipt.cache_hits == 2


@pytest.mark.parametrize("choice", ["no", 0, 1])
def test_normalize_is_a_flag(default_model_directory, tmp_path, choice):
    with (
        Embedder(config=config_of(default_model_directory, tmp_path)) as embedder,
        pytest.raises(UsageError, match="normalize"),
    ):
        embedder.embed(TEXTS, normalize=choice)
