"""Contract suite for every ledger."""

import asyncio
import collections
import datetime as dt
import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedway.errors import ConfigError, LedgerError, UsageError
from embedway.ledger.base import EVERYTHING, Limit, Purpose, Refused, Settlement, periods_at
from embedway.ledger.redis import RedisLedger
from embedway.ledger.sqlite import SqliteLedger
from inside import ask_ledger_file, wipe_ledger

from .conftest import NOON

MODEL = Purpose("small")
ALL = Limit("all", 1000)


async def reserved(ledger, amount, purpose=MODEL, limits=(), texts=1):
    return await ledger.reserve(purpose, amount, limits, lease_s=60, texts=texts)


async def total(ledger):
    return (await ledger.totals())[0]


def test_a_call_from_reservation_to_its_end(run):
    async def work(ledger):
        entry = await reserved(ledger, 300, Purpose("small", "docs", "team-a"), texts=5)
        assert (await total(ledger)).held == 300
        assert await ledger.send(entry, 200, ()) is None
        assert (await total(ledger)).held == 300
        await ledger.settle(entry, Settlement(200, 180, 9, "reported"), ())
        now = await total(ledger)
        assert (now.spent, now.held) == (180, 100)
        await ledger.close(entry, route="openai:small")
        now = await total(ledger)
        assert (now.spent, now.held, now.saved) == (180, 0, 0)
        (kept,) = await ledger.entries()
        assert (kept.model, kept.collection, kept.api_key, kept.route) == ("small", "docs", "team-a", "openai:small")
        assert (kept.state, kept.texts, kept.tokens, kept.spent, kept.reserved, kept.sent) == ("done", 5, 9, 180, 0, 0)
        assert kept.opened == kept.closed == NOON

    run(work)


@pytest.mark.parametrize("limit", [ALL, Limit("m", 1000, "model:small"), Limit("d", 1000, period="day")])
def test_a_hard_limit_is_never_passed_and_may_be_met(run, limit):
    async def work(ledger):
        await ledger.set_limit(limit)
        assert isinstance(await reserved(ledger, 600), str)
        refused = await reserved(ledger, 401)
        assert isinstance(refused, Refused)
        assert (refused.limit, refused.left) == (limit, 400)
        assert isinstance(await reserved(ledger, 400), str)
        assert isinstance(await reserved(ledger, 1), Refused)
        assert isinstance(await reserved(ledger, 0), str)

    run(work)


def test_limits_of_settings_hold_like_kept_ones(run):
    async def work(ledger):
        assert isinstance(await reserved(ledger, 1001, limits=[ALL]), Refused)
        entry = await reserved(ledger, 1000, limits=[ALL])
        assert (await ledger.send(entry, 1001, [ALL])).left == 0
        # A stored limit of the same name is separate, and both apply.
        await ledger.set_limit(Limit("all", 5000))
        refused = await reserved(ledger, 1, limits=[ALL])
        assert refused.limit.name == "all (settings)"
        assert isinstance(await reserved(ledger, 4001), Refused)

    run(work)


def test_zero_is_a_limit_and_soft_limits_refuse_nothing(run):
    async def work(ledger):
        assert isinstance(await reserved(ledger, 1, limits=[Limit("none", 0)]), Refused)
        assert isinstance(await reserved(ledger, 0, limits=[Limit("none", 0)]), str)
        assert isinstance(await reserved(ledger, 5000, limits=[Limit("soft", 1000, hard=False)]), str)

    run(work)


def test_a_limit_is_for_its_scope_alone(run):
    async def work(ledger):
        await ledger.set_limit(Limit("a", 100, "api_key:team-a"))
        await ledger.set_limit(Limit("docs", 50, "collection:docs"))
        assert isinstance(await reserved(ledger, 500), str)
        assert isinstance(await reserved(ledger, 100, Purpose("small", "", "team-a")), str)
        assert isinstance(await reserved(ledger, 1, Purpose("large", "", "team-a")), Refused)
        assert isinstance(await reserved(ledger, 51, Purpose("small", "docs", "team-b")), Refused)

    run(work)


def test_an_unknown_price_is_refused_by_any_hard_limit(run):
    async def work(ledger):
        assert isinstance(await reserved(ledger, None, limits=[Limit("soft", 0, hard=False)]), str)
        assert (await ledger.entries())[0].unpriced
        refused = await reserved(ledger, None, limits=[ALL])
        assert isinstance(refused, Refused)
        assert refused.left == 1000

    run(work)


