"""Failover to a route needs a catalog row, a stored proof, a declaration, or a comparison that is possible now."""

import asyncio
import contextlib
import dataclasses
import json
import sqlite3

import numpy as np
import pytest

from api_servers import KEY, CompatibleServer
from embedway import AsyncEmbedder, Config, StoredVectors, _engine
from embedway.errors import ConfigError, LedgerError, NoRouteError
from embedway.models import opening
from embedway.providers.fake import vector_of
from memory_records import MemoryRecords

MODEL = "acme/m"
TEXTS = ["one text", "another text"]
DOWN = ["503"] * 50


class Own(CompatibleServer):
    """A server of the model; with another `seed`, it runs another model."""

    models = frozenset({MODEL})
    width = 16

    def __init__(self, seed=""):
        super().__init__()
        self.seed = seed

    def read_texts(self, body):
        return [self.seed + text for text in body["input"]]

    @property
    def received(self):
        """The user's texts that it received."""
        return [text for body in self.bodies for text in body["input"] if text in TEXTS]


class FailingRecords(MemoryRecords):
    """A store that fails."""

    async def get(self, kind, name):
        raise LedgerError("the store is down")

    async def put(self, record):
        raise LedgerError("the store is down")


@contextlib.asynccontextmanager
async def routes_to(first, second, **more):
    """Yield the settings of a model with two routes."""
    async with first.running(), second.running():
        overrides = {
            "models.m": {"name": MODEL, "dimensions": 16, "max_tokens": 500, "tokenizer": "estimate"},
            **{
                f"routes.r{number}": {
                    "model": MODEL,
                    "provider": "openai-compatible",
                    "api_key": KEY,
                    "base_url": f"{server.url}/v1",
                    **more.get(f"r{number}", {}),
                }
                for number, server in enumerate((first, second))
            },
            "upstream.first_wait_s": 0.001,
            "upstream.longest_wait_s": 0.001,
            "cache.backend": "none",
            "ledger.backend": "none",
            **more.get("settings", {}),
        }
        yield Config.load(environ={}, overrides=overrides)


async def embed(config):
    """Embed as a new process does. Return the route that answered, or the reason why the second was not used."""
    async with AsyncEmbedder(config=config) as embedder:
        return await embed_with(embedder)


async def embed_with(embedder):
    try:
        result = await embedder.embed(TEXTS, model=MODEL)
    except NoRouteError as error:
        return dict(error.failed)["routes.r1"]
    np.testing.assert_allclose(result.vectors, [vector_of(text, 16) for text in TEXTS], atol=1e-6)
    return result.receipt.routes[0]


@pytest.fixture
def records(monkeypatch):
    """Let all embedders share records, as processes do."""
    shared = MemoryRecords()
    monkeypatch.setattr(_engine, "open_records", lambda _: shared)
    return shared


def test_without_anything_stored_a_later_route_is_not_used_and_the_error_names_the_remedies(records):
    async def main():
        first, second = Own(), Own()
        first.misdeeds = list(DOWN)
        async with routes_to(first, second) as config:
            return await embed(config), second

    reason, second = asyncio.run(main())
    assert second.bodies == []
    for words in (
        "routes.r0 did not answer",
        "`embedway models verify routes.r0 routes.r1`",
        "call the model once while routes.r0 answers",
        "same_space = true in [routes.r1]",
    ):
        assert words in reason


@pytest.mark.parametrize("store", ["present", "none", "failing"])
def test_a_first_route_that_fails_later_is_replaced_by_comparison_in_the_same_process(monkeypatch, store):
    stores = {"present": MemoryRecords(), "none": None, "failing": FailingRecords()}
    monkeypatch.setattr(_engine, "open_records", lambda _: stores[store])

    async def main():
        first, second = Own(), Own()
        async with routes_to(first, second) as config, AsyncEmbedder(config=config) as embedder:
            before = await embed_with(embedder)
            first.misdeeds = list(DOWN)
            during = await embed_with(embedder), await embed_with(embedder)
        return before, during

    assert asyncio.run(main()) == ("routes.r0", ("routes.r1", "routes.r1"))


