"""Libraries: backends, requirements of the package's own metadata, extras and pip."""

import sys
from importlib import metadata

import pytest

from embedway.cli.checks import libraries
from embedway.cli.checks.base import Setup
from embedway.config import Config


@pytest.fixture
def installed(monkeypatch):
    """Change the versions of installed packages; None for a missing one."""
    changed = {}
    real = metadata.version

    def version(name):
        found = changed[name] if name in changed else real(name)
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(libraries.metadata, "version", version)
    return changed


def by_name(findings):
    return {line.name: line for line in findings.lines}


def test_this_installation_meets_its_requirements():
    line = by_name(libraries.check_requirements(None))["requirements"]
    assert line.status == "ok"
    assert "numpy" in line.detail


@pytest.mark.parametrize(
    ("version", "said"),
    [("0.1", "0.1 is installed; numpy>=1.26 is required"), (None, "not installed; numpy>=1.26 is required")],
)
def test_a_requirement_that_is_not_met_is_a_warning(installed, version, said):
    installed["numpy"] = version
    found = by_name(libraries.check_requirements(None))
    assert (found["requirement numpy"].detail, found["requirements"].status) == (said, "warning")
    assert found["requirement numpy"].remedy == "pip install --upgrade 'numpy>=1.26'"


def test_without_metadata_versions_are_not_checked(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(libraries.metadata, "requires", missing)
    assert "metadata of embedway is missing" in libraries.check_requirements(None).lines[0].detail


def test_an_extra_is_installed_missing_incomplete_or_too_old(installed):
    installed |= {"lancedb": None, "redis": "8.1.0", "hiredis": None, "zstandard": "0.1"}
    found = by_name(libraries.check_extras(None))
    assert (found["extra lancedb"].status, found["extra lancedb"].detail) == ("skipped", "not installed")
    assert found["extra redis"].detail == "hiredis not installed"
    assert found["extra redis"].remedy == "pip install 'embedway[redis]'"
    assert found["requirement zstandard"].detail == "0.1 is installed; zstandard>=0.23 is required"
    installed |= {"redis": "8.1.0", "hiredis": "3.5.0"}
    assert by_name(libraries.check_extras(None))["extra redis"].detail == "8.1.0, 3.5.0"


def test_a_backend_is_missing_or_broken(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    line = libraries.check_backend("onnxruntime", None).lines[0]
    assert (line.status, line.detail, line.remedy) == ("warning", "not installed", "pip install onnxruntime")

    def load(name):
        raise ImportError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr(libraries.importlib, "import_module", load)
    line = libraries.check_backend("onnxruntime", None).lines[0]
    assert line.detail.startswith("cannot be loaded: ImportError: libgomp.so.1")
    assert "--force-reinstall" in line.remedy


def test_pip_is_needed_only_for_wheels(installed, monkeypatch):
    monkeypatch.setattr(libraries.util, "find_spec", lambda _: None)
    line = libraries.check_pip(Setup(Config(), is_loaded=True)).lines[0]
    assert (line.status, line.remedy) == ("warning", "python -m ensurepip")
    config = Config.load(environ={}, overrides={"weights.places": ["hub"]})
    assert libraries.check_pip(Setup(config, is_loaded=True)).lines[0].status == "skipped"


def test_metadata_of_another_version_is_a_warning(installed):
    assert libraries.check_package(None).lines[0].status == "ok"
    installed["embedway"] = "0.0.1"
    assert libraries.check_package(None).lines[0].status == "warning"
