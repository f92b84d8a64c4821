"""Routes of one model are compared with one another before their answers are used, and the probes are paid for."""

import asyncio
import base64
import contextlib
import json
import sqlite3
import zlib

import numpy as np
import pytest

from api_servers import KEY, CompatibleRerankServer, CompatibleServer, score_of
from embedway import AsyncEmbedder, Config
from embedway.catalog.services import default_services
from embedway.errors import ConfigError, EmbedwayError, NoRouteError
from embedway.ledger.sqlite import SqliteLedger
from embedway.models import opening
from embedway.models.route_proofs import KnownRoutes, SharedReference, is_listed
from embedway.providers.base import Endpoint
from embedway.providers.fake import vector_of
from embedway.quality.space_proofs import Reference, SpaceProofs
from failing_services import Time
from inside import difference_from_reference, routes_of, set_time

MODEL = "acme/m"
TEXTS = ["one text", "another text", "a third"]


class Own(CompatibleServer):
    """A server of the model; with another `seed`, it runs another model."""

    models = frozenset({MODEL})
    width = 16

    def __init__(self, seed="", *, prompts=("", "")):
        super().__init__()
        self.seed = seed
        self.prompts = prompts

    def read_texts(self, body):
        return [self.seed + text for text in body["input"]]

    def billed_tokens(self):
        return sum(
            self.tokens(body) for body, served in zip(self.bodies, self.log, strict=True) if served.fate == "answered"
        )

    @property
    def own(self):
        """The requests that contain texts of the user."""
        return [body["input"] for body in self.bodies if set(body["input"]) & set(TEXTS)]

    @property
    def probes(self):
        return len(self.bodies) - len(self.own)


def route(server, **more):
    return {"model": MODEL, "provider": "openai-compatible", "base_url": f"{server.url}/v1", "api_key": KEY, **more}


@contextlib.asynccontextmanager
async def embedder_for(*servers, routes=None, model=None, tmp_path=None, **more):
    async with contextlib.AsyncExitStack() as stack:
        for server in servers:
            await stack.enter_async_context(server.running())
        tokens = {"max_tokens": 500, "tokenizer": "estimate", "price_usd_per_million_tokens": "1000"}
        overrides = {
            "models.m": {"name": MODEL, "dimensions": 16, **tokens, **(model or {})},
            **{f"routes.r{n}": route(server, **(routes or {})) for n, server in enumerate(servers)},
            "upstream.first_wait_s": 0.001,
            "upstream.longest_wait_s": 0.001,
            "cache.backend": "none",
            "ledger.backend": "none" if tmp_path is None else "sqlite",
            **({} if tmp_path is None else {"ledger.path": str(tmp_path / "ledger.sqlite")}),
            **more,
        }
        yield await stack.enter_async_context(AsyncEmbedder(config=Config.load(environ={}, overrides=overrides)))


@contextlib.asynccontextmanager
async def later_embedder_for(*servers, tmp_path):
    """Return an embedder that finds the vectors which another one stored, and forget the other's requests."""
    async with embedder_for(*servers, tmp_path=tmp_path) as embedder:
        await embedder.embed(["another"], model=MODEL)
        async with AsyncEmbedder(config=embedder.config) as later:
            for server in servers:
                server.bodies, server.log = [], []
            yield later


async def open_with_time(embedder):
    """Open the model, and return its routes and the time of their proofs."""
    await embedder.models.describe(MODEL)
    now, routes = Time(), routes_of(embedder, MODEL)
    for one in routes:
        set_time(one.proof, now)
    return routes, now


def assert_right(result, seed=""):
    np.testing.assert_allclose(result.vectors, [vector_of(seed + text, 16) for text in TEXTS], atol=1e-6)


def test_routes_of_one_space_are_used_and_the_probes_are_on_the_receipt():
    async def main():
        first, second = Own(), Own()
        async with embedder_for(first, second) as embedder:
            one = await embedder.embed(TEXTS, model=MODEL)
            again = await embedder.embed(TEXTS, model=MODEL)
            first.misdeeds = ["503"] * 2
            other = await embedder.embed(TEXTS, model=MODEL)
        return first, second, one, again, other

    first, second, one, again, other = asyncio.run(main())
    for result in (one, again, other):
        assert_right(result)
    assert (one.receipt.attempts, again.receipt.attempts) == (2, 1)
    assert other.receipt.routes == ("routes.r1",)
    assert second.probes == 1
    assert second.bodies[0]["input"][0] not in TEXTS  # before the first text
    billed = first.billed_tokens() + second.billed_tokens()
    assert one.receipt.billed_tokens + again.receipt.billed_tokens + other.receipt.billed_tokens == billed


