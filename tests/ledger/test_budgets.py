"""Money in the engine: limits, reservations, bookings, savings and warnings."""

import asyncio
import contextlib
import logging
import sqlite3
from dataclasses import replace

import pytest
from aiohttp import web
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from api_servers import KEY, CohereRerankServer, OpenAIServer
from embedway import AsyncEmbedder, Config, Embedder
from embedway.errors import (
    BudgetExceededError,
    ClosedError,
    ConfigError,
    EmbedwayError,
    LedgerError,
    ProtocolError,
    UnknownModelError,
)
from embedway.ledger.opening import limits_of
from embedway.ledger.sqlite import SqliteLedger
from embedway.money import usd
from embedway.providers.counting import EstimatingCounter
from embedway.providers.fake import Fake
from embedway.providers.names import full_name
from embedway.telemetry import webhook
from inside import budgets_of, ledger_connection, ledger_of, scheduler_of

SMALL = "text-embedding-3-small"
TEXTS = ["one two three", "four five six"]
#: Tokens of both texts by tiktoken, and by the server's count of words; 20 nano-dollars each.
COUNTED, BILLED = 6, 6


class Service(OpenAIServer):
    width = 1536


def load(server, **overrides):
    return Config.load(
        environ={},
        overrides={
            "routes.r": {"model": SMALL, "provider": "openai", "base_url": f"{server.url}/v1", "api_key": KEY},
            "upstream.first_wait_s": 0.001,
            "upstream.longest_wait_s": 0.002,
            "cache.backend": "none",
            **overrides,
        },
    )


def run(work, **overrides):
    async def main():
        server = Service()
        async with server.running(), AsyncEmbedder(config=load(server, **overrides)) as embedder:
            return await work(embedder, server)

    return asyncio.run(main())


async def entries(embedder):
    await budgets_of(embedder).settle()
    return await ledger_of(embedder).entries()


def embed(embedder, texts=TEXTS, **options):
    return embedder.embed(texts, model=SMALL, **options)


# --------------------------------------------------------------------- limits


@pytest.mark.parametrize("period", ["total", "day", "month"])
def test_a_hard_budget_refuses_before_anything_is_sent(period):
    async def work(embedder, server):
        first = await embed(embedder)
        assert first.receipt.cost_nanousd == 120
        with pytest.raises(BudgetExceededError) as caught:
            await embed(embedder)
        assert len(server.bodies) == 1
        error = caught.value
        assert (error.budget, error.needed, error.left, error.exit_code) == ("mine", 120, 80, 3)
        assert "may cost $0.00000012, and budget 'mine' allows $0.0000002 in " in str(error)
        assert "of which $0.00000008 is left; the request was not sent" in str(error)
        assert (await embed(embedder, ["one two three"])).receipt.cost_nanousd == 60

    run(work, **{"budgets.mine": {"usd": "0.0000002", "period": period}})


@pytest.mark.parametrize(
    ("budget", "counted", "others"),
    [
        ({"model": SMALL}, {}, None),
        ({"model": "openai/text-embedding-3-small"}, {}, None),
        ({"collection": "docs"}, {"collection": "docs"}, {"collection": "other"}),
        ({"api_key": "team-a"}, {"api_key_name": "team-a"}, {"api_key_name": "team-b"}),
    ],
)
def test_budgets_are_for_what_they_name(budget, counted, others):
    async def work(embedder, server):
        await embed(embedder, **counted)
        with pytest.raises(BudgetExceededError, match=r"budget 'mine' allows .* for "):
            await embed(embedder, **counted)
        if others is not None:
            await embed(embedder, **others)
            await embed(embedder)
        assert len(server.bodies) == (3 if others is not None else 1)

    run(work, **{"budgets.mine": {"usd": "0.0000002", **budget}})


def test_a_budget_for_an_unknown_model_is_an_error():
    config = Config.load(environ={}, overrides={"budgets.mine": {"usd": 1, "model": "nobody/nothing"}})
    with pytest.raises(UnknownModelError, match="nobody/nothing"):
        limits_of(config, full_name)


