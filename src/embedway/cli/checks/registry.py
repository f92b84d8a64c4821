"""All checks of `embedway doctor`, and the report of their results."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedway._version import __version__
from embedway.cli.checks import libraries, machine, models, network, routes, secrets, servers, settings, storage
from embedway.cli.checks.base import IMPORT_LIMIT_S, Check, Finding, Findings, Setup, start

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from embedway.cli.checks.base import Running

#: Checks in the order of the report. Backends, routes and services have one check each, see `_all_checks`.
CHECKS = (
    Check("values", "settings", settings.check_values),
    Check("embedway.toml", "settings", settings.check_trust),
    Check("embedway", "libraries", libraries.check_package, needs_settings=False),
    Check("python", "libraries", machine.check_python, needs_settings=False),
    Check("requirements", "libraries", libraries.check_requirements, needs_settings=False),
    Check("extras", "libraries", libraries.check_extras, needs_settings=False),
    Check("pip", "libraries", libraries.check_pip),
    Check("machine", "machine", machine.check_machine, needs_settings=False),
    Check("container", "machine", machine.check_container, needs_settings=False),
    Check("clock", "machine", machine.check_clock, needs_settings=False),
    Check("encoding", "machine", machine.check_terminal, needs_settings=False),
    Check("home", "storage", storage.check_home, needs_settings=False),
    Check("temporary files", "storage", storage.check_temporary, needs_settings=False),
    Check("weights", "storage", storage.check_weights),
    Check("cache", "storage", storage.check_cache),
    Check("ledger", "storage", storage.check_ledger),
    Check("pins", "storage", storage.check_pins),
    Check("trust", "storage", storage.check_trust_file, needs_settings=False),
    Check("redis", "storage", servers.check_servers, limit_s=20.0),
    Check("default model", "models", models.check_default_model, essential=True, limit_s=IMPORT_LIMIT_S),
    Check("default reranker", "models", models.check_reranker, limit_s=IMPORT_LIMIT_S),
    Check("local models", "models", models.check_local_models, limit_s=IMPORT_LIMIT_S),
    Check("tuned choices", "models", models.check_tuned),
    Check("models", "routes", routes.check_models),
    Check("budgets", "routes", routes.check_budgets),
    Check("proxies", "network", network.check_proxies, needs_settings=False),
    Check("tls", "network", network.check_tls, needs_settings=False),
    Check("hub", "network", network.check_hub),
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

    `document` is the JSON document. `tracebacks` are those of checks that failed.
    """

    sections: tuple[tuple[str, tuple[Finding, ...]], ...]
    facts: Mapping[str, Any]
    works: bool
    advice: tuple[str, ...]
    tracebacks: tuple[str, ...]

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
    """Run all checks at the same time, each in its own thread; they use the network only if `online`.

    Never raises: a check that fails is a line of the report.
    """
    # Libraries may print while they are imported, and standard output is the report alone.
    with contextlib.redirect_stdout(io.StringIO()):
        setup, loaded, running = settings.load(files, online=online)
        checks, planned = _all_checks(setup)
        started = [(check, start(check, setup)) for check in checks if setup is not None or not check.needs_settings]
        running += [one for _, one in started]
        results = [("settings", loaded), ("routes", planned)]
        results += [(check.section, one.result()) for check, one in started]
    if setup is None:
        skipped = [check for check in checks if check.needs_settings]
        detail = "needs the settings, which cannot be loaded"
        results += [(one.section, Findings((Finding(one.name, "skipped", detail),))) for one in skipped]
    failed = {one.check.name for one in running if one.findings is None and one.check.essential}
    return _report(setup, files, results, running, works=not failed)


def _all_checks(setup: Setup | None) -> tuple[tuple[Check, ...], Findings]:
    """Return all checks, and a line if those of the routes cannot be determined."""
    backends = libraries.backend_checks()
    try:
        return (*backends, *CHECKS, *routes.route_checks(setup)), Findings()
    except Exception as error:  # noqa: BLE001  the other checks are still useful
        detail = f"check routes failed: {type(error).__name__}"
        return (*backends, *CHECKS), Findings((Finding("routes", "failed", detail, CHECKS[0].remedy),))


def _report(
    setup: Setup | None,
    files: tuple[Path, ...],
    results: Sequence[tuple[str, Findings]],
    running: Iterable[Running],
    *,
    works: bool,
) -> Report:
    facts: dict[str, Any] = {**_FACTS, "backends": []}
    for _, findings in results:
        for name, value in findings.facts.items():
            facts[name] = [*facts[name], *value] if name == "backends" else value
    blocked = Findings(tuple(_missing_backend(facts["backends"], setup)))
    results = [*results, ("libraries", blocked)]
    mask = secrets.Mask.of(secrets.collect(setup.config if setup is not None else None, files))
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
    )


def _masked(finding: Finding, mask: secrets.Mask) -> Finding:
    return Finding(mask.text(finding.name), finding.status, mask.text(finding.detail), mask.text(finding.remedy))


def _advice(finding: Finding) -> str:
    return f"{finding.detail}: {finding.remedy}" if finding.remedy else finding.detail


def _missing_backend(backends: Sequence[Mapping[str, Any]], setup: Setup | None) -> Iterator[Finding]:
    """Iterate over what prevents local models from running: no backend, or not the one that the settings name."""
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