def test_a_single_route_is_sent_no_probe():
    async def main():
        server = Own()
        async with embedder_for(server) as embedder:
            await embedder.embed(TEXTS, model=MODEL)
        return server

    assert asyncio.run(main()).probes == 0


def test_a_route_of_another_space_is_never_used_and_sent_no_text(caplog):
    async def main():
        first, second = Own(), Own("another model: ")
        async with embedder_for(first, second) as embedder:
            await embedder.embed(TEXTS, model=MODEL)
            first.misdeeds = ["503"] * 20
            with pytest.raises(NoRouteError, match=r"(?s)routes\.r1: returns vectors of another space than acme/m.*r0"):
                await embedder.embed(TEXTS, model=MODEL)
            with pytest.raises(NoRouteError):
                await embedder.embed(TEXTS, model=MODEL)
        return second

    second = asyncio.run(main())
    assert (second.probes, second.own) == (1, [])
    assert sum("routes.r1 is not used" in record.message for record in caplog.records) == 1


def test_a_server_that_is_redeployed_is_found_by_the_next_probe_and_comes_back_when_repaired(caplog):
    async def main():
        first, second = Own(), Own()
        async with embedder_for(first, second) as embedder:
            _, now = await open_with_time(embedder)
            routes = []
            for now.now, seed in ((0, ""), (299, ""), (301, "another model: "), (400, ""), (602, "")):
                first.seed = seed
                result = await embedder.embed(TEXTS, model=MODEL)
                assert_right(result)
                routes += result.receipt.routes
        return routes, first

    routes, first = asyncio.run(main())
    assert routes == ["routes.r0", "routes.r0", "routes.r1", "routes.r1", "routes.r0"]
    assert first.probes == 3
    assert [record.message.split(":")[0] for record in caplog.records if "routes.r0 is" in record.message] == [
        "routes.r0 is not used",
        "routes.r0 is used again",
    ]


def test_the_time_is_a_setting():
    async def main():
        first, second = Own(), Own()
        async with embedder_for(first, second, **{"upstream.verify_every_s": 60}) as embedder:
            _, now = await open_with_time(embedder)
            for now.now in (0, 59, 60, 119, 121):
                await embedder.embed(TEXTS, model=MODEL)
        return first

    assert asyncio.run(main()).probes == 3


def one_less(answer):
    return {**answer, "data": answer["data"][:-1]}


@pytest.mark.parametrize("misdeed", ["503", "reset", "html", "404", one_less])
def test_after_an_error_a_server_with_another_model_is_found(misdeed):
    async def main():
        first, second = Own(), Own()
        async with embedder_for(first, second) as embedder:
            assert_right(await embedder.embed(TEXTS, model=MODEL))
            first.misdeeds, first.seed = [misdeed], "another model: "
            result = await embedder.embed(TEXTS, model=MODEL)
            return result, await embedder.embed(TEXTS, model=MODEL)

    for result in asyncio.run(main()):
        assert_right(result)
        assert result.receipt.routes == ("routes.r1",)


def test_a_refused_text_and_a_rate_limit_need_no_new_probe():
    async def main():
        first, second = Own(), Own()
        async with embedder_for(first, second) as embedder:
            await embedder.embed(TEXTS, model=MODEL)
            first.misdeeds = ["400", "429 at once"]
            result = await embedder.embed(TEXTS, model=MODEL)
        return first, result

    first, result = asyncio.run(main())
    assert_right(result)
    assert first.probes == 1


def test_a_refused_probe_refuses_no_text_of_the_caller():
    async def main():
        first, second = Own(), Own()
        first.misdeeds = ["400"] * 9
        async with embedder_for(first, second) as embedder:
            return await embedder.embed(TEXTS, model=MODEL, partial=True), first

    result, first = asyncio.run(main())
    assert {type(error) for error in result.errors.values()} == {NoRouteError}
    assert first.own == []


