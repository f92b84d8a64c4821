"""Folders and files: space, permissions and formats; and checks that change nothing."""

import json
import os
import shutil
import sqlite3
import stat
from types import SimpleNamespace

import pytest

from embedway.cache.sqlite_format import FORMAT as CACHE
from embedway.cli.checks import storage
from embedway.cli.checks.base import Setup
from embedway.config import Config
from embedway.config.trust import add_trust, trust_path
from embedway.ledger.sqlite_formats import LEDGER, PINS
from embedway.sqlite import connect

FORMATS = {"cache": CACHE, "ledger": LEDGER, "pins": PINS}
CHECKS = {"cache": storage.check_cache, "ledger": storage.check_ledger, "pins": storage.check_pins}


@pytest.fixture
def setup(tmp_path):
    def make(**overrides):
        paths = {f"{name}.path": str(tmp_path / "state" / f"{name}.sqlite") for name in FORMATS}
        paths["weights.directory"] = str(tmp_path / "weights")
        given = {key.replace("__", "."): value for key, value in overrides.items()}
        return Setup(Config.load(environ={}, overrides={**paths, **given}), is_loaded=True)

    return make


@pytest.fixture
def created(tmp_path):
    """Create the files of the cache, the ledger and the pins, and return their paths."""
    folder = tmp_path / "state"
    for name, form in FORMATS.items():
        connection = connect(folder / f"{name}.sqlite", form)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
    return {name: folder / f"{name}.sqlite" for name in FORMATS}


def only(findings):
    (line,) = findings.lines
    return line


def contents(folder):
    return {
        path.relative_to(folder): (path.lstat().st_size, path.lstat().st_mode, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("name", FORMATS)
def test_files_that_do_not_exist_are_fine_and_not_created(setup, tmp_path, name):
    line = only(CHECKS[name](setup()))
    assert line.status == "ok"
    assert "is created when it is needed" in line.detail
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_files_of_this_version_are_fine_and_unchanged(setup, created, tmp_path, name):
    before = contents(tmp_path)
    assert only(CHECKS[name](setup())).status == "ok"
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", FORMATS)
def test_files_of_a_newer_version_are_problems(setup, created, name):
    connection = sqlite3.connect(created[name])
    connection.execute("PRAGMA user_version = 99")
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    line = only(CHECKS[name](setup()))
    assert line.status == "problem"
    assert "has version 99" in line.detail
    assert line.remedy == f"set {name}.path to another file"


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_are_reported(setup, created, name):
    data = bytearray(created[name].read_bytes())
    data[200:] = b"\xaa" * (len(data) - 200)
    created[name].write_bytes(data)
    line = only(CHECKS[name](setup()))
    assert line.status == ("warning" if name == "cache" else "problem")
    assert "is damaged" in line.detail
    assert line.remedy


@pytest.mark.parametrize("name", FORMATS)
def test_files_of_other_programs_are_problems(setup, tmp_path, name):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / f"{name}.sqlite").write_text("my only copy")
    (line, *_) = CHECKS[name](setup()).lines
    assert line.status == "problem"
    assert f"is not a file of embedway's {name}" in line.detail


def test_a_file_with_a_log_is_not_called_damaged(setup, created):
    connection = connect(created["ledger"], LEDGER)
    connection.execute("INSERT INTO meta VALUES ('a', 'b')")
    assert created["ledger"].with_name("ledger.sqlite-wal").stat().st_size
    assert only(CHECKS["ledger"](setup())).status == "ok"
    connection.close()


def test_a_large_file_is_checked_for_a_limited_time(setup, created, monkeypatch):
    monkeypatch.setattr(storage, "_CHECK_S", -1.0)
    monkeypatch.setattr(storage, "_STEPS", 1)
    assert only(CHECKS["ledger"](setup())).status == "ok"


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
@pytest.mark.parametrize(("mode", "who"), [(0o644, "all users"), (0o660, "its group"), (0o666, "all users")])
def test_state_that_others_can_read_is_a_warning(setup, created, mode, who):
    created["ledger"].chmod(mode)
    line = only(CHECKS["ledger"](setup()))
    assert line.status == "warning"
    assert f"can be used by {who} (mode {mode:o})" in line.detail
    assert line.remedy == f"chmod 600 {created['ledger']}"
    assert stat.S_IMODE(created["ledger"].stat().st_mode) == mode


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="users of POSIX")
def test_state_of_another_user_is_a_warning(setup, created, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: created["pins"].stat().st_uid + 1)
    assert "belongs to another user" in only(CHECKS["pins"](setup())).detail


@pytest.mark.parametrize("name", FORMATS)
def test_files_that_cannot_be_written_are_warnings(setup, created, monkeypatch, name):
    monkeypatch.setattr(os, "access", lambda *_: False)
    line = only(CHECKS[name](setup()))
    assert (line.status, line.detail) == ("warning", f"{created[name]} is not writable")


