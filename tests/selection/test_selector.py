"""The engine selects models, keeps collections in their space, and stays below `max_cost`."""

import asyncio
import contextlib
import decimal
import itertools
import json

import numpy as np
import pytest

from api_servers import KEY, OpenAIServer
from embedway import AsyncEmbedder, Config, Embedder, ModelSelectionCriteria
from embedway.errors import (
    AuthenticationError,
    BudgetExceededError,
    ConfigError,
    InputError,
    NoModelError,
    SpaceMismatchError,
    UsageError,
)
from embedway.money import usd
from embedway.providers.counting import TiktokenCounter
from embedway.providers.fake import vector_of
from embedway.selection.criteria import PRESETS
from spaces import recorded
from tiny_models import tiny_encoder

TEXTS = ["one text", "and another text"]
COUNTER = TiktokenCounter("cl100k_base", max_tokens=8191)


class Small(OpenAIServer):
    width = 1536


class Large(OpenAIServer):
    width = 3072


def load(config, small=None, large=None, **overrides):
    """Return settings with the default model, and with OpenAI's two if their servers are given."""
    routes = {
        f"routes.{name}": {
            "model": f"text-embedding-3-{name}",
            "provider": "openai",
            "base_url": f"{server.url}/v1",
            "api_key": KEY,
        }
        for name, server in (("small", small), ("large", large))
        if server
    }
    waits = {"upstream.first_wait_s": 0.001, "upstream.longest_wait_s": 0.002, "cache.backend": "none"}
    places = {"weights.directory": str(config.weights.directory), "weights.offline": True}
    return Config.load(environ={}, overrides={**places, **waits, **routes, **overrides})


@contextlib.asynccontextmanager
async def services(config, **overrides):
    small, large = Small(), Large()
    async with (
        small.running(),
        large.running(),
        AsyncEmbedder(config=load(config, small, large, **overrides)) as embedder,
    ):
        yield embedder, small, large


def run(config, work, **overrides):
    async def main():
        async with services(config, **overrides) as (embedder, small, large):
            return await work(embedder, small, large)

    return asyncio.run(main())


# ------------------------------------------------------------- selection


def test_auto_alone_is_the_default_model(config):
    async def work(embedder, small, large):
        result = await embedder.embed(TEXTS)
        assert result.receipt.model == "sentence-transformers/all-MiniLM-L6-v2"
        assert result.receipt.selected is None
        assert not small.bodies
        assert not large.bodies

    run(config, work)


def test_the_model_selected_is_the_model_used_and_the_receipt_says_so(config):
    async def work(embedder, small, large):
        best = await embedder.embed(TEXTS, criteria="best")
        assert best.receipt.model == best.receipt.selected.model == "text-embedding-3-large"
        np.testing.assert_allclose(
            best.vectors[0], vector_of(TEXTS[0], 3072) / np.linalg.norm(vector_of(TEXTS[0], 3072)), atol=1e-6
        )
        assert [body["model"] for body in large.bodies] == ["text-embedding-3-large"]
        private = await embedder.embed(TEXTS, criteria="private")
        assert private.receipt.model == private.receipt.selected.model == "sentence-transformers/all-MiniLM-L6-v2"
        assert private.receipt.routes == ("local:all-MiniLM-L6-v2",)
        assert not small.bodies
        told = best.receipt.selected
        assert told.ranked[0] == ("text-embedding-3-large", told.score)
        assert [score for _, score in told.ranked] == sorted((score for _, score in told.ranked), reverse=True)
        assert told.criteria["accuracy_weight"] == 1.0
        selection = await embedder.select(TEXTS, "best")
        assert selection.model == told.model
        assert [(row.model, row.score) for row in selection.ranked] == list(told.ranked)

    run(config, work)


def test_the_settings_say_what_is_selected_by(config):
    async def work(embedder, small, large):
        del small, large
        selection = await embedder.select(TEXTS)
        assert selection.criteria == ModelSelectionCriteria.preset("best", require_local=True)
        assert selection.model == "sentence-transformers/all-MiniLM-L6-v2"

    run(config, work, **{"selection.preset": "best", "selection.require_local": True})


def test_a_size_is_a_requirement(config):
    async def work(embedder, small, large):
        result = await embedder.embed(TEXTS, criteria="cheap", dimensions=2000)
        assert result.receipt.model == "text-embedding-3-large"  # only this one of the three has that size
        assert result.vectors.shape == (2, 2000)
        by_criteria = await embedder.embed(TEXTS, criteria=ModelSelectionCriteria(dimensions=2000, min_accuracy=0.5))
        assert by_criteria.space == result.space
        assert not small.bodies
        assert len(large.bodies) == 2

    run(config, work)


