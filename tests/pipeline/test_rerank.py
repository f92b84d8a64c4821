"""`rerank` from texts to order: local, and over services with limits, failover, prices and partial results."""

import asyncio
import contextlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api_servers import (
    KEY,
    CohereRerankServer,
    CompatibleRerankServer,
    JinaRerankServer,
    TeiRerankServer,
    VoyageRerankServer,
    error,
    score_of,
)
from embedway import AsyncEmbedder, Config, Embedder
from embedway.errors import (
    BadVectorsError,
    ConfigError,
    InputError,
    NoRouteError,
    RefusedInputError,
    UnavailableError,
    UnknownModelError,
    UnsupportedModelError,
    UsageError,
)
from embedway.pipeline.rerank import best_first
from embedway.weights.store import StoreSettings, WeightsStore
from tiny_models import tiny_reranker

QUERY = "which one?"
DOCUMENTS = ["the first text", "the second", "and a third one", "the second", "a fourth"]
PROVIDERS = {
    CohereRerankServer: ("cohere", ""),
    VoyageRerankServer: ("voyage", "/v1"),
    JinaRerankServer: ("jina", "/v1"),
}


def load(*servers, **overrides):
    made = {"upstream.first_wait_s": 0.001, "upstream.longest_wait_s": 0.002, "weights.offline": True}
    for number, server in enumerate(servers):
        provider, prefix = next(found for kind, found in PROVIDERS.items() if isinstance(server, kind))
        made[f"routes.r{number}"] = {
            "model": server.model,
            "provider": provider,
            "base_url": server.url + prefix,
            "api_key": KEY,
        }
    return Config.load(environ={}, overrides={**made, **overrides})


def rerank(*servers, documents=DOCUMENTS, overrides=None, query=QUERY, **options):
    async def main():
        async with contextlib.AsyncExitStack() as stack:
            for server in servers:
                await stack.enter_async_context(server.running())
            embedder = await stack.enter_async_context(AsyncEmbedder(config=load(*servers, **(overrides or {}))))
            return await embedder.rerank(query, documents, model=servers[0].model, **options)

    return asyncio.run(main())


def assert_right(result, documents=DOCUMENTS):
    wanted = np.array([score_of(QUERY, text) for text in documents], np.float32)
    good = [row for row in range(len(documents)) if row not in result.errors]
    np.testing.assert_allclose(result.scores[good], wanted[good], atol=1e-6)
    assert list(result.order) == sorted(good, key=lambda row: (-wanted[row], row))


@pytest.mark.parametrize("kind", [CohereRerankServer, VoyageRerankServer, JinaRerankServer])
def test_scores_and_order_are_the_documents(kind):
    server = kind()
    result = rerank(server)
    assert_right(result)
    assert len(server.bodies) == 1
    assert result.receipt.unique_texts == 4  # a document that repeats is sent once
    assert result.receipt.tokens_estimated  # offline: no tokenizer is available
    assert not result.receipt.estimated


def test_a_search_costs_what_the_list_says():
    receipt = rerank(CohereRerankServer()).receipt
    assert (receipt.billed_searches, receipt.cost_nanousd, receipt.estimated) == (1, 2_000_000, False)
    receipt = rerank(VoyageRerankServer()).receipt
    assert (receipt.billed_tokens, receipt.cost_nanousd, receipt.estimated) == (11, 550, False)


def test_a_search_that_is_not_on_the_bill_is_estimated():
    server = CohereRerankServer()
    server.misdeeds = [lambda answer: {**answer, "meta": {}}]
    receipt = rerank(server, documents=[f"text {n}" for n in range(130)]).receipt
    assert (receipt.billed_searches, receipt.estimated) == (2, True)
    assert receipt.cost_nanousd == 4_000_000


def test_many_documents_are_split_by_the_service_s_limit():
    server = JinaRerankServer()
    documents = [f"text {n}" for n in range(1100)]
    assert_right(rerank(server, documents=documents), documents)
    assert sorted(len(body["documents"]) for body in server.bodies) == [76, 512, 512]


def test_top_n_keeps_the_best_and_all_the_scores():
    whole, some = rerank(VoyageRerankServer()), rerank(VoyageRerankServer(), top_n=2)
    assert some.order == whole.order[:2]
    assert len(some.scores) == len(DOCUMENTS)


def test_it_fails_over_and_tries_again():
    first, second = VoyageRerankServer(), VoyageRerankServer()
    first.misdeeds = ["404"]
    one_space = {"routes.r1.same_space": True}
    result = rerank(first, second, overrides=one_space)
    assert_right(result)
    assert result.receipt.routes == ("routes.r1",)
    first.misdeeds = ["503 at once", "429"]
    first.bodies.clear()
    assert_right(rerank(first))
    assert len(first.bodies) == 3
    for server in (first, second):
        server.misdeeds = ["404"]
    with pytest.raises(NoRouteError):
        rerank(first, second, overrides=one_space)


class Picky(VoyageRerankServer):
    def refusal(self, request, body):
        return error(400, "bad") if "BAD" in "".join(body["documents"]) else super().refusal(request, body)


