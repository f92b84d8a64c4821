"""The streams of a command: no control character reaches a terminal, and what is written goes through them."""

import contextlib
import io
import json
import logging
import re
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress

import embedway.cli
from embedway.cli.options import Invocation
from embedway.cli.output import (
    error_console,
    json_text,
    note,
    print_csv,
    print_json,
    print_line,
    print_table,
    report_of_work,
    start_progress,
)
from embedway.cli.streams import OutputError, SafeStream, standard_streams

SOURCE = Path(embedway.cli.__file__).parents[1]
#: Escape, OSC, bell, DEL, two C1 controls, backspace, CR, bidi override and isolate, zero width, separators, surrogate.
HOSTILE = "\x1b[2J\x1b]0;t\x07\x7f\x9b\x85\b\r\u202e\u2066\u200b\u2028\u2029\udc9b"
WRITTEN = (
    "\\x1b[2J\\x1b]0;t\\x07\\x7f\\x9b\\x85\\x08\\r\\u202e\\u2066\\u200b\\u2028\\u2029\\udc9b"  # printable everywhere
)


def is_harmless(text):
    return all(char.isprintable() or char in "\n\t" or unicodedata.category(char) == "Zs" for char in text)


class Broken(io.StringIO):
    """Stream that fails like a full disk, or like a pipe without a reader."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error

    def isatty(self):
        return True


@contextlib.contextmanager
def streams(stdout, stderr):
    """Install the streams of a command over two others."""
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr), standard_streams():
        yield


@contextlib.contextmanager
def buffers():
    """Install the streams of a command over two buffers, and yield these."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with streams(stdout, stderr):
        yield stdout, stderr


def test_only_output_writes_to_the_streams():
    writers = re.compile(
        r"sys\.(__)?std(out|err)|(?<![\w.])print\(|\becho\(|\bsecho\(|Console\(|StreamHandler|os\.write\(|\bpprint\("
    )
    found = {
        f"{path.relative_to(SOURCE)}: {line.strip()}"
        for path in SOURCE.rglob("*.py")
        for line in path.read_text("utf-8").splitlines()
        if writers.search(line)
        and path.name not in {"streams.py", "output.py", "interrupts.py", "watchdog.py", "heartbeats.py", "journal.py"}
        and "encoding" not in line  # doctor reports it
    }
    # Doctor reads an encoding, and writes nothing.
    found.discard('cli/checks/machine.py: "output": getattr(sys.__stdout__, "encoding", None) or "none",')
    assert found == set()


@given(st.text())
def test_what_is_written_is_harmless(text):
    buffer = io.StringIO()
    SafeStream(buffer, pytest.fail).write(text + HOSTILE)
    assert is_harmless(buffer.getvalue())
    buffer.getvalue().encode()


def test_every_writer_escapes():
    with buffers() as (stdout, stderr):
        print_line(f"a{HOSTILE}b")
        print_table(("name", "value"), [(f"a{HOSTILE}b", "1")])
        print_csv(("name",), [{"name": HOSTILE}])
        sys.stdout.write(HOSTILE)
        note(Invocation(), HOSTILE)
        sys.stderr.write(HOSTILE)
    assert is_harmless(stdout.getvalue())
    assert f"a{WRITTEN}b" in stdout.getvalue()
    assert stderr.getvalue() == f"embedway: {WRITTEN}\n{WRITTEN}"


