import asyncio
import threading

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedway import AsyncEmbedder, Config, Embedder
from embedway.errors import (
    BadVectorsError,
    BatchError,
    ClosedError,
    DimensionsError,
    InputError,
    TextTooLongError,
    UnknownModelError,
    UsageError,
)
from embedway.local import cpu
from embedway.local.encoder import Encoder

WORDS = ["cat", "kitten", "tax law", "quantum field", "bread", "a red car", "Polish", "polish", "if x: return", "月"]


@pytest.fixture(scope="module")
def embedder(default_model_directory, tmp_path_factory):
    tune = tmp_path_factory.mktemp("tune")
    settings = {"weights.directory": str(default_model_directory), "tune.directory": str(tune)}
    settings["cache.backend"] = "none"
    with Embedder(config=Config.load(environ={}, overrides=settings)) as made:
        yield made


def test_the_first_example_of_the_readme(embedder):
    result = embedder.embed(["A cat sleeps.", "A kitten naps.", "Interest rates rose."])
    assert result.vectors.shape == (3, 384)
    assert result.vectors.dtype == np.float32
    assert result.space.id == "all-MiniLM-L6-v2@53aa5117/384"
    scores = result.vectors @ result.vectors.T
    assert scores[0, 1] > scores[0, 2] + 0.3
    receipt = result.receipt
    assert (receipt.texts, receipt.unique_texts, receipt.cost_nanousd, receipt.truncations) == (3, 3, 0, ())
    assert receipt.tokens == embedder.plan(["A cat sleeps.", "A kitten naps.", "Interest rates rose."]).tokens


def test_an_iterator_of_texts_is_read_once_and_whole(embedder):
    words = WORDS[:3]
    expected = embedder.embed(words).vectors
    assert np.array_equal(embedder.embed(word for word in words).vectors, expected)
    assert np.array_equal(embedder.embed(np.array(words)).vectors, expected)
    assert embedder.plan(word for word in words).texts == 3


HALF = "\ud800"  # of a surrogate pair
LONG = "x" * 5_000


