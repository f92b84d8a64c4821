"""Commands that run in the tests' process: the same results as in a subprocess, and no lasting change."""

import logging
import os
import sys

import pytest

import embedway.cli

SETTINGS = '[models.m]\nname = "acme/m"\ndimensions = 4\n[routes.r]\nmodel = "acme/m"\nprovider = "fake"\n'


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        ((), b""),
        (("models", "show", "nothing"), b""),
        (("--config", "embedway.toml", "embed", "--model", "acme/m", "-"), b"first\nsecond\n"),
        (("cache", "stats"), b""),  # its warning about ignored settings is a log record
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_says_the_same_as_in_a_process_of_its_own(environment, place, runners, arguments, stdin):
    (place / "embedway.toml").write_text(SETTINGS)
    here, alone = (run(list(arguments), stdin, place, environment) for run in runners)
    assert (here.returncode, here.stdout, here.stderr) == (alone.returncode, alone.stdout, alone.stderr)
    assert here.stdout + here.stderr


def state():
    streams = (sys.stdin, sys.stdout, sys.stderr)
    files = [os.fstat(number)[:3] for number in range(3)]
    return dict(os.environ), os.getcwd(), streams, files, logging.getLogger().handlers  # noqa: PTH109  compared only


def test_a_command_leaves_this_process_as_it_was(command, monkeypatch):
    def fail(_):
        raise OSError(28, "No space left on device")

    before = state()
    assert command("models", "show", "nothing").code == 1
    assert state() == before
    # After this error, the command replaces its standard output.
    monkeypatch.setattr(embedway.cli.typer.main, "get_command", fail)
    done = command("models", "list", variables={"A_NEW_VARIABLE": "1"})
    assert (done.code, done.stdout, done.stderr) == (1, "", "embedway: error: No space left on device\n")
    assert state() == before
