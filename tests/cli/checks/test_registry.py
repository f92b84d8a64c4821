"""Every check stands alone, and settings that cannot be loaded do not prevent the report."""

import dataclasses
import sys

import pytest

import embedway.cli.checks
from embedway.cli.checks import libraries, registry, routes, secrets, settings
from embedway.cli.checks.base import Setup
from embedway.cli.checks.registry import CHECKS, examine
from embedway.config import Config


class PanicError(BaseException):
    """Error that is not an `Exception`, as the panic of a Rust library is."""


ERRORS = (ImportError("odd\nmessage \x1b[31m"), PanicError("unwrap"), RecursionError(), MemoryError())
#: Each settings file makes a check for its own table.
TABLES = {
    "routes": '[routes."{name}"]\nmodel = "acme/m"\nprovider = "fake"\n[models.m]\nname = "acme/m"\ndimensions = 4\n'
    "max_tokens = 9\n",
    "models": '[models."{name}"]\nname = "acme/m"\ndimensions = 8\nmax_tokens = 512\n',
    "budgets": '[budgets."{name}"]\nusd = "50"\nperiod = "month"\n',
    "benchmarks": '[embedding.model_benchmarks."{name}"]\nmodel_name = "{name}"\nprovider = "x"\navg_latency_ms = 9\n'
    "tokens_per_second = 900\ncost_per_million_tokens = 1\nmax_context_length = 9\nembedding_dimensions = 9\n"
    "quality_score = 50\n",
    "options": '[routes."{name}"]\nmodel = "text-embedding-3-small"\nprovider = "openai"\napi_key = "sk-123456789"\n'
    '[routes."{name}".options]\n"{name}" = "1"\n',
}
NAMES = ("plain", "a.b", "a/b:c", "with spaces", "größe 名", "\\u001b[31mred", "a\\nb", "x.options.y", "openai", "__")


@pytest.fixture(autouse=True)
def own_place(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("broken", CHECKS, ids=[check.name for check in CHECKS])
def test_each_check_may_break_and_all_other_lines_are_there(monkeypatch, broken):
    error = ERRORS[CHECKS.index(broken) % len(ERRORS)]

    def fail(_):
        raise error

    own, others = [], []
    for check in CHECKS:
        lines = check.run(Setup(Config(), is_loaded=True)).lines
        (own if check is broken else others).extend((check.section, line.name) for line in lines)
    checks = (dataclasses.replace(check, run=fail) if check is broken else check for check in CHECKS)
    monkeypatch.setattr(registry, "CHECKS", tuple(checks))
    report = examine()
    lines = {(section, one.name): one for section, found in report.sections for one in found}
    assert set(others) <= set(lines)
    assert not (set(own) - {(broken.section, broken.name)}) & set(lines)
    line = lines[broken.section, broken.name]
    assert line.detail.startswith(f"check {broken.name} failed: {type(error).__name__}")
    assert line.remedy
    assert [one.status for one in lines.values()].count("failed") == 1
    assert report.works is not broken.essential
    assert len(report.tracebacks) == 1


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_backend_that_raises_on_import_does_not_hide_the_other(monkeypatch, error):
    real = libraries.importlib.import_module

    def load(name):
        if name == "openvino":
            raise error
        return real(name)

    monkeypatch.setattr(libraries.importlib, "import_module", load)
    report = examine()
    lines = {one.name: one for _, found in report.sections for one in found}
    assert lines["backend openvino"].status == "warning"
    assert f"cannot be loaded: {type(error).__name__}" in lines["backend openvino"].detail
    assert lines["backend onnxruntime"].status == "ok"
    assert [one["version"] is not None for one in report.facts["backends"]] == [False, True]


def test_no_backend_is_a_problem(monkeypatch):
    def load(name):
        raise OSError(f"{name}.so: wrong ELF class")

    monkeypatch.setattr(libraries.importlib, "import_module", load)
    report = examine()
    assert not report.works
    assert "no backend can be loaded: pip install onnxruntime" in report.advice


def test_a_backend_of_the_settings_that_cannot_be_loaded_is_a_problem(monkeypatch):
    def load(name):
        if name == "openvino":
            raise ImportError(name)

    monkeypatch.setattr(libraries.importlib, "import_module", load)
    monkeypatch.setenv("EMBEDWAY_LOCAL__BACKEND", "openvino")
    report = examine()
    assert not report.works
    assert any("local.backend is openvino" in line for line in report.advice)


@pytest.mark.parametrize("error", [*ERRORS, FileNotFoundError("no usable temporary directory")], ids=repr)
def test_settings_that_fail_in_any_way_are_a_line_and_the_machine_is_still_checked(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(Config, "load", fail)
    report = examine()
    assert not report.works
    assert any(detail.startswith("check settings failed") for detail in report.advice)
    lines = {one.name: one.status for _, found in report.sections for one in found}
    assert (lines["memory"], lines["weights"], lines["default settings"]) == ("ok", "ok", "skipped")
    # Not even the defaults can be created.
    monkeypatch.setattr(settings, "Config", fail)
    fail.load = fail
    report = examine()
    lines = {one.name: one.status for _, found in report.sections for one in found}
    assert not report.works
    assert (lines["memory"], lines["weights"], lines["default settings"]) == ("ok", "skipped", "failed")


def test_checks_of_routes_that_cannot_be_listed_are_a_line(monkeypatch):
    def fail(_):
        raise KeyError("x")

    monkeypatch.setattr(routes, "route_checks", fail)
    report = examine()
    assert "check routes failed: KeyError: 'x'" in [one.detail for _, lines in report.sections for one in lines]
    assert report.works


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("name", NAMES)
def test_tables_with_any_name_are_reported(tmp_path, table, name):
    file = tmp_path / "s.toml"
    file.write_text(TABLES[table].replace("{name}", name), encoding="utf-8")
    report = examine((file,))
    details = [one.detail for _, lines in report.sections for one in lines]
    assert not [detail for detail in details if detail.startswith("check ")]
    assert any(one["source"] == str(file) for one in report.facts["settings"])


def test_secrets_that_cannot_be_collected_do_not_prevent_the_report(monkeypatch):
    def fail(_):
        raise ValueError
        yield

    monkeypatch.setattr(secrets, "_of_config", fail)
    assert examine().works


def test_a_library_that_prints_does_not_spoil_standard_output(monkeypatch, capsys):
    def load(name):
        print(f"welcome to {name}")  # noqa: T201  as some libraries do

    monkeypatch.setattr(libraries.importlib, "import_module", load)
    examine()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("module", ["settings", "secrets", "routes", "storage", "network"])
def test_a_file_of_checks_that_cannot_be_imported_is_a_line(monkeypatch, module):
    """A broken library, such as pydantic, prevents its import."""
    monkeypatch.delattr(embedway.cli.checks, module)
    monkeypatch.setitem(sys.modules, f"embedway.cli.checks.{module}", None)
    report = examine()
    failed = [one for _, lines in report.sections for one in lines if one.status == "failed"]
    assert failed
    assert all("halted; None in sys.modules" in one.detail or "ImportError" in one.detail for one in failed)
    lines = {one.name: one.status for _, found in report.sections for one in found}
    assert (lines["memory"], lines["backend onnxruntime"]) == ("ok", "ok")
    assert report.works is (module != "settings")