@pytest.mark.parametrize(("store", "used"), [("present", True), ("none", False), ("failing", False)])
def test_a_process_that_starts_while_the_first_route_is_down_needs_its_stored_vectors(monkeypatch, store, used):
    stores = {"present": MemoryRecords(), "none": None, "failing": FailingRecords()}
    monkeypatch.setattr(_engine, "open_records", lambda _: stores[store])

    async def main():
        first, second = Own(), Own()
        async with routes_to(first, second) as config:
            before = await embed(config)
            first.misdeeds = list(DOWN)
            return before, await embed(config), second

    before, after, second = asyncio.run(main())
    assert before == "routes.r0"
    assert (after == "routes.r1") == used
    assert used or (second.bodies == [] and "is not proved" in after)


def test_another_model_is_refused_by_the_stored_vectors(records):
    async def main():
        first, second = Own(), Own("another model: ")
        async with routes_to(first, second) as config:
            await embed(config)
            first.misdeeds = list(DOWN)
            return await embed(config), second

    reason, second = asyncio.run(main())
    assert "returns vectors of another space" in reason
    assert second.received == []


def test_a_first_route_that_runs_another_model_than_before_is_not_used(records):
    async def main():
        first, second = Own(), Own()
        async with routes_to(first, second) as config:
            await embed(config)
            first.seed = "another model: "
            used = await embed(config)
            async with AsyncEmbedder(config=config) as embedder:
                second.misdeeds = list(DOWN)
                with pytest.raises(NoRouteError, match=r"routes\.r0: .*embedway models verify --remove reference-"):
                    await embedder.embed(TEXTS, model=MODEL)
                stored = [one for one in await embedder.models.proofs() if isinstance(one, StoredVectors)]
                (name,) = [one.name for one in stored if one.route.name == "routes.r0"]
            return used, name

    used, name = asyncio.run(main())
    assert used == "routes.r1"
    assert name.startswith("reference-")


def test_after_a_proof_one_text_is_enough_in_later_processes(records):
    async def main():
        first, second = Own(), Own()
        async with routes_to(first, second) as config:
            await embed(config)
            first.misdeeds = list(DOWN)
            await embed(config)
            sizes = [len(body["input"]) for body in second.bodies]
            await embed(config)
            return sizes, [len(body["input"]) for body in second.bodies][len(sizes) :]

    assert asyncio.run(main()) == ([25, 2], [1, 2])


@pytest.mark.parametrize("word", [{"same_space": True}, {"options": {"verify": "false"}}], ids=["new", "former"])
def test_a_declared_route_needs_no_proof(records, word, caplog):
    async def main():
        first, second = Own(), Own()
        first.misdeeds = list(DOWN)
        async with routes_to(first, second, r1=word) as config:
            return await embed(config), second

    route, second = asyncio.run(main())
    assert route == "routes.r1"
    assert [body["input"] for body in second.bodies] == [TEXTS]
    assert ("is now same_space = true" in caplog.text) == ("options" in word)


def test_the_users_word_outweighs_a_stored_difference_with_one_warning(records, caplog):
    async def main():
        first, second = Own(), Own("another model: ")
        async with (
            routes_to(first, second, r1={"same_space": True}) as config,
            AsyncEmbedder(config=config) as embedder,
        ):
            await embedder.models.verify("routes.r0", "routes.r1")
            first.misdeeds, second.seed = list(DOWN), ""
            return [await embed_with(embedder) for _ in range(2)]

    assert asyncio.run(main()) == ["routes.r1"] * 2
    [line] = [one.getMessage() for one in caplog.records if "because of same_space = true" in one.getMessage()]
    assert line.startswith("routes.r1 is used")
    assert "not in the space of routes.r0" in line


def test_contradicting_words_are_an_error(records):
    async def main():
        async with routes_to(Own(), Own(), r1={"same_space": True, "options": {"verify": "true"}}) as config:
            await embed(config)

    with pytest.raises(ConfigError, match="contradicts same_space"):
        asyncio.run(main())


