"""Baselines of services on loopback that change, and the effect of a quarantine on calls."""

import asyncio
import contextlib
import json
import logging
import sqlite3
import subprocess
import sys
import zlib
from dataclasses import replace

import pytest

from async_tests import in_loop
from drift_faults import PROMPT, bf16, drifted, int8, permuted, real_vectors, rotated, unchanged
from drifting_server import DriftingServer, config_of, settings_of
from embedway import (
    AsyncEmbedder,
    BaseHook,
    BudgetExceededError,
    Config,
    Embedder,
    EmbedwayError,
    LedgerError,
    NoRouteError,
    Pair,
    UnavailableError,
    UsageError,
)
from embedway.pipeline.route_answers import RouteAnswers
from embedway.quality.names import PAID_PERIOD_S
from inside import engine_of, variables

FIRST = "harbour"


@pytest.fixture(scope="module")
def vectors(default_model_directory):
    return real_vectors(default_model_directory)


@pytest.fixture
def servers(vectors):
    made = [DriftingServer(vectors), DriftingServer(vectors)]
    yield made
    for server in made:
        server.close()


@pytest.fixture
def server(servers):
    return servers[0]


@pytest.fixture
def quarantining(servers, tmp_path):
    return config_of(servers, tmp_path, **{"quality.on_drift": "quarantine"})


def in_turn(one, other):
    return lambda rows, texts: other(one(rows, texts), texts)


class Events(BaseHook):
    def __init__(self):
        self.drifts = []

    def event(self, operation):
        if operation.details.kind == "drift":
            self.drifts.append(operation.details)


def set_up(server, tmp_path, **options):
    return AsyncEmbedder(config=config_of([server], tmp_path), **options)


@in_loop
async def test_an_unchanged_service_passes(server, tmp_path):
    async with set_up(server, tmp_path) as embedder:
        report = await embedder.quality.baseline()
        found = await embedder.quality.check()
    assert report.baseline.pairs == {"built-in": 67}
    assert report.baseline.prices_nanousd == {"routes.r0": 10**9}
    assert found.passed
    assert not found.drifted
    assert found.routes[0].cosine > found.routes[0].min_cosine
    assert found.routes[0].accuracy_ratio == found.routes[0].overlap == 1


@pytest.mark.parametrize("fault", [rotated, int8, bf16, permuted, drifted(0.01)])
@in_loop
async def test_a_changed_service_has_drifted(server, tmp_path, fault):
    async with set_up(server, tmp_path) as embedder:
        await embedder.quality.baseline()
        server.fault = fault
        found = await embedder.quality.check()
        assert [one.verdict for one in found.routes] == ["drifted"]
        assert "--replace" in found.routes[0].advice
        server.fault = unchanged
        assert (await embedder.quality.check()).passed


@in_loop
async def test_another_prompt_has_drifted(server, tmp_path):
    async with set_up(server, tmp_path) as embedder:
        await embedder.quality.baseline()
        server.prompt = PROMPT
        assert (await embedder.quality.check()).drifted


@in_loop
async def test_a_slow_drift_is_not_lost_between_checks(server, tmp_path):
    async with set_up(server, tmp_path) as embedder:
        server.fault = bf16
        await embedder.quality.baseline()
        verdicts = []
        for step in range(1, 11):
            server.fault = in_turn(drifted(0.0005 * step), bf16)
            verdicts.append((await embedder.quality.check()).drifted)
    first = verdicts.index(True)
    assert all(verdicts[first:])


@in_loop
async def test_permuted_rows_prevent_a_baseline(server, tmp_path):
    server.fault = permuted
    async with set_up(server, tmp_path) as embedder:
        with pytest.raises(EmbedwayError, match="rows may be permuted"):
            await embedder.quality.baseline()
        assert await embedder.quality.baselines() == []


@in_loop
async def test_vectors_of_another_size_are_a_drift(server, tmp_path):
    async with set_up(server, tmp_path) as embedder:
        await embedder.quality.baseline()
        server.fault = lambda rows, _texts: rows[:, :100]
        found = await embedder.quality.check()
    assert found.drifted


