"""All checks of `embedway doctor`, and the report of their results."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedway._version import __version__
from embedway.cli.checks import libraries
from embedway.cli.checks.base import IMPORT_LIMIT_S, Check, Finding, Findings, Setup, describe, start
from embedway.cli.checks.masking import Mask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from embedway.cli.checks.base import Running


def lazily(module: str, function: str) -> Callable[[Any], Findings]:
    """Return a check that imports its module when it runs, because a broken library may prevent the import."""

    def run(setup: Setup | None) -> Findings:
        found: Findings = getattr(importlib.import_module(f"embedway.cli.checks.{module}"), function)(setup)
        return found

    return run


#: Checks in the order of the report. Backends, routes and services have one check each, see `_all_checks`.
CHECKS = (
    Check("values", "settings", lazily("settings", "check_values")),
    Check("embedway.toml", "settings", lazily("settings", "check_trust")),
    Check("embedway", "libraries", lazily("libraries", "check_package"), needs_settings=False),
    Check("python", "libraries", lazily("machine", "check_python"), needs_settings=False),
    Check("requirements", "libraries", lazily("libraries", "check_requirements"), needs_settings=False),
    Check("extras", "libraries", lazily("libraries", "check_extras"), needs_settings=False),
    Check("pip", "libraries", lazily("libraries", "check_pip")),
    Check("machine", "machine", lazily("machine", "check_machine"), needs_settings=False),
    Check("container", "machine", lazily("machine", "check_container"), needs_settings=False),
    Check("clock", "machine", lazily("machine", "check_clock"), needs_settings=False),
    Check("encoding", "machine", lazily("machine", "check_terminal"), needs_settings=False),
    Check("home", "storage", lazily("storage", "check_home"), needs_settings=False),
    Check("temporary files", "storage", lazily("storage", "check_temporary"), needs_settings=False),
    Check("weights", "storage", lazily("storage", "check_weights")),
    Check("cache", "storage", lazily("storage", "check_cache")),
    Check("ledger", "storage", lazily("storage", "check_ledger")),
    Check("pins", "storage", lazily("storage", "check_pins")),
    Check("trust", "storage", lazily("storage", "check_trust_file"), needs_settings=False),
    Check("redis", "storage", lazily("servers", "check_servers"), limit_s=20.0),
    Check("default model", "models", lazily("models", "check_default_model"), essential=True, limit_s=IMPORT_LIMIT_S),
    Check("default reranker", "models", lazily("models", "check_reranker"), limit_s=IMPORT_LIMIT_S),
    Check("local models", "models", lazily("models", "check_local_models"), limit_s=IMPORT_LIMIT_S),
    Check("tuned choices", "models", lazily("models", "check_tuned")),
    Check("models", "routes", lazily("routes", "check_models")),
    Check("budgets", "routes", lazily("routes", "check_budgets")),
    Check("gateway", "network", lazily("gateway", "check_gateway"), limit_s=IMPORT_LIMIT_S),
    Check("proxies", "network", lazily("network", "check_proxies"), needs_settings=False),
    Check("tls", "network", lazily("network", "check_tls"), needs_settings=False),
    Check("hub", "network", lazily("network", "check_hub")),
)
SECTIONS = ("settings", "libraries", "machine", "storage", "models", "routes", "network")
#: Fields of the JSON document besides the findings. One whose check failed is null, or an empty list.
_FACTS: Mapping[str, Any] = {
    "embedway": __version__,
    "python": None,
    "machine": None,
    "backends": [],
    "extras": [],
    "weights": None,
    "default_model": None,
    "cache": None,
    "hub": None,
    "pip": None,
    "settings": [],
    "ignored": [],
    "tuned": [],
}


@dataclass(frozen=True, slots=True)
class Report:
    """Results of all checks, without secrets. `works` is true if texts can be embedded here.

    `document` is the JSON document. `tracebacks` are those of checks that failed, `warnings` those of the log.
    """

    sections: tuple[tuple[str, tuple[Finding, ...]], ...]
    facts: Mapping[str, Any]
    works: bool
    advice: tuple[str, ...]
    tracebacks: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def document(self) -> dict[str, Any]:
        """The JSON document. Its fields are stable."""
        checks = [
            {
                "section": section,
                "name": one.name,
                "status": one.status,
                "detail": one.detail,
                "remedy": one.remedy,
            }
            for section, lines in self.sections
            for one in lines
        ]
        return {**self.facts, "works": self.works, "advice": list(self.advice), "checks": checks}


def examine(files: tuple[Path, ...] = (), *, online: bool = False) -> Report:
    """Run all checks, each in its own thread; they use the network only if `online`.

    Never raises: a check that fails is a line of the report.
    """
    # Libraries may print while they are imported, and standard output is the report alone.
    with contextlib.redirect_stdout(io.StringIO()), _collected_warnings() as warnings:
        loaded: list[tuple[Setup | None, Findings, list[Running]]] = []
        loading = start(_loading_check(files, loaded, online=online), None)
        results = [("settings", loading.result())]
        setup, running = (loaded[0][0], [loading, *loaded[0][2]]) if loaded else (None, [loading])
        checks, planned = _all_checks(setup)
        results.append(("routes", planned))
        # One after another: threads that import the same package at once may get it half initialized.
        for check in checks:
            if setup is not None or not check.needs_settings:
                running.append(start(check, setup))
                results.append((check.section, running[-1].result()))
        mask, lacking = _mask(setup, files)
        results.append(("settings", lacking))
    if setup is None:
        skipped = [check for check in checks if check.needs_settings]
        detail = "needs the settings, which cannot be loaded"
        results += [(one.section, Findings((Finding(one.name, "skipped", detail),))) for one in skipped]
    failed = {one.check.name for one in running if one.findings is None and one.check.essential}
    return _report(setup, results, running, mask, warnings, works=not failed)


class _Warnings(logging.Handler):
    """Handler that collects the messages of the log, which may contain secrets."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):
            self.messages.append(record.getMessage())