def test_what_is_not_billed_can_be_sent_again(run):
    async def work(ledger):
        entry = await reserved(ledger, 1000, limits=[ALL])
        for _ in range(5):
            assert await ledger.send(entry, 1000, [ALL]) is None
            await ledger.settle(entry, Settlement(1000, 0, 0, "unbilled"), [ALL])
        # An attempt that may be billed keeps its money: another attempt needs its own.
        assert await ledger.send(entry, 1000, [ALL]) is None
        await ledger.settle(entry, Settlement(1000, 1000, 10, "unsure"), [ALL])
        assert isinstance(await ledger.send(entry, 1, [ALL]), Refused)
        await ledger.close(entry)
        (kept,) = await ledger.entries()
        assert (kept.spent, kept.unsure, kept.estimated, kept.tokens) == (1000, 1000, 0, 0)

    run(work)


def test_what_is_learned_after_an_entry_was_closed_puts_it_right(run):
    async def work(ledger):
        for cost, kind in [(90, "reported"), (100, "unsure"), (0, "unbilled"), (130, "estimated")]:
            before = await total(ledger)
            entry = await reserved(ledger, 150)
            await ledger.send(entry, 100, ())
            await ledger.close(entry)
            now = await total(ledger)
            assert (now.spent - before.spent, now.held) == (100, 0)
            await ledger.settle(entry, Settlement(100, cost, 5, kind), ())
            now = await total(ledger)
            assert (now.spent - before.spent, now.held) == (cost, 0)
            kept = next(one for one in await ledger.entries() if one.id == entry)
            assert (kept.state, kept.spent, kept.reserved, kept.sent) == ("done", cost, 0, 0)
            assert kept.unsure == (cost if kind == "unsure" else 0)

    run(work)


def test_what_costs_more_than_was_sent_takes_of_its_reservation(run):
    async def work(ledger):
        entry = await reserved(ledger, 1000, limits=[ALL])
        await ledger.send(entry, 500, [ALL])
        await ledger.settle(entry, Settlement(500, 900, 5, "reported"), [ALL])
        now = await total(ledger)
        assert (now.spent, now.held) == (900, 100)
        assert isinstance(await ledger.send(entry, 101, [ALL]), Refused)
        assert await ledger.send(entry, 100, [ALL]) is None
        # A bill above the reservation is booked completely.
        await ledger.settle(entry, Settlement(100, 300, 5, "reported"), [ALL])
        now = await total(ledger)
        assert (now.spent, now.held) == (1200, 0)
        assert isinstance(await reserved(ledger, 1, limits=[ALL]), Refused)

    run(work)


def test_a_mark_whose_answer_was_lost_is_taken_back(run):
    async def work(ledger):
        entry = await reserved(ledger, 100)
        await ledger.send(entry, 60, ())
        await ledger.send(entry, 70, ())
        for _ in range(2):  # it may be reverted already, or never made
            await ledger.revert_send(entry, 60)
            (kept,) = await ledger.entries()
            assert (kept.sent, kept.reserved) == (60, 70)
            assert (await total(ledger)).held == 130
        await ledger.revert_send(entry, 80)
        await ledger.close(entry)
        await ledger.revert_send(entry, 0)
        (kept,) = await ledger.entries()
        assert (kept.spent, kept.unsure, kept.sent, kept.reserved) == (60, 60, 0, 0)
        assert (await total(ledger)).held == 0

    run(work)


def test_estimates_are_marked(run):
    async def work(ledger):
        entry = await reserved(ledger, 100)
        await ledger.send(entry, 100, ())
        await ledger.settle(entry, Settlement(100, 100, 7, "estimated"), ())
        await ledger.close(entry)
        (kept,) = await ledger.entries()
        assert (kept.spent, kept.estimated, kept.tokens) == (100, 100, 7)

    run(work)