@in_loop
async def test_a_service_without_an_answer_is_unchecked_and_not_drifted(server, tmp_path):
    hook = Events()
    async with set_up(server, tmp_path, hooks=[hook]) as embedder:
        await embedder.quality.baseline()
        server.status = 503
        found = await embedder.quality.check()
    assert [one.verdict for one in found.routes] == ["unchecked"]
    assert not found.drifted
    assert not found.passed
    assert hook.drifts == []


@in_loop
async def test_the_check_is_planned_before_and_booked_after(server, tmp_path):
    async with set_up(server, tmp_path) as embedder:
        plan = await embedder.quality.plan(baseline=True)
        report = await embedder.quality.baseline()
        assert report.texts == plan.texts == server.texts
        assert len(server.requests) == plan.requests
        before = server.texts
        plan, found = await embedder.quality.plan(), await embedder.quality.check()
        assert found.texts == plan.texts == server.texts - before
        # Each request books at least one nano-dollar's worth of its own tokens.
        assert 0 < found.cost_nanousd <= 3 * plan.cost_nanousd
        entries = await engine_of(embedder).budgets.ledger.entries()
    assert sum(one.texts for one in entries) == server.texts
    assert sum(one.spent for one in entries) == report.cost_nanousd + found.cost_nanousd


@in_loop
async def test_nothing_is_sent_beyond_the_maximum_cost(server, tmp_path):
    async with set_up(server, tmp_path) as embedder:
        with pytest.raises(BudgetExceededError):
            await embedder.quality.baseline(max_cost="0.000001")
    assert server.requests == []


@in_loop
async def test_without_a_baseline_the_error_names_the_command(server, tmp_path):
    async with set_up(server, tmp_path) as embedder:
        with pytest.raises(UsageError, match="embedway quality baseline"):
            await embedder.quality.check()


@in_loop
async def test_without_a_ledger_there_is_no_baseline(server, tmp_path):
    config = config_of([server], tmp_path, **{"ledger.backend": "none"})
    async with AsyncEmbedder(config=config) as embedder:
        with pytest.raises(UsageError, match=r"ledger\.backend is none"):
            await embedder.quality.baseline()


@in_loop
async def test_a_baseline_is_replaced_only_on_request_and_after_its_differences(server, tmp_path):
    lines = []
    async with set_up(server, tmp_path) as embedder:
        await embedder.quality.baseline()
        with pytest.raises(UsageError, match="--replace"):
            await embedder.quality.baseline()
        server.fault = rotated
        report = await embedder.quality.baseline(replace=True, progress=lines.append)
        assert (await embedder.quality.check()).passed
    assert report.differences[0].verdict == "drifted"
    assert "16 of 16 canaries" in lines[-1]


@in_loop
async def test_own_pairs_are_compared_too(server, tmp_path):
    texts = [text for text in server.known if not text.startswith(PROMPT)][:6]
    pairs = [Pair(str(n), "shop", texts[2 * n], texts[2 * n + 1]) for n in range(3)]
    async with set_up(server, tmp_path) as embedder:
        report = await embedder.quality.baseline(pairs=pairs)
        found = await embedder.quality.check()
    assert report.baseline.pairs == {"built-in": 67, "own": 3}
    assert found.routes[0].groups["shop"].pairs == 3


@in_loop
async def test_another_version_of_the_pairs_is_said_and_the_rest_compared(server, tmp_path, monkeypatch):
    async with set_up(server, tmp_path) as embedder:
        await embedder.quality.baseline()
        monkeypatch.setattr("embedway.quality.pair_sets.BUILT_IN_DIGEST", "other")
        found = await embedder.quality.check()
    assert found.passed
    assert found.routes[0].accuracy_ratio is None
    assert "built-in pairs" in found.notes[0]