def test_nothing_is_sent_where_no_model_will_do(config):
    async def work(embedder, small, large):
        with pytest.raises(NoModelError) as caught:
            await embedder.embed(TEXTS, criteria=ModelSelectionCriteria(min_accuracy=0.9))
        assert "min_accuracy" in str(caught.value)
        with pytest.raises(UsageError, match="'none', which is not a preset"):
            await embedder.embed(TEXTS, criteria="none")
        with pytest.raises(UsageError, match="criteria are set; leave one of them out"):
            await embedder.embed(TEXTS, model="text-embedding-3-small", criteria="best")
        with pytest.raises(UsageError, match="criteria is 5"):
            await embedder.embed(TEXTS, criteria=5)
        with pytest.raises(UsageError, match="token ids belong to one model"):
            await embedder.embed([[1, 2]], criteria="best")
        with pytest.raises(InputError, match="text 1"):
            await embedder.embed(["a", ""], criteria="best")
        assert not small.bodies
        assert not large.bodies

    run(config, work)


def test_a_default_model_that_is_named_is_kept_by_calls_that_ask_for_no_other(config):
    async def work(embedder, small, large):
        for terms in ({}, {"max_cost": 1}, {"collection": "docs"}, {"max_cost": 1, "collection": "more"}):
            result = await embedder.embed(TEXTS, **terms)
            assert (result.receipt.model, result.receipt.selected) == ("text-embedding-3-small", None)
            assert (await embedder.plan(TEXTS, **terms)).model == "text-embedding-3-small"
        with pytest.raises(BudgetExceededError, match="text-embedding-3-small"):
            await embedder.embed(TEXTS, max_cost=0)
        assert (await embedder.embed(TEXTS, criteria="best")).receipt.model == "text-embedding-3-large"
        assert len(small.bodies) == 4
        assert len(large.bodies) == 1

    run(config, work, **{"embedding.default_model": "text-embedding-3-small"})


def test_what_all_texts_cost_is_counted_to_the_last(config):
    async def work(embedder, small, large):
        del small, large
        read = []

        async def rest():
            for start in range(0, 300, 100):
                read.append(start)
                yield [f"passage number {n}" for n in range(start, start + 100)]

        texts = [f"passage number {n}" for n in range(50)]
        whole = await embedder.plan([f"passage number {n}" for n in range(300)], model="text-embedding-3-large")
        for most, model in ((whole.cost_nanousd, "large"), (whole.cost_nanousd - 1, "small")):
            read.clear()
            wanted = ModelSelectionCriteria.preset("best", max_total_cost=usd(most))
            selection = await embedder.select(texts, wanted, rest=rest())
            assert selection.model == f"text-embedding-3-{model}"
            assert read == [0, 100, 200]
        tokens = {row.model: row.candidate.tokens for row in selection.table}["text-embedding-3-large"]
        assert (tokens.total, tokens.sampled) == (whole.tokens, False)
        read.clear()
        assert (await embedder.select(texts, "best", rest=rest())).model == "text-embedding-3-large"
        assert not read

    run(config, work)


# --------------------------------------------------------------- privacy

MINI = "sentence-transformers/all-MiniLM-L6-v2"


def server_of(model, provider, server, name="mine"):
    return {f"routes.{name}": {"model": model, "provider": provider, "base_url": f"{server.url}/v1", "api_key": KEY}}


class Mini(OpenAIServer):
    width = 384


