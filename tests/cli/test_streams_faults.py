"""Commands whose standard streams are closed, full, or without a reader; in odd locales and folders."""

import json
import os
import sqlite3
import subprocess
import sys

import pytest

SETTINGS = """\
[embedding]
default_model = "acme/m"
[models.m]
name = "acme/m"
dimensions = 16
max_tokens = 256
[routes.r]
model = "acme/m"
provider = "fake"
"""
#: How a shell runs a command, and the exit code of one that prints its result.
STREAMS = {
    "stdout closed": (">&-", 1),
    "stdout full": (">/dev/full", 1),
    "all closed": ("<&- >&- 2>&-", 1),
    "stderr closed": ("2>&-", 0),
    "stderr full": ("2>/dev/full", 0),
    "stdin closed": ("<&-", 0),
}
#: Databases would fail first when file sizes are limited.
NO_DATABASES = {"EMBEDWAY_CACHE__BACKEND": "none", "EMBEDWAY_LEDGER__BACKEND": "none"}
#: Commands by the place of their result.
RESULT_IS_PRINTED = {
    "embed": ["embed", "a text"],
    "embed --json": ["embed", "a text", "--json"],
    "version": ["--version"],
    "help": ["run", "--help"],
}
RESULT_IS_STORED = {
    "run": ["run", "d", "--to", "o.parquet"],
    "init": ["init", "--force"],
    "budget set": ["budget", "set", "b", "5"],
    "state backup": ["state", "backup", "s.zip", "--overwrite"],
}


@pytest.fixture
def folder(place):
    (place / "settings.toml").write_text(SETTINGS)
    (place / "d").mkdir()
    (place / "d" / "a.md").write_text("a text\n")
    return place


@pytest.fixture
def shell(folder, environment):
    """Return a function that runs the command in a shell, with redirections."""

    def run(arguments, redirection="", before="", variables=None):
        # An interpreter is the shell's process, so a limit or a closed descriptor applies to it alone.
        line = f'{before} exec "$0" -m embedway --config settings.toml "$@" {redirection}'
        return subprocess.run(
            ["/bin/sh", "-c", line, sys.executable, *arguments],
            cwd=folder,
            env={**environment, **(variables or {})},
            capture_output=True,
            check=False,
            timeout=240,
        )

    return run


@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize("command", ["embed --json", "version", "help"])
def test_a_result_that_cannot_be_printed_fails(shell, command, streams):
    redirection, code = STREAMS[streams]
    done = shell(RESULT_IS_PRINTED[command], redirection)
    assert done.returncode == code
    assert b"Traceback" not in done.stderr
    if streams.startswith("stdout"):
        assert done.stderr.startswith(b"embedway: error: standard output cannot be written: ")
    elif code == 0 and command == "embed --json":
        assert len(json.loads(done.stdout)["embeddings"]) == 1


@pytest.mark.parametrize(
    ("command", "streams"),
    [(command, streams) for command in RESULT_IS_STORED for streams in STREAMS if command == "run" or "out" in streams],
)
def test_work_is_done_whatever_the_streams_are(shell, folder, command, streams):
    if command == "state backup":
        assert shell(["budget", "set", "b", "5"]).returncode == 0
    done = shell(RESULT_IS_STORED[command], STREAMS[streams][0])
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    if command == "run":
        assert shell(["search", "o.parquet", "a text", "--model", "acme/m"]).returncode == 0


@pytest.mark.parametrize("streams", ["stdout closed", "stdout full"])
def test_a_json_document_that_cannot_be_printed_fails_although_the_work_is_done(shell, folder, streams):
    done = shell(["run", "d", "--to", "o.parquet", "--json"], STREAMS[streams][0])
    assert done.returncode == 1
    assert b"the work is done" in done.stderr
    assert (folder / "o.parquet").exists()


def test_nothing_is_written_into_a_file_that_got_a_closed_descriptor(shell, folder, environment):
    names = {"EMBEDWAY_CACHE__PATH": "cache.sqlite", "EMBEDWAY_LEDGER__PATH": "ledger.sqlite"}
    variables = {variable: str(folder / name) for variable, name in names.items()}
    done = shell(["run", "d", "--to", "o.jsonl"], "<&- >&- 2>&-", variables=variables)
    assert done.returncode == 0
    assert [json.loads(line)["text"] for line in (folder / "o.jsonl").read_text().splitlines()] == ["a text"]
    for name in names.values():
        connection = sqlite3.connect(folder / name)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()