@in_loop
async def test_a_route_that_was_added_gets_its_part_of_the_baseline(servers, tmp_path):
    async with set_up(servers[0], tmp_path) as embedder:
        await embedder.quality.baseline()
    async with AsyncEmbedder(config=config_of(servers, tmp_path)) as embedder:
        found = await embedder.quality.check()
        assert [one.verdict for one in found.routes] == ["passed", "unchecked"]
        report = await embedder.quality.baseline()
        assert set(report.baseline.noise) == {"routes.r0", "routes.r1"}
        servers[1].fault = rotated
        found = await embedder.quality.check()
    assert [one.verdict for one in found.routes] == ["passed", "drifted"]


@in_loop
async def test_events_and_log_of_a_drift(server, tmp_path, caplog):
    hook = Events()
    async with set_up(server, tmp_path, hooks=[hook]) as embedder:
        await embedder.quality.baseline()
        await embedder.quality.check()
        server.fault = rotated
        with caplog.at_level(logging.WARNING, "embedway.quality"):
            await embedder.quality.check()
            await embedder.quality.check()
        server.fault = unchanged
        await embedder.quality.check()
    assert [one.level for one in hook.drifts] == ["passed", "raised", "failed", "cleared"]
    assert not any(one.quarantined for one in hook.drifts)
    assert "still used" in caplog.text


@in_loop
async def test_with_warn_a_drifted_route_is_used(server, tmp_path):
    async with set_up(server, tmp_path) as embedder:
        await embedder.quality.baseline()
        server.fault = rotated
        assert not (await embedder.quality.check()).routes[0].quarantined
        assert (await embedder.embed(FIRST)).receipt.routes == ("routes.r0",)


@in_loop
async def test_a_route_in_quarantine_is_not_used_until_it_passes(servers, quarantining):
    async with AsyncEmbedder(config=quarantining) as embedder:
        await embedder.quality.baseline()
        assert (await embedder.embed(FIRST)).receipt.routes == ("routes.r0",)
        servers[0].fault = rotated
        found = await embedder.quality.check()
        assert [one.quarantined for one in found.routes] == [True, False]
        assert found.routes[0].suspicious_since is not None
        assert (await embedder.embed(FIRST)).receipt.routes == ("routes.r1",)
        servers[0].fault = unchanged
        assert (await embedder.quality.check()).passed
        assert (await embedder.embed(FIRST)).receipt.routes == ("routes.r0",)


@in_loop
async def test_a_failure_names_the_route_in_quarantine_too(servers, quarantining):
    async with AsyncEmbedder(config=quarantining) as embedder:
        await embedder.quality.baseline()
        servers[0].fault = rotated
        await embedder.quality.check()
        servers[1].status = 503
        with pytest.raises(NoRouteError) as caught:
            await embedder.embed(FIRST)
    assert [route for route, _ in caught.value.failed] == ["routes.r0", "routes.r1"]
    assert "quality release" in caught.value.failed[0][1]


@in_loop
async def test_the_report_counts_the_texts_since_the_last_passed_check(server, tmp_path):
    async with set_up(server, tmp_path) as embedder:
        await embedder.quality.baseline()
        await embedder.quality.check()
        await embedder.embed([f"text {number}" for number in range(5)])
        server.fault = rotated
        assert (await embedder.quality.check()).routes[0].suspicious_texts == 5


@in_loop
async def test_without_a_healthy_route_the_error_says_what_to_do(servers, quarantining):
    async with AsyncEmbedder(config=quarantining) as embedder:
        await embedder.quality.baseline()
        for server in servers:
            server.fault = rotated
        await embedder.quality.check()
        sent = len(servers[0].requests)
        with pytest.raises(NoRouteError, match="quality release") as caught:
            await embedder.embed(FIRST, collection="docs")
        assert [route for route, _ in caught.value.failed] == ["routes.r0", "routes.r1"]
        assert len(servers[0].requests) == sent
        assert await embedder.quality.release(route="routes.r1") == ["routes.r1"]
        assert (await embedder.embed(FIRST)).receipt.routes == ("routes.r1",)
        await embedder.quality.baseline(replace=True)
        assert (await embedder.embed(FIRST)).receipt.routes == ("routes.r0",)


