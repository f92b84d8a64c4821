"""Signals end commands: exit code, message, and nothing left that is half-written."""

import contextlib
import json
import signal
import socket
import sqlite3
import subprocess

import pytest

from paid_model import MODEL
from signalled import COMMIT, PARSER, ended, files, started_command

REUSED = "vectors that are already in the cache (sqlite) are reused; run the same command again to continue"
#: The orderly end never comes.
STUCK = """
from embedway.collections.stores.jsonl import JsonlStore
from embedway import interrupts
interrupts.GRACE_S = 600
interrupts._LIMITS = interrupts.watchdog.Limits(600, interrupts.SAME_S, 600)
def abort(self):
    ready()
    import time
    time.sleep(600)
JsonlStore.abort = abort
"""
IMPORT = """
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "typer":
            ready()
            import time
            time.sleep(600)
sys.meta_path.insert(0, Finder())
"""
#: A restore of two parts gets the signal after the first one.
RESTORE = """
import os, signal
from embedway.state.sqlite import _SqliteTransaction
good, done = _SqliteTransaction.commit, []
def commit(self):
    good(self)
    done.append(self)
    if len(done) == 1:
        os.kill(os.getpid(), signal.SIGTERM)
_SqliteTransaction.commit = commit
"""
CONNECTS = """
def hook(event, arguments):
    if event == "sqlite3.connect" and "ledger" in str(arguments[0]):
        ready()
sys.addaudithook(hook)
"""


@pytest.fixture
def begin(environment, place):
    """Return a context manager that starts a command with a prelude, and waits until it is ready."""
    return lambda prelude, *arguments, variables=None: started_command(
        place, {**environment, **(variables or {})}, prelude, *arguments
    )


RUN = ("run", "page.html", "--to", "out.jsonl", "--model", "acme/m")


@pytest.mark.parametrize(
    ("work", "number", "code", "named"),
    [
        ("while True: pass", signal.SIGTERM, 143, "SIGTERM"),
        # The watchdog ends these, unless the signal arrives before the computation begins.
        ("sum(range(10**13))", signal.SIGTERM, 143, "SIGTERM"),
        ("sum(range(10**13))", signal.SIGINT, 130, "Ctrl-C"),
        ("import time; time.sleep(600)", signal.SIGHUP, 129, "SIGHUP"),
    ],
)
def test_a_parser_that_does_not_return_is_ended(begin, place, work, number, code, named):
    (place / "page.html").write_text("<p>a text")
    (place / "out.jsonl").write_text("old")
    with begin(PARSER.format(work=work), *RUN, "--overwrite") as process:
        found = ended(process, number)
    assert found[0] == code
    assert found[1][0] in {f"embedway: stopped by {named}", f"embedway: stopped by {named} while it did not respond"}
    if "range" not in work:
        assert found[1][1:] == [
            "embedway: out.jsonl is unchanged",
            f"embedway: {REUSED}",
        ]
    assert sorted(files(place)) == ["embedway.toml", "out.jsonl", "page.html"]
    assert files(place)["out.jsonl"] == b"old"


def test_a_second_signal_ends_at_once(begin, place):
    (place / "page.html").write_text("<p>a text")
    with begin(PARSER.format(work="import time; time.sleep(600)") + STUCK, *RUN) as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == b"ready\n"
        # Until it is another request than the first.
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
        assert process.returncode == 130
        assert process.stderr.read().startswith(b"embedway: stopped by Ctrl-C\nembedway: out.jsonl is not written\n")
    assert sorted(files(place)) == ["embedway.toml", "page.html"]


def test_a_commit_is_completed(begin, place):
    (place / "page.html").write_text("<p>a text")
    with begin(COMMIT, *RUN) as process:
        process.send_signal(signal.SIGTERM)
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.wait(30) == 143
        assert b"out.jsonl is complete" in process.stderr.read()
    assert json.loads((place / "out.jsonl").read_text())["text"] == "a text"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("work", ["while True: pass", "import time; time.sleep(600)"])
