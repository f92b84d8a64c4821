"""Hooks, and their uses: metrics, logs and the webhook."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.telemetry.hooks import Hook, Hooks


def open_hooks(
    own: Sequence[Hook] = (), *, webhook: str | None = None, alerts: bool = False, alert_webhook: str | None = None
) -> Hooks:
    """Create the hooks of an embedder: log, metrics, webhook if there is one, then the caller's own hooks.

    `webhook` receives warnings of budgets. With `alerts`, `alert_webhook` receives alerts on routes, and warnings of
    budgets if there is no `webhook`.
    """
    # Imported late: modules that import only a submodule do not need these.
    from embedway.telemetry.alert_hooks import AlertHook  # noqa: PLC0415
    from embedway.telemetry.budget_hooks import LogHook, PrometheusHook, WebhookHook  # noqa: PLC0415
    from embedway.telemetry.hooks import Hooks  # noqa: PLC0415

    hooks: list[Hook] = [LogHook(), PrometheusHook()]
    if webhook is not None:
        hooks.append(WebhookHook(webhook))
    if alerts:
        hooks.append(AlertHook(alert_webhook, budgets=webhook is None))
    return Hooks([*hooks, *check_hooks(own)])


def check_hooks(own: Any) -> list[Hook]:
    """Return the caller's hooks. Raises UsageError for an object that is not a hook."""
    from embedway.arguments import as_list, attribute, is_a  # noqa: PLC0415  as above
    from embedway.errors import UsageError  # noqa: PLC0415

    hooks: list[Hook] = list(as_list(own, "hooks", "hooks"))
    for hook in hooks:
        is_class = is_a(hook, type)
        for name in ("begin", "end", "context", "event", "flush"):
            method = attribute(hook, name)
            is_right = callable(method) and inspect.iscoroutinefunction(method) is (name == "flush")
            if is_class or not is_right:
                kind = attribute(hook, "__name__") if is_class else type(hook).__name__
                what = "is a class; pass an instance" if is_class else f"has no valid method {name}"
                raise UsageError(f"hook {kind} {what}; derive it from embedway.telemetry.hooks.BaseHook")
    return hooks
