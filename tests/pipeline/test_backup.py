"""Backup models, over real HTTP: the whole request in another space, only when asked, and what the result tells."""

import asyncio
import contextlib
import copy
import logging
from dataclasses import dataclass

import pytest

from api_servers import KEY
from books import MODEL, PRICE, PaidServer, route_to, settings_of, sqlite_books
from embedway import AsyncEmbedder, BaseHook, Embedder, ModelSelectionCriteria
from embedway.errors import (
    BudgetExceededError,
    ConfigError,
    DeadlineError,
    DimensionsError,
    InputError,
    RefusedInputError,
    TextTooLongError,
    UnavailableError,
    UnknownModelError,
    UnsupportedModelError,
    UsageError,
)
from provider_suite import FAILURES, NEVER_ENDING, assert_right

OTHER = "acme/n"
#: Faults of a whole service, and those of the texts that it is sent.
OUTAGES = [kind for kind, (error, _) in FAILURES.items() if error is not RefusedInputError and kind not in NEVER_ENDING]
REFUSALS = [kind for kind, (error, _) in FAILURES.items() if error is RefusedInputError]


class Service(PaidServer):
    """Service with the same fault for every request, or for those with the word `poison`."""

    def __init__(self, fault=None, *, of=""):
        super().__init__()
        self.fault, self.of = fault, of

    def misdeed_for(self, body):
        return self.fault if any(self.of in text for text in self.texts_of(body)) else None


class OtherService(Service):
    models = frozenset({OTHER})


@dataclass
class Pair:
    """A running pair of services, and an embedder with a model at each."""

    first: Service
    other: OtherService
    embedder: AsyncEmbedder

    async def embed(self, texts, backup=(OTHER,), **options):
        return await self.embedder.embed(texts, model=MODEL, backup=backup, **options)


@contextlib.asynccontextmanager
async def pair(tmp_path, first, other=None, *, hooks=(), **settings):
    other = other or OtherService()
    async with first.running(), other.running():
        more = {
            "models.n": {"name": OTHER, "dimensions": 16, "max_tokens": 512, "price_usd_per_million_tokens": "1"},
            "routes.s": {**route_to(other), "model": OTHER},
            "upstream.max_attempts": 1,
            **settings,
        }
        config = settings_of(first, sqlite_books(tmp_path), **more)
        async with AsyncEmbedder(config=config, hooks=hooks) as embedder:
            yield Pair(first, other, embedder)


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        *((kind, ["a", "b", "a"]) for kind in OUTAGES),
        ("500", ["alone"]),
        *((kind, [f"text {number}" for number in range(70)]) for kind in ("500", "401", "429")),
    ],
)
def test_a_failed_service_leads_to_the_backup(tmp_path, caplog, kind, partial, texts):
    async def main():
        async with pair(tmp_path, Service(kind)) as made:
            return await made.embed(texts, partial=partial), made.other

    with caplog.at_level(logging.WARNING, "embedway.pipeline"):
        result, other = asyncio.run(main())
    assert not result.errors
    assert_right(result.vectors, texts, other)
    assert (result.space.model, result.receipt.model, result.receipt.routes) == ("n", OTHER, ("routes.s",))
    note = result.receipt.notes[0]
    assert note.startswith("'acme/m' failed: ")
    assert note.endswith(f"all vectors are of the backup {OTHER}, in the space {result.space.id}")
    lines = [record.getMessage() for record in caplog.records if record.name == "embedway.pipeline"]
    assert len(lines) == 1
    # The services repeat the whole request, key included.
    for told in (note, *lines):
        assert KEY not in told
        assert "you sent" not in told


@pytest.mark.parametrize("kind", REFUSALS)
def test_refused_texts_do_not(tmp_path, kind):
    async def main():
        async with pair(tmp_path, Service(kind)) as made:
            with pytest.raises(RefusedInputError):
                await made.embed(["a", "b"])
            result = await made.embed(["a", "b"], partial=True)
            assert sorted(result.errors) == [0, 1]
            assert not made.other.log

    asyncio.run(main())


