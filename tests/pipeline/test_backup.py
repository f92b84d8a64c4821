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