@pytest.mark.parametrize("spelling", [MINI, "all-minilm-l6-v2"])
def test_texts_that_are_to_stay_here_are_sent_to_no_server_of_a_model_of_this_machine(config, spelling):
    async def main():
        server = Mini()
        async with server.running():
            settings = load(config, **server_of(spelling, "openai-compatible", server))
            async with AsyncEmbedder(config=settings) as embedder:
                for criteria in (
                    ModelSelectionCriteria.preset("private", min_accuracy=0.5),
                    ModelSelectionCriteria(require_local=True, min_accuracy=0),
                ):
                    with pytest.raises(NoModelError) as caught:
                        await embedder.embed(TEXTS, criteria=criteria)
                    (row,) = [row for row in caught.value.table if row.model == MINI]
                    assert [reason.message for reason in row.reasons] == ["routes.mine is a route to a server"]
                # The price of its server is unknown.
                selection = await embedder.select(TEXTS)
                assert selection.model == MINI
                assert selection.ranked[0].candidate.cost_nanousd is None
                assert (await embedder.plan(TEXTS, model=MINI)).cost_nanousd is None
                with pytest.raises(BudgetExceededError, match=f"no price is known for {MINI}"):
                    await embedder.embed(TEXTS, max_cost=0)
            assert not server.bodies
            price = {"embedding.model_benchmarks": {MINI: {"cost_per_million_tokens": "0.01"}}}
            settings = load(config, **server_of(spelling, "openai-compatible", server), **price)
            async with AsyncEmbedder(config=settings) as embedder:
                row = (await embedder.select(TEXTS)).ranked[0]
                plan = await embedder.plan(TEXTS, model=MINI)
                assert row.candidate.benchmark.cost_per_million_tokens == decimal.Decimal("0.01")
                assert plan.cost_nanousd == 10 * plan.billed_tokens > 0

    asyncio.run(main())


OWN = {"name": "acme/m", "dimensions": 16, "max_tokens": 50}
NUMBERS = {
    "provider": "fastembed",
    "avg_latency_ms": 50,
    "quality_score": 99,
    "tokens_per_second": 1000,
    "cost_per_million_tokens": "0.05",
    "max_context_length": 50,
    "embedding_dimensions": 16,
}


@pytest.mark.parametrize(
    ("label", "provider", "kept"),
    [("fastembed", "openai-compatible", False), ("custom", "fastembed", True), ("local", "fake", False)],
)
def test_routes_say_where_texts_go_and_not_what_a_benchmark_calls_its_provider(config, label, provider, kept):
    benchmark = {**NUMBERS, "provider": label, "model_name": "acme/m"}
    route = {"model": "acme/m", "provider": provider, "base_url": "http://127.0.0.1:9/v1", "api_key": KEY}
    settings = load(config, **{"models.m": OWN, "routes.q": route, "embedding.model_benchmarks": {"acme/m": benchmark}})

    async def main():
        async with AsyncEmbedder(config=settings) as embedder:
            selection = await embedder.select(TEXTS, "private", anywhere=True)
            (row,) = [row for row in selection.table if row.model == "acme/m"]
            assert [one.message for one in row.reasons] == ([] if kept else ["routes.q is a route to a server"])
            assert (await embedder.select(TEXTS, "best", anywhere=True)).model == "acme/m"

    asyncio.run(main())


def test_a_collection_of_a_servers_model_takes_no_text_that_is_to_stay_here(config):
    async def work(embedder, small, large):
        del large
        await embedder.embed(TEXTS, collection="docs", model="text-embedding-3-small")
        for input_type in ("document", "query"):
            with pytest.raises(
                UsageError, match=r"collection 'docs' .*routes\.small is a route to a server; require_local"
            ):
                await embedder.embed(TEXTS, collection="docs", criteria="private", input_type=input_type)
        assert len(small.bodies) == 1
        # Of two concurrent first writes, one is later.
        calls = [embedder.embed(TEXTS, collection="new", criteria="best")]
        calls += [embedder.embed(TEXTS, collection="new", criteria="private")]
        first, second = await asyncio.gather(*calls, return_exceptions=True)
        if isinstance(second, Exception):
            assert isinstance(second, UsageError)
        else:
            assert second.receipt.routes == ("local:all-MiniLM-L6-v2",)
            assert first.space == second.space

    run(config, work)


# -------------------------------------------------------------- max_cost


