"""fastembed and sentence-transformers follow the contract of providers, with the default model's own weights."""

import asyncio
import logging
import threading

import numpy as np
import pytest

from embedway import AsyncEmbedder
from embedway.errors import UpstreamError
from embedway.providers.base import Endpoint
from embedway.providers.registry import make_provider
from provider_suite import MODEL, TEXTS, all_said, assert_tells_no_secret, config_of

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]  # torch's exporter raises its own warnings

WIDTH = 384
#: Each library's own method that computes; tests can watch it.
COMPUTES = {
    "fastembed": ("fastembed", "TextEmbedding", "embed"),
    "sentence-transformers": ("sentence_transformers", "SentenceTransformer", "encode"),
}
MANY = [*TEXTS, "漢字 😀", " Polish ", "polish", "a\x00b", "\ttab\nline", "same words " * 40, "x", TEXTS[0]]


@pytest.fixture(params=sorted(COMPUTES))
def name(request):
    return request.param


@pytest.fixture
def options(name, folder, onnx_folder):
    if name == "fastembed":
        return {"path": str(onnx_folder), "model_file": "model.onnx", "device": "cpu"}
    return {"path": str(folder), "device": "cpu"}


@pytest.fixture
def computed(name, monkeypatch):
    """Return the texts of each call of the library, and a list for a function that replaces the call."""
    module, kind, method = COMPUTES[name]
    kind = getattr(pytest.importorskip(module), kind)
    plain, calls, replacement = getattr(kind, method), [], []

    def watched(model, texts, *arguments, **more):
        calls.append(list(texts))
        return (replacement[0] if replacement else plain)(model, texts, *arguments, **more)

    monkeypatch.setattr(kind, method, watched)
    return calls, replacement


def ask(name, options, *calls, prompts=None):
    """Return the answers of one provider to several concurrent calls, each of texts and an input type."""

    async def main():
        endpoint = Endpoint("r", "minilm-of-the-test", options=options, prompts=prompts or {})
        provider = make_provider(name, endpoint)
        try:
            assert all(len(texts) <= provider.declared.max_inputs for texts, _ in calls)
            return await asyncio.gather(
                *(provider.embed(texts, input_type=kind, dimensions=None) for texts, kind in calls)
            )
        finally:
            await provider.aclose()

    return asyncio.run(main())


def alike(first, second):
    """Return the lowest cosine of two sets of vectors of length 1, row by row."""
    return np.einsum("ij,ij->i", first, second).min()


def test_rows_are_their_own_texts_whatever_is_beside_them(name, options):
    order = np.random.default_rng(1).permutation(len(MANY))
    calls = [([text], "document") for text in MANY]
    together, shuffled, *alone = ask(
        name, options, (MANY, "document"), ([MANY[row] for row in order], "document"), *calls
    )
    assert together.vectors.shape == (len(MANY), WIDTH)
    assert together.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together.vectors, axis=1), 1, atol=1e-5)
    assert alike(together.vectors[order], shuffled.vectors) > 0.9999
    assert alike(together.vectors, np.vstack([answer.vectors for answer in alone])) > 0.9999
    # Nothing is billed, and different texts have different vectors.
    assert {answer.tokens for answer in (together, shuffled, *alone)} == {0}
    assert (together.vectors[:-1] @ together.vectors[-1])[1:].max() < 0.99


def test_sizes_prompts_and_the_bill_by_way_of_the_engine(name, options):
    facts = {"dimensions": WIDTH, "matryoshka": [128], "max_tokens": 256, "query_prompt": "find: "}
    route = {"provider": name, "options": options}

    async def main():
        async with AsyncEmbedder(config=config_of({**facts, "tokenizer": "library"}, route)) as embedder:
            asked = await embedder.embed(TEXTS, model=MODEL, input_type="query")
            written = await embedder.embed([f"find: {text}" for text in TEXTS], model=MODEL)
            plain = await embedder.embed(TEXTS, model=MODEL)
            narrow = await embedder.embed(TEXTS, model=MODEL, dimensions=128)
            return asked, written, plain, narrow

    asked, written, plain, narrow = asyncio.run(main())
    assert alike(asked.vectors, written.vectors) > 0.9999
    assert alike(asked.vectors, plain.vectors) < 0.999
    cut = plain.vectors[:, :128]
    assert alike(narrow.vectors, cut / np.linalg.norm(cut, axis=1, keepdims=True)) > 0.9999
    assert (asked.receipt.cost_nanousd, asked.receipt.billed_tokens) == (0, 0)


def test_a_call_that_was_cancelled_before_its_turn_is_not_made(name, options, computed):
    calls, replacement = computed
    begun, go_on = threading.Event(), threading.Event()

    def held(model, texts, *arguments, **more):
        begun.set()
        go_on.wait(60)
        return np.ones((len(texts), WIDTH), np.float32)

    replacement.append(held)

    async def main():
        provider = make_provider(name, Endpoint("r", "minilm-of-the-test", options=options))
        first, second = (
            asyncio.create_task(provider.embed([text], input_type="document", dimensions=None)) for text in TEXTS[:2]
        )
        await asyncio.to_thread(begun.wait, 60)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        go_on.set()
        await first
        # The next call is computed, and the cancelled one is not.
        await provider.embed([TEXTS[2]], input_type="document", dimensions=None)
        await provider.aclose()

    asyncio.run(main())
    assert calls == [[TEXTS[0]], [TEXTS[2]]]


def test_a_failure_of_the_library_is_an_error_without_the_text(name, options, computed, caplog):
    caplog.set_level(logging.DEBUG)

    def failing(model, texts, *arguments, **more):
        raise RuntimeError(f"cannot compute {texts}")

    computed[1].append(failing)
    with pytest.raises(UpstreamError, match=r"^r: ") as caught:
        ask(name, options, (TEXTS, "document"))
    assert_tells_no_secret(all_said(caught.value) + caplog.text)


def test_closing_ends_its_thread(name, options):
    before = set(threading.enumerate())
    ask(name, options, (TEXTS, "document"))
    left = [thread for thread in threading.enumerate() if thread not in before and "embedway" in thread.name]
    for thread in left:
        thread.join(20)
    assert not any(thread.is_alive() for thread in left)