def test_a_crash_gives_back_what_was_reserved_and_books_what_was_under_way(run, clock):
    async def work(ledger):
        entry = await reserved(ledger, 500, limits=[ALL])
        await ledger.send(entry, 200, [ALL])
        clock.now += 59
        assert await ledger.expire() == 0
        await ledger.renew([entry], 60)
        clock.now += 59
        assert await ledger.expire() == 0
        clock.now += 2
        assert await ledger.expire() == 1
        now = await total(ledger)
        assert (now.spent, now.held) == (200, 0)
        (kept,) = await ledger.entries()
        assert (kept.state, kept.spent, kept.unsure, kept.reserved, kept.sent) == ("expired", 200, 200, 0, 0)
        # The process was paused, not dead: what it learns now is booked, but it may not spend its lost reservation.
        with pytest.raises(LedgerError, match="process was paused"):
            await ledger.send(entry, 100, [ALL])
        await ledger.settle(entry, Settlement(200, 150, 3, "reported"), [ALL])
        await ledger.close(entry, route="r")
        (kept,) = await ledger.entries()
        assert (kept.spent, kept.unsure, kept.tokens, kept.route) == (150, 0, 3, "r")
        now = await total(ledger)
        assert (now.spent, now.held) == (150, 0)

    run(work)


def test_a_reservation_finds_room_that_a_dead_process_held(run, clock):
    async def work(ledger):
        await reserved(ledger, 1000, limits=[ALL])
        assert isinstance(await reserved(ledger, 1000, limits=[ALL]), Refused)
        clock.now += 61
        assert isinstance(await reserved(ledger, 1000, limits=[ALL]), str)

    run(work)


def test_days_and_months_are_utc_and_a_call_belongs_to_its_beginning(run, clock):
    async def work(ledger):
        day, month = Limit("day", 1000, period="day"), Limit("month", 1500, period="month")
        for limit in (day, month):
            await ledger.set_limit(limit)
        clock.now = dt.datetime(2026, 11, 29, 23, 59, 59, tzinfo=dt.UTC).timestamp()
        entry = await reserved(ledger, 1000)
        assert isinstance(await reserved(ledger, 1), Refused)
        clock.now += 2
        await ledger.send(entry, 1000, ())
        await ledger.settle(entry, Settlement(1000, 1000, 5, "reported"), ())
        await ledger.close(entry)
        assert [one.spent for one in await ledger.standings()] == [0, 1000]
        assert isinstance(await reserved(ledger, 501), Refused)
        assert isinstance(await reserved(ledger, 500), str)
        clock.now = dt.datetime(2026, 12, 1, 0, 0, 0, tzinfo=dt.UTC).timestamp()
        assert [(one.period, one.spent, one.left) for one in await ledger.standings()] == [
            ("2026-12-01", 0, 1000),
            ("2026-12", 0, 1500),
        ]

    run(work)


def test_warnings_come_once_for_each_level_and_period(run, clock):
    async def work(ledger):
        limit = Limit("all", 1000, period="day", hard=False)

        async def spend(amount):
            entry = await reserved(ledger, amount)
            await ledger.send(entry, amount, [limit])
            found = await ledger.settle(entry, Settlement(amount, amount, 1, "reported"), [limit])
            await ledger.close(entry)
            return [(one.limit.name, one.level, one.spent) for one in found]

        assert await spend(499) == []
        assert await spend(1) == [("all", 50, 500)]
        assert await spend(100) == []
        assert await spend(400) == [("all", 100, 1000)]  # 80 is passed too, but only the highest level is reported
        assert await spend(400) == []
        clock.now += 86400
        assert await spend(800) == [("all", 80, 800)]

    run(work)


def test_a_limit_of_the_settings_that_is_raised_warns_again(run):
    async def work(ledger):
        async def spend(amount, *limits):
            entry = await reserved(ledger, amount, limits=limits)
            await ledger.send(entry, amount, limits)
            found = await ledger.settle(entry, Settlement(amount, amount, 1, "reported"), limits)
            await ledger.close(entry)
            return [(one.limit.nanousd, one.level) for one in found]

        low, high = Limit("b", 100, hard=False), Limit("b", 1000)
        assert await spend(100, low) == [(100, 100)]
        assert [await spend(amount, high) for amount in (350, 50, 300, 150)] == [
            [],
            [(1000, 50)],
            [(1000, 80)],
            [],
        ]
        # Two processes with different settings each warn once, for their own limit.
        assert await spend(1, low) == []
        assert await spend(49, high) == [(1000, 100)]
        assert await spend(0, high) == []

    run(work)


