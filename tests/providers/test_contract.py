"""Every provider of a paid API against a strict server of its own that misbehaves: one suite."""

import asyncio
import importlib.metadata

import numpy as np
import pytest

from api_servers import (
    KEY,
    AzureServer,
    CohereServer,
    GeminiServer,
    JinaServer,
    MistralServer,
    OpenAIServer,
    VoyageServer,
)
from embedway.errors import (
    AuthenticationError,
    BadVectorsError,
    ConfigError,
    EmbedwayError,
    ProtocolError,
    QuotaExceededError,
    RateLimitedError,
    RefusedInputError,
    UnavailableError,
)
from embedway.providers.base import Endpoint
from embedway.providers.fake import vector_of
from embedway.providers.registry import PROVIDERS, make_provider

TEXTS = ["the first text", "the second", "and a third one"]
#: Provider, its server, a model, and what stands between the server's address and the path that the provider adds.
APIS = {
    "openai": (OpenAIServer, "text-embedding-3-small", "/v1"),
    "azure-openai": (AzureServer, "my-deployment", "/v1"),
    "openai-compatible": (OpenAIServer, "text-embedding-3-small", "/v1"),
    "cohere": (CohereServer, "embed-v4.0", ""),
    "voyage": (VoyageServer, "voyage-4", "/v1"),
    "jina": (JinaServer, "jina-embeddings-v3", "/v1"),
    "mistral": (MistralServer, "codestral-embed", "/v1"),
    "gemini": (GeminiServer, "gemini-embedding-001", "/v1beta"),
}
INDEXED = ("openai", "azure-openai", "openai-compatible", "voyage", "jina", "mistral")
HONOURS = {"azure-openai": {"dimensions": "true"}, "openai-compatible": {"dimensions": "true"}}


@pytest.fixture(params=sorted(APIS))
def name(request):
    return request.param


@pytest.fixture
def server(name):
    return APIS[name][0]()


def ask(name, server, texts=TEXTS, *, input_type="document", dimensions=None, secret=KEY, timeout_s=20.0):
    _, model, prefix = APIS[name]

    async def main():
        async with server.running():
            endpoint = Endpoint(
                "r", model, server.url + prefix, secret=secret, timeout_s=timeout_s, options=HONOURS.get(name, {})
            )
            provider = make_provider(name, endpoint)
            assert dimensions is None or provider.declared.dimensions
            try:
                return await provider.embed(texts, input_type=input_type, dimensions=dimensions)
            finally:
                await provider.aclose()

    return asyncio.run(main())


def assert_right(answer, texts=TEXTS, width=16):
    wanted = np.stack([vector_of(text, 16)[:width] for text in texts])
    np.testing.assert_allclose(answer.vectors, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-6)
    assert answer.vectors.dtype == np.float32


def test_every_provider_of_a_paid_api_is_in_this_suite():
    ours = {entry.name for entry in importlib.metadata.entry_points(group=PROVIDERS) if "embedway." in entry.value}
    assert ours - {"fake", "fastembed", "sentence-transformers"} == set(
        APIS
    )  # the libraries have tests with real models


@pytest.mark.parametrize("input_type", ["query", "document"])
def test_vectors_of_length_1_and_what_they_cost(name, server, input_type):
    answer = ask(name, server, input_type=input_type)
    assert_right(answer)
    assert answer.tokens == 9


def test_narrow_vectors_are_of_length_1_too(name, server):
    assert_right(ask(name, server, dimensions=8), width=8)


def test_texts_go_as_they_are(name, server):
    texts = [" Polish ", "polish", "a\x00b", "漢字 😀", "\ttab\nline"]
    assert_right(ask(name, server, texts), texts)


def test_without_a_key_it_says_which_variable_to_set(name, server):
    if name == "openai-compatible":
        with pytest.raises(AuthenticationError):  # a local server may want none; this one does
            ask(name, server, secret="")
        return
    with pytest.raises(ConfigError, match=r"r: api_key: is not set; set \w+_API_KEY"):
        ask(name, server, secret="")
    assert server.bodies == []


def test_a_wrong_key_is_told_apart_from_a_refused_text(name, server):
    with pytest.raises(AuthenticationError, match="check api_key"):
        ask(name, server, secret=KEY[:-1])


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows[:-1],
        lambda rows: [*rows, rows[0]],
        lambda rows: [],
        lambda rows: [None, *rows[1:]],
        lambda rows: [*rows[:-1], {}],
        lambda rows: [*rows[:-1], []],
    ],
    ids=["short", "long", "empty", "null", "table", "list"],
)
def test_wrong_numbers_of_vectors_and_what_is_no_vector(name, server, change):
    server.misdeeds = [lambda answer: server.with_rows(answer, change(server.rows(answer)))]
    with pytest.raises((BadVectorsError, ProtocolError)):
        ask(name, server)