@contextlib.contextmanager
def _collected_warnings() -> Iterator[list[str]]:
    handler = _Warnings()
    logging.getLogger().addHandler(handler)
    try:
        yield handler.messages
    finally:
        logging.getLogger().removeHandler(handler)


def _loading_check(
    files: tuple[Path, ...], loaded: list[tuple[Setup | None, Findings, list[Running]]], *, online: bool
) -> Check:
    def run(_: None) -> Findings:
        from embedway.cli.checks import settings

        loaded.append(settings.load(files, online=online))
        return loaded[0][1]

    return Check("settings", "settings", run, essential=True, limit_s=IMPORT_LIMIT_S)


def _mask(setup: Setup | None, files: tuple[Path, ...]) -> tuple[Mask, Findings]:
    """Return the mask of all secrets, and a line if they cannot be collected: without pydantic, no setting is read."""
    try:
        from embedway.cli.checks import secrets

        return Mask.of(secrets.collect(setup.config if setup is not None else None, files)), Findings()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  a broken library may raise anything when it is imported
        line = Finding("secrets", "failed", f"check secrets failed: {describe(error)}", CHECKS[0].remedy)
        return Mask(), Findings((line,))


def _all_checks(setup: Setup | None) -> tuple[tuple[Check, ...], Findings]:
    """Return all checks, and a line if those of the routes cannot be determined."""
    backends = libraries.backend_checks()
    if setup is None:
        return (*backends, *CHECKS), Findings()
    try:
        from embedway.cli.checks import routes

        return (*backends, *CHECKS, *routes.route_checks(setup)), Findings()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  the other checks are still useful
        line = Finding("routes", "failed", f"check routes failed: {describe(error)}", CHECKS[0].remedy)
        return (*backends, *CHECKS), Findings((line,))


def _report(
    setup: Setup | None,
    results: Sequence[tuple[str, Findings]],
    running: Iterable[Running],
    mask: Mask,
    warnings: Sequence[str],
    *,
    works: bool,
) -> Report:
    facts: dict[str, Any] = {**_FACTS, "backends": []}
    for _, findings in results:
        for name, value in findings.facts.items():
            facts[name] = [*facts[name], *value] if name == "backends" else value
    blocked = Findings(tuple(_missing_backend(facts["backends"], setup)))
    results = [*results, ("libraries", blocked)]
    sections = tuple(
        (section, tuple(_masked(one, mask) for name, found in results if name == section for one in found.lines))
        for section in SECTIONS
    )
    lines = [one for _, found in sections for one in found]
    advice = [_advice(one) for status in ("problem", "failed", "warning") for one in lines if one.status == status]
    return Report(
        sections,
        mask.document(facts),
        works and all(one.status != "problem" for one in lines),
        tuple(advice),
        tuple(mask.text(one.traceback) for one in running if one.error is not None),
        tuple(map(mask.text, warnings)),
    )


def _masked(finding: Finding, mask: Mask) -> Finding:
    return Finding(mask.text(finding.name), finding.status, mask.text(finding.detail), mask.text(finding.remedy))


def _advice(finding: Finding) -> str:
    return f"{finding.detail}: {finding.remedy}" if finding.remedy else finding.detail


def _missing_backend(backends: Sequence[Mapping[str, Any]], setup: Setup | None) -> Iterator[Finding]:
    """Iterate over problems of the backends: none is usable, the configured one is not, or a faster one is missing."""
    usable = {one["name"]: one for one in backends if one["version"]}
    wanted = setup.config.local.backend if setup is not None else "auto"
    if not usable:
        yield Finding("backend", "problem", "no backend can be loaded", "pip install onnxruntime")
    elif wanted != "auto" and wanted not in usable:
        yield Finding("backend", "problem", f"local.backend is {wanted}, which cannot be loaded", "set it to auto")
    from embedway.local import cpu

    if usable and cpu.facts().bf16 and not any("bf16" in one["precisions"] for one in usable.values()):
        detail = "this CPU supports bfloat16, which is faster, and ONNX Runtime does not use it"
        yield Finding("backend", "warning", detail, "pip install openvino")