def test_one_text_of_several_does_not(tmp_path):
    async def main():
        async with pair(tmp_path, Service("500", of="poison"), **{"upstream.max_attempts": 4}) as made:
            with pytest.raises(UnavailableError) as caught:
                await made.embed(["a", "poison", "b"])
            assert caught.value.row == 1
            result = await made.embed(["a", "poison", "b"], partial=True)
            assert (list(result.errors), result.receipt.model) == ([1], MODEL)
            assert not made.other.log

    asyncio.run(main())


@pytest.mark.parametrize(
    ("texts", "options", "error"),
    [
        (["a", ""], {}, InputError),
        (["long " * 2000], {"on_overflow": "error"}, TextTooLongError),
        (["a"], {"dimensions": 8}, DimensionsError),
        (["a"], {"collection": "docs"}, UsageError),
        (["a"], {"backup": [OTHER, "nope"]}, UnknownModelError),
        (["a"], {"backup": ["rerank-v3.5"]}, UnsupportedModelError),
        (["a"], {"backup": ["BAAI/bge-reranker-base"]}, UnsupportedModelError),
        (["a"], {"backup": ["all-MiniLM-L6-v2"], "dimensions": 16}, DimensionsError),
        (["a"], {"backup": OTHER}, UsageError),
        (["a"], {"normalize": False}, UsageError),
        ([[1, 2]], {}, UsageError),
    ],
)
def test_errors_of_the_caller_come_before_anything_is_sent(tmp_path, texts, options, error):
    async def main():
        async with pair(tmp_path, Service("503")) as made:
            with pytest.raises(error):
                await made.embed(texts, **options)
            assert not made.first.log
            assert not made.other.log

    asyncio.run(main())


def test_a_folder_with_a_reranker_is_no_backup(tmp_path):
    folder = tmp_path / "reranker"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert", "architectures": ["BertForSequenceClassification"]}')
    (folder / "model.safetensors").write_bytes(b"weights")

    async def main():
        async with pair(tmp_path, Service()) as made:
            with pytest.raises(UnsupportedModelError, match="reranker"):
                await made.embed(["a"], [str(folder)])
            assert not made.first.log

    asyncio.run(main())


def test_the_first_model_is_used_while_it_answers(tmp_path):
    async def main():
        async with pair(tmp_path, Service()) as made:
            result = await made.embed(["a"], [MODEL, OTHER, MODEL])
            assert (result.receipt.model, result.receipt.notes) == (MODEL, ())
            assert not made.other.log

    asyncio.run(main())


def test_nothing_falls_back_unless_it_is_asked(tmp_path):
    async def main():
        async with pair(tmp_path, Service("503")) as made:
            for backup in (None, (), [MODEL]):
                with pytest.raises(UnavailableError):
                    await made.embed(["a"], backup)
            assert not made.other.log

    asyncio.run(main())


def test_texts_must_stay_here_if_the_criteria_say_so(tmp_path):
    async def main():
        async with pair(tmp_path, Service()) as made:
            criteria = ModelSelectionCriteria(require_local=True, min_accuracy=0)
            with pytest.raises(UsageError, match="require_local"):
                await made.embedder.embed(["a"], criteria=criteria, backup=[OTHER])
            assert not made.other.log

    asyncio.run(main())


def benchmark(name, **facts):
    return {
        "model_name": name,
        "provider": "openai-compatible",
        "quality_score": 70,
        "avg_latency_ms": 50,
        "tokens_per_second": 1000,
        "cost_per_million_tokens": 1,
        "max_context_length": 512,
        "embedding_dimensions": 16,
        "licence": "MIT",
        **facts,
    }


def benchmarks(first=None, **other):
    rows = {MODEL: benchmark(MODEL, **(first or {})), OTHER: benchmark(OTHER, **other)}
    return {"embedding.model_benchmarks": rows}