class OddAnswers:
    """A server that fails on one document, or has no score for it."""

    kind = ""

    def misdeed_for(self, body):
        if not any("BAD" in document for document in body["documents"]):
            return None
        return self.kind or (lambda answer: self._without_score(body, answer))

    def _without_score(self, body, answer):
        rows = [
            {**row, self.score: None} if "BAD" in body["documents"][row["index"]] else row for row in self.rows(answer)
        ]
        return self.with_rows(answer, rows)


class Odd(OddAnswers, VoyageRerankServer):
    pass


@pytest.mark.parametrize(
    ("kind", "error_class"),
    [("400", RefusedInputError), ("500", UnavailableError), ("reset", UnavailableError), ("", BadVectorsError)],
)
def test_the_error_of_a_document_names_its_row(kind, error_class):
    documents = [*(f"text {n % 9}" for n in range(20)), "BAD text", "last"]
    server = Odd()
    server.kind = kind
    waits = {"upstream.first_wait_s": 0.001, "upstream.longest_wait_s": 0.002}
    result = rerank(server, documents=documents, partial=True, overrides=waits)
    assert_right(result, documents)
    assert list(result.errors) == [20]
    assert isinstance(result.errors[20], error_class)
    assert (result.errors[20].row, str(result.errors[20])[:9]) == (20, "text 20: ")
    with pytest.raises(error_class, match=r"^text 20: ") as caught:
        rerank(server, documents=documents, overrides=waits)
    assert caught.value.row == 20


class OddTogether(OddAnswers, JinaRerankServer):
    model = "jina-reranker-v3"


def test_where_documents_are_scored_together_an_invalid_score_is_asked_for_with_all_of_them():
    documents = [*(f"text {n}" for n in range(5)), "BAD text"]
    server = OddTogether()
    result = rerank(server, documents=documents, partial=True)
    assert_right(result, documents)
    assert list(result.errors) == [5]
    assert [len(body["documents"]) for body in server.bodies] == [6, 6]


def test_a_document_that_is_refused_fails_alone():
    documents = [f"text {n}" for n in range(30)]
    documents[17] = "BAD text"
    result = rerank(Picky(), documents=documents, partial=True)
    assert set(result.errors) == {17}
    assert isinstance(result.errors[17], RefusedInputError)
    assert np.isnan(result.scores[17])
    assert_right(result, documents)
    with pytest.raises(RefusedInputError):
        rerank(Picky(), documents=documents)


def test_what_cannot_be_asked():
    server = VoyageRerankServer()
    with pytest.raises(InputError, match="the query: it is empty"):
        rerank(server, query=" ")
    with pytest.raises(InputError, match="text 1"):
        rerank(server, documents=["a", ""])
    with pytest.raises(InputError, match="half of the 32000"):
        rerank(server, query="long " * 12_000)
    with pytest.raises(UsageError, match="top_n"):
        rerank(server, top_n=0)
    assert rerank(server, documents=[]).order == ()
    assert server.bodies == []


def test_a_document_that_is_too_long_is_cut_and_reported():
    server = JinaRerankServer()
    documents = ["short", "漢" * 3000]
    result = rerank(server, documents=documents)
    (cut,) = result.receipt.truncations
    sent = next(text for text in server.bodies[0]["documents"] if "漢" in text)
    assert cut.row == 1
    assert len(sent) == cut.kept_characters == 3000 - cut.lost_characters
    assert cut.kept_tokens == 1024
    assert result.receipt.tokens_estimated


def test_names_that_are_no_rerankers():
    async def main(name):
        async with AsyncEmbedder(config=load()) as embedder:
            await embedder.rerank(QUERY, DOCUMENTS, model=name)

    with pytest.raises(UsageError, match=r"no reranker is named: .*bge-reranker-v2-m3"):
        asyncio.run(main(None))
    for name in ("all-MiniLM-L6-v2", "text-embedding-3-small"):
        with pytest.raises(UsageError, match="returns vectors"):
            asyncio.run(main(name))
    with pytest.raises(ConfigError, match="COHERE_API_KEY"):
        asyncio.run(main("rerank-v3.5"))
    with pytest.raises(UnknownModelError, match="bge-reranker-v2-m3"):
        asyncio.run(main("bge-reranker-v2-m"))

    async def embed():
        async with AsyncEmbedder(config=load()) as embedder:
            await embedder.embed(DOCUMENTS, model="rerank-v3.5")

    with pytest.raises(UnsupportedModelError, match="is a reranker"):
        asyncio.run(embed())


@pytest.fixture(scope="module")
def reranker(tmp_path_factory, default_model_directory):
    from embedway.catalog import DEFAULT_MODEL, default_catalog

    folder = WeightsStore(StoreSettings(root=default_model_directory)).find(
        default_catalog().get(DEFAULT_MODEL).weights
    )
    return tiny_reranker(tmp_path_factory.mktemp("tiny") / "reranker", folder.path / "tokenizer.json")