def test_the_refusal_names_the_setting_of_a_price_of_your_own_model():
    model = {"name": "acme/m", "dimensions": 16, "max_tokens": 500}
    route = {"model": "acme/m", "provider": "openai-compatible", "base_url": "http://127.0.0.1:9/v1"}
    values = {"models.m": model, "routes.r": route, "budgets.b.usd": 1, "cache.backend": "none"}
    said = r'write price_usd_per_million_tokens = "0\.02" in \[models\.NAME\] \("0" if it is free\)'
    with (
        Embedder("acme/m", config=Config.load(environ={}, overrides=values)) as embedder,
        pytest.raises(BudgetExceededError, match=said),
    ):
        embedder.embed(["a"])


def test_an_unknown_price_is_refused_under_a_limit_and_reported_without_one():
    async def limited(embedder, server):
        with pytest.raises(
            BudgetExceededError, match=r"the call has no known price.*set a price for the model"
        ) as caught:
            await embed(embedder)
        advice = f'write cost_per_million_tokens = "0.02" in [embedding.model_benchmarks."{SMALL}"] ("0" if it is free)'
        assert advice in str(caught.value)
        with pytest.raises(BudgetExceededError, match="has no known price, and max_cost is"):
            await embed(embedder, max_cost=1)
        assert not server.bodies

    async def free(embedder, server):
        receipt = (await embed(embedder)).receipt
        assert (receipt.cost_nanousd, receipt.billed_tokens) == (None, BILLED)
        (entry,) = await entries(embedder)
        assert (entry.unpriced, entry.spent, entry.tokens) == (True, 0, BILLED)
        assert len(server.bodies) == 1

    changes = {"embedding.model_benchmarks": {SMALL: {"cost_per_million_tokens": "unknown"}}}
    run(limited, **changes, **{"budgets.mine": {"usd": "5"}})
    run(free, **changes)


# ------------------------------------------------------- bookings by outcome


def test_the_receipt_is_the_ledgers_entry():
    async def work(embedder, server):
        receipt = (await embed(embedder, collection="docs", api_key_name="team-a")).receipt
        (entry,) = await entries(embedder)
        assert receipt.ledger_entries == (entry.id,)
        assert (entry.spent, entry.tokens) == (receipt.cost_nanousd, receipt.billed_tokens) == (120, 6)
        assert (entry.model, entry.collection, entry.api_key, entry.route) == (SMALL, "docs", "team-a", "routes.r")
        assert (entry.state, entry.reserved, entry.sent, entry.unsure, entry.estimated) == ("done", 0, 0, 0, 0)
        assert len(server.bodies) == 1

    run(work)


def test_refusals_and_limits_of_the_service_cost_nothing():
    async def work(embedder, server):
        server.misdeeds = ["429", "429"]
        receipt = (await embed(embedder)).receipt
        assert (receipt.attempts, receipt.cost_nanousd, receipt.unsure_nanousd) == (3, 120, 0)
        server.misdeeds = ["401"]
        with pytest.raises(EmbedwayError):
            await embed(embedder)
        spent = [entry.spent for entry in await entries(embedder)]
        assert sorted(spent) == [0, 120]
        # The one reservation paid for the retries.
        await embed(embedder)

    run(work, **{"budgets.mine": {"usd": usd(240)}})


@pytest.mark.parametrize("misdeed", ["500", "reset", "hang up"])
def test_what_failed_and_may_be_billed_is_booked_as_such(misdeed):
    async def work(embedder, server):
        server.misdeeds = [misdeed]
        receipt = (await embed(embedder)).receipt
        assert (receipt.cost_nanousd, receipt.unsure_nanousd, receipt.billed_tokens) == (240, 120, BILLED)
        (entry,) = await entries(embedder)
        assert (entry.spent, entry.unsure) == (240, 120)

    run(work)


def test_a_failure_that_is_not_tried_again_is_booked_too():
    async def work(embedder, server):
        server.misdeeds = ["half json"] * 2
        with pytest.raises(ProtocolError):
            await embed(embedder)
        (entry,) = await entries(embedder)
        assert (entry.spent, entry.unsure, entry.state) == (240, 240, "done")

    run(work)


