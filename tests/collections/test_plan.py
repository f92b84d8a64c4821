"""A plan predicts a run: tokens, requests and money, against a server that bills by tiktoken."""

import asyncio
import contextlib
import dataclasses
import gzip
import inspect
import json
import pkgutil
from pathlib import Path

import pytest
import tiktoken

from api_servers import KEY, OpenAIServer
from embedway import AsyncEmbedder, Config, ModelSelectionCriteria
from embedway.collections import model_choice as choose_module
from embedway.collections.chunk_reader import batch_sizes
from embedway.collections.model_choice import open_texts, select_for_job, take_texts
from embedway.collections.plan import plan_job
from embedway.collections.run import RunOptions, run_job
from embedway.errors import (
    BudgetExceededError,
    NoModelError,
    SourceError,
    SpaceMismatchError,
    UnknownModelError,
    UsageError,
)
from embedway.money import usd
from embedway.selection.scoring import Selection
from inside import ledger_of

PRICES = {"text-embedding-3-small": 20, "text-embedding-3-large": 130}
WIDTHS = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072}
PASSAGES = 2048
SHARED = Path(__file__).parents[3] / "shared" / "data" / "python-docs-chunks.jsonl.gz"


def encoding():
    """Vocabulary of OpenAI's embedding models, from the package that contains it."""
    (name,) = [name for name in tiktoken.list_encoding_names() if "cl100k" in name and name != "cl100k_base"]
    return tiktoken.get_encoding(name)


def passages():
    """Texts of Python's documentation if they are beside the checkout, else of its sources; some repeat."""
    if SHARED.exists():
        with gzip.open(SHARED, "rt", encoding="utf-8") as lines:
            texts = [json.loads(line)["text"] for line in lines]
    else:
        sources = [
            inspect.getsource(pkgutil.resolve_name(name)) for name in ("argparse", "typing", "doctest", "inspect")
        ]
        whole = "".join(sources)
        texts = [whole[start : start + 150] for start in range(0, 150 * PASSAGES, 150)]
    texts = [text for text in texts if text.strip()][: PASSAGES - 48]
    return texts + texts[:48]


class Billing(OpenAIServer):
    """Bills tokens counted by tiktoken."""

    def __init__(self, model):
        super().__init__()
        self.width = WIDTHS[model]
        self.model = model
        self.total = 0
        self._encoding = encoding()

    def answer(self, body):
        assert body["model"] == self.model
        tokens = sum(map(len, self._encoding.encode_batch(body["input"], disallowed_special=())))
        self.total += tokens
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {**super().answer(body), "usage": usage}


@contextlib.asynccontextmanager
async def embedder_with_servers(config, **overrides):
    servers = {model: Billing(model) for model in PRICES}
    async with contextlib.AsyncExitStack() as stack:
        for server in servers.values():
            await stack.enter_async_context(server.running())
        routes = {
            f"routes.{model}": {
                "model": model,
                "provider": "openai",
                "base_url": f"{server.url}/v1",
                "api_key": KEY,
            }
            for model, server in servers.items()
        }
        places = {"weights.directory": str(config.weights.directory), "weights.offline": True}
        settings = Config.load(environ={}, overrides={**places, **routes, **overrides})
        yield await stack.enter_async_context(AsyncEmbedder(config=settings)), servers


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_a_plan_of_many_passages_is_what_the_run_then_costs(config, tmp_path, cache):
    texts = passages()
    assert len(texts) == PASSAGES
    unique = list(dict.fromkeys(texts))
    counted = sum(map(len, encoding().encode_batch(unique, disallowed_special=())))
    source = tmp_path / "passages.jsonl"
    source.write_text("".join(json.dumps({"id": str(n), "text": text}) + "\n" for n, text in enumerate(texts)))

    async def main():
        async with embedder_with_servers(config, **{"cache.backend": cache}) as (embedder, servers):
            plans = {plan.model: plan for plan in await embedder.plans(texts, models=list(PRICES))}
            assert not any(server.bodies for server in servers.values())
            for model, price in PRICES.items():
                plan = plans[model]
                assert (plan.texts, plan.unique_texts, plan.cached_texts) == (PASSAGES, len(unique), 0)
                assert plan.tokens == plan.billed_tokens == counted
                assert plan.cost_nanousd == counted * price
                assert plan.batch_cost_nanousd == counted * price // 2
                assert not plan.estimated
                assert plan.seconds > 0
                result = await embedder.embed(texts, model=model)
                receipt = result.receipt
                assert (receipt.billed_tokens, receipt.cost_nanousd) == (plan.billed_tokens, plan.cost_nanousd)
                assert receipt.attempts == plan.requests == len(servers[model].bodies)
                assert servers[model].total == counted
                again = await embedder.plan(texts, model=model)
                held = cache != "none"
                assert again.cached_texts == (len(unique) if held else 0)
                assert again.cost_nanousd == (0 if held else plan.cost_nanousd)
            entries = await ledger_of(embedder).entries()
            assert sorted(entry.spent for entry in entries if entry.spent) == sorted(
                plan.cost_nanousd for plan in plans.values()
            )

        # The same for a job over the file, which reads in batches.
        async with embedder_with_servers(config, **{"cache.backend": cache}) as (embedder, servers):
            options = RunOptions(chunk=False)
            planned = await plan_job(embedder, [str(source)], list(PRICES), options, cached=cache != "none")
            assert not any(server.bodies for server in servers.values())
            for one in planned.models:
                assert one.texts == PASSAGES
                model_options = RunOptions(chunk=False, model=one.model)
                summary = await run_job(embedder, [str(source)], str(tmp_path / f"{one.model}.jsonl"), model_options)
                assert summary.billed_tokens == one.billed_tokens == servers[one.model].total
                assert summary.cost_nanousd == one.cost_nanousd == one.billed_tokens * PRICES[one.model]
                assert len(servers[one.model].bodies) == one.requests
                if cache != "none":
                    assert one.unique_texts == len(unique)
                    assert one.billed_tokens == counted

    asyncio.run(main())