@pytest.mark.parametrize(
    ("call", "said"),
    [
        *((lambda e, texts=texts: e.embed(texts), "texts is of type") for texts in (None, 5, b"a", {"a": 1}, {"a"})),
        (
            lambda e: e.plan(None),
            "texts is of type NoneType; it must be a text, or a list, column or generator of texts",
        ),
        (lambda e: e.plans(5), "texts is of type int"),
        (lambda e: e.select(None), "texts is of type NoneType"),
        (lambda e: e.rerank("q", None, model="m"), "documents is of type NoneType"),
        (lambda e: e.pins.prove("c", None, np.zeros((1, 4))), "texts is of type NoneType"),
        (lambda e: e.pins.prove("c", ["a"], "b"), "vectors must be an array of numbers"),
        *((lambda e, size=size: e.embed(["a"], dimensions=size), "dimensions is") for size in ("4", 4.5, True, [4])),
        (lambda e: e.plans(["a"], models=5), "models is of type int; it must be a list of names"),
        (lambda e: e.plans(["a"], models="all-MiniLM-L6-v2"), "models is of type str; it must be a list of names"),
        (lambda e: e.plans(["a"], models=["all-MiniLM-L6-v2", 5]), r"models\[1\] is of type int"),
        (lambda e: e.pins.prove("c", ["a"], [[10**400]]), "vectors must be an array of numbers"),
        (lambda e: e.models.tune(progress=5), "progress is of type int"),
        *(
            (lambda e, name=name, wrong=wrong: e.embed(["a"], **{name: wrong}), f"{name} is ")
            for name in ("input_type", "on_overflow", "priority", "partial", "collection", "api_key_name", "criteria")
            for wrong in (0.5, [], {}, pd.NA, pd.Series(["a"]), np.array(["a", "b"]), 10**5000, object())
        ),
        (lambda e: e.embed(["a"], collection=0), "collection is of type int"),
        (lambda e: e.embed(["a"], api_key_name=False), "api_key_name is of type bool"),
        (lambda e: e.embed(["a"], partial="false"), "partial is 'false'; it must be True or False"),
        (
            lambda e: e.embed(["a"], max_cost=10**5000),
            "max_cost is of type int; it must be from 0 to 9,000,000",
        ),
        (lambda e: e.embed(["a"], dimensions=10**5000), "dimensions is of type int; it is too large"),
        (lambda e: e.select("a text", "my private text"), "criteria is of type str, which is not a preset"),
        (lambda e: e.select("a", "fastest"), "criteria is 'fastest', which is not a preset; available: fast"),
        (lambda e: e.embed(["a"], input_type="a private text"), "input_type is of type str; it must be one of"),
        (lambda e: e.plan(["a"], dimensions="4"), "dimensions is '4'; it must be an integer"),
        (lambda e: e.rerank("q", ["a"], model="m", top_n="4"), "top_n is '4'; it must be an integer"),
        (lambda e: e.embed(["a"], deadline_s="4"), "deadline_s is '4'; it must be a number of seconds"),
        (lambda e: e.embed(["a"], deadline_s=10**400), "deadline_s is of type int; it must be a number of seconds"),
        (lambda e: e.embed(["a"], model=5), "model is of type int"),
        (lambda e: e.plan(["a"], model=5), "model is of type int; it must be a string"),
        *(
            (lambda e, name=name: getattr(e.models, name)(5), "model is of type int")
            for name in ("describe", "warm", "tune")
        ),
        (lambda e: e.rerank("q", ["a"], model=5), "model is of type int"),
        (lambda e: e.embed(["a"], model=HALF), "model: character 0 is half of a surrogate pair"),
        *(
            (lambda e, name=name: e.embed(["a"], model=name), "characters; a name has at most 4,096")
            for name in (f"./{LONG}", f"hf:a/{LONG}")
        ),
        (lambda e: e.models.warm(f"/{LONG}"), "characters; a name has at most 4,096"),
        (lambda e: e.rerank("q", ["a"], model=f"./{LONG}"), "characters; a name has at most 4,096"),
        (lambda e: e.embed(["a"], collection=HALF), "collection: character 0 is half of a surrogate pair"),
        (lambda e: e.embed(["a"], collection=5), "collection is of type int"),
        (lambda e: e.embed(["a"], api_key_name=HALF), "api_key_name: character 0 is half of a surrogate pair"),
        (lambda e: e.pins.forget(HALF), "collection: character 0 is half of a surrogate pair"),
        (lambda e: e.pins.forget(None), "collection is of type NoneType"),
        (lambda e: e.pins.prove(HALF, ["a"], np.zeros((1, 4))), "collection: character 0 is half of a surrogate pair"),
        (lambda e: e.cache.clear(model=5), "model is of type int"),
        (lambda e: e.cache.clear(namespace=HALF), "namespace: character 0 is half of a surrogate pair"),
        (lambda e: e.cache.clear(older_than_s="4"), "older_than_s is '4'; it must be a number of seconds"),
        (lambda e: e.cache.verify(None), "texts is of type NoneType"),
        (lambda e: e.cache.verify(["a"], sample="4"), "sample is '4'; it must be an integer"),
    ],
)
def test_arguments_of_another_type_are_usage_errors_that_say_what_is_expected(with_files, call, said):
    with pytest.raises(UsageError, match=said) as caught:
        call(with_files)
    assert len(str(caught.value)) < 150


@pytest.fixture(scope="module")
def with_files(default_model_directory, tmp_path_factory):
    """Make an embedder with its own cache, ledger and pins."""
    place = tmp_path_factory.mktemp("files")
    own = {f"{table}.path": str(place / table) for table in ("cache", "ledger", "pins")}
    with Embedder(
        config=Config.load(environ={}, overrides={"weights.directory": str(default_model_directory), **own})
    ) as made:
        yield made


def test_no_texts_give_no_rows(embedder):
    assert embedder.embed([]).vectors.shape == (0, 384)