def test_log_records_are_escaped(monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with buffers() as (_, stderr):
        logging.getLogger("embedway.cache").warning("the file %s", HOSTILE)
    assert stderr.getvalue() == f"the file {WRITTEN}\n"


def test_text_above_a_progress_bar_is_escaped(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    with streams(io.StringIO(), terminal):
        progress = Progress(console=error_console(), redirect_stdout=False)
        start_progress(progress)
        sys.stderr.write("a \x1b[31mred\x1b]0;title\x07\x9b name\n")
        progress.stop()
    assert "\x1b[" in terminal.getvalue()  # the bar
    assert "\\x1b[31mred\\x1b]0;title\\x07\\x9b name" in terminal.getvalue()


def test_json_has_no_control_characters():
    value = {HOSTILE: [HOSTILE]}
    with buffers() as (stdout, _):
        print_json(value)
    written = stdout.getvalue().replace("\n", "")
    assert written.isascii()
    assert written.isprintable()
    assert json.loads(written) == json.loads(json_text(value)) == value


def test_a_result_that_cannot_be_written_is_an_error():
    with streams(Broken(OSError(28, "No space left on device")), io.StringIO()):
        with pytest.raises(OutputError, match="standard output cannot be written: No space left on device") as caught:
            print_line("a")
        assert not caught.value.reader_left
    with streams(Broken(BrokenPipeError(32, "Broken pipe")), io.StringIO()):
        with pytest.raises(OutputError) as caught:
            print_table(("a",), [("b",)])
        assert caught.value.reader_left


def test_messages_that_cannot_be_written_are_dropped():
    with streams(io.StringIO(), Broken(OSError(28, "No space left on device"))):
        note(Invocation(), "a note")
        progress = Progress(console=error_console(), redirect_stdout=False)
        start_progress(progress)
        progress.stop()
    with streams(io.StringIO(), None):
        note(Invocation(), "a note")
        assert not sys.stderr.isatty()


@pytest.mark.parametrize("stream", [None, Broken(OSError(28, "No space left on device"))], ids=["closed", "full"])
def test_a_report_of_finished_work_may_fail_unless_it_was_requested(stream):
    stderr = io.StringIO()
    with streams(stream, stderr):
        with report_of_work(Invocation()):
            print_line("done")
        with pytest.raises(OutputError), report_of_work(Invocation(), as_json=True):
            print_json({})
    assert stderr.getvalue().count("embedway: the work is done, but its report is incomplete: standard output") == 2


def test_the_streams_are_restored(capsys):
    before = sys.stdout, sys.stderr
    with standard_streams():
        print_line("a")
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "a\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [HOSTILE],
        [f"--{HOSTILE}"],
        ["--config", f"{HOSTILE}.toml", "doctor"],
        ["run", "a.txt", "--to", "x.parquet", "--backend", HOSTILE],
        ["run", HOSTILE, "--to", "x.parquet"],
        ["run", "a.txt", "--to", HOSTILE],
        ["search", f"{HOSTILE}.parquet", "q"],
        ["search", f"{HOSTILE}.jsonl", "q"],
        ["embed", "x", "--threads", HOSTILE],
        ["embed", "x", "--model", f"hf:{HOSTILE}/a"],
        ["embed", "x", "--model", HOSTILE],
        ["models", "show", HOSTILE],
        ["models", HOSTILE],
        ["budget", "set", "b", HOSTILE],
        ["budget", "unpin", HOSTILE.replace("\udc9b", "")],
        ["budget", "ledger", "--since", HOSTILE],
        ["cache", "clear", "--older-than", HOSTILE],
        ["cache", "clear", "--model", HOSTILE],
        ["state", "restore", HOSTILE],
        ["trust", f"{HOSTILE}/embedway.toml"],
        ["select", "--preset", HOSTILE],
    ],
    ids=lambda words: " ".join("…" if HOSTILE[:4] in word else word for word in words),
)
def test_errors_about_arguments_are_escaped(command, place, arguments):
    (place / "a.txt").write_text("a text\n")
    done = command(*arguments)
    assert done.stdout + done.stderr
    assert is_harmless(done.stderr)
    assert is_harmless(done.stdout)
    assert "unexpected" not in done.stderr


def test_names_of_a_settings_file_are_escaped(command, place):
    """Also those that are ignored without trust, which a log record lists."""
    hostile = HOSTILE.replace("\udc9b", "")
    keys = "".join(f"{json.dumps(key)} = 1\n" for key in (hostile, "a\x7f\x9b"))
    (place / "embedway.toml").write_text(f"[budgets]\n{keys}[routes.r]\nmodel = {json.dumps(hostile)}\n", "utf-8")
    for arguments in (["models", "list"], ["--config", "embedway.toml", "models", "list"], ["trust", "--show"]):
        done = command(*arguments)
        assert done.stderr
        assert is_harmless(done.stderr)
        assert is_harmless(done.stdout)


def test_names_in_a_ledger_are_escaped(command):
    name = HOSTILE.replace("\udc9b", "") + "日本"
    assert command("budget", "set", name, "5", "--collection", name).code == 0
    for arguments in (["budget", "show"], ["budget", "show", "--csv"], ["budget", "show", "--json"]):
        done = command(*arguments)
        assert done.code == 0
        assert is_harmless(done.stdout)
    assert done.json["budgets"][0]["name"] == name