def test_batches_grow_by_their_place_alone():
    sizes = batch_sizes()
    assert [next(sizes) for _ in range(6)] == [256, 512, 1024, 2048, 2048, 2048]


@pytest.mark.parametrize("cache", ["memory", "none"])
@pytest.mark.parametrize(
    ("count", "distinct"), [(1, 1), (255, 255), (257, 257), (1500, 1500), (1500, 400), (5000, 700)]
)
def test_a_run_is_what_its_plan_says_at_every_size(config, tmp_path, count, distinct, cache):
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps({"text": f"passage number {n % distinct}"}) + "\n" for n in range(count)))
    model = "text-embedding-3-small"
    # A price at which a request's tokens cost a fraction of a nano-dollar.
    price = {"embedding.model_benchmarks": {model: {"cost_per_million_tokens": "0.0123"}}}

    async def main():
        async with embedder_with_servers(config, **{"cache.backend": cache}, **price) as (embedder, servers):
            options = RunOptions(chunk=False, model=model, overwrite=True)
            planned = await plan_job(embedder, [str(source)], [model], options, cached=cache != "none")
            (one,) = planned.models
            enough = dataclasses.replace(options, most_nanousd=one.most_nanousd)
            slow = iter(range(0, 1_000_000, 60))
            summary = await run_job(
                embedder, [str(source)], str(tmp_path / "o.jsonl"), enough, clock=lambda: float(next(slow))
            )
            assert len(servers[model].bodies) == one.requests
            assert summary.billed_tokens == one.billed_tokens == servers[model].total
            assert summary.cost_nanousd == one.cost_nanousd > 0
            if cache == "none":
                too_little = dataclasses.replace(options, most_nanousd=one.most_nanousd - 1)
                with pytest.raises(BudgetExceededError):
                    await run_job(embedder, [str(source)], str(tmp_path / "o.jsonl"), too_little)

    asyncio.run(main())