@pytest.mark.parametrize(
    ("facts", "criteria", "unmet"),
    [
        ({"quality_score": 20}, {}, "min_accuracy: accuracy 0.200* is below 0.6"),
        ({"avg_latency_ms": 900}, {"max_latency_ms": 100}, "max_latency_ms: latency 900 ms is above 100"),
        ({"licence": "CC-BY-NC-4.0"}, {}, "licences: its licence, CC-BY-NC-4.0, forbids commercial use"),
        ({}, {"models": [MODEL]}, "models: it is not one of them"),
        ({"cost_per_million_tokens": 9}, {"max_total_cost": "0.000001"}, "max_total_cost: the texts cost"),
    ],
)
def test_a_backup_must_meet_the_criteria(tmp_path, facts, criteria, unmet):
    criteria = ModelSelectionCriteria(any_scale=True, **{"models": [MODEL, OTHER], **criteria})

    async def main():
        async with pair(tmp_path, Service("503"), **benchmarks(first={"quality_score": 80}, **facts)) as made:
            for call in (made.embedder.embed, made.embedder.plan):
                with pytest.raises(UsageError) as caught:
                    await call(["a"], criteria=criteria, backup=[OTHER])
                assert f"backup names 'acme/n', which does not meet the criteria ({unmet}" in str(caught.value)
                assert "leave these requirements out, or name another backup" in str(caught.value)
            assert not made.first.log
            # The backup is not selected, but it is asked.
            return await made.embedder.embed(["a"], model=MODEL, backup=[OTHER])

    assert asyncio.run(main()).receipt.model == OTHER


def test_a_backup_is_not_the_selected_model_and_truncates_nothing(tmp_path):
    texts, fit = ["the cat sat down " * 300], {"any_scale": True, "models": [MODEL, OTHER]}
    larger = {"models.m": {"name": MODEL, "dimensions": 16, "max_tokens": 4000, "price_usd_per_million_tokens": "1"}}
    rows = benchmarks(first={"max_context_length": 4000})
    other = OtherService()
    other.over_limits = lambda *_, **__: None

    async def main():
        async with pair(tmp_path, Service("503"), other, **larger, **rows) as made:
            with pytest.raises(UnavailableError) as caught:
                await made.embedder.embed(texts, criteria=ModelSelectionCriteria(**fit), backup=[OTHER])
            assert not other.log
            free = ModelSelectionCriteria(**fit, require_fit=False)
            result = await made.embedder.embed(texts, criteria=free, backup=[OTHER, MODEL])
        return caught.value, result.receipt

    error, receipt = asyncio.run(main())
    assert "512" in error.backups[0][1]
    assert (receipt.model, receipt.selected, len(receipt.truncations)) == (OTHER, None, 1)


def test_a_default_model_is_named_by_its_name(tmp_path, caplog):
    async def main():
        async with pair(tmp_path, Service("503"), **{"embedding.default_model": MODEL}) as made:
            result = await made.embedder.embed(["a"], backup=[OTHER])
            assert result.receipt.notes[0].startswith("'acme/m' failed: ")
            await made.embedder.embed(["a", "poison"], partial=True)

    with caplog.at_level(logging.WARNING, "embedway"):
        asyncio.run(main())
    assert any(line.startswith("2 of 2 texts for acme/m failed: rows 0, 1: ") for line in caplog.messages)
    assert not [line for line in caplog.messages if "auto" in line]


def test_a_plan_has_notes_and_logs_no_backup(tmp_path, caplog):
    async def main():
        async with pair(tmp_path, Service(), **benchmarks(first={"quality_score": 30}, quality_score=20)) as made:
            criteria = ModelSelectionCriteria(any_scale=True, models=[MODEL, OTHER])
            below = await made.embedder.plan(["a"], criteria=criteria, backup=[OTHER])
            plain = await made.embedder.plan(["a"], model=MODEL, backup=[OTHER])
        return below, plain

    with caplog.at_level(logging.WARNING, "embedway.pipeline"):
        below, plain = asyncio.run(main())
    assert (below.model, plain.notes) == (MODEL, ())
    assert "min_accuracy" in below.notes[0]


