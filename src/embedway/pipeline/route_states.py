"""States of routes after checks: quarantine, events and log."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from embedway.errors import LedgerError
from embedway.ledger.records import UnreadableRecordError
from embedway.quality.baseline_reports import LastCheck
from embedway.quality.quarantine import RouteState, name_of, routes_in
from embedway.telemetry.operations import DriftDetails

if TYPE_CHECKING:
    from typing import Literal

    from embedway.ledger.budgets import Budgets
    from embedway.ledger.records import Records
    from embedway.models.base import Model
    from embedway.quality.drift import RouteCheck
    from embedway.quality.quarantine import Quarantines

_log = logging.getLogger("embedway.quality")


class RouteStates:
    """States in the records. With `quarantine`, a route that drifted is not used until a check passes."""

    def __init__(
        self,
        records: Records,
        budgets: Budgets,
        quarantines: Quarantines | None,
        on_drift: Literal["warn", "quarantine"],
    ) -> None:
        self._records = records
        self._budgets = budgets
        self._quarantines = quarantines
        self._on_drift = on_drift
        #: Routes whose drift this process has reported.
        self._reported: set[str] = set()

    async def record(
        self, model: Model, check: RouteCheck, baseline_created: float, began: float, ended: float
    ) -> RouteCheck:
        """Store the result of a check, report it, and return it with the facts of the quarantine."""
        space_id, route = model.space.id, check.route
        before, is_unreadable = await self._get(space_id, route)
        was_quarantined = is_unreadable or (before is not None and before.quarantined)
        if check.verdict == "unchecked":
            return replace(check, quarantined=was_quarantined)
        had_drifted = before is not None and before.drifted
        last_passed = baseline_created if before is None else max(before.last_passed, baseline_created)
        is_drift = check.verdict == "drifted"
        state = RouteState(
            model.name,
            space_id,
            route,
            is_drift,
            is_drift and (was_quarantined or self._on_drift == "quarantine"),
            ended,
            last_passed if is_drift else ended,
            (before.drifted_since if before is not None and had_drifted else ended) if is_drift else None,
            check.reasons,
        )
        await self._records.put(state.to_record())
        if self._quarantines is not None:
            await self._quarantines.read()
        if is_drift:
            texts = await self._billed_texts(model.name, route, last_passed, began)
            check = replace(check, suspicious_since=last_passed, suspicious_texts=texts)
        self._report(state, check, had_drifted=had_drifted)
        return replace(check, quarantined=state.quarantined)

    async def release(self, space_id: str, route: str | None) -> list[str]:
        """End the quarantine of one route of a space, or of all; return the routes. Remove unreadable records."""
        ended = []
        for own in await self._routes_of(space_id) if route is None else [route]:
            state, is_unreadable = await self._get(space_id, own)
            if is_unreadable:
                await self._records.remove("quarantine", name_of(space_id, own))
            elif state is not None and state.quarantined:
                await self._records.put(replace(state, quarantined=False).to_record())
            else:
                continue
            ended.append(own)
        await self._read_again()
        return ended

    async def last_checks(self, space_id: str) -> dict[str, LastCheck]:
        """Return the last check of each route of a space; routes whose record cannot be read are left out."""
        states = [(await self._get(space_id, route))[0] for route in await self._routes_of(space_id)]
        return {
            one.route: LastCheck(
                "drifted" if one.drifted else "passed", one.quarantined, one.checked, one.last_passed, one.reasons
            )
            for one in states
            if one is not None
        }

    async def clear(self, space_id: str, route: str | None) -> None:
        """Remove the states of one route of a space, or of all, without reading them."""
        for own in await self._routes_of(space_id) if route is None else [route]:
            await self._records.remove("quarantine", name_of(space_id, own))
            self._reported.discard(name_of(space_id, own))
        await self._read_again()

    async def _read_again(self) -> None:
        if self._quarantines is not None:
            await self._quarantines.read()

    async def _get(self, space_id: str, route: str) -> tuple[RouteState | None, bool]:
        """Return the state of a route, None if there is none, and whether its record is unreadable."""
        try:
            record = await self._records.get("quarantine", name_of(space_id, route))
        except UnreadableRecordError:
            return None, True
        if record is None:
            return None, False
        state = RouteState.from_record(record)
        return state, state is None

    async def _routes_of(self, space_id: str) -> list[str]:
        """Return the routes of a space with a record, by the names of the records."""
        pairs = [pair for name, _ in await self._records.names("quarantine") for pair in routes_in(name)]
        return [route for space, route in pairs if space == space_id]

    async def _billed_texts(self, model: str, route: str, since: float, until: float) -> int | None:
        """Return the texts that a route answered between two times, by the ledger; None if it has booked none."""
        ledger = self._budgets.ledger
        if ledger is None:
            return None
        try:
            entries = await ledger.entries(since=since)
        except LedgerError:
            return None
        own = [
            one.texts for one in entries if one.model == model and one.opened < until and route in one.route.split(", ")
        ]
        return sum(own) if own else None

    def _report(self, state: RouteState, check: RouteCheck, *, had_drifted: bool) -> None:
        """Report a check. A drift that another process has found is `raised` in this process too."""
        if state.drifted:
            _log.warning(
                "%s differs from the baseline of %s: %s. %s%s",
                state.route,
                state.space_id,
                "; ".join(state.reasons),
                "It is in quarantine and not used. " if state.quarantined else "It is still used. ",
                check.advice,
            )
        elif had_drifted:
            _log.warning("%s agrees with the baseline of %s again", state.route, state.space_id)
        level: Literal["passed", "failed", "raised", "cleared"]
        if state.drifted:
            level = "failed" if had_drifted and state.name in self._reported else "raised"
        else:
            level = "cleared" if had_drifted else "passed"
        (self._reported.add if state.drifted else self._reported.discard)(state.name)
        self._budgets.hooks.event(
            DriftDetails,
            state.model,
            state.space_id,
            state.route,
            level,
            state.quarantined,
            check.cosine,
            check.accuracy_ratio,
            state.reasons,
        )
