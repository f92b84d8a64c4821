"""Trust in discovered settings: by location and content, stored in one file of the user's."""

import json
import logging
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from embedway.config import Config
from embedway.config.discovered_file import discover
from embedway.config.trust import add_trust, content_sha256, file_location, read_trust, remove_trust, trust_path
from embedway.errors import ConfigError

FILE = Path("embedway.toml")
TEXT = "[local]\nthreads = 3\n"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Working directory."""
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def threads():
    return Config.load(environ={}).local.threads


def trust(path=FILE):
    found = discover(path)
    add_trust(found.location, found.sha256)


def test_a_trusted_file_is_followed_as_if_it_were_named(place):
    FILE.write_text(f'{TEXT}[weights]\ndirectory = "w"\n[routes.r]\nmodel = "m"\nprovider = "fake"\n')
    assert threads() is None
    trust()
    config = Config.load(environ={})
    assert (config.local.threads, config.weights.directory, config.ignored) == (3, place / "w", ())
    assert config.sources["routes.r.model"] == "embedway.toml"


def test_changed_content_is_not_trusted_and_that_is_logged(caplog):
    caplog.set_level(logging.WARNING, logger="embedway.config")
    FILE.write_text(TEXT)
    trust()
    FILE.write_text("[local]\nthreads = 4\n")
    assert threads() is None
    assert "has changed since it was trusted" in caplog.messages[-1]
    FILE.write_text(TEXT)
    assert threads() == 3
    assert len(caplog.messages) == 1


def test_the_same_content_elsewhere_is_not_trusted(place, tmp_path, monkeypatch):
    FILE.write_text(TEXT)
    trust()
    other = tmp_path / "other"
    other.mkdir()
    FILE.rename(other / FILE)
    monkeypatch.chdir(other)
    assert threads() is None


def test_a_link_in_a_foreign_folder_to_a_trusted_file_is_not_trusted(place, tmp_path, monkeypatch):
    """Its relative paths would start at the untrusted folder."""
    FILE.write_text(f'{TEXT}[cache]\npath = "vectors.sqlite"\n')
    trust()
    other = tmp_path / "other"
    other.mkdir()
    (other / FILE).symlink_to(place / FILE)
    monkeypatch.chdir(other)
    assert threads() is None


def test_a_link_that_the_user_trusted_is_followed_until_what_it_leads_to_changes(tmp_path):
    target = tmp_path / "shared.toml"
    target.write_text(TEXT)
    FILE.symlink_to(target)
    trust()
    assert threads() == 3
    target.write_text("[local]\nthreads = 4\n")
    assert threads() is None


def test_a_folder_is_the_same_by_whatever_path_it_is_reached(place, tmp_path, monkeypatch):
    FILE.write_text(TEXT)
    (tmp_path / "link").symlink_to(place)
    trust(tmp_path / "link" / FILE)
    assert threads() == 3
    monkeypatch.chdir(tmp_path / "link")
    assert threads() == 3


def test_the_content_that_is_judged_is_the_content_that_is_followed(monkeypatch):
    FILE.write_text(TEXT)
    trust()
    really = os.open

    def swapping(path, *arguments, **options):
        descriptor = really(path, *arguments, **options)
        if Path(path).name == FILE.name:
            # Another process replaces the file as soon as it is open.
            Path("next").write_text("[local]\nthreads = 9\n")
            Path("next").replace(FILE)
        return descriptor

    monkeypatch.setattr(os, "open", swapping)
    assert threads() == 3
    assert threads() is None


def test_it_is_one_file_for_the_user_alone():
    add_trust("/a/embedway.toml", content_sha256(b"a"))
    path = trust_path()
    assert path.is_relative_to(os.environ["XDG_STATE_HOME"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert json.loads(path.read_text()) == {
        "format": "embedway trust",
        "version": 1,
        "files": {"/a/embedway.toml": content_sha256(b"a")},
    }
    assert remove_trust("/a/embedway.toml")
    assert not remove_trust("/a/embedway.toml")
    assert read_trust().files == {}


def test_changes_at_once_lose_none(tmp_path):
    code = (
        "import sys; from embedway.config.trust import add_trust\n"
        "for n in range(10): add_trust(f'{sys.argv[1]}{n}', 'x')"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, name], cwd=tmp_path) for name in "ab"]
    assert [one.wait() for one in started] == [0, 0]
    assert len(read_trust().files) == 20


def test_a_later_version_is_an_error_that_names_it():
    FILE.write_text(TEXT)
    trust()
    trust_path().write_text('{"format": "embedway trust", "version": 2, "entries": []}')
    for act in (threads, trust):
        with pytest.raises(ConfigError, match="has version 2, and this embedway supports versions up to 1:"):
            act()
    assert '"version": 2' in trust_path().read_text()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1]",
        '{"files": {}}',
        '{"format": "embedway trust", "version": 1}',
        '{"format": "embedway trust", "version": "1", "files": {}}',
        '{"format": "embedway trust", "version": 1, "files": {"/a": 1}}',
        "[" * 100_000,
        "my own notes",
    ],
)
def test_a_damaged_file_trusts_nothing_says_so_and_is_left_alone(text, caplog):
    caplog.set_level(logging.WARNING, logger="embedway.config")
    FILE.write_text(TEXT)
    trust()
    trust_path().write_text(text)
    assert threads() is None
    assert "no settings file is trusted" in caplog.messages[0]
    assert str(trust_path()) in caplog.messages[0]
    with pytest.raises(ConfigError, match="delete it to start over"):
        trust()
    assert trust_path().read_text() == text


def test_it_is_never_taken_from_the_working_directory(place, monkeypatch):
    FILE.write_text(TEXT)
    trust()
    shipped = place / "state" / "embedway" / "trust.json"
    shipped.parent.mkdir(parents=True)
    trust_path().rename(shipped)
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    monkeypatch.setenv("HOME", str(place / "home"))
    assert trust_path() == place / "home/.local/state/embedway/trust.json"
    assert threads() is None
    monkeypatch.setenv("HOME", ".")
    assert threads() is None


def test_a_pipe_in_its_place_does_not_block():
    FILE.write_text(TEXT)
    trust()
    trust_path().unlink()
    os.mkfifo(trust_path())
    with pytest.raises(ConfigError, match="is not a regular file"):
        threads()


def test_places_are_whole_paths_of_real_folders(place, tmp_path):
    (tmp_path / "link").symlink_to(place)
    assert file_location(FILE) == file_location(tmp_path / "link" / FILE) == str(place / FILE)
