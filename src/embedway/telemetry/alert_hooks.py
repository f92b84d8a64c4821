"""Hooks for alerts on routes, vectors and stores, to the logger `embedway.alerts`, a webhook and metrics."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedway.quality_commands import command
from embedway.telemetry.budget_hooks import budget_document
from embedway.telemetry.hooks import BaseHook
from embedway.telemetry.webhook import Webhook

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedway.telemetry.operations import (
        BudgetWarningDetails,
        CircuitDetails,
        DriftDetails,
        ErrorRateDetails,
        Operation,
        StoreErrorDetails,
        VectorCheckDetails,
    )

_log = logging.getLogger("embedway.alerts")

#: Time after which an alert on events that continue is sent again, in seconds.
REPEAT_S = 3600.0
#: Time without an event after which the next one is a new alert, in seconds.
QUIET_S = 300.0
_NOTHING = "Nothing needs to be done."
#: One sentence that says what to do, by the kind of the alert.
_REMEDIES = {
    "error_rate": "Check the key, the quota and the status of the service, or add another route to its model.",
    "circuit": "Check that the service of the route can be reached, or add another route to its model.",
    "vectors": "Check which model the route serves, and remove the route from the settings while it is wrong.",
    "drift": (
        "Check which model and version the route serves; {check} compares it again. Only if the change is intended, "
        "{replace} records a new baseline."
    ),
}
_STORE_REMEDIES = {
    "cache": "Check that the server or disk of the cache works and has space; until then vectors are computed again.",
    "ledger": "Check that the server or disk of the ledger works; until then calls under hard limits are refused.",
    "pins": "Check that the server or disk of the pins works; until then calls with collections are refused.",
}


@dataclass(slots=True)
class _Episode:
    """Events of one kind: when the last alert was sent and the last event happened, and events since that alert."""

    alerted: float
    seen: float
    count: int = 0


class _Episodes:
    """Bound on repetitions: an alert at the first event, then one each hour with the number of events.

    Events after `QUIET_S` without one are a new episode.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._episodes: dict[tuple[str, ...], _Episode] = {}

    def count(self, *key: str) -> int:
        """Count an event; return the events to report, or 0 if no alert is due."""
        now = self._clock()
        episode = self._episodes.get(key)
        if episode is None or now - episode.seen >= QUIET_S:
            unreported = 0 if episode is None else episode.count
            self._episodes[key] = _Episode(now, now)
            return unreported + 1
        episode.seen = now
        episode.count += 1
        if now - episode.alerted < REPEAT_S:
            return 0
        due, episode.count, episode.alerted = episode.count, 0, now
        return due


