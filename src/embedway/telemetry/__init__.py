"""Hooks, and what hangs on them: metrics, logs and the webhook."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.telemetry.hooks import Hook, Hooks


def open_hooks(own: Sequence[Hook] = (), *, webhook: str | None = None) -> Hooks:
    """The hooks of an embedder: the log, the metrics, the webhook if there is one, then the caller's own."""
    # Late: modules that take a submodule from here need none of this.
    from embedway.telemetry.budget_hooks import LogHook, PrometheusHook, WebhookHook  # noqa: PLC0415
    from embedway.telemetry.hooks import Hooks  # noqa: PLC0415

    hooks: list[Hook] = [LogHook(), PrometheusHook()]
    if webhook is not None:
        hooks.append(WebhookHook(webhook))
    return Hooks([*hooks, *own])