def test_savings_are_booked_and_cost_nothing(run):
    async def work(ledger):
        await ledger.book_saved(Purpose("small", "docs"), 420, texts=7, tokens=21)
        now = await total(ledger)
        assert (now.spent, now.held, now.saved) == (0, 0, 420)
        (kept,) = await ledger.entries()
        assert (kept.hits, kept.saved, kept.tokens, kept.route, kept.state) == (7, 420, 21, "cache", "done")

    run(work)


def test_limits_are_kept_replaced_and_removed(run, make):
    async def work(ledger):
        limits = [
            Limit("a", 5, "model:x", "day", hard=False, warn_at=(10, 90)),
            Limit("b", 9_000_000 * 10**9, "api_key:k", "month"),
        ]
        for limit in reversed(limits):
            await ledger.set_limit(limit)
        other = make()
        assert await other.limits() == limits
        await other.aclose()
        await ledger.set_limit(Limit("a", 6))
        assert (await ledger.limits())[0] == Limit("a", 6)
        assert await ledger.remove_limit("a")
        assert not await ledger.remove_limit("a")
        assert [one.name for one in await ledger.limits()] == ["b"]

    run(work)


def test_entries_are_listed_newest_first(run, clock):
    async def work(ledger):
        for number in range(5):
            await ledger.close(await reserved(ledger, number, Purpose(f"m{number}")))
            clock.now += 1
        assert [one.model for one in await ledger.entries(newest=2)] == ["m4", "m3"]
        assert [one.model for one in await ledger.entries(since=NOON + 3)] == ["m4", "m3"]
        assert len(await ledger.entries()) == 5

    run(work)


def test_large_amounts_stay_exact(run):
    async def work(ledger):
        most = 9_000_000 * 10**9
        entry = await reserved(ledger, most - 1, limits=[Limit("all", most)])
        assert isinstance(await reserved(ledger, 2, limits=[Limit("all", most)]), Refused)
        other = await reserved(ledger, 1, limits=[Limit("all", most)])
        assert isinstance(other, str)
        await ledger.send(entry, most - 1, ())
        await ledger.settle(entry, Settlement(most - 1, most - 3, 1, "reported"), ())
        assert (await total(ledger)).spent == most - 3

    run(work)


def test_concurrent_reservations_never_pass_the_limit(run, make):
    async def work(ledger):
        others = [make() for _ in range(3)]
        answers = await asyncio.gather(
            *(reserved(one, 30, limits=[ALL]) for _ in range(25) for one in (ledger, *others))
        )
        assert sum(isinstance(answer, str) for answer in answers) == 33
        assert (await total(ledger)).held == 990
        for other in others:
            await other.aclose()

    run(work)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["reserve", "send", "reported", "estimated", "unsure", "unbilled", "revert_send", "close", "crash", "day"]
        ),
        st.integers(0, 400),
        st.integers(0, 3),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_accounts_are_the_sums_of_entries_and_limits_hold(  # noqa: C901  a branch for each step
    make, kind, clock, steps
):
    if kind == "redis cluster":
        return  # the same script on the same server
    clock.now = NOON
    limits = [Limit("all", 1000), Limit("day", 700, period="day")]
    purposes = [Purpose("a"), Purpose("a", "docs"), Purpose("b", "docs", "k"), Purpose("b", "", "k")]

    async def work():  # noqa: C901, PLR0912
        ledger = make()
        await wipe_ledger(ledger)
        # A request outlives its entry: its answer may come after a close, and after the lease expired.
        live, flying = [], []
        beyond, costs, unsure = 0, collections.Counter(), collections.Counter()
        for step, amount, which in steps:
            if step == "reserve":
                answer = await reserved(ledger, amount, purposes[which], limits)
                if isinstance(answer, str):
                    live.append(answer)
            elif step == "send" and live:
                entry = live[which % len(live)]
                if await ledger.send(entry, amount, limits) is None:
                    flying.append((entry, amount))
            elif step in {"reported", "estimated", "unsure", "unbilled"} and flying:
                entry, sent = flying.pop(which % len(flying))
                cost = 0 if step == "unbilled" else sent if step == "unsure" else amount
                kept = next(one for one in await ledger.entries() if one.id == entry)
                beyond += max(0, cost - sent - kept.reserved)
                await ledger.settle(entry, Settlement(sent, cost, 1, step), limits)
                costs[entry] += cost
                unsure[entry] += cost if step == "unsure" else 0
            elif step == "revert_send" and live:
                entry = live[which % len(live)]
                await ledger.revert_send(entry, sum(sent for other, sent in flying if other == entry))
            elif step == "close" and live:
                await ledger.close(live.pop(which % len(live)))
            elif step == "crash":
                clock.now += 61
                await ledger.expire()
                live = []
            elif step == "day":
                for entry in live:
                    await ledger.renew([entry], 200_000)
                clock.now += 86400
            await audited(ledger, limits, beyond)
        clock.now += 10**6
        await ledger.expire()
        for entry, sent in flying:
            await ledger.settle(entry, Settlement(sent, 0, 0, "unbilled"), limits)
        for kept in await ledger.entries():
            assert (kept.reserved, kept.sent) == (0, 0)
            assert (kept.spent, kept.unsure) == (costs[kept.id], unsure[kept.id])
        await audited(ledger, limits, beyond)
        await ledger.aclose()

    asyncio.run(work())