def test_retries_that_a_budget_does_not_cover_are_not_sent():
    async def work(embedder, server):
        server.misdeeds = ["500"]
        with pytest.raises(BudgetExceededError):
            await embed(embedder)
        assert len(server.bodies) == 1
        (entry,) = await entries(embedder)
        assert (entry.spent, entry.unsure, entry.state) == (120, 120, "done")
        with pytest.raises(BudgetExceededError, match="max_cost"):
            await embed(embedder, ["one"], max_cost=usd(19))

    run(work, **{"budgets.mine": {"usd": usd(200)}})


def test_usage_that_is_not_reported_is_estimated_and_marked():
    async def work(embedder, server):
        server.misdeeds = [lambda answer: {key: value for key, value in answer.items() if key != "usage"}]
        receipt = (await embed(embedder)).receipt
        assert (receipt.cost_nanousd, receipt.estimated) == (20 * COUNTED, True)
        (entry,) = await entries(embedder)
        assert entry.estimated == entry.spent == 20 * COUNTED

    run(work)


def test_hits_cost_nothing_and_are_booked_as_savings():
    async def work(embedder, server):
        await embed(embedder)
        receipt = (await embed(embedder)).receipt
        assert (receipt.cost_nanousd, receipt.saved_nanousd, receipt.ledger_entries) == (0, 20 * COUNTED, ())
        saved, paid = await entries(embedder)
        assert (saved.saved, saved.spent, saved.hits, saved.route) == (20 * COUNTED, 0, 2, "cache")
        assert paid.spent == 120
        totals = {one.period: one for one in await ledger_of(embedder).totals()}
        assert (totals["total"].spent, totals["total"].saved) == (120, 20 * COUNTED)
        assert (await embedder.cache.stats()).total.nanousd_saved == 20 * COUNTED
        # The budget is used up, but a hit needs none.
        await embed(embedder)
        assert len(server.bodies) == 1

    run(work, **{"cache.backend": "memory", "budgets.mine": {"usd": usd(120)}})


def test_callers_whose_requests_are_put_together_pay_each_their_own():
    async def work(embedder, server):
        await embed(embedder, ["first"])
        names = [f"team-{n}" for n in range(6)]
        results = await asyncio.gather(
            *(embed(embedder, [f"text {n} of team {n}"], api_key_name=name) for n, name in enumerate(names))
        )
        assert len(server.bodies) < 7
        booked = {entry.api_key: entry for entry in await entries(embedder)}
        for name, result in zip(names, results, strict=True):
            assert booked[name].spent == result.receipt.cost_nanousd > 0
        words = sum(len(text.split()) for body in server.bodies for text in body["input"])
        assert sum(entry.spent for entry in booked.values()) == 20 * words

    run(work, **{"upstream.concurrency": 1})


def test_a_caller_without_money_does_not_take_others_along():
    async def work(embedder, server):
        await embed(embedder, ["first"])
        calls = [
            embed(embedder, [f"text number {n}"], api_key_name="poor" if n == 2 else "rich", max_cost=1)
            for n in range(5)
        ]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [isinstance(result, BudgetExceededError) for result in results] == [n == 2 for n in range(5)]
        assert all("text number 2" not in body["input"] for body in server.bodies)

    run(work, **{"upstream.concurrency": 1, "budgets.poor": {"usd": 0, "api_key": "poor"}})


def test_a_call_that_is_given_up_before_it_is_sent_leaves_nothing_reserved():
    async def work(embedder, server):
        busy = asyncio.create_task(embed(embedder))
        waiting = asyncio.create_task(embed(embedder, ["another text"]))
        while not server.bodies:  # noqa: ASYNC110  the server is in this loop
            await asyncio.sleep(0)
        waiting.cancel()
        busy.cancel()
        await asyncio.gather(busy, waiting, return_exceptions=True)
        booked = await entries(embedder)
        assert all((entry.state, entry.reserved, entry.sent) == ("done", 0, 0) for entry in booked)
        assert sum(entry.spent for entry in booked) == 120  # what the server received may be billed
        assert sum(entry.unsure for entry in booked) in {0, 120}

    run(work, **{"upstream.concurrency": 1, "batching.across_callers": False})


# ------------------------------------------------- failures of the ledger itself