def test_a_standard_input_that_cannot_be_read_is_an_error_where_it_is_read(shell):
    for arguments in (["embed", "-"], ["run", "-", "--to", "o.parquet", "--format", "text"], ["cache", "verify", "-"]):
        for redirection, reason in (("<&-", b"is closed"), ("0>out", b"cannot be read: Bad file descriptor")):
            done = shell(arguments, redirection)
            assert (done.returncode, done.stdout) == (1, b"")
            assert done.stderr == b"embedway: error: standard input: " + reason + b"\n"


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("command", ["embed", "run"])
def test_a_reader_that_left_ends_nothing_but_the_print(environment, folder, number, command):
    arguments = {**RESULT_IS_PRINTED, **RESULT_IS_STORED}[command]
    reading, writing = os.pipe()
    os.close(reading)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, ("", "stdout", "stderr")[number]: writing}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "embedway", "--config", "settings.toml", *arguments],
            env=environment,
            cwd=folder,
            check=False,
            **streams,
        )
    finally:
        os.close(writing)
    assert done.returncode == (1 if (number, command) == (1, "embed") else 0)
    assert not done.stderr
    assert (folder / "o.parquet").exists() == (command == "run")


def test_an_ascii_locale_shows_other_characters_as_escapes(shell):
    variables = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    utf8 = json.loads(shell(["embed", "bücher", "--json"]).stdout)["embeddings"]
    assert json.loads(shell(["embed", "bücher", "--json"], variables=variables).stdout)["embeddings"] == utf8
    assert shell(["budget", "set", "bücher", "5"], variables=variables).returncode == 0
    for arguments in (["budget", "show"], ["budget", "show", "--csv"]):
        done = shell(arguments, variables=variables)
        assert done.returncode == 0
        assert b"b\\xfccher" in done.stdout
    assert json.loads(shell(["budget", "show", "--json"], variables=variables).stdout)["budgets"][0]["name"] == "bücher"
    assert shell(["run", "--help"], variables=variables).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["embed", b"\xff"],
        ["search", "o.parquet", b"\xff"],
        ["budget", "set", b"\xff", "5"],
        ["run", "d", "--to", b"\xff.parquet"],
        ["run", "d", "--to", "o.parquet", "--collection", b"\xff"],
        ["run", "d", "--to", "o.parquet", "--keep", b"\xff"],
    ],
    ids=str,
)
def test_an_argument_that_is_no_text_is_wrong_usage(shell, arguments):
    done = shell(arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"UTF-8" in done.stderr
    assert b"unexpected" not in done.stderr


def test_a_deleted_working_directory(environment, folder):
    def run(*arguments):
        gone = folder / "gone"
        gone.mkdir()
        line = 'rmdir "$PWD" && exec "$0" -m embedway "$@"'
        return subprocess.run(
            ["/bin/sh", "-c", line, sys.executable, *arguments],
            cwd=gone,
            env=environment,
            capture_output=True,
            check=False,
        )

    assert run("--version").returncode == 0
    settings = ("--config", str(folder / "settings.toml"))
    assert run(*settings, "embed", "a text").returncode == 0
    assert run(*settings, "run", str(folder / "d"), "--to", str(folder / "o.parquet")).returncode == 0
    done = run(*settings, "run", str(folder / "d"), "--to", "o.parquet")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"embedway: error: the working directory was deleted: run the command in another folder\n"


@pytest.mark.parametrize("destination", ["o.parquet", "o.jsonl"])
def test_a_full_disk_leaves_no_part_of_a_destination(shell, folder, destination):
    (folder / "d" / "long.txt").write_text("".join(f"text number {number} of many\n" for number in range(20_000)))
    done = shell(["run", "d", "--to", destination], before="ulimit -f 100;", variables=NO_DATABASES)
    assert (done.returncode, done.stdout) == (1, b"")
    # Before it, a line may say that vectors of the job cannot be kept either.
    assert f"embedway: error: {destination}: ".encode() in done.stderr
    assert b"File too large" in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["d", "settings.toml"]


def test_a_full_disk_leaves_no_part_of_a_list_of_rejects(shell, folder):
    (folder / "rows.jsonl").write_text('{"text": "a"}\n' + '{"no": 1}\n' * 5000)
    done = shell(["run", "rows.jsonl", "--to", "o.parquet", "--on-error", "skip"], "", "ulimit -f 100;", NO_DATABASES)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"embedway: error: o.parquet.rejects.jsonl: cannot be written: File too large\n"
    assert sorted(path.name for path in folder.iterdir()) == ["d", "rows.jsonl", "settings.toml"]
