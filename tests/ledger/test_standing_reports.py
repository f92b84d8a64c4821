"""Reports of budgets: those that changed, and those whose period ended."""

import asyncio

from embedway.ledger.base import Limit, Purpose, Standing
from embedway.ledger.standing_reports import StandingReports
from embedway.telemetry.hooks import BaseHook, Hooks

ALL, DOCS = Limit("all", 1000, period="day"), Limit("docs", 1000, scope="collection:docs", period="day")


class Listening(BaseHook):
    def __init__(self):
        self.found = []

    def event(self, operation):
        self.found.append((operation.details.budget, operation.details.spent_nanousd, operation.details.period))


class Days:
    """Ledger of two days."""

    day = "2026-11-26"

    async def standings(self, limits):
        spent = 900 if self.day == "2026-11-26" else 0
        return [Standing(limit, self.day, spent, 0) for limit in limits]


def test_a_budget_is_reported_when_its_period_ends_also_without_a_change():
    hook, ledger, tasks = Listening(), Days(), []

    async def main():
        reports = StandingReports(ledger, (ALL, DOCS), Hooks([hook]), tasks.append)
        reports.note_change(Purpose("m", "docs"))
        await reports.report()
        ledger.day = "2026-11-27"
        for _ in range(2):
            reports.note_change(Purpose("m"))
            await reports.report()

    asyncio.run(main())
    assert hook.found == [
        ("all", 900, "2026-11-26"),
        ("docs", 900, "2026-11-26"),
        ("all", 0, "2026-11-27"),
        ("docs", 0, "2026-11-27"),
        ("all", 0, "2026-11-27"),
    ]