class Gate(Service):
    """Holds requests until it is opened."""

    def __init__(self):
        super().__init__()
        self.open = asyncio.Event()
        self.here = asyncio.Condition()
        self.received = 0

    async def handle(self, request):
        self.received += 1
        async with self.here:
            self.here.notify_all()
        await self.open.wait()
        return await super().handle(request)

    async def has(self, count):
        async with self.here:
            await self.here.wait_for(lambda: self.received >= count)


def at_a_gate(work, **overrides):
    async def main():
        server = Gate()
        async with server.running(), AsyncEmbedder(config=load(server, **overrides)) as embedder:
            return await work(embedder, server)

    return asyncio.run(main())


def failing(method, *, after=False, once=False):
    """Return a ledger's method that fails, before or after its work is done."""
    left = [True] if once else None

    async def failed(*arguments, **options):
        if left is not None and not left:
            return await method(*arguments, **options)
        if left:
            left.pop()
        if after:
            await method(*arguments, **options)
        raise LedgerError("the ledger is away")

    return failed


def test_what_was_paid_for_is_given_although_the_ledger_fails_afterwards(monkeypatch, caplog):
    async def work(embedder, server):
        await embed(embedder, ["warm"])
        await budgets_of(embedder).settle()  # calls do not wait for it
        ledger = ledger_of(embedder)
        with monkeypatch.context() as patch:
            patch.setattr(ledger, "settle", failing(ledger.settle))
            patch.setattr(ledger, "close", failing(ledger.close))
            result = await embed(embedder)
            assert result.receipt.cost_nanousd == 120
            await budgets_of(embedder).settle()
        assert (await embed(embedder)).receipt.cache_hits == 2
        assert len(server.bodies) == 2
        # The money is held until the lease expires; then it is booked.
        (entry,) = [entry for entry in await entries(embedder) if entry.state == "open"]
        assert (entry.sent, entry.reserved) == (120, 0)
        assert not budgets_of(embedder).open_accounts

    run(work, **{"cache.backend": "memory"})
    assert "a reservation could not be released; it ends when its lease expires: the ledger is away" in caplog.text


def test_an_account_is_closed_although_its_caller_went_and_its_last_booking_failed(monkeypatch):
    async def work(embedder, server):
        ledger = ledger_of(embedder)
        busy = asyncio.create_task(embed(embedder, ["busy"]))
        await server.has(1)
        first, second = (asyncio.create_task(embed(embedder, [text])) for text in ("one two", "three four"))
        while len(budgets_of(embedder).open_accounts) < 3:  # noqa: ASYNC110  no event signals a reservation
            await asyncio.sleep(0)
        server.open.set()
        await busy
        server.open.clear()
        await server.has(2)
        first.cancel()
        await asyncio.wait([first])
        monkeypatch.setattr(ledger, "settle", failing(ledger.settle, once=True))
        server.open.set()
        await second
        booked = await entries(embedder)
        assert not budgets_of(embedder).open_accounts
        assert [entry.state for entry in booked] == ["done"] * 3
        assert sum(entry.spent for entry in booked) == 100
        assert len(server.bodies) == 2  # both in one request

    at_a_gate(work, **{"upstream.concurrency": 1})


def test_a_mark_whose_answer_was_lost_books_nothing(monkeypatch):
    async def work(embedder, server):
        ledger = ledger_of(embedder)
        # A call reserves and marks in one step. After a failure, the next call reserves first, and marks in another.
        for step, after in (("reserve", True), ("send", True), ("reserve", False), ("send", False)):
            with monkeypatch.context() as patch:
                patch.setattr(ledger, step, failing(getattr(ledger, step), after=after))
                with pytest.raises(LedgerError, match="the ledger is away"):
                    await embed(embedder)
        assert not server.bodies
        assert not budgets_of(embedder).open_accounts
        booked = await entries(embedder)
        assert [(one.state, one.spent, one.unsure) for one in booked if one.state == "done"] == [("done", 0, 0)] * 3
        assert all((one.sent, one.spent) == (0, 0) for one in booked)
        await embed(embedder)
        assert (await entries(embedder))[0].spent == 120

    run(work)


