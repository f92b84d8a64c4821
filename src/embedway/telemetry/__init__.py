"""Hooks, and their uses: metrics, logs and the webhook."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from embedway.telemetry.hooks import Hook, Hooks
    from embedway.telemetry.route_facts import RouteFacts


@dataclass(frozen=True, slots=True)
class HookSettings:
    """Settings of the shipped hooks, from `[telemetry]`, `[alerts]` and `[ledger]`.

    `budget_webhook` receives warnings of budgets. With `alerts`, `alert_webhook` receives alerts, and warnings of
    budgets if there is no `budget_webhook`.
    """

    budget_webhook: str | None = None
    alerts: bool = False
    alert_webhook: str | None = None
    prometheus: bool = True
    opentelemetry: bool = False
    log_requests: bool = False
    push_gateway: str | None = None
    push_job: str = "embedway"
    push_every_s: float = 15.0
    #: Returns canonical names of models in the settings and the catalog by lower-case name and alias: labels.
    models: Callable[[], Mapping[str, str]] = dict
    #: Providers and servers of the settings' routes, by the route's name in operations.
    routes: Mapping[str, RouteFacts] = field(default_factory=dict)


def open_hooks(own: Sequence[Hook] = (), settings: HookSettings | None = None) -> Hooks:
    """Create the hooks of an embedder: the shipped ones that the settings want, then the caller's own hooks.

    Raises MissingExtraError for a hook whose library is not installed, and ConfigError if the files of metrics have no
    folder.
    """
    # Imported late: modules that import only a submodule do not need these.
    from embedway.telemetry.budget_hooks import LogHook, WebhookHook  # noqa: PLC0415
    from embedway.telemetry.hooks import Hooks  # noqa: PLC0415
    from embedway.telemetry.settings_hook import SettingsHook  # noqa: PLC0415

    wanted = HookSettings() if settings is None else settings
    hooks: list[Hook] = [LogHook()]
    if wanted.prometheus:
        hooks += _metric_hooks(wanted)
    if wanted.budget_webhook is not None:
        hooks.append(WebhookHook(wanted.budget_webhook))
    if wanted.alerts:
        from embedway.telemetry.alert_hooks import AlertHook  # noqa: PLC0415  only if it is used

        hooks.append(AlertHook(wanted.alert_webhook, budgets=wanted.budget_webhook is None))
    if wanted.opentelemetry:
        from embedway.telemetry.opentelemetry import OpenTelemetryHook  # noqa: PLC0415  an optional library

        hooks.append(OpenTelemetryHook())
    if wanted.log_requests:
        from embedway.telemetry.request_log import RequestLogHook  # noqa: PLC0415  only if it is used

        hooks.append(RequestLogHook())
    hooks += check_hooks(own)
    for hook in hooks:
        if isinstance(hook, SettingsHook):
            hook.use_settings(wanted.models, wanted.routes)
    return Hooks(hooks)


def _metric_hooks(wanted: HookSettings) -> Iterator[Hook]:
    from embedway.telemetry.labels import Labels  # noqa: PLC0415  as above
    from embedway.telemetry.multiprocess import checked_folder, is_multiprocess  # noqa: PLC0415  as above
    from embedway.telemetry.prometheus import PrometheusHook  # noqa: PLC0415

    if is_multiprocess():
        checked_folder()
    yield PrometheusHook(Labels(wanted.models, wanted.routes))
    if wanted.push_gateway is not None:
        from embedway.telemetry.push_gateway import PushHook  # noqa: PLC0415

        yield PushHook(wanted.push_gateway, wanted.push_job, wanted.push_every_s)


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