def test_a_jobs_model_is_selected_by_what_the_whole_costs(config, tmp_path, monkeypatch):
    monkeypatch.setattr(choose_module, "SAMPLE_CHARACTERS", 1000)
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps({"text": f"passage number {n}"}) + "\n" for n in range(1000)))
    best = ModelSelectionCriteria.preset("best")
    options = RunOptions(chunk=False)

    async def main():
        async with embedder_with_servers(config, **{"cache.backend": "none"}) as (embedder, servers):

            async def chosen(criteria=best, **changes):
                some = dataclasses.replace(options, **changes)
                return await select_for_job(embedder, [str(source)], some, criteria, cached=False)

            plans = (await plan_job(embedder, [str(source)], list(PRICES), options, cached=False)).models
            small, large = (one.cost_nanousd for one in plans)
            assert (await chosen()).model == "text-embedding-3-large"
            with monkeypatch.context() as patched:
                patched.setattr(Selection, "below_minimum", lambda _: pytest.fail("the first selection is affordable"))
                assert (await chosen(most_nanousd=large)).model == "text-embedding-3-large"
            for most, model in ((large, "large"), (large - 1, "small"), (small, "small")):
                by_money = await chosen(most_nanousd=most)
                by_total = await chosen(dataclasses.replace(best, max_total_cost=usd(most)))
                assert by_money.model == by_total.model == f"text-embedding-3-{model}"
            accurate = dataclasses.replace(best, min_accuracy=0.61)
            for limit, changes in (("max_cost", {"most_nanousd": 1}), ("max_total_cost", {})):
                total = None if changes else "0.000000001"
                with pytest.raises(BudgetExceededError, match=f"^{limit} is .* text-embedding-3-small") as caught:
                    await chosen(dataclasses.replace(accurate, max_total_cost=total), **changes)
                assert caught.value.budget == limit
            # A named model is used. If no text may be cut, all texts are read.
            assert (await chosen(model="text-embedding-3-small", most_nanousd=1)).model == "text-embedding-3-small"
            with pytest.raises(UsageError, match="standard input can be read only once"):
                await select_for_job(embedder, ["-"], options, best, cached=False)
            source.write_text(json.dumps({"text": "word " * 1000}) + "\n" + json.dumps({"text": "short"}) + "\n")
            cheap = ModelSelectionCriteria.preset("cheap", min_accuracy=0.5)
            assert (await chosen(cheap)).model == "text-embedding-3-small"
            waived = dataclasses.replace(cheap, require_fit=False)
            assert (await chosen(waived)).model == "sentence-transformers/all-MiniLM-L6-v2"
            for more in ({}, {"most_nanousd": 10**9}):
                whole = await chosen(cheap, on_overflow="error", **more)
                assert whole.model == "text-embedding-3-small"
            assert not any(server.bodies for server in servers.values())

    asyncio.run(main())


def test_a_text_behind_the_sample_that_is_too_long_leaves_its_model_out(config, tmp_path, monkeypatch):
    monkeypatch.setattr(choose_module, "SAMPLE_CHARACTERS", 1000)
    source = tmp_path / "rows.jsonl"
    texts = ["short text " * 3] * 200 + ["word " * 1000]
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    cheap = ModelSelectionCriteria.preset("cheap", min_accuracy=0.5)

    async def main():
        async with embedder_with_servers(config, **{"cache.backend": "none"}) as (embedder, _):
            options = RunOptions(chunk=False, on_overflow="error", most_nanousd=10**9)
            chosen = await select_for_job(embedder, [str(source)], options, cheap, cached=False)
            assert chosen.model == "text-embedding-3-small"
            local = dataclasses.replace(cheap, require_local=True)
            for most in (None, 10**9):
                for on_overflow in ("error", "truncate"):
                    options = RunOptions(chunk=False, on_overflow=on_overflow, most_nanousd=most)
                    with pytest.raises(NoModelError, match="require_fit"):
                        await select_for_job(embedder, [str(source)], options, local, cached=False)

    asyncio.run(main())


def test_documents_that_are_not_split_must_fit_the_model_that_is_selected(config, tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("short", "word " * 2952)))
    fast = ModelSelectionCriteria.preset("fast", require_local=True)
    mini = "sentence-transformers/all-MiniLM-L6-v2"

    async def main():
        async with embedder_with_servers(config, **{"cache.backend": "none"}) as (embedder, _):

            async def chosen(criteria=fast, **options):
                options = RunOptions(**options)
                chosen = await select_for_job(embedder, [str(source)], options, criteria, cached=False)
                assert chosen.model == mini
                return chosen.on_overflow

            for most in (None, 10**9):
                assert await chosen(most_nanousd=most) == "truncate"
                assert await chosen(chunk=False, on_overflow="mean", most_nanousd=most) == "mean"
                waived = dataclasses.replace(fast, require_fit=False)
                assert await chosen(waived, chunk=False, most_nanousd=most) == "truncate"
                # Only the long document is rejected.
                assert await chosen(chunk=False, on_error="skip", most_nanousd=most) == "error"
                for on_overflow in ("truncate", "error"):
                    with pytest.raises(NoModelError, match="require_fit"):
                        await chosen(chunk=False, on_overflow=on_overflow, most_nanousd=most)

    asyncio.run(main())