def test_a_caller_who_goes_before_a_shared_request_is_sent_does_not_take_others_along():
    async def work(embedder, server):
        large = asyncio.create_task(embed(embedder, [f"{n} " * 3000 for n in range(150)]))  # takes both places
        await server.has(2)
        calls = [asyncio.create_task(embed(embedder, [text])) for text in ("zero", "one two", "three four", "five six")]
        while len(budgets_of(embedder).open_accounts) < 5:  # noqa: ASYNC110  no event signals a reservation
            await asyncio.sleep(0)
        # The others' request has begun, and waits for a place at the service.
        while scheduler_of(embedder, SMALL).waiting:  # noqa: ASYNC110
            await asyncio.sleep(0)
        calls[1].cancel()
        await asyncio.wait([calls[1]])
        server.open.set()
        results = await asyncio.gather(large, *calls, return_exceptions=True)
        kinds = [type(result).__name__ for result in results]
        assert kinds == ["EmbedResult", "EmbedResult", "CancelledError", "EmbedResult", "EmbedResult"]
        assert sum(entry.spent for entry in await entries(embedder)) == 20 * (150 * 3000 + 5)

    at_a_gate(work, **{"upstream.concurrency": 2})


def test_a_request_that_closing_ends_is_booked_once_as_unsure(monkeypatch, tmp_path):
    begun = asyncio.Event()

    async def slow(self, *arguments, **options):
        begun.set()
        await asyncio.Event().wait()

    async def main():
        monkeypatch.setattr(Fake, "embed", slow)
        embedder = AsyncEmbedder(
            config=Config.load(environ={}, overrides=ESTIMATED | {"ledger.path": str(tmp_path / "l")})
        )
        call = asyncio.create_task(embedder.embed(TEXTS, model="acme/m"))
        await begun.wait()
        await embedder.aclose()
        with pytest.raises(ClosedError):
            await call
        assert ledger_connection(ledger_of(embedder)) is None
        ledger = SqliteLedger(tmp_path / "l")
        total, (entry,) = (await ledger.totals())[0], await ledger.entries()
        await ledger.aclose()
        assert (total.spent, total.held) == (entry.spent, 0)
        assert (entry.state, entry.unsure, entry.sent, entry.reserved) == ("done", entry.spent, 0, 0)
        assert entry.spent > 0

    asyncio.run(main())


# ------------------------------------------------------------ estimated tokens

#: A model without a local tokenizer, at 1,000 nano-dollars per token.
ESTIMATED = {
    "models.m": {"name": "acme/m", "dimensions": 16, "max_tokens": 500, "price_usd_per_million_tokens": "1"},
    "routes.q": {"model": "acme/m", "provider": "fake"},
    "cache.backend": "none",
}


def estimated(texts):
    return int(EstimatingCounter(max_tokens=500).count(texts).lengths.sum())


def test_what_services_bill_beyond_an_estimate_stays_in_the_reservation(monkeypatch):
    texts = [f"text number {n} " * 5 for n in range(300)]
    most = 2000 * estimated(texts)
    samples, embed_free = [], Fake.embed

    async def main():
        overrides = ESTIMATED | {"budgets.b": {"usd": usd(most)}}
        async with AsyncEmbedder(config=Config.load(environ={}, overrides=overrides)) as embedder:

            async def sample():
                (standing,) = await ledger_of(embedder).standings(budgets_of(embedder).limits)
                samples.append(standing.spent + standing.held)

            async def twice(self, texts, **options):
                await sample()
                answer = await embed_free(self, texts, **options)
                await sample()
                return replace(answer, tokens=2 * estimated(texts))

            monkeypatch.setattr(Fake, "embed", twice)
            assert (await embedder.plan(texts, model="acme/m")).most_nanousd == most
            result = await embedder.embed(texts, model="acme/m", max_cost=usd(most))
            await sample()
            assert result.receipt.cost_nanousd == most
            assert result.receipt.attempts > 5

    asyncio.run(main())
    assert max(samples) == samples[-1] == most


