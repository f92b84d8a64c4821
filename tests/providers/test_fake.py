"""The provider for tests follows the contract too, through the engine, and its faults act like those of services."""

import asyncio

import numpy as np
import pytest

from embedway import AsyncEmbedder
from embedway.errors import (
    AuthenticationError,
    BadVectorsError,
    EmbedwayError,
    ProtocolError,
    QuotaExceededError,
    RateLimitedError,
    RefusedInputError,
    UnavailableError,
)
from embedway.providers.base import Answer, Endpoint
from embedway.providers.fake import Fake
from embedway.providers.registry import make_provider
from provider_suite import MODEL, TEXTS, all_said, assert_right, assert_tells_no_secret, config_of, made_by

WIDTH = 16
MODEL_FACTS = {"dimensions": WIDTH, "matryoshka": [8]}
ROUTE = {"provider": "fake", "options": {"width": str(WIDTH), "max_inputs": "4"}}


def embed(texts=TEXTS, **options):
    async def main():
        async with AsyncEmbedder(config=config_of(MODEL_FACTS, ROUTE)) as embedder:
            return await embedder.embed(texts, model=MODEL, **options)

    return asyncio.run(main())


class Wide:
    """Width of its vectors, as a server's."""

    width = WIDTH


@pytest.mark.parametrize(("input_type", "prompt"), [("query", "query: "), ("document", "")])
def test_rows_input_types_and_what_they_cost(input_type, prompt):
    texts = [*TEXTS, "漢字 😀", " Polish ", "polish", TEXTS[0], "a seventh"]
    result = embed(texts, input_type=input_type)
    assert_right(result.vectors, [prompt + text for text in texts], Wide)
    assert result.receipt.billed_tokens == sum(len(text.split()) for text in dict.fromkeys(texts))
    assert result.receipt.attempts == 2  # seven texts, four per request


def test_narrow_vectors_are_of_length_1_too():
    assert_right(embed(dimensions=8).vectors, TEXTS, Wide, width=8)


def test_cancelling_is_noticed():
    fake = Fake(delay_s=3600)

    async def main():
        task = asyncio.create_task(fake.embed(TEXTS, input_type="document", dimensions=None))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert (fake.cancelled, fake.calls, fake.done) == (1, [tuple(TEXTS)], [])


def test_it_is_made_by_its_name():
    provider = make_provider("fake", Endpoint("r", "m", options={"max_inputs": "3"}))
    assert isinstance(provider, Fake)
    assert provider.declared.max_inputs == 3


def vectors(change):
    return lambda answer: Answer(change(answer.vectors), tokens=answer.tokens)


#: A fault, its error, and whether it is retried.
FAULTS = {
    "unavailable": (UnavailableError("x", route="routes.r"), UnavailableError, True),
    "limited": (RateLimitedError("x", route="routes.r"), RateLimitedError, True),
    "protocol": (ProtocolError("x", route="routes.r"), ProtocolError, False),
    "key": (AuthenticationError("x", route="routes.r"), AuthenticationError, False),
    "quota": (QuotaExceededError("x", route="routes.r"), QuotaExceededError, False),
    "refused": (RefusedInputError("x", route="routes.r"), RefusedInputError, False),
    "short": (vectors(lambda rows: rows[:-1]), BadVectorsError, True),
    "long": (vectors(lambda rows: np.vstack([rows, rows[:1]])), BadVectorsError, True),
    "narrow": (vectors(lambda rows: rows[:, :-1]), BadVectorsError, True),
    "one row": (vectors(lambda rows: rows[0]), BadVectorsError, True),
    "NaN": (vectors(lambda rows: np.where(np.arange(WIDTH) == 3, np.nan, rows).astype("<f4")), BadVectorsError, True),
    "zeros": (vectors(np.zeros_like), BadVectorsError, True),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_its_faults_are_tried_again_or_end_in_their_error(fault, monkeypatch, caplog):
    what, kind, again = FAULTS[fault]
    made = Fake(faults=lambda number, texts: what if number == 0 else None)
    made_by(monkeypatch, lambda name, endpoint: made)
    if again:
        assert_right(embed(TEXTS[:1]).vectors, TEXTS[:1], Wide)
    else:
        with pytest.raises(EmbedwayError) as caught:
            embed(TEXTS[:1])
        assert type(caught.value) is kind
        assert_tells_no_secret(all_said(caught.value) + caplog.text)
    assert len(made.calls) == 1 + again

    ever = Fake(faults=lambda number, texts: what)
    made_by(monkeypatch, lambda name, endpoint: ever)
    with pytest.raises(kind):
        embed(TEXTS[:1])
    assert len(ever.calls) == (1 if not again else 2 if kind is BadVectorsError else 5)