def test_the_best_model_whose_cost_fits_is_taken(config):
    # Six words are about ten tokens: 3-large costs 130 nano-dollars per token, 3-small 20.
    async def work(embedder, small, large):
        plans = {plan.model: plan.cost_nanousd for plan in await embedder.plans(TEXTS)}
        dear, cheap = plans["text-embedding-3-large"], plans["text-embedding-3-small"]
        assert dear > cheap > 0
        for most, model in ((dear, "large"), (dear - 1, "small"), (cheap, "small")):
            result = await embedder.embed(TEXTS, criteria="best", max_cost=usd(most))
            assert result.receipt.model == f"text-embedding-3-{model}"
            assert result.receipt.cost_nanousd <= most
        passed_over = result.receipt.selected.too_expensive
        assert passed_over == (("text-embedding-3-large", dear),)
        free = await embedder.embed(TEXTS, criteria="best", max_cost=usd(cheap - 1))
        assert free.receipt.cost_nanousd == 0
        assert free.receipt.model == "sentence-transformers/all-MiniLM-L6-v2"
        assert len(large.bodies) == 1
        assert len(small.bodies) == 2
        # The default model is below the default minimum, which the dearer models reach.
        assert [note for note in free.receipt.notes if "min_accuracy of 0.6" in note]
        criteria = ModelSelectionCriteria(min_accuracy=0.61)
        with pytest.raises(BudgetExceededError, match="the cheapest suitable model is text-embedding-3-small") as no:
            await embedder.embed(TEXTS, criteria=criteria, max_cost=usd(cheap - 1))
        assert (no.value.needed, no.value.left, no.value.budget) == (cheap, cheap - 1, "max_cost")
        assert len(small.bodies) == 2

    run(config, work)


def test_max_cost_of_a_named_model_refuses_before_anything_is_sent(config):
    async def work(embedder, small, large):
        del large
        with pytest.raises(BudgetExceededError, match=r"may cost \$0\.\d+ with text-embedding-3-small; max_cost"):
            await embedder.embed(TEXTS, model="text-embedding-3-small", max_cost="0.00000001")
        assert not small.bodies
        with pytest.raises(UsageError, match="max_cost is -1"):
            await embedder.embed(TEXTS, max_cost=-1)

    run(config, work)


def test_hits_cost_nothing_so_that_a_more_expensive_model_fits(config):
    async def work(embedder, small, large):
        del small
        first = await embedder.embed(TEXTS, criteria="best")
        again = await embedder.embed(TEXTS, criteria="best", max_cost=0)
        assert first.receipt.model == again.receipt.model == "text-embedding-3-large"
        assert (again.receipt.cache_hits, again.receipt.cost_nanousd) == (2, 0)
        assert again.receipt.saved_nanousd > 0
        assert len(large.bodies) == 1

    run(config, work, **{"cache.backend": "memory"})