def test_a_failed_attempt_of_estimated_tokens_is_booked_with_all_that_it_may_cost():
    async def work(embedder, server):
        server.misdeeds = ["500"]
        plan = await embedder.plan(TEXTS, model="acme/m")
        with pytest.raises(BudgetExceededError):
            await embedder.embed(TEXTS, model="acme/m")
        (entry,) = await entries(embedder)
        assert (entry.spent, entry.unsure) == (plan.most_nanousd, plan.most_nanousd) == (10 * 2000, 10 * 2000)
        assert len(server.bodies) == 1

    async def main():
        server = OpenAIServer()
        async with server.running():
            overrides = ESTIMATED | {
                "routes.q": {
                    "model": "acme/m",
                    "provider": "openai",
                    "base_url": f"{server.url}/v1",
                    "api_key": KEY,
                },
                "upstream.first_wait_s": 0.001,
                "upstream.longest_wait_s": 0.002,
                "budgets.b": {"usd": usd(39_999)},
            }
            async with AsyncEmbedder(config=Config.load(environ={}, overrides=overrides)) as embedder:
                await work(embedder, server)

    asyncio.run(main())


def test_free_models_and_no_ledger_book_nothing(config):
    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            await embedder.embed(TEXTS, max_cost=0)
            assert await entries(embedder) == []

    asyncio.run(main())

    async def without(embedder, server):
        receipt = (await embed(embedder)).receipt
        assert (receipt.cost_nanousd, receipt.ledger_entries) == (120, ())
        with pytest.raises(BudgetExceededError):
            await embed(embedder, max_cost=usd(119))
        assert len(server.bodies) == 1

    run(without, **{"ledger.backend": "none"})


@pytest.mark.parametrize("damage", ["pages", "all"])
def test_without_its_ledger_nothing_is_sent(tmp_path, damage):
    path = tmp_path / "ledger.sqlite"

    async def make():
        ledger = SqliteLedger(path)
        await ledger.limits()
        await ledger.aclose()

    asyncio.run(make())
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = path.read_bytes()
    path.write_bytes(b"this is no database" * 100 if damage == "all" else whole[:100] + bytes(len(whole) - 100))
    error, match = ConfigError, r"ledger\.sqlite: ledger\.path: is not a file of embedway's ledger"
    if damage == "pages":
        error, match = LedgerError, r"ledger\.sqlite cannot be used: .*ledger\.backend = none"

    async def work(embedder, server):
        with pytest.raises(error, match=match):
            await embed(embedder)
        assert not server.bodies

    run(work, **{"ledger.path": str(path)})


def test_reranking_is_paid_by_the_search():
    async def main():
        server = CohereRerankServer()
        async with server.running():
            overrides = {
                "routes.r": {
                    "model": "rerank-v3.5",
                    "provider": "cohere",
                    "base_url": server.url,
                    "api_key": KEY,
                },
                "budgets.mine": {"usd": "0.003", "collection": "docs"},
            }
            async with AsyncEmbedder(config=Config.load(environ={}, overrides=overrides)) as embedder:
                options = {"model": "rerank-v3.5", "collection": "docs"}
                result = await embedder.rerank("a question", ["one", "two"], **options)
                assert (result.receipt.billed_searches, result.receipt.cost_nanousd) == (1, 2_000_000)
                (entry,) = await entries(embedder)
                assert (entry.spent, entry.id) == (2_000_000, *result.receipt.ledger_entries)
                with pytest.raises(BudgetExceededError, match="budget 'mine'"):
                    await embedder.rerank("a question", ["one"], **options)
                with pytest.raises(BudgetExceededError, match="max_cost"):
                    await embedder.rerank("a question", ["one"], model="rerank-v3.5", max_cost="0.001")
                assert len(server.bodies) == 1

    asyncio.run(main())


# -------------------------------------------------------------------- warnings


LEVELS = ("50", "80", "100")


def metric(name, **labels):
    return REGISTRY.get_sample_value(name, labels) or 0


