"""Faults of LiteLLM's spend tracking, tried over real HTTP: here, the ledger has what the service bills."""

import asyncio
import json

import pytest

from api_servers import CompatibleRerankServer
from books import MODEL, PRICE, PaidServer, route_to, settings_of
from embedway import AsyncEmbedder
from embedway.collections.run import RunOptions, run_job
from embedway.errors import BudgetExceededError, EmbedwayError
from embedway.telemetry.hooks import Hook

TEXTS = [f"text number {number} of some words" for number in range(6)]
#: One budget for each scope, with room for three calls.
SCOPES = {
    "everything": {},
    "model": {"model": MODEL},
    "collection": {"collection": "docs"},
    "key": {"api_key": "team"},
}


def one_budget(scope, nanousd):
    return {"budgets.b": {"usd": f"{nanousd / 1e9:.9f}", **SCOPES[scope]}}


class FailingHook(Hook):
    """Hook that raises at the end of every operation, like a broken logging callback."""

    def begin(self, operation):
        raise ValueError("custom_llm_provider is required")

    def end(self, operation, outcome):
        raise ValueError("custom_llm_provider is required")


class PaidReranker(CompatibleRerankServer):
    model = MODEL

    def __init__(self):
        super().__init__()
        self.bill = 0

    def framed(self, results, tokens):
        tokens *= 3
        self.bill += tokens
        return super().framed(results, tokens)


@pytest.mark.parametrize("task", ["embed", "rerank"])
@pytest.mark.parametrize("scope", SCOPES)
def test_embeddings_and_rerankings_count_for_budgets_of_every_scope(task, scope, books):
    """litellm #30276, #37877: a callback failed before the spend was added, so that provider budgets never tripped."""

    async def main():
        server = PaidServer() if task == "embed" else PaidReranker()
        async with server.running():
            model = {"name": MODEL, "max_tokens": 512, "price_usd_per_million_tokens": "1"}
            model |= {"dimensions": 16} if task == "embed" else {"task": "rerank"}
            made = settings_of(server, books, **{"models.m": model}, **one_budget(scope, 1_000_000))
            where = {"collection": {"collection": "docs"}, "key": {"api_key_name": "team"}}.get(scope, {})
            paid, refused = 0, 0
            async with AsyncEmbedder(config=made, hooks=[FailingHook()]) as embedder:
                for number in range(40):
                    texts = [f"{number} {text}" for text in TEXTS]
                    try:
                        if task == "embed":
                            result = await embedder.embed(texts, model=MODEL, **where)
                        else:
                            result = await embedder.rerank("a query", texts, model=MODEL, **where)
                    except BudgetExceededError:
                        refused += 1
                        continue
                    paid += result.receipt.cost_nanousd
            return server.bill, paid, refused, await books.spent()

    bill, paid, refused, spent = asyncio.run(main())
    assert refused
    assert 0 < paid <= 1_000_000
    assert spent == (paid, 0) == (bill * PRICE, 0)


def test_every_way_to_send_texts_writes_its_row(books, tmp_path):
    """litellm #36646: a pass-through route wrote no row, so that a key with a hard budget spent without limit."""
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps({"text": f"a row of text {number}"}) + "\n" for number in range(5)))

    async def main():
        async with PaidServer().running() as server:
            made = settings_of(server, books, **{"embedding.default_model": MODEL})
            bills = []

            async def bill_of(call):
                before = server.bill
                await call
                bills.append(server.bill - before)

            async with AsyncEmbedder(config=made) as embedder:
                await bill_of(embedder.embed(["a plain text"], model=MODEL))
                await bill_of(embedder.embed(["a query"], model=MODEL, input_type="query"))
                await bill_of(embedder.embed_documents(["one document", "another"], model=MODEL))
                await bill_of(embedder.embed_query("another query", model=MODEL))
                await bill_of(embedder.embed(["a row", ""], model=MODEL, partial=True))
                await bill_of(embedder.embed(["a text of a collection"], model=MODEL, collection="docs"))
                await bill_of(run_job(embedder, [str(source)], str(tmp_path / "out.jsonl"), RunOptions(model=MODEL)))
            return server, bills, await books.entries(), await books.spent()

    server, bills, entries, spent = asyncio.run(main())
    assert all(bills)
    assert spent == (server.bill * PRICE, 0)
    assert [entry.spent for entry in entries] == [bill * PRICE for bill in bills]