class Dear(Small):
    max_inputs = 2048

    def answer(self, body):
        tokens = int(COUNTER.count(body["input"]).lengths.sum())
        return {**super().answer(body), "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


def test_a_plan_rounds_as_the_bill_does_so_that_its_price_suffices(config):
    async def main():
        server = Dear()
        async with server.running():
            price = {"text-embedding-3-small": {"cost_per_million_tokens": "0.0123"}}
            more = {"embedding.model_benchmarks": price, "batching.max_batch_size": 2048}
            async with AsyncEmbedder(config=load(config, server, **more)) as embedder:
                texts = [f"text {n}" for n in range(4500)]
                plan = await embedder.plan(texts, model="text-embedding-3-small")
                assert plan.requests == 3
                result = await embedder.embed(texts, model="text-embedding-3-small", max_cost=usd(plan.cost_nanousd))
                assert result.receipt.cost_nanousd == plan.cost_nanousd
                assert plan.cost_nanousd > -(-plan.billed_tokens * 123 // 10)  # rounded once

    asyncio.run(main())


def test_where_no_text_may_be_cut_a_model_is_taken_that_reads_the_longest(config):
    long, low = "word " * 2000, ModelSelectionCriteria(min_accuracy=0.5)

    async def work(embedder, small, large):
        for terms in ({"criteria": "balanced"}, {"criteria": "balanced", "max_cost": 1}, {"max_cost": 1}):
            for partial in (False, True):
                result = await embedder.embed([long, "short"], on_overflow="error", partial=partial, **terms)
                assert result.receipt.model == "text-embedding-3-small"
                assert not result.errors
        assert (await embedder.embed([long], criteria=low)).receipt.model == "text-embedding-3-small"
        # The text with the most characters does not have the most tokens: this shorter text has more.
        few = "\u5411\u91cf" * 200
        result = await embedder.embed([few, "word " * 100], on_overflow="error", criteria="balanced")
        assert result.receipt.model == "text-embedding-3-small"
        sent = len(small.bodies)
        with pytest.raises(NoModelError, match=r'on_overflow="truncate", require_fit=False: text-embedding-3-large'):
            await embedder.embed([long * 5], on_overflow="error", criteria="balanced")
        some = await embedder.embed([long * 5, "short"], on_overflow="error", criteria=low, partial=True)
        assert list(some.errors) == [0]
        assert len(small.bodies) == sent
        assert not large.bodies

    run(config, work)


LONG = "word " * 2952
WAIVED = ModelSelectionCriteria.preset("fast", require_fit=False)


@pytest.mark.parametrize("terms", [{"criteria": "fast"}, {"criteria": "fast", "collection": "c"}, {"max_cost": 1}])
def test_a_model_that_cannot_read_the_longest_text_completely_is_not_selected(config, terms):
    async def work():
        async with AsyncEmbedder(config=load(config, **{"selection.preset": "fast"})) as embedder:
            calls = (embedder.embed, embedder.embed_documents, embedder.plan)
            for call in (*calls, embedder.embed_query) if "collection" not in terms else calls:
                texts = LONG if call == embedder.embed_query else ["short", LONG]
                with pytest.raises(NoModelError, match="  - require_fit=False: ") as caught:
                    await call(texts, **terms)
                reasons = {row.model: row.reasons for row in caught.value.table}[MINI]
                assert [reason.message for reason in reasons] == ["the longest text has 2,954 tokens; it accepts 256"]
            # The windows of a text are read whole.
            assert (await embedder.embed([LONG], on_overflow="mean", **terms)).receipt.model == MINI

    asyncio.run(work())


def test_the_limit_on_the_longest_text_can_be_waived(config):
    async def work():
        waived = {"selection.require_fit": False}
        async with AsyncEmbedder(config=load(config, **waived)) as embedder:
            for terms in ({"criteria": WAIVED}, {"max_cost": 1}):
                result = await embedder.embed([LONG], **terms)
                assert (result.receipt.model, len(result.receipt.truncations)) == (MINI, 1)
            assert (await embedder.select([LONG], WAIVED)).model == (await embedder.select([LONG])).model == MINI
            # With "error", no text may be truncated, whatever the criteria say.
            with pytest.raises(NoModelError):
                await embedder.embed([LONG], criteria=WAIVED, on_overflow="error")
            with pytest.raises(NoModelError):
                await embedder.select([LONG], "fast")

    asyncio.run(work())


@pytest.mark.parametrize("on_overflow", [None, "truncate", "error"])
def test_in_a_partial_call_only_the_texts_that_are_too_long_fail(config, on_overflow):
    async def work():
        async with AsyncEmbedder(config=load(config)) as embedder:
            for terms in ({"criteria": "fast"}, {"max_cost": 1}):
                options = {**terms, "partial": True, "on_overflow": on_overflow}
                result = await embedder.embed(["short", LONG, "other"], **options)
                assert (result.receipt.model, list(result.errors)) == (MINI, [1])
                assert not result.receipt.truncations
                plan = await embedder.plan(["short", LONG, "other"], **options)
                assert (plan.model, plan.unique_texts, plan.truncations) == (MINI, 2, ())

    asyncio.run(work())


def test_a_lower_limit_in_the_settings_counts(config):
    async def work():
        lower = {f"embedding.model_benchmarks.{MINI}.max_context_length": 20}
        async with AsyncEmbedder(config=load(config, **lower)) as embedder:
            assert (await embedder.select(["word " * 18], "fast")).model == MINI
            with pytest.raises(NoModelError, match="require_fit"):
                await embedder.embed(["word " * 19], criteria="fast")

    asyncio.run(work())


# ------------------------------------------------------------------ plans


def test_a_plan_of_a_call_is_of_the_model_that_the_call_takes(config):
    async def work(embedder, small, large):
        for terms in (
            {"criteria": "best"},
            {"criteria": "best", "dimensions": 1024},
            {"criteria": "best", "max_cost": "0.0000003"},
            {"criteria": "cheap", "collection": "docs"},
            {"criteria": "best", "collection": "docs"},  # its pin
            {"collection": "docs"},
            {"collection": "docs", "max_cost": 1},
        ):
            plan = await embedder.plan(TEXTS, **terms)
            result = await embedder.embed(TEXTS, **terms)
            assert (plan.model, plan.space) == (result.receipt.model, result.space)
            assert (plan.cost_nanousd, plan.requests) == (
                result.receipt.cost_nanousd,
                len(result.receipt.routes[:1]) * (not result.receipt.routes[0].startswith("local:")),
            )
        refused = (
            (BudgetExceededError, {"model": "text-embedding-3-large", "max_cost": 0}),
            (UsageError, {"model": "text-embedding-3-large", "criteria": "best"}),
            (SpaceMismatchError, {"model": "text-embedding-3-large", "collection": "docs"}),
        )
        for error, terms in refused:
            with pytest.raises(error):
                await embedder.plan(TEXTS, **terms)
            with pytest.raises(error):
                await embedder.embed(TEXTS, **terms)

    run(config, work)


def test_a_plan_of_a_service_needs_no_key(config):
    async def main():
        route = {"model": "text-embedding-3-large", "provider": "openai", "api_key_env": "UNSET"}
        async with AsyncEmbedder(config=load(config, **{"routes.keyless": route})) as embedder:
            for model, price in (("text-embedding-3-small", 20), ("text-embedding-3-large", 130)):
                plan = await embedder.plan(TEXTS, model=model)
                assert plan.cost_nanousd == price * plan.billed_tokens > 0
                assert plan.requests == 1
                assert (await embedder.models.describe(model)).model == model
                with pytest.raises(ConfigError):
                    await embedder.embed(TEXTS, model=model)

    asyncio.run(main())


def test_the_blocking_face_plans_calls_too(config):
    with Embedder(config=load(config)) as embedder:
        assert embedder.plan(TEXTS, criteria="private", collection="docs", max_cost=0, partial=True).model == MINI


# ------------------------------------------------------------------ pins


def test_a_collection_keeps_the_model_that_its_first_write_selected(config):
    async def work(embedder, small, large):
        first = await embedder.embed(TEXTS, collection="docs", criteria="best", dimensions=1024)
        assert first.receipt.selected.model == "text-embedding-3-large"
        (pin,) = await embedder.pins.list()
        assert (pin.collection, pin.model, pin.space) == ("docs", "text-embedding-3-large", recorded(first.space))
        assert pin.claim == ""
        # Neither other criteria nor money change it.
        later = await embedder.embed(TEXTS, collection="docs", criteria="cheap")
        assert (later.space, later.receipt.selected, later.receipt.collection) == (first.space, None, "docs")
        query = await embedder.embed("a query", collection="docs", input_type="query")
        assert query.space == first.space
        with pytest.raises(BudgetExceededError):
            await embedder.embed(TEXTS, collection="docs", max_cost=0)
        assert not small.bodies
        assert len(large.bodies) == 3

    run(config, work)


def test_other_spaces_are_refused_with_the_name_of_the_collection(config):
    async def work(embedder, small, large):
        await embedder.embed(TEXTS, collection="docs", model="text-embedding-3-small")
        sent = len(small.bodies)
        for options in (
            {"model": "text-embedding-3-large"},
            {"model": "all-MiniLM-L6-v2"},
            {"model": "text-embedding-3-small", "dimensions": 512},
            {"dimensions": 512},
        ):
            for input_type in ("document", "query"):
                with pytest.raises(SpaceMismatchError, match="collection 'docs' contains vectors of the space"):
                    await embedder.embed(TEXTS, collection="docs", input_type=input_type, **options)
        # An alias of the same model is the same space.
        same = await embedder.embed(TEXTS, collection="docs", model="openai/text-embedding-3-small")
        assert same.space.dimensions == 1536
        assert len(small.bodies) == sent + 1
        assert not large.bodies

    run(config, work)


def test_a_collection_of_a_model_in_a_folder_asks_for_its_name(config, tmp_path, tokenizer):
    folder = str(tiny_encoder(tmp_path / "model", tokenizer))

    async def work(embedder, small, large):
        first = await embedder.embed(TEXTS, collection="docs", model=folder)
        for call in (
            lambda: embedder.embed("a query", collection="docs", input_type="query"),
            lambda: embedder.embed(TEXTS, collection="docs"),
            lambda: embedder.plan(TEXTS, collection="docs"),
            lambda: embedder.pins.prove("docs", TEXTS, first.vectors),
        ):
            with pytest.raises(UsageError, match=r"collection .docs. has vectors of model@.* name the model"):
                await call()
        query = await embedder.embed("a query", collection="docs", input_type="query", model=folder)
        assert query.space == first.space
        assert not small.bodies + large.bodies

    run(config, work)


def test_a_query_of_an_empty_collection_needs_a_model_and_pins_nothing(config):
    async def work(embedder, small, large):
        del small, large
        with pytest.raises(UsageError, match="collection 'docs' has no vectors yet"):
            await embedder.embed("a query", collection="docs", input_type="query")
        await embedder.embed("a query", collection="docs", input_type="query", model="all-MiniLM-L6-v2")
        assert await embedder.pins.list() == []

    run(config, work)


def test_a_write_that_failed_pins_nothing(config):
    async def work(embedder, small, large):
        small.misdeeds = ["401"] * 20
        with pytest.raises(AuthenticationError):
            await embedder.embed(TEXTS, collection="docs", model="text-embedding-3-small")
        assert await embedder.pins.list() == []
        nothing = await embedder.embed([], collection="docs", model="text-embedding-3-small")
        assert len(nothing.vectors) == 0
        refused = await embedder.embed(["", ""], collection="docs", model="text-embedding-3-small", partial=True)
        assert len(refused.errors) == 2
        assert await embedder.pins.list() == []
        await embedder.embed(TEXTS, collection="docs", model="text-embedding-3-large")
        assert [pin.model for pin in await embedder.pins.list()] == ["text-embedding-3-large"]
        assert len(large.bodies) == 1

    run(config, work)


def test_first_writes_at_once_agree(config):
    async def work(embedder, small, large):
        del small, large
        calls = [
            embedder.embed([f"text {n}"], collection="docs", criteria=("best", "fast", "cheap")[n % 3])
            for n in range(12)
        ]
        results = await asyncio.gather(*calls)
        assert len({result.space.id for result in results}) == 1
        (pin,) = await embedder.pins.list()
        assert pin.space == recorded(results[0].space)
        assert pin.claim == ""

    run(config, work)


def test_a_pin_is_of_the_machine_and_can_be_forgotten(config):
    async def work(embedder, small, large):
        await embedder.embed(TEXTS, collection="docs", model="all-MiniLM-L6-v2")
        async with AsyncEmbedder(config=load(config, small, large)) as other:
            with pytest.raises(SpaceMismatchError):
                await other.embed(TEXTS, collection="docs", model="text-embedding-3-small")
            assert (await other.embed(TEXTS, collection="docs")).receipt.model.endswith("all-MiniLM-L6-v2")
            assert await other.pins.forget("docs")
            assert not await other.pins.forget("docs")
        result = await embedder.embed(TEXTS, collection="docs", model="text-embedding-3-small")
        assert result.space.dimensions == 1536

    run(config, work)


def test_pins_are_shared_through_redis(config, valkey):
    async def work(embedder, small, large):
        await embedder.pins.forget("shared docs")
        await embedder.embed(TEXTS, collection="shared docs", model="text-embedding-3-small")
        settings = load(config, small, large, **{"pins.backend": "redis", "pins.url": valkey})
        async with AsyncEmbedder(config=settings) as other:
            result = await other.embed("a query", collection="shared docs", input_type="query")
            assert result.receipt.model == "text-embedding-3-small"
            assert await other.pins.forget("shared docs")

    run(config, work, **{"pins.backend": "redis", "pins.url": valkey})


async def _iterate(*items):
    for item in items:
        yield item


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rest": 5}, "rest is 5; it must be an asynchronous iterable"),
        ({"rest": ["a"]}, "rest is of type list; it must be an asynchronous iterable"),
        ({"rest": lambda: _iterate(5)}, "rest is of type int; it must be a text"),
        ({"rest": lambda: _iterate([5])}, "rest contains an item of type int"),
        ({"rest": lambda: _iterate({"a": "b"})}, "rest is of type dict"),
        ({"anywhere": "no"}, "anywhere is 'no'; it must be True or False"),
        ({"criteria": 5}, "criteria is 5; it must be ModelSelectionCriteria"),
        ({"criteria": ["fast"]}, "criteria is of type list; it must be ModelSelectionCriteria"),
        ({"criteria": {"min_accuracy": 1}}, "criteria is of type dict; it must be ModelSelectionCriteria"),
        ({"criteria": "quick"}, "criteria is 'quick', which is not a preset"),
    ],
)
def test_wrong_arguments_of_select_are_usage_errors(config, arguments, message):
    criteria = arguments.get("criteria", ModelSelectionCriteria(max_total_cost="1", min_accuracy=0))
    rest = arguments.get("rest")

    async def main():
        async with AsyncEmbedder(config=load(config)) as embedder:
            given = rest() if callable(rest) else rest
            await embedder.select(TEXTS, criteria, rest=given, anywhere=arguments.get("anywhere", False))

    with pytest.raises(UsageError, match="^" + message.replace("(", r"\(")):
        asyncio.run(main())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"require_local": "false"}, "require_local is 'false'; it must be True or False"),
        ({"require_fit": None}, "require_fit is of type NoneType; it must be True or False"),
        ({"match_languages": 1}, "match_languages is 1; it must be True or False"),
        ({"require_multilingual": 0}, "require_multilingual is 0; it must be True or False"),
        ({"min_accuracy": 62}, "min_accuracy is 62; it must be from 0 to 1, a score divided by 100"),
        ({"min_accuracy": "0.5"}, "min_accuracy is '0.5'; it must be from 0 to 1"),
        ({"max_total_cost": []}, "max_total_cost"),
        ({"languages": 5}, "languages is of type int; it must be a list of strings"),
    ],
)
def test_criteria_of_wrong_types_are_usage_errors(changes, message):
    with pytest.raises(UsageError, match=message):
        ModelSelectionCriteria(**changes)
    with pytest.raises(UsageError, match=message):
        ModelSelectionCriteria.preset("fast", **changes)