def test_warnings_go_to_the_log_a_metric_and_the_webhook_once_each(caplog):
    caplog.set_level(logging.WARNING, "embedway.budget")

    async def main():
        told = []

        async def hook(request):
            told.append(await request.json())
            return web.Response()

        app = web.Application()
        app.router.add_post("/hook", hook)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        overrides = {
            "budgets.watched": {"usd": usd(240), "hard": False},
            "ledger.webhook": f"http://127.0.0.1:{runner.addresses[0][1]}/hook",
        }
        server = Service()
        async with server.running(), AsyncEmbedder(config=load(server, **overrides)) as embedder:
            before = {
                level: metric("embedway_budget_warnings_total", budget="watched", level=level) for level in LEVELS
            }
            for _ in range(4):
                await embed(embedder)  # 50, 100, 150 and 200 percent
            await budgets_of(embedder).settle()
        await runner.cleanup()
        return told, before

    told, before = asyncio.run(main())
    remedy = "Raise the limit with `embedway budget set`, or use a cheaper model."
    assert sorted(told, key=lambda one: one["level"]) == [
        {
            "budget": "watched",
            "level": level,
            "spent_usd": spent,
            "limit_usd": "0.00000024",
            "scope": "*",
            "period": "total",
            "hard": False,
            "remedy": remedy,
        }
        for level, spent in ((50, "0.00000012"), (100, "0.00000024"))
    ]
    lines = [record.getMessage() for record in caplog.records if record.name == "embedway.budget"]
    assert lines == [
        "budget watched: 50 % or more is spent, $0.00000012 of $0.00000024 (total). " + remedy,
        "budget watched: 100 % or more is spent, $0.00000024 of $0.00000024 (total). " + remedy,
    ]
    for level in LEVELS:
        after = metric("embedway_budget_warnings_total", budget="watched", level=level)
        assert after - before[level] == (level in {"50", "100"})
    assert metric("embedway_budget_spent_ratio", budget="watched") == 2.0


def test_a_webhook_that_is_down_fails_no_call(caplog):
    async def work(embedder, server):
        await embed(embedder)
        await budgets_of(embedder).settle()
        assert len(server.bodies) == 1

    run(work, **{"budgets.b": {"usd": usd(120)}, "ledger.webhook": "http://127.0.0.1:1/secret-token"})
    assert "ledger.webhook: it refuses the connection; a budget's warning could not be sent" in caplog.text
    assert "secret-token" not in caplog.text


def test_a_webhook_that_hangs_holds_nothing_up(monkeypatch, caplog):
    monkeypatch.setattr(webhook, "_FLUSH_S", 0.01)

    async def main():
        told, over = asyncio.Event(), asyncio.Event()

        async def hook(request):
            told.set()
            await over.wait()
            return web.Response()

        app = web.Application()
        app.router.add_post("/hook", hook)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        overrides = {
            "budgets.b": {"usd": usd(120)},
            "ledger.webhook": f"http://127.0.0.1:{runner.addresses[0][1]}/hook",
        }
        server = Service()
        async with server.running(), AsyncEmbedder(config=load(server, **overrides)) as embedder:
            await embed(embedder)
            await told.wait()
            await budgets_of(embedder).settle()  # while the webhook hangs
            assert not over.is_set()
        over.set()
        await runner.cleanup()

    asyncio.run(main())
    assert "ledger.webhook: it is too slow: a budget's warning was not sent before the end (1 times)" in caplog.text


# ------------------------------------------------------------------ properties

CALLS = st.lists(
    st.tuples(
        st.lists(st.sampled_from(["a", "b c", "d e f", "g h i j"]), min_size=1, max_size=3, unique=True),
        st.lists(st.sampled_from(["429", "500", "reset", "401", "half json"]), max_size=2),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example([(["a", "b c"], []), (["a", "b c"], ["500", "500"])], 200)
@given(CALLS, st.integers(0, 600))
def test_the_ledger_holds_what_receipts_and_failures_say_and_no_more_than_the_limit(tmp_path_factory, calls, limit):
    path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite"

    async def work(embedder, server):
        receipts = []
        for texts, misdeeds in calls:
            server.misdeeds = list(misdeeds)
            with contextlib.suppress(EmbedwayError):
                receipts.append((await embed(embedder, texts)).receipt)
        booked = await entries(embedder)
        assert all((entry.state, entry.reserved, entry.sent) == ("done", 0, 0) for entry in booked)
        spent = sum(entry.spent for entry in booked)
        assert spent <= limit
        with_receipt = {entry for receipt in receipts for entry in receipt.ledger_entries}
        assert sum(one.cost_nanousd for one in receipts) == sum(one.spent for one in booked if one.id in with_receipt)
        for entry in booked:
            # A call may fail after a part of its texts was answered, and paid.
            if entry.id not in with_receipt:
                assert (entry.spent > entry.unsure) == bool(entry.tokens)

    run(work, **{"ledger.path": str(path), "budgets.b": {"usd": usd(limit)}})