@pytest.fixture(
    scope="module",
    params=[("onnxruntime", "f32"), ("openvino", "f32"), ("openvino", "bf16")],
    ids="-".join,
)
def each_runtime(request, default_model_directory, tmp_path_factory):
    backend, precision = request.param
    if precision == "bf16" and not cpu.facts().bf16:
        pytest.skip("this CPU has no bfloat16; the error for that is tested with the choices")
    settings = {"weights.directory": str(default_model_directory), "tune.directory": str(tmp_path_factory.mktemp("t"))}
    settings |= {"local.backend": backend, "local.precision": precision, "cache.backend": "none"}
    with Embedder(config=Config.load(environ={}, overrides=settings)) as made:
        yield made


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(WORDS), st.integers(1, 90)), min_size=1, max_size=40))
def test_row_i_is_text_i_whatever_its_neighbours(each_runtime, parts):
    texts = [" ".join([word] * times) for word, times in parts]
    together = each_runtime.embed(texts).vectors
    for index in {0, len(texts) // 2, len(texts) - 1}:
        alone = each_runtime.embed(texts[index]).vectors[0]
        assert float(alone @ together[index]) >= 0.9999


def test_equal_texts_are_computed_once_and_given_to_each_row(embedder):
    result = embedder.embed(["same", "other", "same", "same"])
    assert result.receipt.unique_texts == 2
    assert (result.vectors[0] == result.vectors[2]).all()
    assert (result.vectors[0] != result.vectors[1]).any()


def test_a_cut_text_is_reported_or_refused(embedder):
    long = "word " * 1000
    result = embedder.embed(["short", long, "x", long])
    assert [cut.row for cut in result.receipt.truncations] == [1, 3]
    with pytest.raises(TextTooLongError, match="text 1: has 1002 tokens; the model accepts 256") as caught:
        embedder.embed(["short", long], on_overflow="error")
    assert caught.value.row == 1


def test_sizes_that_were_not_trained_are_refused(embedder):
    with pytest.raises(DimensionsError, match="384 dimensions, not 128"):
        embedder.embed("a", dimensions=128)
    assert embedder.embed("a", dimensions=384).vectors.shape == (1, 384)


def test_unknown_models_name_the_nearest(embedder):
    with pytest.raises(UnknownModelError, match="all-MiniLM-L6-v2"):
        embedder.embed("a", model="all-MiniLM-L6-v3")


def test_a_folder_is_a_model_and_shares_the_space(embedder, default_model_directory):
    folder = next(default_model_directory.glob("models/*/*/config.json")).parent
    result = embedder.embed("a", model=str(folder))
    assert result.space == embedder.embed("a").space


def test_inference_never_runs_on_the_event_loop(config, monkeypatch):
    threads = set()
    compute = Encoder.compute

    def spy(self, *arguments):
        threads.add(threading.current_thread())
        return compute(self, *arguments)

    monkeypatch.setattr(Encoder, "compute", spy)

    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            await embedder.embed(["one", "two " * 200])
        return threading.current_thread()

    assert asyncio.run(main()) not in threads
    assert threads


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (RuntimeError("the text was secret"), BatchError),
        (np.zeros((1, 384), np.float32), BadVectorsError),
        (np.full((1, 384), np.nan, np.float32), BadVectorsError),
        (np.ones((2, 384), np.float32), BadVectorsError),
        (np.ones((1, 383), np.float32), BadVectorsError),
    ],
)
def test_a_failing_batch_is_an_error_for_its_callers_and_not_for_others(config, monkeypatch, answer, error):
    compute = Encoder.compute

    def faulty(self, options, rows, width, types=None):
        if width > 100:
            if isinstance(answer, Exception):
                raise answer
            return answer
        return compute(self, options, rows, width)

    monkeypatch.setattr(Encoder, "compute", faulty)

    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            return await asyncio.gather(
                embedder.embed(["fine"]), embedder.embed(["fine", "poison " * 150]), return_exceptions=True
            )

    good, bad = asyncio.run(main())
    assert good.vectors.shape == (1, 384)
    assert isinstance(bad, error)
    assert "secret" not in str(bad)
    assert "poison" not in str(bad)