def test_after_its_circuit_opened_a_route_is_verified_again():
    async def main():
        first, second = Own(), Own()
        async with embedder_for(first, second) as embedder:
            routes, _ = await open_with_time(embedder)
            now = Time()
            set_time(routes[0].circuit, now)
            await embedder.embed(TEXTS, model=MODEL)
            first.misdeeds = ["503"] * 20
            while routes[0].circuit.state == "closed":
                await embedder.embed(TEXTS, model=MODEL)
            first.misdeeds, first.seed, now.now = [], "another model: ", 31.0
            return await embedder.embed(TEXTS, model=MODEL), first

    result, first = asyncio.run(main())
    assert_right(result)
    assert result.receipt.routes == ("routes.r1",)
    assert len(first.bodies[-1]["input"]) == 1


def test_the_check_can_be_left_out():
    async def main():
        first, second = Own(), Own("another model: ")
        first.misdeeds = ["503"] * 9
        async with embedder_for(first, second, routes={"options": {"verify": "false"}}) as embedder:
            return await embedder.embed(TEXTS, model=MODEL), second

    result, second = asyncio.run(main())
    assert_right(result, "another model: ")
    assert second.probes == 0


def test_another_value_of_the_option_is_an_error():
    async def main():
        async with embedder_for(Own(), Own(), routes={"options": {"verify": "maybe"}}) as embedder:
            await embedder.embed(TEXTS, model=MODEL)

    with pytest.raises(ConfigError, match=r"options\.verify"):
        asyncio.run(main())


def test_query_and_document_prompts_are_compared_each():
    prompts = {"query_prompt": "query: ", "document_prompt": ""}

    class Prompted(Own):
        def read_texts(self, body):
            return ["wrong " + text if self.seed and text.startswith("query: ") else text for text in body["input"]]

    async def main():
        first, second = Prompted(), Prompted("q")
        async with embedder_for(first, second, model=prompts) as embedder:
            await embedder.embed(TEXTS, model=MODEL)
            first.misdeeds = ["503"] * 9
            with pytest.raises(NoRouteError, match=r"25 of 25 probes \(query\)"):
                await embedder.embed(TEXTS, model=MODEL)
        return first

    assert asyncio.run(main()).probes == 2


def test_a_route_of_another_width_is_named():
    class Wide(Own):
        width = 32

    async def main():
        first, second = Own(), Wide()
        async with embedder_for(first, second) as embedder:
            await embedder.embed(TEXTS, model=MODEL)
            first.misdeeds = ["503"] * 9
            with pytest.raises(NoRouteError, match="returns 32 dimensions, but acme/m has 16"):
                await embedder.embed(TEXTS, model=MODEL)

    asyncio.run(main())


def test_many_callers_share_one_probe():
    async def main():
        first, second = Own(), Own()
        async with embedder_for(first, second) as embedder:
            results = await asyncio.gather(*(embedder.embed(TEXTS, model=MODEL) for _ in range(20)))
        return first, results

    first, results = asyncio.run(main())
    assert first.probes == 1
    for result in results:
        assert_right(result)


# ------------------------------------------------------------ money


def test_probes_are_in_the_ledger_to_the_last_token(tmp_path):
    async def main():
        first, second = Own(), Own()
        budget = {"usd": "9", "hard": True}
        async with embedder_for(first, second, tmp_path=tmp_path, **{"budgets.b": budget}) as embedder:
            results = await asyncio.gather(*(embedder.embed(TEXTS, model=MODEL) for _ in range(5)))
            first.misdeeds = ["503"] * 2
            results.append(await embedder.embed(TEXTS, model=MODEL))
        ledger = SqliteLedger(tmp_path / "ledger.sqlite")
        try:
            return first, second, results, await ledger.entries()
        finally:
            await ledger.aclose()

    first, second, results, entries = asyncio.run(main())
    billed = first.billed_tokens() + second.billed_tokens()
    assert sum(result.receipt.billed_tokens for result in results) == billed
    unsure = sum(result.receipt.unsure_nanousd for result in results)
    assert unsure > 0  # the 503s
    assert sum(result.receipt.cost_nanousd for result in results) == billed * 1_000_000 + unsure
    assert sum(entry.spent for entry in entries) == billed * 1_000_000 + unsure
    assert sum(entry.reserved + entry.sent for entry in entries) == 0


def test_a_budget_that_allows_the_texts_but_not_the_probes_uses_the_first_route_alone(tmp_path):
    async def main():
        first, second = Own(), Own()
        budget = {"usd": "0.2", "hard": True}
        async with embedder_for(first, second, tmp_path=tmp_path, **{"budgets.b": budget}) as embedder:
            result = await embedder.embed(TEXTS, model=MODEL)
            first.misdeeds = ["503"] * 9
            with pytest.raises(NoRouteError, match="no budget was left for a comparison"):
                await embedder.embed(["one"], model=MODEL)
        return result, first, second

    result, first, second = asyncio.run(main())
    assert_right(result)
    assert (first.bodies[0]["input"], second.bodies) == (TEXTS, [])