def test_a_local_reranker_scores_each_document_as_if_it_were_alone(reranker, config):
    documents = ["one", "a longer text with more words in it", "two " * 20, "one", "three"]
    with Embedder(config=config) as embedder:
        together = embedder.rerank(QUERY, documents, model=str(reranker))
        alone = [embedder.rerank(QUERY, [text], model=str(reranker)).scores[0] for text in documents]
    np.testing.assert_allclose(together.scores, alone, atol=0.02)  # bfloat16, if the CPU supports it
    assert together.scores[0] == together.scores[3]
    assert len({round(float(score), 3) for score in together.scores}) >= 3
    assert (together.receipt.cost_nanousd, together.receipt.space_id) == (0, "")


def test_cohere_receives_the_limit_of_a_document():
    server = CohereRerankServer()
    server.model = "rerank-v4.0-pro"
    assert_right(rerank(server))
    assert server.bodies[0]["max_tokens_per_doc"] == 32768


def test_scores_that_depend_on_their_request_are_never_of_two():
    server = JinaRerankServer()
    server.model = "jina-reranker-v3"
    assert_right(rerank(server))
    with pytest.raises(InputError, match=r"scores all texts of a request together, .* at most 512 texts"):
        rerank(server, documents=[f"text {n}" for n in range(513)])
    assert len(server.bodies) == 1


def over_server(server, model, documents=DOCUMENTS, **overrides):
    async def main():
        async with server.running():
            options = {"dialect": "tei"} if isinstance(server, TeiRerankServer) else {}
            way = {"model": model, "provider": "openai-compatible", "base_url": f"{server.url}/v1", "api_key": KEY}
            made = load(**{"routes.gpu": {**way, "options": options}, **overrides})
            async with AsyncEmbedder(config=made) as embedder:
                return await embedder.rerank(QUERY, documents, model=model)

    return asyncio.run(main())


@pytest.mark.parametrize("kind", [CompatibleRerankServer, TeiRerankServer])
def test_a_server_may_run_a_reranker_whose_weights_are_not_here(kind, tmp_path):
    server = kind()
    server.model = "BAAI/bge-reranker-v2-m3"
    result = over_server(server, server.model, **{"weights.directory": str(tmp_path)})
    assert_right(result)
    assert (result.receipt.model, result.receipt.routes) == (server.model, ("routes.gpu",))
    assert (result.receipt.cost_nanousd, result.receipt.tokens_estimated) == (None, True)


def test_a_reranker_of_one_s_own_has_a_name_and_a_price():
    server = CompatibleRerankServer()
    server.model = "acme/judge"
    own = {"name": "acme/judge", "task": "rerank", "max_tokens": 100, "price_usd_per_million_tokens": "2"}
    result = over_server(server, "acme/judge", **{"models.j": own})
    assert_right(result)
    assert result.receipt.cost_nanousd == 11 * 2000

    async def embed():
        async with AsyncEmbedder(config=load(**{"models.j": own})) as embedder:
            await embedder.embed(DOCUMENTS, model="acme/judge")

    with pytest.raises(UnsupportedModelError, match="is a reranker"):
        asyncio.run(embed())
    with pytest.raises(ConfigError, match="dimensions must be set for an embedding model, and unset for a reranker"):
        load(**{"models.j": {**own, "dimensions": 3}})


class Twin(TeiRerankServer):
    """Server that scores like this machine, or with an error of `off`."""

    def __init__(self, folder, config, off=0.0):
        super().__init__()
        self.folder, self.config, self.off = folder, config, off

    def answer(self, body):
        with Embedder(config=self.config) as embedder:
            scores = embedder.rerank(body["query"], body["texts"], model=str(self.folder)).scores
        return [{"index": n, "score": float(score) + self.off} for n, score in enumerate(scores)]


@pytest.mark.parametrize("off", [0.0, 0.3])
def test_a_server_of_a_reranker_that_runs_here_is_used_once_its_scores_are_the_same(reranker, config, off):
    server = Twin(reranker, config, off)
    documents = ["one", "a longer text with more words in it", "two " * 20]
    result = over_server(server, str(reranker), documents, **{"weights.offline": True})
    with Embedder(config=config) as embedder:
        ours = embedder.rerank(QUERY, documents, model=str(reranker))
    np.testing.assert_allclose(result.scores, ours.scores, atol=0.01)
    assert result.order == ours.order
    assert result.receipt.routes == ((f"local:{reranker.name}",) if off else ("routes.gpu",))
    assert len(server.bodies) == (1 if off else 2)


@given(st.lists(st.sampled_from([0.1, 0.5, 0.5, 0.9, float("nan")]), max_size=12), st.none() | st.integers(1, 5))
@settings(deadline=None)
def test_the_best_come_first_and_equal_ones_in_their_order(scores, top_n):
    order = best_first(np.array(scores, np.float32), top_n)
    finite = [n for n, score in enumerate(scores) if not math.isnan(score)]
    assert list(order) == sorted(finite, key=lambda n: (-scores[n], n))[:top_n]