def test_a_plan_of_a_backup_says_so(tmp_path, caplog):
    prices = {"models.n": {"name": OTHER, "dimensions": 16, "max_tokens": 512, "price_usd_per_million_tokens": "0.1"}}

    async def main():
        async with pair(tmp_path, Service(), **prices) as made:
            return await made.embedder.plan(["word " * 400], model=MODEL, backup=[OTHER], max_cost="0.0002")

    with caplog.at_level(logging.WARNING, "embedway.pipeline"):
        plan = asyncio.run(main())
    assert plan.model == OTHER
    assert plan.notes == (f"'acme/m' failed: a spending limit does not allow it; the plan is of the backup {OTHER}",)
    assert not [record for record in caplog.records if record.name == "embedway.pipeline"]


def test_the_deadline_of_a_call_is_its_error_after_parts_of_the_first_model_failed(tmp_path):
    class FailsLater(Service):
        asked = 0

        def misdeed_for(self, body):
            self.asked += 1
            return "503" if self.asked > 1 else None

    settings = {"upstream.max_attempts": 2, "batching.max_batch_size": 4}

    async def main():
        async with pair(tmp_path, FailsLater(), OtherService("drip"), **settings) as made:
            with pytest.raises(DeadlineError):
                await made.embed([f"text {number} of" for number in range(7)], deadline_s=1)
            assert made.other.log

    asyncio.run(main())


def test_a_backup_may_have_any_size_of_its_range(tmp_path):
    ranged = {"name": OTHER, "dimensions": 16, "min_dimensions": 4, "max_tokens": 512}

    async def main():
        async with pair(tmp_path, Service("503"), **{"models.n": ranged}) as made:
            for size in (2, 32):
                with pytest.raises(
                    DimensionsError, match=rf"the backup acme/n supports 4 to 16 dimensions, not {size}"
                ):
                    await made.embed(["a"], dimensions=size)
            assert not made.first.log

    asyncio.run(main())


def test_all_failed_is_the_first_error_with_the_others(tmp_path):
    async def main():
        async with pair(tmp_path, Service("503"), OtherService("401")) as made:
            with pytest.raises(UnavailableError) as caught:
                await made.embed(["a", "b"])
            partial = await made.embed(["a", "b"], partial=True)
        return caught.value, partial

    error, partial = asyncio.run(main())
    assert str(error).startswith("routes.r: ")
    assert "its backups failed too:\n  - 'acme/n': routes.s: " in str(error)
    assert str(copy.copy(error)) == str(error)
    # A partial request has an error for each row, as without backups.
    assert (sorted(partial.errors), partial.space.model) == ([0, 1], "m")
    assert partial.receipt.notes[-1] == "backups failed too: 'acme/n'"