def test_routes_of_the_catalog_need_no_proof_and_one_of_them_alone_does(records, monkeypatch):
    async def main(listed):
        monkeypatch.setattr(opening, "is_listed", lambda provider, endpoint, facts: endpoint.route in listed)
        first, second = Own(), Own()
        first.misdeeds = list(DOWN)
        async with routes_to(first, second) as config:
            return await embed(config)

    assert asyncio.run(main({"routes.r0", "routes.r1"})) == "routes.r1"
    assert "is not proved" in asyncio.run(main({"routes.r0"}))
    assert "is not proved" in asyncio.run(main({"routes.r1"}))


def test_a_proof_of_the_command_is_enough_and_one_that_found_a_difference_is_decisive(records):
    async def main(seed):
        first, second = Own(), Own(seed)
        async with routes_to(first, second) as config:
            async with AsyncEmbedder(config=config) as embedder:
                found = await embedder.models.verify("routes.r0", "routes.r1")
            first.misdeeds = list(DOWN)
            return found.proof.verdict, await embed(config), second

    verdict, route, second = asyncio.run(main(""))
    assert (verdict, route) == ("same space", "routes.r1")
    verdict, reason, second = asyncio.run(main("another model: "))
    assert verdict == "different"
    assert "is not in the same space as routes.r0, as `embedway models verify` found on" in reason
    assert "is not proved" not in reason
    assert second.received == []


def test_a_difference_that_the_command_found_outweighs_the_vectors_of_this_process(records):
    async def main():
        first, second = Own(), Own("another model: ")
        async with routes_to(first, second) as config, AsyncEmbedder(config=config) as embedder:
            await embedder.models.verify("routes.r0", "routes.r1")
            await embed_with(embedder)
            first.misdeeds, second.seed, asked = list(DOWN), "", len(second.bodies)
            return await embed_with(embedder), len(second.bodies) - asked

    reason, asked = asyncio.run(main())
    assert "as `embedway models verify` found on" in reason
    assert asked == 0


def test_a_proof_is_void_after_90_days_and_for_another_address(records):
    async def main():
        first, second, third = Own(), Own(), Own()
        async with routes_to(first, second) as config:
            async with AsyncEmbedder(config=config) as embedder:
                await embedder.models.verify("routes.r0", "routes.r1")
            first.misdeeds = list(DOWN)
            now = await embed(config)
            for record in await records.all("equivalence"):
                document = json.loads(record.document)
                document["made"] -= 91 * 86_400
                await records.put(dataclasses.replace(record, document=json.dumps(document)))
            late = await embed(config)
        async with routes_to(third, second) as config:
            third.misdeeds = list(DOWN)
            return now, late, await embed(config)

    now, late, elsewhere = asyncio.run(main())
    assert now == "routes.r1"
    assert "is not proved" in late
    assert "is not proved" in elsewhere


def test_processes_share_the_file_of_the_ledger_and_no_key_or_text_is_stored(tmp_path):
    path = tmp_path / "ledger.sqlite"

    async def main():
        first, second = Own(), Own()
        ledger = {"ledger.backend": "sqlite", "ledger.path": str(path)}
        async with routes_to(first, second, settings=ledger) as config:
            await embed(config)
            first.misdeeds = list(DOWN)
            return await embed(config)

    assert asyncio.run(main()) == "routes.r1"
    with contextlib.closing(sqlite3.connect(path)) as file:
        stored = "\n".join(file.iterdump())
    assert "equivalence" in stored
    assert not [secret for secret in (KEY, *TEXTS) if secret in stored]


def test_a_cancelled_caller_leaves_no_half_proof(records):
    async def main():
        first, second = Own(), Own()
        async with routes_to(first, second) as config:
            async with AsyncEmbedder(config=config) as embedder:
                task = asyncio.create_task(embedder.embed(TEXTS, model=MODEL))
                await first.arrived.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                before = await embed_with(embedder)
            first.misdeeds = list(DOWN)
            return before, await embed(config)

    assert asyncio.run(main()) == ("routes.r0", "routes.r1")
