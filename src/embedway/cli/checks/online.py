"""Calls of routes with `--online`: one short text, booked in the ledger and within the budgets like any call."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from embedway.cli.checks.base import Finding
from embedway.errors import EmbedwayError
from embedway.telemetry.hooks import BaseHook

if TYPE_CHECKING:
    from embedway.cli.checks.routes import RouteFacts
    from embedway.config import Config
    from embedway.telemetry.operations import Operation, Outcome

#: Timeout of the call, in seconds.
CALL_S = 10.0
_TEXT = "embedway doctor"
#: Advice by the class of the error, for an attempt or the whole call.
_REMEDIES = {
    "AuthenticationError": "correct the key, or give it the right to this model",
    "QuotaExceededError": "add money to the account, or raise its quota",
    "RateLimitedError": "try again later; requests_per_minute of the route limits its requests",
    "UnavailableError": "check base_url, the proxy and the state of the service",
    "DeadlineError": "check base_url, the proxy and the state of the service",
    "RefusedInputError": "check upstream_model and the options of the route",
    "ProtocolError": "check upstream_model and base_url, which ends where the API starts, such as /v1",
    "BadVectorsError": "check upstream_model and the model's dimensions",
    "BudgetExceededError": "raise the budget, or wait for its next period",
    "LedgerError": "see the line of the ledger",
    "WeightsUnavailableError": "`embedway models pull` downloads the weights, which check the server's vectors",
    "ConfigError": "correct the settings of the route",
}


class _FirstError(BaseHook):
    """Hook that stores the class of the first failed attempt, and the time of the last successful one."""

    def __init__(self) -> None:
        self.error = ""
        self.seconds: float | None = None

    def end(self, operation: Operation, outcome: Outcome) -> None:
        """Store the outcome of an attempt."""
        if operation.details.kind != "attempt":
            return
        if outcome.error is None:
            self.seconds = outcome.duration_s
        if outcome.error != "CancelledError":  # the deadline ended the attempt, and is reported
            self.error = self.error or outcome.error or ""


def call_route(line: str, detail: str, facts: RouteFacts, config: Config, route: str, *, only: str | None) -> Finding:
    """Call a route once, and report its latency and dimensions, or its error.

    `only` is the route's name in the settings; None for the catalog's route.
    """
    seen, started = _FirstError(), time.perf_counter()
    try:
        answered, dimensions = asyncio.run(_call(_restricted(config, only, facts), facts, seen))
    except EmbedwayError as error:
        kind = seen.error or type(error).__name__
        reason = dict(getattr(error, "failed", ())).get(route, str(error).partition("\n")[0])
        return Finding(line, "warning", f"{detail}: {kind}: {reason}", _remedy(kind, reason))
    seconds = seen.seconds if seen.seconds is not None else time.perf_counter() - started
    size = f", {dimensions} dimensions" if dimensions else ""
    by = "" if route in answered else f" by {', '.join(answered)}"
    return Finding(line, "ok", f"{detail}: answered{by} in {seconds * 1000:.0f} ms{size}")


def _remedy(kind: str, reason: str) -> str:
    """Return the advice for an error; that of a certificate and of a proxy are in its own words."""
    if "the certificate of " in reason:
        return "correct the certificate, or the trusted authorities: see docs/providers.md"
    if "the proxy in " in reason:
        return "correct the proxy: see docs/providers.md"
    return _REMEDIES.get(kind, "see docs/providers.md")


def _restricted(config: Config, only: str | None, facts: RouteFacts) -> Config:
    """Return settings with this route alone, one attempt, a short timeout and no cache; no weights are downloaded."""
    timeouts = {"max_attempts": 1, "deadline_s": CALL_S, "timeout_s": CALL_S}
    routes = {} if only is None else {only: config.routes[only].model_copy(update={"tokens_per_minute": None})}
    return config.model_copy(
        update={
            "routes": routes,
            "upstream": config.upstream.model_copy(update=timeouts),
            "cache": config.cache.model_copy(update={"backend": "none"}),
            "weights": config.weights.model_copy(update={"offline": config.weights.offline or facts.is_local}),
        }
    )


async def _call(config: Config, facts: RouteFacts, seen: _FirstError) -> tuple[tuple[str, ...], int | None]:
    """Return the routes that answered, and the dimensions of the vector."""
    from embedway import AsyncEmbedder

    async with AsyncEmbedder(config=config, hooks=[seen]) as embedder:
        if facts.task == "rerank":
            scores = await embedder.rerank(_TEXT, [_TEXT], model=facts.name)
            return scores.receipt.routes, None
        result = await embedder.embed(_TEXT, model=facts.name, deadline_s=CALL_S)
        return result.receipt.routes, int(result.vectors.shape[1])