def test_concurrent_first_callers_load_the_model_once(config, monkeypatch):
    from embedway.models import registry

    opened = []
    open_model = registry.open_model
    monkeypatch.setattr(registry, "open_model", lambda *a, **k: opened.append(1) or open_model(*a, **k))

    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            await asyncio.gather(*(embedder.embed([f"text {n}"]) for n in range(8)))

    asyncio.run(main())
    assert len(opened) == 1


def test_a_cancelled_request_leaves_the_others_alone(config):
    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            await embedder.models.warm()
            doomed = asyncio.create_task(embedder.embed([f"{n} " * 200 for n in range(200)]))
            await asyncio.sleep(0)
            doomed.cancel()
            result = await embedder.embed(["fine"])
            with pytest.raises(asyncio.CancelledError):
                await doomed
            return result

    assert asyncio.run(main()).vectors.shape == (1, 384)


def test_after_closing_comes_an_error_that_says_so(config):
    embedder = Embedder(config=config)
    embedder.embed("a")
    embedder.close()
    embedder.close()
    with pytest.raises(ClosedError, match="closed"):
        embedder.embed("a")


def test_an_empty_text_names_its_row(embedder):
    with pytest.raises(InputError, match="text 2: it is empty"):
        embedder.embed(["a", "b", " "])


def test_partial_results_give_what_worked_and_an_error_for_each_row_that_did_not(embedder):
    texts = ["a", " ", "b", "word " * 400, "a", 3, "b", "word " * 400]
    result = embedder.embed(texts, partial=True, on_overflow="error")
    assert sorted(result.errors) == [1, 3, 5, 7]
    assert [type(result.errors[row]).__name__ for row in (1, 3, 5, 7)] == [
        "InputError",
        "TextTooLongError",
        "InputError",
        "TextTooLongError",
    ]
    assert [result.errors[row].row for row in (1, 3, 5, 7)] == [1, 3, 5, 7]
    good = [0, 2, 4, 6]
    np.testing.assert_allclose(result.vectors[good], embedder.embed([texts[row] for row in good]).vectors, atol=1e-2)
    assert np.isnan(np.delete(result.vectors, good, axis=0)).all()


def test_partial_results_of_nothing_that_works(embedder):
    result = embedder.embed(["", " "], partial=True)
    assert sorted(result.errors) == [0, 1]
    assert result.vectors.shape == (2, 384)
    assert np.isnan(result.vectors).all()


def test_partial_results_of_all_that_works_are_the_plain_ones(embedder):
    plain, partial = embedder.embed(["a", "b", "a"]), embedder.embed(["a", "b", "a"], partial=True)
    np.testing.assert_array_equal(plain.vectors, partial.vectors)
    assert partial.errors == {}


def test_a_poison_text_fails_alone(config, monkeypatch):
    compute = Encoder.compute
    poison = 2 * [0]

    def faulty(self, options, rows, width, types=None):
        if any(poison_row in tuple(row) for row in rows for poison_row in poison):
            raise RuntimeError
        return compute(self, options, rows, width)

    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            tokenizer = (await embedder.models.describe()).tokenizer
            poison[:] = tokenizer.encode("xylophone", add_special_tokens=False).ids[-1:] * 2
            monkeypatch.setattr(Encoder, "compute", faulty)
            texts = [f"text number {number}" for number in range(20)] + ["a xylophone", "another xylophone", "a drum"]
            return await embedder.embed([*texts, "a xylophone"], partial=True)

    result = asyncio.run(main())
    assert sorted(result.errors) == [20, 21, 23]
    assert all(isinstance(error, BatchError) for error in result.errors.values())
    assert np.isfinite(np.delete(result.vectors, [20, 21, 23], axis=0)).all()
    assert np.isnan(result.vectors[[20, 21, 23]]).all()