def test_a_stopped_job_writes_its_metrics(begin, place, number, work):
    """The main thread is in a parser: another thread ends the process."""
    (place / "page.html").write_text("<p>a text")
    with begin(PARSER.format(work=work), *RUN, "--metrics-file", "out.prom") as process:
        assert ended(process, number)[0] == 128 + number
    assert "embedway_resident_memory_bytes" in (place / "out.prom").read_text()
    assert sorted(files(place)) == ["embedway.toml", "out.prom", "page.html"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_job_that_is_stopped_during_a_request_writes_its_metrics(begin, place, number):
    (place / "page.html").write_text("<p>a text")
    with socket.create_server(("127.0.0.1", 0)) as server:
        (place / "service.toml").write_text(
            '[models.s]\nname = "acme/s"\ndimensions = 16\nmax_tokens = 50\n'
            '[routes.slow]\nmodel = "acme/s"\nprovider = "openai-compatible"\nauth = "none"\n'
            f'base_url = "http://127.0.0.1:{server.getsockname()[1]}/v1"\n'
        )
        job = ("--config", "service.toml", "run", "page.html", "--to", "out.jsonl", "--model", "acme/s")
        with begin("", *job, "--metrics-file", "out.prom") as process:
            server.settimeout(60)
            connection, _ = server.accept()
            with connection:
                assert connection.recv(1000).startswith(b"POST")
                assert ended(process, number)[0] == 128 + number
    assert 'outcome="cancelled",route="routes.slow",run="out"} 1.0' in (place / "out.prom").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_import_is_ended(begin, number):
    with begin(IMPORT, "doctor") as process:
        code, lines = ended(process, number)
    assert (code, lines[1:]) == (128 + number, ["embedway: nothing was done yet"])


def test_a_pending_request_is_ended_and_its_money_released(begin, place, command):
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings = place / "service.toml"
        settings.write_text(
            '[routes.slow]\nmodel = "text-embedding-3-small"\nprovider = "openai"\napi_key_env = "SLOW_KEY"\n'
            f'base_url = "http://127.0.0.1:{server.getsockname()[1]}/v1"\n'
        )
        arguments = ("--config", settings.name, "embed", "a text", "--model", "text-embedding-3-small")
        with begin("", *arguments, variables={"SLOW_KEY": "key"}) as process:
            server.settimeout(60)
            connection, _ = server.accept()
            with connection:
                assert connection.recv(1000).startswith(b"POST")
                code, lines = ended(process, signal.SIGTERM)
    assert code == 143
    assert lines[0] == "embedway: stopped by SIGTERM"
    spent = command("budget", "show", "--json").json["spent"]
    assert {one["held_usd"] for one in spent} <= {"0.00"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_waiting_for_a_locked_ledger_is_ended(begin, place, environment, command, number):
    path = place / "ledger.sqlite"
    variables = {"EMBEDWAY_LEDGER__PATH": str(path)}
    assert command("budget", "set", "all", "5", variables=variables).code == 0
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with begin(CONNECTS, "budget", "set", "all", "6", variables=variables) as process:
            code, lines = ended(process, number)
        other.execute("ROLLBACK")
    assert code == 128 + number
    assert lines[1].startswith("embedway: the ledger contains all of a change or nothing")
    assert command("budget", "show", "--json", variables=variables).json["budgets"][0]["limit_usd"] in {"5", "5.00"}


def test_a_restore_is_all_or_nothing(begin, place, command):
    (place / "embedway.toml").write_text(MODEL)
    config = ("--config", "embedway.toml")
    assert command(*config, "budget", "set", "all", "5").code == 0
    assert command(*config, "embed", "a text", "--model", "acme/m", "--collection", "c").code == 0
    assert command(*config, "state", "backup", "b.zip").code == 0
    assert command(*config, "budget", "set", "all", "6").code == 0
    with begin(RESTORE, "state", "restore", "b.zip", "--overwrite") as process:
        assert process.wait(30) == 143
        assert b"everything was restored" in process.stderr.read()
    assert command(*config, "budget", "show", "--json").json["restored"] is not None


def test_an_ignored_signal_stays_ignored(begin, place):
    (place / "page.html").write_text("<p>a text")
    prelude = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    with begin(prelude + PARSER.format(work="import time; time.sleep(600)"), *RUN) as process:
        process.send_signal(signal.SIGHUP)
        assert ended(process, signal.SIGTERM)[0] == 143


@pytest.fixture
def silent_hub():
    """Run a hub that accepts every connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        yield server


@pytest.mark.parametrize(
    ("number", "arguments"),
    [(signal.SIGINT, ("embed", "a text")), (signal.SIGTERM, ("models", "pull", "all-MiniLM-L6-v2"))],
)
def test_a_download_can_be_interrupted(begin, silent_hub, number, arguments):
    address = f"http://127.0.0.1:{silent_hub.getsockname()[1]}"
    with begin("", *arguments, variables={"HF_ENDPOINT": address}) as process:
        connection, _ = silent_hub.accept()
        with connection:
            code, lines = ended(process, number)
    assert code == 128 + number
    assert len(lines) == 2