def test_a_model_that_is_not_set_up_leads_to_the_backup(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    async def main():
        async with pair(tmp_path, Service()) as made:
            with pytest.raises(ConfigError):
                await made.embedder.embed(["a"], model="text-embedding-3-small")
            return await made.embedder.embed(["a"], model="text-embedding-3-small", backup=[OTHER])

    result = asyncio.run(main())
    assert result.receipt.model == OTHER
    assert "is not set up here" in result.receipt.notes[0]


def test_missing_weights_lead_to_the_backup(tmp_path):
    here = {"weights.directory": str(tmp_path / "none"), "weights.offline": True}

    async def main():
        async with pair(tmp_path, Service(), **here) as made:
            return await made.embedder.embed(["a"], model="all-MiniLM-L6-v2", backup=[OTHER])

    assert asyncio.run(main()).receipt.model == OTHER


def test_the_receipt_has_the_cost_of_all_models(tmp_path):
    texts = ["abcdef", "ghijkl"]  # 2 tokens each

    async def main():
        async with pair(tmp_path, Service("half json")) as made:
            result = await made.embed(texts)
        return result, await sqlite_books(tmp_path).spent(), await sqlite_books(tmp_path).entries()

    result, (spent, held), entries = asyncio.run(main())
    assert (result.receipt.cost_nanousd, held) == (spent, 0)
    assert result.receipt.cost_nanousd > 4 * PRICE  # more than the backup alone
    assert result.receipt.unsure_nanousd == result.receipt.cost_nanousd - 4 * PRICE
    assert sorted(result.receipt.ledger_entries) == sorted(entry.id for entry in entries)
    assert "may have cost $" in result.receipt.notes[-1]
    assert "is part of the cost" in result.receipt.notes[-1]


def test_max_cost_is_the_limit_of_all_models_together(tmp_path):
    async def main():
        async with pair(tmp_path, Service("half json")) as made:
            with pytest.raises(Exception, match="max_cost") as caught:
                # Enough for one model: the first may be billed for its failed request.
                await made.embed(["abcdef"], max_cost="0.000006")
            assert not made.other.log
        return caught.value, await sqlite_books(tmp_path).spent()

    error, (spent, _) = asyncio.run(main())
    assert error.backups
    assert spent <= 6 * PRICE


def test_a_budget_of_the_first_model_leads_to_the_backup(tmp_path):
    async def main():
        async with pair(tmp_path, Service(), **{"budgets.m": {"usd": "0", "model": MODEL}}) as made:
            with pytest.raises(BudgetExceededError):
                await made.embedder.embed(["a"], model=MODEL)
            result = await made.embed(["a"])
            plan = await made.embedder.plan(["a"], model=MODEL, backup=[OTHER])
            assert not made.first.log
        return result, plan

    result, plan = asyncio.run(main())
    assert result.receipt.model == OTHER
    assert "a spending limit does not allow it" in result.receipt.notes[0]
    assert plan.model == MODEL  # a plan reads no ledger


def test_a_wait_beyond_the_deadline_leads_to_the_backup(tmp_path):
    async def main():
        waits = {"upstream.max_attempts": 9, "upstream.longest_wait_s": 600}
        async with pair(tmp_path, Service("429 in an hour"), **waits) as made:
            with pytest.raises(DeadlineError):
                await made.embed(["a"], (), deadline_s=60)
            return await made.embed(["a"], deadline_s=60)

    assert asyncio.run(main()).receipt.model == OTHER


def test_hooks_get_the_model_that_answered(tmp_path):
    seen = []

    class Recording(BaseHook):
        def end(self, operation, outcome):
            if type(operation.details).__name__ == "RequestDetails":
                seen.append((operation.details.model, outcome.model, outcome.error, outcome.dimensions))

    async def main():
        async with pair(tmp_path, Service("503"), hooks=[Recording()]) as made:
            await made.embed(["a"])

    asyncio.run(main())
    assert seen == [(MODEL, OTHER, None, 16)]


def test_cached_vectors_of_the_first_model_are_used(tmp_path):
    async def main():
        async with pair(tmp_path, Service(), **{"cache.backend": "memory"}) as made:
            await made.embed(["a"])
            made.first.fault = "503"
            cached, mixed = await made.embed(["a"]), await made.embed(["a", "b"])
            assert cached.receipt.model == MODEL
            # One result has one space.
            assert mixed.receipt.model == OTHER
            assert_right(mixed.vectors, ["a", "b"], made.other)

    asyncio.run(main())


def test_the_blocking_api_has_backups(default_model_directory, tmp_path):
    with Embedder(config=unreachable(default_model_directory, tmp_path)) as embedder:
        for method in (embedder.embed, embedder.embed_query, embedder.embed_documents):
            assert method("a", model=MODEL, backup=iter(["all-MiniLM-L6-v2"])).space.dimensions == 384


def unreachable(directory, tmp_path):
    class Nowhere:
        url = "http://127.0.0.1:9"

    settings = {"weights.directory": str(directory), "upstream.max_attempts": 1}
    return settings_of(Nowhere, sqlite_books(tmp_path), **settings)
