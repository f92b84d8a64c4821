"""The command's start: help, version, wrong usage, and how errors end it."""

import os
import resource
import subprocess
import sys

import pytest

import embedway._version
from embedway.cli import common_first

COMMANDS = [
    "run",
    "search",
    "embed",
    "models",
    "doctor",
    "models list",
    "models show",
    "models pull",
    "models tune",
]


def processor_seconds():
    """Processor time of all commands so far. Unlike a clock, it does not count tests that run at the same time."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.subprocess
def test_help_answers_within_0_3_seconds(command):
    seconds = []
    for _ in range(5):
        start = processor_seconds()
        done = command("--help")
        seconds.append(processor_seconds() - start)
        assert done.code == 0
    assert min(seconds) <= 0.3, seconds
    assert all(name in done.stdout for name in ("run", "search", "embed", "models", "doctor"))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(command, name):
    done = command(*name.split(), "--help")
    assert done.code == 0
    assert done.stdout.startswith(f"Usage: embedway {name}")
    assert done.stderr == ""


@pytest.mark.subprocess
def test_version(command):
    assert command("--version").stdout == f"embedway {embedway._version.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serch"], "'search'"),
        (["run"], "SOURCE"),
        (["run", "a.txt"], "--to"),
        (["run", "a.txt", "--to", "a.parquet", "--threads", "0"], "--threads"),
        (["run", "a.txt", "--to", "a.parquet", "--backend", "abacus"], "--backend"),
        (["run", "a.txt", "--to", "a.unknown"], "X.parquet, X.jsonl, lancedb:DIR#TABLE"),
        (["run", "a.txt", "--to", "a.jsonl", "--no-chunk", "--chunk-tokens", "9"], "cannot be used with --no-chunk"),
        (["run", "a.txt", "--to", "a.jsonl", "--keep", "vector"], "vector"),
        (["search", "a.parquet"], "QUERY"),
        (["search", "a.csv", "q"], "X.parquet, X.jsonl, lancedb:DIR#TABLE"),
        (["embed"], "standard input"),
        (["embed", "-", "text"], "standard input"),
        (["embed", "--nothing"], "--nothing"),
        (["embed", "x", "--threads", "two"], "--threads"),
        (["models", "show"], "NAME"),
        (["--config", "settings.yaml", "models", "list"], ".toml or .json"),
        (["--config", "none.toml", "models", "list"], "none.toml: cannot be read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_exits_2_and_says_why(command, place, arguments, message):
    (place / "a.txt").write_text("a text\n")
    done = command(*arguments)
    assert (done.code, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_settings_exit_2_and_name_all_of_them(command, place):
    (place / "embedway.toml").write_text("[local]\nthread = 2\n")
    done = command("--config", "embedway.toml", "models", "list", variables={"EMBEDWAY_RUN__OVERLAP": "x"})
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.startswith("embedway: error: 2 settings are invalid:")
    assert "embedway.toml: local.thread: is not a setting; the nearest is local.threads" in done.stderr
    assert "environment: run.overlap: is 'x'; must be an integer" in done.stderr


def test_unknown_model_exits_1_and_names_the_nearest(command):
    done = command("models", "show", "all-MiniLM-L6-v3")
    assert (done.code, done.stdout) == (1, "")
    assert "all-MiniLM-L6-v2" in done.stderr


def test_traceback_only_when_asked(command):
    assert "Traceback" not in command("models", "show", "nothing").stderr
    done = command("--traceback", "models", "show", "nothing")
    assert done.code == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert "embedway: error: no model is called 'nothing'" in done.stderr


def test_no_arguments_show_help(command):
    done = command()
    assert done.code == 2
    assert "Usage: embedway" in done.stdout + done.stderr


def test_a_reader_that_leaves_ends_it_quietly(environment, place):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "embedway", "models", "list"],
            stdout=writing,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=place,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_full_disk_is_an_error(environment, place):
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "embedway", "models", "list"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=place,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == b"embedway: error: standard output cannot be written: No space left on device\n"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["run", "docs", "-v", "--to", "a.jsonl"], ["-v", "run", "docs", "--to", "a.jsonl"]),
        (
            ["--config", "f.toml", "run", "--quiet", "--traceback"],
            ["--quiet", "--traceback", "--config", "f.toml", "run"],
        ),
        (["embed", "-q", "--", "-v"], ["-q", "embed", "--", "-v"]),
    ],
    ids=("before", "in order", "not after --"),
)
def test_common_flags_may_follow_the_command(given, expected):
    assert common_first(given) == expected


def test_errors_name_flags_and_no_keywords_of_python(command, place):
    (place / "a.txt").write_text("a text\n")
    (place / "a.jsonl").write_text("{}\n")
    done = command("run", "a.txt", "--to", "a.jsonl")
    assert "updates it, and --overwrite replaces it" in done.stderr
    assert "overwrite=" not in done.stderr