def test_a_probe_that_may_be_billed_is_booked_as_unsure_and_the_texts_are_not(tmp_path):
    async def main():
        first, second = Own(), Own()
        async with later_embedder_for(first, second, tmp_path=tmp_path) as embedder:
            first.misdeeds = ["500"] * 2
            return await embedder.embed(TEXTS, model=MODEL), first, second

    result, first, second = asyncio.run(main())
    assert_right(result)
    assert first.own == []
    receipt = result.receipt
    assert receipt.attempts == len(first.bodies) + len(second.bodies)
    assert receipt.unsure_nanousd > 0
    assert receipt.cost_nanousd == second.billed_tokens() * 1_000_000 + receipt.unsure_nanousd


def test_a_caller_that_is_cancelled_during_a_probe_pays_for_it_and_the_next_is_served(tmp_path):
    async def main():
        go = asyncio.Event()

        class Held(Own):
            async def handle(self, request):
                answer = await super().handle(request)
                await go.wait()
                return answer

        first, second = Held(), Own()
        async with embedder_for(first, second, tmp_path=tmp_path) as embedder:
            task = asyncio.create_task(embedder.embed(TEXTS, model=MODEL))
            await first.arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            go.set()
            result = await embedder.embed(TEXTS, model=MODEL)
        ledger = SqliteLedger(tmp_path / "ledger.sqlite")
        try:
            return result, await ledger.entries(), first
        finally:
            await ledger.aclose()

    result, entries, first = asyncio.run(main())
    assert_right(result)
    assert result.receipt.attempts == first.probes == 1
    assert result.receipt.unsure_nanousd == 0
    assert sum(entry.spent for entry in entries) == first.billed_tokens() * 1_000_000
    assert sum(entry.reserved + entry.sent + entry.unsure for entry in entries) == 0


def test_a_refused_probe_costs_nothing(tmp_path):
    async def main():
        first, second = Own(), Own()
        async with later_embedder_for(first, second, tmp_path=tmp_path) as embedder:
            first.misdeeds = ["401"]
            return await embedder.embed(TEXTS, model=MODEL), second

    result, second = asyncio.run(main())
    assert result.receipt.unsure_nanousd == 0
    assert result.receipt.cost_nanousd == second.billed_tokens() * 1_000_000


def test_probes_of_the_order_are_booked_too(tmp_path):
    async def main():
        server = Own()

        def without_index(answer):
            return {**answer, "data": [{"embedding": row["embedding"]} for row in answer["data"]]}

        server.misdeeds = [without_index] * 20
        async with embedder_for(server, tmp_path=tmp_path) as embedder:
            result = await embedder.embed(TEXTS, model=MODEL)
        return result, server

    result, server = asyncio.run(main())
    assert_right(result)
    assert result.receipt.attempts == len(server.bodies) == 4
    assert result.receipt.billed_tokens == sum(server.tokens(body) for body in server.bodies)
    assert result.receipt.cost_nanousd == result.receipt.billed_tokens * 1_000_000


# ------------------------------------------------------------ listed routes


def test_a_route_is_listed_at_the_services_own_address_only():
    facts = default_services()["text-embedding-3-small"]
    small = facts.routes[0].model
    assert is_listed("openai", Endpoint("openai:x", small), facts)
    assert is_listed("openai", Endpoint("routes.x", small, "https://eu.api.openai.com/v1"), facts)
    assert not is_listed("openai", Endpoint("routes.x", "text-embedding-ada-002"), facts)
    assert not is_listed("openai", Endpoint("routes.x", small, "https://gateway.example.com/v1"), facts)
    assert not is_listed("openai-compatible", Endpoint("routes.x", small), facts)
    assert not is_listed("azure-openai", Endpoint("routes.x", small, "https://a.openai.azure.com"), facts)


def listed_first(monkeypatch, name="routes.r1"):
    """Let a route count as listed."""
    monkeypatch.setattr(opening, "is_listed", lambda provider, endpoint, facts: endpoint.route == name)