async def audited(ledger, limits, beyond):
    """Check that accounts are the sums of entries, and that limits hold except for bills above the reservation."""
    entries = await ledger.entries()
    for standing in await ledger.standings(limits):
        own = [
            one
            for one in entries
            if standing.limit.takes(Purpose(one.model, one.collection, one.api_key))
            and periods_at(one.opened)[standing.limit.period] == standing.period
        ]
        assert standing.spent == sum(one.spent for one in own)
        assert standing.held == sum(one.reserved + one.sent for one in own)
        assert standing.spent + standing.held <= standing.limit.nanousd + beyond
    assert all(min(one.reserved, one.sent, one.spent, one.estimated, one.unsure) >= 0 for one in entries)


@pytest.mark.parametrize(
    "fields", [{"scope": "team:a"}, {"scope": "model:"}, {"period": "week"}, {"nanousd": -1}, {"name": " "}], ids=str
)
def test_what_is_no_limit_is_refused(fields):
    with pytest.raises(UsageError, match="budget"):
        Limit(**{"name": "x", "nanousd": 1, **fields})


def test_a_purpose_names_all_that_limits_can_be_for():
    assert Purpose("m").scopes == (EVERYTHING, "model:m")
    assert Purpose("m", "c", "k").scopes == (EVERYTHING, "api_key:k", "collection:c", "model:m")


def test_a_file_that_is_not_a_ledger_is_an_error(tmp_path):
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"no database" * 100)

    async def work():
        with pytest.raises(ConfigError, match=r"ledger\.sqlite: ledger\.path: is not a file of embedway's ledger"):
            await reserved(SqliteLedger(path), 1)

    asyncio.run(work())
    assert path.read_bytes() == b"no database" * 100


def test_a_missing_server_is_an_error():
    async def work():
        ledger = RedisLedger("redis://127.0.0.1:1")
        with pytest.raises(LedgerError, match="nothing is spent without it"):
            await reserved(ledger, 1)
        await ledger.aclose()

    asyncio.run(work())


def test_the_days_of_redis_are_the_calendars(valkey):
    days = [dt.datetime(y, m, d, 23, 59, 59, tzinfo=dt.UTC) for y in (1970, 2000, 2023, 2024, 2100) for m, d in DAYS]

    async def work():
        for day in days:
            ledger = RedisLedger(valkey, clock=day.timestamp)
            assert [one.period for one in await ledger.totals()] == list(periods_at(day.timestamp()).values())
            await ledger.aclose()

    asyncio.run(work())


DAYS = [(1, 1), (1, 31), (2, 28), (3, 1), (6, 30), (10, 31), (12, 31)]


def test_the_ledger_file_is_a_plain_database(tmp_path):
    path = tmp_path / "ledger.sqlite"

    async def work():
        ledger = SqliteLedger(path)
        await ledger.close(await reserved(ledger, 5))
        await ledger.aclose()

    asyncio.run(work())
    assert sqlite3.connect(path).execute("SELECT count(*) FROM entries").fetchone() == (1,)


def test_a_commit_of_the_ledger_file_is_on_the_disk(tmp_path):
    async def work():
        ledger = SqliteLedger(tmp_path / "ledger.sqlite")
        await reserved(ledger, 5)
        waits = await ask_ledger_file(ledger, "PRAGMA synchronous")
        await ledger.aclose()
        return waits

    assert asyncio.run(work()) == 2  # FULL: a commit returns when the data is on the disk