@pytest.mark.parametrize(("default", "status"), [("auto", "warning"), ("text-embedding-3-small", "problem")])
def test_a_ledger_that_cannot_be_written_prevents_calls_of_services(setup, tmp_path, default, status):
    (tmp_path / "file").write_text("no folder")
    given = setup(ledger__path=str(tmp_path / "file" / "ledger.sqlite"), embedding__default_model=default)
    line = only(storage.check_ledger(given))
    assert line.status == status
    assert "so calls of services are refused" in line.detail


@pytest.mark.parametrize("name", FORMATS)
def test_files_that_cannot_be_read_are_warnings(setup, created, monkeypatch, name):
    def refuse(path, kind):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(storage.formats, "check", refuse)
    line = only(CHECKS[name](setup()))
    assert line.status == "warning"
    assert "cannot be read: Permission denied" in line.detail


def test_other_backends_have_no_file(setup):
    assert only(storage.check_cache(setup(cache__backend="none"))).detail == "none"
    assert only(storage.check_cache(setup(cache__backend="redis"))).status == "ok"
    assert only(storage.check_ledger(setup(ledger__backend="redis"))).status == "ok"
    assert only(storage.check_pins(setup(pins__backend="redis"))).status == "ok"
    assert only(storage.check_ledger(setup(ledger__backend="none"))).detail == "none"


def test_budgets_without_a_ledger_are_a_warning(setup):
    line = only(storage.check_ledger(setup(ledger__backend="none", budgets__all__usd="5")))
    assert (line.status, line.detail) == ("warning", "none, so the budgets are not enforced")


def test_a_full_disk_is_a_warning(setup, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    for check in (storage.check_weights, storage.check_cache, storage.check_ledger, storage.check_pins):
        line = only(check(setup()))
        assert line.status == "warning"
        assert "1.0 MB free: the disk is almost full" in line.detail


def test_a_disk_of_unknown_size_is_fine(setup, monkeypatch):
    def fail(_):
        raise OSError

    monkeypatch.setattr(shutil, "disk_usage", fail)
    assert only(storage.check_weights(setup())).status == "ok"


def test_a_read_only_disk_is_a_warning_with_its_reason(setup, monkeypatch):
    def refuse(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(storage.tempfile, "TemporaryFile", refuse)
    for check in (storage.check_weights, storage.check_cache, storage.check_ledger, storage.check_pins):
        line = only(check(setup()))
        assert line.status == "warning"
        assert "Read-only file system" in line.detail


def test_no_temporary_folder_is_a_warning(monkeypatch):
    def fail():
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(storage.tempfile, "gettempdir", fail)
    line = only(storage.check_temporary(None))
    assert (line.status, line.remedy) == ("warning", "set TMPDIR to a writable folder")


@pytest.mark.parametrize(
    ("home", "said"),
    [("~", "HOME is not set"), ("/no/such/home", "does not exist"), ("/dev/null", "does not exist")],
)
def test_a_home_that_cannot_be_used_is_a_warning(monkeypatch, home, said):
    monkeypatch.setattr(os.path, "expanduser", lambda _: home)
    line = storage.check_home(None).lines[0]
    assert line.status == "warning"
    assert said in line.detail
    assert "set HOME" in line.remedy


def test_a_home_that_is_not_writable_is_a_warning(monkeypatch, tmp_path):
    def refuse(**_):
        raise OSError(13, "Permission denied")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(storage.tempfile, "TemporaryFile", refuse)
    assert storage.check_home(None).lines[0].detail == f"{tmp_path} is not writable: Permission denied"


def test_a_deleted_working_directory_is_a_warning(monkeypatch, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    place.rmdir()
    assert storage.check_home(None).lines[1].status == "warning"
    monkeypatch.chdir(tmp_path)
    assert storage.check_home(None).lines[1].detail == str(tmp_path)


# ------------------------------------------------------------ trust


def test_the_trust_file_is_counted_and_private(tmp_path):
    assert only(storage.check_trust_file(None)).detail == "no file is trusted"
    add_trust(str(tmp_path / "embedway.toml"), "0" * 64)
    assert "1 trusted file in" in only(storage.check_trust_file(None)).detail
    trust_path().chmod(0o644)
    assert "mode 644" in only(storage.check_trust_file(None)).detail


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        ("not json", "warning", "is damaged, so no settings file is trusted"),
        ("{}", "warning", "is not a file of embedway's trust"),
        (json.dumps({"format": "embedway trust", "version": 99}), "warning", "has version 99"),
    ],
)
def test_a_trust_file_that_cannot_be_used(content, status, said):
    trust_path().parent.mkdir(parents=True)
    trust_path().write_text(content)
    line = only(storage.check_trust_file(None))
    assert line.status == status
    assert said in line.detail
    assert line.remedy


def test_a_trust_file_that_is_a_folder():
    trust_path().mkdir(parents=True)
    assert only(storage.check_trust_file(None)).status == "warning"