def test_an_unknown_criterion_of_a_preset_is_a_usage_error():
    with pytest.raises(UsageError, match="'speed' is not a criterion; available: accuracy_weight"):
        ModelSelectionCriteria.preset("fast", speed=1)


def test_criteria_without_arguments_are_the_preset_balanced():
    assert ModelSelectionCriteria() == ModelSelectionCriteria.preset("balanced")
    for preset in PRESETS:
        assert ModelSelectionCriteria.preset(preset).min_accuracy == (0.5 if preset == "fast" else 0.6)


def test_a_fresh_installation_selects_its_only_model_with_a_warning(config):
    async def main():
        async with AsyncEmbedder(config=load(config)) as embedder:
            some = ModelSelectionCriteria(licences=("MIT", "apache-2.0"))
            for criteria in (None, "balanced", ModelSelectionCriteria(), "private", some):
                selection = await embedder.select(TEXTS, criteria)
                assert selection.model == MINI
                (warning,) = selection.to_json()["warnings"]
                assert "the default min_accuracy of 0.6" in warning
                result = await embedder.embed(TEXTS, criteria=criteria or "balanced")
                assert result.receipt.selected.warnings == result.receipt.notes == (warning,)
            assert (await embedder.embed(TEXTS, collection="docs")).receipt.notes == (warning,)
            assert (await embedder.embed(TEXTS, max_cost=0)).receipt.notes == (warning,)
            assert not (await embedder.select(TEXTS, "fast")).warnings
            assert not (await embedder.select(TEXTS, anywhere=True)).warnings
            for hard in ({"min_accuracy": 0.61}, {"licences": ["MIT"]}, {"dimensions": 5}):
                with pytest.raises(NoModelError):
                    await embedder.select(TEXTS, ModelSelectionCriteria(**hard))

    asyncio.run(main())