@pytest.mark.parametrize(
    "changed",
    [
        lambda answer, tokens: {**answer, "inputTextTokenCount": tokens},
        lambda answer, tokens: {
            **answer,
            "data": [{**row, "inputTextTokenCount": tokens // len(answer["data"])} for row in answer["data"]],
        },
        lambda answer, tokens: answer,
    ],
    ids=["answer", "rows", "nothing"],
)
def test_answers_without_usage_are_not_booked_as_nothing(changed, books):
    """litellm #41750: Bedrock's embeddings have `inputTextTokenCount` and no `usage`, and were billed with 0 tokens."""
    texts = ["aaa bbb ccc ddd"] * 4

    class Titan(PaidServer):
        def answer(self, body):
            answer = super().answer(body)
            answer.pop("usage", None)
            return changed(answer, self.tokens(body))

    async def main():
        async with Titan().running() as server:
            async with AsyncEmbedder(config=settings_of(server, books)) as embedder:
                receipt = (await embedder.embed([f"{text}{n}" for n, text in enumerate(texts)], model=MODEL)).receipt
            return server.bill, receipt, await books.entries()

    bill, receipt, (entry,) = asyncio.run(main())
    assert receipt.cost_nanousd == entry.spent == bill * PRICE > 0
    assert entry.tokens == receipt.billed_tokens == bill


def test_hits_cost_nothing_and_save_their_count_at_the_price(books, tmp_path):
    """litellm #3762: cached answers were charged."""

    async def main():
        async with PaidServer(lambda tokens: {"total_tokens": tokens + 3}).running() as server:
            cache = {"cache.backend": "sqlite", "cache.path": str(tmp_path / "cache.sqlite")}
            async with AsyncEmbedder(config=settings_of(server, books, **cache)) as embedder:
                first = (await embedder.embed(TEXTS, model=MODEL)).receipt
                again = (await embedder.embed(TEXTS, model=MODEL)).receipt
            return server, first, again, await books.spent(), await books.entries()

    server, first, again, spent, entries = asyncio.run(main())
    assert (first.cost_nanousd, first.saved_nanousd) == ((server.bill + 3) * PRICE, 0)
    assert (again.cost_nanousd, again.billed_tokens, again.cache_hits) == (0, 0, 6)
    # The bill of a text is not known if the service adds tokens: savings are our own count.
    assert again.saved_nanousd == server.bill * PRICE
    assert spent == (first.cost_nanousd, 0)
    assert sum(entry.saved for entry in entries) == again.saved_nanousd


@pytest.mark.parametrize("fault", ["500", "hang up", "429 at once"])
def test_an_attempt_is_booked_once_for_each_request(fault, books):
    """Spend was lost with a failed request, or counted twice with its retry."""

    async def main():
        async with PaidServer().running() as server:
            server.misdeeds = [fault, None]
            async with AsyncEmbedder(config=settings_of(server, books)) as embedder:
                receipt = (await embedder.embed(TEXTS, model=MODEL)).receipt
            return server, receipt, await books.entries()

    server, receipt, (entry,) = asyncio.run(main())
    answered = sum(map(server.billed, TEXTS)) * PRICE
    unsure = 0 if fault == "429 at once" else 2 * answered
    assert receipt.attempts == 2
    assert (receipt.cost_nanousd, receipt.unsure_nanousd) == (answered + unsure, unsure)
    assert (entry.spent, entry.unsure, entry.reserved, entry.sent) == (answered + unsure, unsure, 0, 0)


def test_a_failed_call_keeps_the_cost_of_its_answered_parts(books):
    async def main():
        async with PaidServer().running() as server:
            server.misdeeds = [None, "401", "401"]
            parts = {"routes.r": route_to(server, options={"max_inputs": "2"}), "upstream.concurrency": 1}
            async with AsyncEmbedder(config=settings_of(server, books, **parts)) as embedder:
                with pytest.raises(EmbedwayError):
                    await embedder.embed(TEXTS, model=MODEL)
            return server.bill, await books.entries()

    bill, (entry,) = asyncio.run(main())
    assert entry.unsure == 0
    assert entry.spent == bill * PRICE > 0


def test_a_split_request_costs_the_sum_of_its_parts(books):
    """Batches were priced by their first part."""

    async def main():
        async with PaidServer().running() as server:
            parts = {"routes.r": route_to(server, options={"max_inputs": "2"})}
            async with AsyncEmbedder(config=settings_of(server, books, **parts)) as embedder:
                receipt = (await embedder.embed(TEXTS, model=MODEL)).receipt
            return server, receipt, await books.entries()

    server, receipt, (entry,) = asyncio.run(main())
    assert len(server.bodies) == 3
    assert receipt.cost_nanousd == entry.spent == server.bill * PRICE


def test_a_model_without_a_price_is_not_free(books):
    async def main():
        async with PaidServer().running() as server:
            unpriced = {"models.m": {"name": MODEL, "dimensions": 16, "max_tokens": 512}}
            made = settings_of(server, books, **unpriced)
            async with AsyncEmbedder(config=made) as embedder:
                receipt = (await embedder.embed(TEXTS, model=MODEL)).receipt
            limited = settings_of(server, books, **unpriced, **one_budget("everything", 10**9))
            async with AsyncEmbedder(config=limited) as embedder:
                with pytest.raises(BudgetExceededError):
                    await embedder.embed(TEXTS, model=MODEL)
            return receipt, len(server.bodies), await books.entries()

    receipt, requests, (entry,) = asyncio.run(main())
    assert (receipt.cost_nanousd, entry.unpriced, requests) == (None, True, 1)


def test_calls_at_the_same_time_do_not_pass_one_limit_together(books):
    """litellm #34732, #40095: two requests both passed the check before the first was recorded."""

    async def main():
        async with PaidServer().running() as server:
            limit = 5 * sum(map(server.billed, TEXTS)) * PRICE
            made = settings_of(server, books, **one_budget("everything", limit))
            async with AsyncEmbedder(config=made) as embedder:
                calls = [embedder.embed([f"{text}{n}" for text in TEXTS], model=MODEL) for n in "abcdefghijklmnopqrst"]
                done = await asyncio.gather(*calls, return_exceptions=True)
            return server.bill, limit, done, await books.spent()

    bill, limit, done, (spent, held) = asyncio.run(main())
    assert any(isinstance(one, BudgetExceededError) for one in done)
    assert spent == bill * PRICE <= limit
    assert held == 0