class AlertHook(BaseHook):
    """Hook that sends alerts to the log, the metrics and a webhook. Each alert names a remedy.

    Circuits (`dispatch/log_lines.py`) and failures of stores are logged without alerts too. With `budgets`, the webhook
    receives warnings of budgets too.
    """

    def __init__(
        self, webhook: str | None = None, *, budgets: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._webhook = None if webhook is None else Webhook(webhook, "an alert", _log, setting="alerts.webhook")
        #: Routes whose circuit was reported as open. A failed probe opens it again, which is not another alert.
        self._open: set[str] = set()
        self._episodes = _Episodes(clock)
        self._reports: dict[str, Callable[[Any], None]] = {
            "error_rate": self._report_rate,
            "circuit": self._report_circuit,
            "vector_check": self._report_vectors,
            "drift": self._report_drift,
            "store_error": self._report_store,
        }
        if budgets:
            self._reports["budget_warning"] = self._report_budget

    def event(self, operation: Operation) -> None:
        """Send an alert."""
        report = self._reports.get(operation.details.kind)
        if report is not None:
            report(operation.details)

    async def flush(self) -> None:
        """Wait briefly for pending requests of the webhook."""
        if self._webhook is not None:
            await self._webhook.flush()

    def _report_rate(self, details: ErrorRateDetails) -> None:
        kinds = ", ".join(f"{kind}: {count}" for kind, count in details.errors)
        facts = details.failed, details.requests, details.window_s
        if details.level == "raised":
            _count("error_rate", details.route)
            remedy = _REMEDIES["error_rate"]
            text = "route %s: %d of %d requests failed in the last %g s (%s). %s"
            _log.warning(text, details.route, *facts, kinds, remedy)
        else:
            _log.warning("route %s works again: %d of %d requests failed in the last %g s", details.route, *facts)
        document: dict[str, Any] = {
            "failed": details.failed,
            "requests": details.requests,
            "rate": round(details.rate, 6),
        }
        document |= {"window_s": details.window_s, "errors": dict(details.errors)}
        self._post("error_rate", {"level": details.level, "route": details.route, **document})

    def _report_circuit(self, details: CircuitDetails) -> None:
        route, is_open = details.route, details.after == "open"
        if details.after == "half-open" or is_open == (route in self._open):
            return
        if is_open:
            self._open.add(route)
            _count("circuit", route)
        else:
            self._open.discard(route)
        self._post("circuit", {"level": "raised" if is_open else "cleared", "route": route})

    def _report_vectors(self, details: VectorCheckDetails) -> None:
        """Report refused vectors, once for each episode of a route and check."""
        route, check = details.route, details.check
        due = self._episodes.count("vectors", route, check) if details.level == "refused" else 0
        if not due:
            return
        _count("vectors", route)
        text = "route %s: the check %s refused vectors (%d texts in the last of %d refusals). %s"
        _log.warning(text, route, check, details.texts, due, _REMEDIES["vectors"])
        document = {"model": details.model, "check": check, "texts": details.texts, "refusals": due}
        self._post("vectors", {"level": "raised", "route": route, **document})

    def _report_drift(self, details: DriftDetails) -> None:
        route = details.route
        if details.level in {"passed", "failed", "no_baseline"}:  # nothing has changed
            return
        if details.level == "cleared":
            _log.warning("route %s: its vectors agree with the baseline of space %s again", route, details.space_id)
        else:
            _count("drift", route)
            effect = "the route is not used any more" if details.quarantined else "the route is still used"
            text = "route %s: its vectors differ from the baseline of space %s (%s), and %s. %s"
            reasons = ", ".join(details.reasons)
            _log.warning(text, route, details.space_id, reasons, effect, _drift_remedy(details.model))
        document = {
            "model": details.model,
            "space_id": details.space_id,
            "quarantined": details.quarantined,
            "cosine": details.cosine,
            "accuracy_ratio": details.accuracy_ratio,
            "reasons": list(details.reasons),
        }
        if details.level == "raised":
            document["remedy"] = _drift_remedy(details.model)
        self._post("drift", {"level": details.level, "route": route, **document})

    def _report_store(self, details: StoreErrorDetails) -> None:
        """Report a failing store, once for each episode of a store and action."""
        due = self._episodes.count("store", details.store, details.action)
        if due:
            document: dict[str, Any] = {"action": details.action, "error": details.error, "failures": due}
            remedy = _STORE_REMEDIES[details.store]
            document |= {"level": "raised", "store": details.store, "remedy": remedy}
            self._post("store", document)

    def _report_budget(self, details: BudgetWarningDetails) -> None:
        self._post("budget", budget_document(details))

    def _post(self, kind: str, document: dict[str, Any]) -> None:
        """Post an alert, with the remedy of its kind unless the document names another."""
        if self._webhook is not None:
            remedy = _NOTHING if document["level"] == "cleared" else _REMEDIES.get(kind)
            self._webhook.post({"kind": kind, **document, "remedy": document.get("remedy", remedy)})


def _drift_remedy(model: str) -> str:
    check, replace = command("check", model), command("baseline", model, "--replace")
    return _REMEDIES["drift"].format(check=check, replace=replace)


def _count(kind: str, route: str) -> None:
    from embedway.telemetry.metrics import count_alert  # noqa: PLC0415  most programs have no alerts

    count_alert(kind, route)
