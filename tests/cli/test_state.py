"""`embedway state` and `embedway budget confirm`, and settings with paths of a user's other files."""

import stat

import pytest

from paid_model import MODEL


@pytest.fixture
def command(own_settings):
    """Return a runner of commands that name the settings of their folder."""
    return own_settings


@pytest.fixture
def paid(place):
    """Write settings with a model that costs money."""
    (place / "embedway.toml").write_text(MODEL)


def embed(command, *texts):
    return command("embed", "--model", "acme/m", *texts)


def test_from_a_backup_to_confirmed_books(command, paid, place):
    assert command("budget", "set", "all", "5").code == 0
    assert embed(command, "one two three").code == 0
    spent = command("budget", "show", "--json").json
    assert spent["restored"] is None
    made = command("state", "backup", "b.zip", "--json")
    assert (made.code, made.stderr) == (0, "")
    assert list(made.json["parts"]) == ["ledger.sqlite"]
    assert stat.S_IMODE((place / "b.zip").stat().st_mode) == 0o600
    assert embed(command, "four five six").code == 0

    refused = command("state", "restore", "b.zip")
    assert refused.code == 2
    assert "state already exists" in refused.stderr
    done = command("state", "restore", "b.zip", "--overwrite", "--json")
    assert done.code == 0
    assert done.json["to_confirm"] is True
    assert list(done.json["restored"]) == ["ledger.sqlite"]
    assert "`embedway budget confirm`" in done.stderr

    shown = command("budget", "show", "--json").json
    assert shown["spent"] == spent["spent"]
    assert shown["restored"]["books_of"] == done.json["created"] == made.json["created"]
    for output in ((), ("--csv",)):
        assert (
            "hard budgets refuse every call until `embedway budget confirm`"
            in command("budget", "show", *output).stderr
        )
    over = embed(command, "seven")
    assert (over.code, over.stdout) == (3, "")
    assert "was restored from a backup" in over.stderr

    assert command("budget", "confirm", "--json").json == {"confirmed": shown["restored"]}
    assert "nothing to confirm" in command("budget", "confirm").stderr
    assert command("budget", "confirm", "--json").json == {"confirmed": None}
    assert embed(command, "seven").code == 0

    kept = done.json["kept"]
    again = command("state", "restore", kept, "--overwrite")
    assert again.code == 0
    assert "the previous data is stored in" in again.stdout
    entries = command("budget", "ledger", "--json").json
    assert sum(one["texts"] for one in entries) == 2


def test_a_backup_replaces_a_file_only_where_that_is_asked_for(command, paid, place):
    nothing = command("state", "backup", "b.zip")
    assert nothing.code == 2
    assert "there is nothing to back up" in nothing.stderr
    assert command("budget", "set", "all", "5").code == 0
    (place / "b.zip").write_text("mine")
    refused = command("state", "backup", "b.zip")
    assert refused.code == 2
    assert "already exists" in refused.stderr
    assert (place / "b.zip").read_text() == "mine"
    assert command("state", "restore", "b.zip").code == 1
    assert command("state", "backup", "b.zip", "--overwrite").code == 0


@pytest.mark.parametrize("arguments", [(), ("--traceback",)])
def test_names_with_control_characters_are_shown_and_do_not_reach_the_terminal(command, paid, place, arguments):
    assert command("budget", "set", "all", "5").code == 0
    (place / "a\x01\x1b[31mb").write_text("no backup")
    for work, code in (("restore", 1), ("backup", 2)):
        told = command(*arguments, "state", work, "a\x01\x1b[31mb")
        assert told.code == code
        assert "a\\x01\\x1b[31mb" in told.stderr
        assert not {"\x01", "\x1b"} & set(told.stderr)


def test_no_ledger_is_told(command, place):
    (place / "embedway.toml").write_text('[ledger]\nbackend = "none"\n')
    assert command("budget", "confirm").code == 2


COMMANDS = {
    "cache.path": [("embed", "--model", "acme/m", "x"), ("cache", "stats"), ("cache", "clear", "--all")],
    "ledger.path": [
        *(("embed", "--model", "acme/m", "x"), ("budget", "show"), ("budget", "ledger"), ("budget", "confirm")),
        *(("budget", "set", "all", "5"), ("budget", "remove", "all"), ("state", "backup", "b.zip")),
    ],
    "pins.path": [
        *(("embed", "--model", "acme/m", "--collection", "docs", "x"), ("budget", "pins"), ("budget", "unpin", "docs")),
        ("state", "backup", "b.zip"),
    ],
}


@pytest.mark.parametrize("kind", ["text", "folder", "dangling"])
@pytest.mark.parametrize("key", COMMANDS)
def test_a_users_own_file_is_told_by_every_command_and_stays_as_it_is(command, paid, place, environment, key, kind):
    folder = place / "mine"
    folder.mkdir()
    path = folder / "thesis.txt"
    if kind == "text":
        path.write_text("my only copy\n" * 50)
        (folder / "thesis.txt-wal").write_text("another file of mine")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    environment[f"EMBEDWAY_{key.upper().replace('.', '__')}"] = str(path)
    before = sorted((one.name, one.lstat().st_mtime_ns, one.lstat().st_size) for one in folder.iterdir())
    for arguments in COMMANDS[key]:
        done = command(*arguments)
        assert (done.code, done.stdout) == (2, ""), arguments
        assert f"{path}: {key}: " in done.stderr
        assert "nothing was changed" in done.stderr
    assert sorted((one.name, one.lstat().st_mtime_ns, one.lstat().st_size) for one in folder.iterdir()) == before
    if kind == "text":
        assert path.read_text() == "my only copy\n" * 50
        assert (folder / "thesis.txt-wal").read_text() == "another file of mine"


def test_doctor_tells_of_a_users_own_file(command, place, environment):
    for name in ("CACHE", "LEDGER", "PINS"):
        path = place / name
        path.write_text("my only copy")
        environment[f"EMBEDWAY_{name}__PATH"] = str(path)
    report = command("doctor", "--json")
    assert report.code == 1
    told = " ".join(report.json["blockers"]) if "blockers" in report.json else report.stdout
    for name in ("cache", "ledger", "pins"):
        assert f"is not a file of embedway's {name}" in told