def test_another_shape_of_answer(name, server):
    for shape in ([], "text", 3, None, {"data": 3, "embeddings": 3}, {}):
        fresh = APIS[name][0]()
        fresh.misdeeds = [lambda answer, shape=shape: shape or {"empty": True}]
        with pytest.raises((BadVectorsError, ProtocolError)):
            ask(name, fresh)


@pytest.mark.parametrize("name", INDEXED)
def test_the_index_decides_and_not_the_order(name, server):
    server.misdeeds = [lambda answer: server.with_rows(answer, server.rows(answer)[::-1])]
    assert_right(ask(name, server))


@pytest.mark.parametrize("name", INDEXED)
@pytest.mark.parametrize("index", [None, 1, 7, -1, True, "0", 0.0])
def test_indexes_that_cannot_be_right(name, server, index):
    def change(answer):
        first, *rest = server.rows(answer)
        return server.with_rows(answer, [{**first, "index": index}, *rest])

    server.misdeeds = [change]
    with pytest.raises(BadVectorsError):
        ask(name, server)


@pytest.mark.parametrize(
    ("misdeed", "kind"),
    [
        ("400", RefusedInputError),
        ("413", RefusedInputError),
        ("401", AuthenticationError),
        ("404", ProtocolError),
        ("408", UnavailableError),
        ("500", UnavailableError),
        ("503", UnavailableError),
        ("429", RateLimitedError),
        ("429 quota", QuotaExceededError),
        ("html", ProtocolError),
        ("html error", UnavailableError),
        ("half json", ProtocolError),
        ("redirect", ProtocolError),
        ("reset", UnavailableError),
        ("hang up", UnavailableError),
    ],
)
def test_each_failure_is_its_own_error_once_and_tells_no_secret(name, server, misdeed, kind):
    server.misdeeds = [misdeed]
    with pytest.raises(EmbedwayError) as caught:
        ask(name, server, ["a secret text"])
    assert type(caught.value) is kind
    chain, shown = caught.value, ""
    while chain is not None:
        shown += f"{chain!s} {chain!r}"
        chain = chain.__cause__ or chain.__context__
    assert KEY not in shown
    assert "secret text" not in shown
    assert len(server.bodies) == 1


def test_what_never_ends_is_given_up(name, server):
    server.misdeeds = ["slow"]
    with pytest.raises(UnavailableError, match="no answer in time"):
        ask(name, server, timeout_s=0.3)


def test_keys_travel_in_headers_alone(name, server):
    ask(name, server)
    assert KEY not in repr(server.bodies)
    assert any(KEY in value for value in server.headers[0].values())


def test_azure_by_deployment_and_version():
    class Classic(AzureServer):
        path = "/openai/deployments/my-deployment/embeddings"

    server = Classic()

    async def main():
        async with server.running():
            options = {"api_version": "2024-10-21"}
            provider = make_provider(
                "azure-openai", Endpoint("r", "my-deployment", server.url, secret=KEY, options=options)
            )
            try:
                return await provider.embed(TEXTS, input_type="document", dimensions=None)
            finally:
                await provider.aclose()

    assert_right(asyncio.run(main()))
    assert server.queries == ["api-version=2024-10-21"]


@pytest.mark.parametrize(
    ("input_type", "sent"), [("query", "task: search result | query: a"), ("document", "title: none | text: a")]
)
def test_later_gemini_models_read_the_task_from_the_text(input_type, sent):
    class Later(GeminiServer):
        path = "/v1beta/models/gemini-embedding-2:batchEmbedContents"

        def is_request(self, value):
            return set(value) == {"model", "content"} and value["model"] == "models/gemini-embedding-2"

    server = Later()

    async def main():
        async with server.running():
            endpoint = Endpoint("r", "gemini-embedding-2", f"{server.url}/v1beta", secret=KEY)
            provider = make_provider("gemini", endpoint)
            try:
                await provider.embed(["a"], input_type=input_type, dimensions=None)
            finally:
                await provider.aclose()

    asyncio.run(main())
    assert server.bodies[0]["requests"][0]["content"]["parts"][0]["text"] == sent