def test_a_plan_of_a_collection_keeps_to_its_pin(config, tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_text(json.dumps({"text": "a passage"}) + "\n")

    async def main():
        async with embedder_with_servers(config, **{"cache.backend": "none"}) as (embedder, _):
            await embedder.embed(["first"], collection="docs", model="text-embedding-3-small", dimensions=512)
            options = RunOptions(collection="docs")
            for preset in ("best", "cheap"):
                criteria = ModelSelectionCriteria.preset(preset)
                chosen = await select_for_job(embedder, [str(source)], options, criteria, cached=False)
                assert (chosen.model, chosen.dimensions) == ("text-embedding-3-small", 512)
                planned = await plan_job(embedder, [str(source)], [chosen.model], chosen, cached=False)
                assert planned.models[0].requests == 1
            with pytest.raises(SpaceMismatchError, match="docs"):
                await plan_job(embedder, [str(source)], ["text-embedding-3-large"], options, cached=False)
            private = ModelSelectionCriteria.preset("private")
            with pytest.raises(UsageError, match="require_local forbids"):
                await select_for_job(embedder, [str(source)], options, private, cached=False)

    asyncio.run(main())


def test_models_cut_documents_by_their_own_tokens_and_the_sources_are_read_once(config, tmp_path):
    (tmp_path / "a.md").write_text("# One\n\n" + "Words of a paragraph, one after the other. " * 200)
    (tmp_path / "b.txt").write_text("short")

    async def main():
        async with embedder_with_servers(config, **{"cache.backend": "memory"}) as (embedder, _):
            names = await embedder.models.available()
            planned = await plan_job(embedder, [str(tmp_path)], names, RunOptions(), cached=True)
            assert planned.documents == 2
            by_model = {one.model: one for one in planned.models}
            local = by_model["sentence-transformers/all-MiniLM-L6-v2"]
            assert set(by_model) == {local.model, *PRICES}
            assert (local.cost_nanousd, local.requests) == (0, 0)
            small = by_model["text-embedding-3-small"]
            assert small.requests == 1
            assert small.cost_nanousd == 20 * small.billed_tokens > 0
            for one in planned.models:
                single = await plan_job(embedder, [str(tmp_path)], [one.model], RunOptions(), cached=True)
                assert single.models == (one,)
            assert local.to_json()["cost_usd"] == "0.00"
            assert await embedder.models.available(3072) == ["text-embedding-3-large"]
            with pytest.raises(UnknownModelError):
                await embedder.plans(["a"], models=["no-such-model"])

    asyncio.run(main())


def test_standard_input_is_read_once_for_all_models(config, tmp_path):
    with (tmp_path / "in").open("wb+") as stream:
        stream.write(b"one\ntwo\none\n")
        stream.seek(0)

        async def main():
            async with embedder_with_servers(config, **{"cache.backend": "memory"}) as (embedder, _):
                names = await embedder.models.available()
                return await plan_job(embedder, ["-"], names, RunOptions(), cached=True, standard_input=stream)

        planned = asyncio.run(main())
    assert [(one.texts, one.unique_texts) for one in planned.models] == [(3, 2)] * 3


def test_rows_that_cannot_be_used(config, tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_text('{"text": "good"}\n{"text": 5}\n{"text": "also good"}\n')

    async def main():
        async with AsyncEmbedder(config=config) as embedder:
            with pytest.raises(SourceError, match=r"rows\.jsonl:2"):
                await plan_job(embedder, [str(source)], ["auto"], RunOptions(), cached=False)
            skipping = RunOptions(on_error="skip")
            planned = await plan_job(embedder, [str(source)], ["auto"], skipping, cached=False)
            assert planned.models[0].texts == planned.documents == 2
            source.write_text("")
            with pytest.raises(SourceError, match="there is nothing to embed"):
                await plan_job(embedder, [str(source)], ["auto"], skipping, cached=False)

    asyncio.run(main())


def test_a_sample_is_of_the_first_documents(tmp_path):
    for number in range(200):
        (tmp_path / f"{number:03d}.txt").write_text(f"document {number}")

    async def sample(most):
        async with open_texts([str(tmp_path)], RunOptions()) as documents:
            return await take_texts(documents, most_characters=most)

    texts, whole = asyncio.run(sample(1 << 20))
    assert whole
    assert texts == [f"document {number}" for number in range(200)]
    some, whole = asyncio.run(sample(100))
    assert not whole
    assert some == texts[: len(some)]
    assert 0 < len(some) < 200