@pytest.mark.parametrize("field", ["require_local", "require_multilingual", "match_languages", "require_fit"])
@pytest.mark.parametrize("value", ["false", 0, None, np.array([True])])
def test_flags_of_criteria_are_booleans(field, value):
    with pytest.raises(UsageError, match=f"{field} is .*; it must be True or False"):
        ModelSelectionCriteria(**{field: value})


def test_numbers_of_numpy_in_criteria_are_plain_numbers():
    numbers = {"accuracy_weight": np.float32(0.5), "min_context": np.int64(8), "max_cost_per_million": np.float64(0.5)}
    criteria = ModelSelectionCriteria(**numbers, require_local=np.bool_(True), dimensions=np.int32(384))
    assert json.loads(json.dumps(criteria.to_json()))["min_context"] == 8
    assert (type(criteria.accuracy_weight), type(criteria.dimensions), criteria.require_local) == (float, int, True)


@pytest.mark.parametrize("field", ["languages", "licences"])
@pytest.mark.parametrize("value", [lambda: itertools.repeat("en"), lambda: "en", lambda: {"en": 1}, lambda: [5]])
def test_languages_and_licences_are_lists_with_an_end(field, value):
    with pytest.raises(UsageError, match=field):
        ModelSelectionCriteria(**{field: value()})


@pytest.mark.parametrize("price", ["20", "1000"])
def test_a_model_of_the_settings_may_have_any_price(config, price):
    async def work(embedder, small, large):
        del small, large
        rows = {row.model: row for row in (await embedder.select(["a text"], anywhere=True)).table}
        assert "acme/dear" in rows

    own = {"name": "acme/dear", "dimensions": 8, "max_tokens": 512, "price_usd_per_million_tokens": price}
    run(config, work, **{"models.dear": own, "routes.dear": {"model": "acme/dear", "provider": "fake"}})