def test_listed_routes_alone_are_sent_no_probes(monkeypatch):
    monkeypatch.setattr(opening, "is_listed", lambda *_: True)

    async def main():
        first, second = Own(), Own()
        first.misdeeds = ["503"] * 2
        async with embedder_for(first, second) as embedder:
            await embedder.embed(TEXTS, model=MODEL)
        return first, second

    first, second = asyncio.run(main())
    assert first.probes == second.probes == 0


# ------------------------------------------------------------ rerankers


class Scorer(CompatibleRerankServer):
    """A reranker; with `turned`, its scores are of another model."""

    model = MODEL
    turned = False

    def answer(self, body):
        answer = super().answer(body)
        for result in answer["results"]:
            if self.turned:
                result["relevance_score"] = 1 - result["relevance_score"]
        return answer


def test_rerankers_are_compared_by_their_scores():
    async def main():
        first, second = Scorer(), Scorer()
        model = {"task": "rerank", "dimensions": None}
        async with embedder_for(first, second, model=model) as embedder:
            before = await embedder.rerank("q", TEXTS, model=MODEL)
            second.turned = True
            first.misdeeds = ["503"] * 20
            with pytest.raises(NoRouteError, match=r"routes\.r1: returns other scores than routes\.r0"):
                await embedder.rerank("q", TEXTS, model=MODEL)
        return before, second

    before, second = asyncio.run(main())
    np.testing.assert_allclose(before.scores, [score_of("q", text) for text in TEXTS], atol=1e-6)
    assert before.receipt.attempts == 2
    assert len(second.bodies) == 1


def edit_references(path, change):
    """Change the stored vectors of all routes."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for name, packed in connection.execute("SELECT name, document FROM records WHERE name LIKE 'reference-%'"):
            document = json.loads(zlib.decompress(packed))
            document["results"] = change(document["results"])
            changed = zlib.compress(json.dumps(document).encode())
            connection.execute("UPDATE records SET document = ? WHERE name = ?", (changed, name))


def rows_of(width):
    return lambda one: {
        "shape": [one["shape"][0], width],
        "float32": base64.b64encode(ones(one["shape"][0], width)).decode(),
    }


def ones(rows, width):
    return np.ones((rows, width), "<f4").tobytes()


def numbers_of(number):
    def change(one):
        return {**one, "float32": base64.b64encode(np.full(one["shape"], number, "<f4").tobytes()).decode()}

    return change


ONE_ROW = {"shape": [1, 16], "float32": base64.b64encode(ones(1, 16)).decode()}


@pytest.mark.parametrize(
    "change",
    [
        lambda results: {"zzz": {"shape": [1, 1], "float32": "AACAPw=="}},
        lambda results: {},
        lambda results: {"query": results["query"]},
        lambda results: dict.fromkeys(results, ONE_ROW),
        lambda results: {kind: rows_of(1)(one) for kind, one in results.items()},
        lambda results: {kind: numbers_of(np.nan)(one) for kind, one in results.items()},
        lambda results: {kind: numbers_of(np.inf)(one) for kind, one in results.items()},
        lambda results: {kind: numbers_of(0)(one) for kind, one in results.items()},
    ],
    ids=["other kind", "no kind", "one kind", "one row", "one number", "nan", "infinite", "zero"],
)
def test_a_damaged_reference_proves_no_route(tmp_path, change, caplog):
    async def main():
        first, other = Own(), Own("other model ")
        async with embedder_for(first, other, tmp_path=tmp_path) as embedder:
            await embedder.embed(["another"], model=MODEL)
            edit_references(tmp_path / "ledger.sqlite", change)
            async with AsyncEmbedder(config=embedder.config) as later:
                first.misdeeds = ["503"] * 30
                with pytest.raises(EmbedwayError):
                    await later.embed(TEXTS, model=MODEL)
        return other

    assert asyncio.run(main()).own == []
    assert "is damaged or of another version" in caplog.text


def test_vectors_without_common_kinds_are_a_difference():
    rows = np.ones((2, 4), np.float32)
    shared = SharedReference(Agrees(), KnownRoutes({}), SpaceProofs(None), ("a",), shown_source="routes.a")
    shared.reference = Reference({"query": rows, "document": rows})
    assert difference_from_reference(shared, Reference({"query": rows[:1], "document": rows[:1]})) == ""
    for other in ({}, {"query": rows}, {"zzz": rows}, {"query": rows, "document": np.ones((3, 4), np.float32)}):
        assert "cannot be compared with routes.a" in difference_from_reference(shared, Reference(other))


class Agrees:
    """A canary that finds no difference."""

    def difference(self, *_):
        return ""