@in_loop
async def test_cached_vectors_remain_usable_in_quarantine(servers, tmp_path):
    more = {"quality.on_drift": "quarantine", "cache": {"backend": "memory"}}
    async with AsyncEmbedder(config=config_of(servers[:1], tmp_path, **more)) as embedder:
        await embedder.quality.baseline()
        await embedder.embed(FIRST)
        servers[0].fault = rotated
        await embedder.quality.check()
        assert (await embedder.embed(FIRST)).receipt.cache_hits == 1
        with pytest.raises(NoRouteError):
            await embedder.embed("another text")


@in_loop
async def test_a_check_without_an_answer_keeps_a_quarantine(servers, quarantining):
    async with AsyncEmbedder(config=quarantining) as embedder:
        await embedder.quality.baseline()
        servers[0].fault = rotated
        await embedder.quality.check()
        servers[0].status = 503
        found = await embedder.quality.check()
        assert [(one.verdict, one.quarantined) for one in found.routes] == [("unchecked", True), ("passed", False)]


CHILD = """
import asyncio, json, sys
from embedway import AsyncEmbedder, Config

async def main():
    async with AsyncEmbedder(config=Config.load(environ={}, overrides=json.loads(sys.argv[1]))) as embedder:
        print((await embedder.embed("harbour")).receipt.routes[0], flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("on_drift", ["quarantine", "warn"])
@in_loop
async def test_another_process_does_not_use_a_route_in_quarantine(servers, tmp_path, quarantining, on_drift):
    settings = json.dumps({**settings_of(servers, tmp_path), "quality": {"on_drift": on_drift}})

    def another():
        done = subprocess.run(
            [sys.executable, "-c", CHILD, settings], capture_output=True, check=False, env=variables(), timeout=120
        )
        assert not done.returncode, done.stderr
        return done.stdout.decode().strip()

    async with AsyncEmbedder(config=quarantining) as embedder:
        await embedder.quality.baseline()
        assert await asyncio.to_thread(another) == "routes.r0"
        servers[0].fault = rotated
        await embedder.quality.check()
    assert await asyncio.to_thread(another) == "routes.r1"


@in_loop
async def test_a_local_model_has_a_baseline_and_a_quarantine(default_model_directory, tmp_path, monkeypatch):
    overrides = {
        "weights.directory": str(default_model_directory),
        "cache.backend": "none",
        "ledger.path": str(tmp_path / "ledger.sqlite"),
        "quality.on_drift": "quarantine",
    }
    async with AsyncEmbedder(config=Config.load(environ={}, overrides=overrides)) as embedder:
        report = await embedder.quality.baseline()
        assert report.cost_nanousd == 0
        assert (await embedder.quality.check()).passed
        monkeypatch.setattr("embedway.quality.noise.FLOOR", 0.0)
        monkeypatch.setattr("embedway.quality.drift.distances", lambda left, _right: left[:, 0] * 0 + 1.0)
        assert (await embedder.quality.check()).drifted
        with pytest.raises(NoRouteError, match="quality check"):
            await embedder.embed("a text")


@in_loop
async def test_vectors_without_normalization_obey_the_quarantine_too(default_model_directory, tmp_path, monkeypatch):
    overrides = {
        "weights.directory": str(default_model_directory),
        "cache.backend": "none",
        "ledger.path": str(tmp_path / "ledger.sqlite"),
        "quality.on_drift": "quarantine",
    }
    async with AsyncEmbedder(config=Config.load(environ={}, overrides=overrides)) as embedder:
        await embedder.quality.baseline()
        assert not (await embedder.embed("a text", normalize=False)).space.normalized
        monkeypatch.setattr("embedway.quality.drift.distances", lambda left, _right: left[:, 0] * 0 + 1.0)
        assert (await embedder.quality.check()).drifted
        with pytest.raises(NoRouteError, match="quality check"):
            await embedder.embed("a text", normalize=False)


@in_loop
async def test_no_ledger_is_created_to_read_quarantines(default_model_directory, tmp_path):
    ledger = tmp_path / "new" / "ledger.sqlite"
    overrides = {
        "weights.directory": str(default_model_directory),
        "cache.backend": "none",
        "ledger.path": str(ledger),
    }
    async with AsyncEmbedder(config=Config.load(environ={}, overrides=overrides)) as embedder:
        await embedder.embed("a text")
    assert not ledger.parent.exists()


@in_loop
async def test_the_schedule_checks_open_models_in_the_background(server, tmp_path):
    hook = Events()
    config = config_of([server], tmp_path)
    async with AsyncEmbedder(config=config) as embedder:
        await embedder.quality.baseline()
    scheduled = config_of([server], tmp_path, **{"quality.check_every_s": 1})
    async with AsyncEmbedder(config=scheduled, hooks=[hook]) as embedder:
        await embedder.embed(FIRST)
        async with asyncio.timeout(60):
            while not hook.drifts:  # noqa: ASYNC110 - the hook is called in this loop
                await asyncio.sleep(0.05)
        engine = engine_of(embedder)
    assert hook.drifts[0].level == "passed"
    assert engine.scheduled_checks.done()


def test_the_schedule_ends_with_the_loop_of_an_embedder_that_was_not_closed(server, tmp_path):
    embedder = AsyncEmbedder(config=config_of([server], tmp_path, **{"quality.check_every_s": 1000}))

    async def main():
        await embedder.embed(FIRST)
        return engine_of(embedder).scheduled_checks

    assert asyncio.run(main()).cancelled()
    # The next loop has a schedule of its own.
    assert asyncio.run(main()).cancelled()


def test_the_blocking_form(server, tmp_path):
    with Embedder(config=config_of([server], tmp_path)) as embedder:
        embedder.quality.baseline(max_cost=1)
        assert embedder.quality.check().passed
        assert embedder.quality.plan().texts == 198
        assert len(embedder.quality.baselines()) == 1
        assert embedder.quality.release() == []
        assert embedder.quality.remove_baseline("m")
        with pytest.raises(UsageError, match="has no baseline"):
            embedder.quality.check()


def test_an_unknown_route_is_not_released(server, tmp_path):
    with (
        Embedder(config=config_of([server], tmp_path)) as embedder,
        pytest.raises(UsageError, match=r"routes are routes\.r0"),
    ):
        embedder.quality.release(route="x")


def test_pairs_that_are_no_pairs_are_refused(server, tmp_path):
    with Embedder(config=config_of([server], tmp_path)) as embedder, pytest.raises(UsageError, match="Pair objects"):
        embedder.quality.baseline(pairs=["a", "b"])


def test_a_service_that_is_down_has_no_baseline(server, tmp_path):
    server.status = 503
    with Embedder(config=config_of([server], tmp_path)) as embedder, pytest.raises((NoRouteError, UnavailableError)):
        embedder.quality.baseline()


@in_loop
async def test_a_scheduled_check_without_a_baseline_is_reported_and_logged_once(server, tmp_path, caplog):
    hook = Events()
    async with AsyncEmbedder(config=config_of([server], tmp_path), hooks=[hook]) as embedder:
        await embedder.embed(FIRST)
        engine = engine_of(embedder)
        with caplog.at_level(logging.WARNING, "embedway.quality"):
            for _ in range(2):
                assert await engine.names_to_check() == []
        (line,) = [one.getMessage() for one in caplog.records if one.name == "embedway.quality"]
        (model,) = engine.models.open_embedding_models()
        assert f"'{model.space.id}' has no baseline" in line
        assert f"`embedway quality baseline --model {model.name}`" in line
        assert [(one.route, one.level, one.quarantined) for one in hook.drifts] == [
            ("routes.r0", "no_baseline", False)
        ] * 2
        await embedder.quality.baseline()
        assert await engine.names_to_check() == [model.space.id]


def damage_records(tmp_path, kind, name, value):
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as connection, connection:
        connection.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?, 1)", (kind, name, value))


@pytest.mark.parametrize("value", [b"junk", zlib.compress(b"["), zlib.compress(b'{"version": 2}')])
@in_loop
async def test_an_unreadable_baseline_is_replaced_removed_and_hides_no_other(server, tmp_path, value, caplog):
    lines = []
    async with set_up(server, tmp_path) as embedder:
        space_id = (await embedder.quality.baseline()).baseline.space_id
        damage_records(tmp_path, "baseline", "other@1/3", value)
        assert [one.space_id for one in await embedder.quality.baselines()] == [space_id]
        assert "baseline of other@1/3 is left out" in caplog.text
        damage_records(tmp_path, "baseline", space_id, value)
        with pytest.raises(LedgerError, match="--replace"):
            await embedder.quality.check()
        with pytest.raises(LedgerError):
            await embedder.quality.baseline()
        await embedder.quality.baseline(replace=True, progress=lines.append)
        assert "because it cannot be read" in lines[0]
        assert (await embedder.quality.check()).passed
        damage_records(tmp_path, "baseline", space_id, value)
        damage_records(tmp_path, "quarantine", f"{space_id}|routes.r0", value)
        assert await embedder.quality.remove_baseline("acme/m") == [space_id]
        assert await embedder.quality.remove_baseline("other@1/3") == ["other@1/3"]
        assert await engine_of(embedder).records.names("quarantine") == []


@in_loop
async def test_two_processes_do_not_measure_one_baseline_at_once(server, tmp_path):
    async with set_up(server, tmp_path) as one, set_up(server, tmp_path) as other:
        done = await asyncio.gather(one.quality.baseline(), other.quality.baseline(), return_exceptions=True)
        assert sorted(type(each).__name__ for each in done) == ["BaselineReport", "UsageError"]
        assert server.texts == 334
        # The end of one, also by an error, allows the next one at once.
        await other.quality.baseline(replace=True)


@in_loop
async def test_routes_that_another_process_added_meanwhile_are_kept(servers, tmp_path):
    async with AsyncEmbedder(config=config_of(servers, tmp_path)) as embedder:
        await embedder.quality.baseline()
        stored = engine_of(embedder).baselines.stored
        (whole,) = await stored.all()
        one, other = (replace(whole, routes={name: route}) for name, route in whole.routes.items())
        await stored.put(one, replaces=True)
        merged = await stored.put(other, replaces=False)
        assert set(merged.routes) == set(whole.routes)
        with pytest.raises(UsageError, match="another process has replaced"):
            await stored.put(replace(other, canary_version=9), replaces=False)


@in_loop
async def test_a_cost_near_the_maximum_is_refused_before_anything_is_sent(servers, tmp_path):
    config = config_of(servers, tmp_path, **{"budgets.total": {"usd": "0.03", "period": "day"}})
    async with AsyncEmbedder(config=config) as embedder:
        plan = await embedder.quality.plan(baseline=True)
        most = plan.cost_nanousd * 15 // 10 / 1e9  # the tokens are an estimate, so twice as many are reserved
        with pytest.raises(BudgetExceededError, match="the request was not sent"):
            await embedder.quality.baseline(max_cost=most)
        with pytest.raises(BudgetExceededError, match="budget 'total'"):
            await embedder.quality.baseline()
        assert servers[0].requests == servers[1].requests == []


@in_loop
async def test_measured_routes_are_stored_if_the_money_ends(servers, tmp_path):
    async with AsyncEmbedder(config=config_of(servers, tmp_path)) as embedder:
        results = RouteAnswers.results

        async def failing(self, sets):
            if self.route == "routes.r1":
                raise LedgerError("the store is full")
            return await results(self, sets)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RouteAnswers, "results", failing)
            with pytest.raises(LedgerError) as caught:
                await embedder.quality.baseline()
        assert "534 texts were sent" in caught.value.__notes__[0]
        assert "routes.r0 are stored" in caught.value.__notes__[0]
        assert [set(one.noise) for one in await embedder.quality.baselines()] == [{"routes.r0"}]
        assert (await embedder.quality.baseline()).texts == 334


@in_loop
async def test_scheduled_checks_that_cost_money_have_a_minimum_period(server, tmp_path):
    async with set_up(server, tmp_path) as embedder:
        report = await embedder.quality.baseline()
        engine = engine_of(embedder)
        assert engine.shortest_period_s(report.baseline.space_id) == PAID_PERIOD_S
        assert engine.shortest_period_s("a space that is not open") == 0
