"""Errors of single texts through the complete engine, over real HTTP: each names the caller's own row."""

import asyncio

import pytest

from embedway.errors import BadVectorsError, NoRouteError, RefusedInputError, UnavailableError
from provider_suite import APIS, MODEL, assert_right, embed, embedder_for

POISON = "poison"
#: A server's answer to a request with the poison, and the error of that text.
KINDS = {
    "400": RefusedInputError,
    "500": UnavailableError,
    "reset": UnavailableError,
    "null": BadVectorsError,
}


class PoisonServer(APIS["openai"].server):
    """Server that fails on requests with the poison, or has no vector for it."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.width = 16

    def misdeed_for(self, body):
        if not any(POISON in text for text in self.texts_of(body)):
            return None
        return self.kind if self.kind != "null" else lambda answer: self._spoiled(body, answer)

    def _spoiled(self, body, answer):
        rows = zip(self.texts_of(body), self.rows(answer), strict=True)
        return self.with_rows(answer, [{**row, "embedding": None} if POISON in text else row for text, row in rows])


@pytest.fixture(params=sorted(KINDS))
def kind(request):
    return request.param


@pytest.fixture
def server(kind):
    return PoisonServer(kind)


def many(count):
    return [f"text number {number}" for number in range(count)]


def assert_names(error, row, kind):
    assert isinstance(error, KINDS[kind])
    assert error.row == row
    assert str(error).startswith(f"text {row}: routes.r: ")


def test_rows_are_those_of_the_call_before_duplicates_are_removed(server, kind):
    texts = ["a", "a", "b", "a", POISON, "c", POISON, "d"]
    result = embed("openai", server, texts, partial=True)
    assert sorted(result.errors) == [4, 6]
    for row in (4, 6):
        assert_names(result.errors[row], row, kind)
    good = [0, 1, 2, 3, 5, 7]
    assert_right(result.vectors[good], [texts[row] for row in good], server)
    with pytest.raises(KINDS[kind]) as caught:
        embed("openai", PoisonServer(kind), texts)
    assert_names(caught.value, 4, kind)
    # Another model is no help for one text.
    assert "Other models" not in str(caught.value)


def test_rows_are_those_of_the_call_behind_the_cache(server, kind):
    texts = [*many(12), POISON, "last"]

    async def main():
        async with embedder_for("openai", server, **{"cache.backend": "memory"}) as embedder:
            await embedder.embed(texts[:10], model=MODEL)
            for _ in range(2):
                with pytest.raises(KINDS[kind]) as caught:
                    await embedder.embed(texts, model=MODEL)
                assert_names(caught.value, 12, kind)
            result = await embedder.embed(texts, model=MODEL, partial=True)
            assert list(result.errors) == [12]
            assert_names(result.errors[12], 12, kind)
            return await embedder.embed([*texts[:12], "last"], model=MODEL)

    result = asyncio.run(main())
    assert result.receipt.billed_tokens == 0
    sent = [text for served in server.log if served.fate == "answered" for text in served.texts]
    assert len(sent) == len(set(sent))


def test_rows_are_those_of_each_caller_in_a_merged_request(server, kind):
    calls = [[f"caller {caller}", POISON if caller == 2 else "good"] for caller in range(6)]

    async def main():
        settings = {"upstream.concurrency": 1, "batching.max_wait_ms": 1}
        async with embedder_for("openai", server, **settings) as embedder:
            return await asyncio.gather(
                *(embedder.embed(texts, model=MODEL) for texts in calls), return_exceptions=True
            )

    results = asyncio.run(main())
    assert max(len(body["input"]) for body in server.bodies) > 2
    for caller, (texts, result) in enumerate(zip(calls, results, strict=True)):
        if caller == 2:
            assert_names(result, 1, kind)
        else:
            assert_right(result.vectors, texts, server)


def test_a_row_that_is_no_vector_is_named_as_such():
    with pytest.raises(BadVectorsError) as caught:
        embed("openai", PoisonServer("null"), ["a", POISON])
    assert str(caught.value) == "text 1: routes.r: answered with something that is not a vector of numbers"


def test_a_text_alone_is_row_0(server, kind):
    with pytest.raises(KINDS[kind], match=r"^text 0: routes.r: "):
        embed("openai", server, POISON)


def test_a_window_of_a_long_text_fails_its_text(server, kind):
    texts = ["short", " ".join(["word"] * 20 + [POISON] + ["word"] * 20), "last"]
    settings = {"models.m.max_tokens": 10}
    result = embed("openai", server, texts, settings=settings, on_overflow="mean", partial=True)
    assert list(result.errors) == [1]
    assert_names(result.errors[1], 1, kind)


def test_the_error_of_all_routes_names_the_row(server, kind, monkeypatch):
    other = PoisonServer(kind)

    async def main():
        async with other.running():
            route = {
                "provider": "openai",
                "model": MODEL,
                "upstream_model": APIS["openai"].model,
                "base_url": f"{other.url}/v1",
                "api_key": "sk-secret-of-the-test",
            }
            async with embedder_for("openai", server, **{"routes.s": route}) as embedder:
                return await embedder.embed(["a", POISON, "b"], model=MODEL, partial=True)

    result = asyncio.run(main())
    assert list(result.errors) == [1]
    assert result.errors[1].row == 1
    assert isinstance(result.errors[1], RefusedInputError if kind == "400" else NoRouteError)
    assert str(result.errors[1]).startswith("text 1: ")


def test_a_service_that_is_down_is_no_rows_fault():
    server = PoisonServer("500")
    server.misdeed_for = lambda _body: "500"
    result = embed("openai", server, many(20), partial=True)
    assert len(result.errors) == 20
    assert all(error.row is None for error in result.errors.values())
    assert "text 0" not in str(result.errors[0])
