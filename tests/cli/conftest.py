"""Runners of commands with an empty home and only the test's settings, in this process or in a subprocess."""

import contextlib
import csv
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import urllib.request
import warnings
from pathlib import Path

import pytest

from embedway.cli import main
from six_documents import collection  # noqa: F401  a fixture

#: Variables that would change what the command does.
OURS = ("EMBEDWAY_", "HF_", "HUGGING_FACE_", "TRANSFORMERS_", "XDG_")


def pytest_configure(config):
    config.addinivalue_line("markers", "subprocess: the test's commands run in subprocesses")


@pytest.fixture
def environment(tmp_path):
    """Return the environment of a command. It keeps the LANG of the tests, so UTF-8 is not guaranteed."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return {**kept, "HOME": str(home)}


@pytest.fixture
def place(tmp_path):
    """Return the working directory of commands."""
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


@pytest.fixture
def started(request, environment, place):
    """Return a function that runs `embedway` with arguments until it ends.

    It runs in this process, which saves the start of an interpreter. Tests marked `subprocess` start one per command.
    """
    run = run_in_subprocess if request.node.get_closest_marker("subprocess") else run_in_process

    def start(*arguments, stdin="", variables=None):
        data = stdin if isinstance(stdin, bytes) else stdin.encode()
        return Finished(run([*map(str, arguments)], data, place, {**environment, **(variables or {})}))

    return start


@pytest.fixture
def runners():
    """Return both functions that run a command."""
    return run_in_process, run_in_subprocess


def run_in_subprocess(arguments, data, folder, variables):
    """Run `python -m embedway`."""
    return subprocess.run(
        [sys.executable, "-m", "embedway", *arguments],
        input=data,
        cwd=folder,
        env=variables,
        timeout=240,
        check=False,
        capture_output=True,
    )


def run_in_process(arguments, data, folder, variables):
    """Run `main` with its own variables, folder and standard streams, then restore those of this process."""
    with (
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
        standard_input(data) as stdin,
        descriptors(stdin, stdout.fileno(), stderr.fileno()),
        replaced_environment(variables),
        contextlib.chdir(folder),
        fresh_libraries(),
        python_streams(),
    ):
        try:
            main(arguments)
        except SystemExit as end:
            code = end.code
        # An interpreter flushes them when it exits.
        sys.stdout.flush()
        sys.stderr.flush()
        written = []
        for stream in (stdout, stderr):
            stream.seek(0)
            written.append(stream.read())
    return subprocess.CompletedProcess(arguments, code, *written)


@contextlib.contextmanager
def standard_input(data):
    """Open a pipe with the bytes, and yield the descriptor to read from."""
    reading, writing = os.pipe()

    def write():
        # A command may end before it has read all bytes.
        with contextlib.suppress(BrokenPipeError), open(writing, "wb") as pipe:  # noqa: PTH123  not a path
            pipe.write(data)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield reading
    finally:
        os.close(reading)
        writer.join()


@contextlib.contextmanager
def descriptors(*replacements):
    """Replace the descriptors 0, 1 and 2, which C code and child processes also use."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(number) for number in range(len(replacements))]
    try:
        for number, replacement in enumerate(replacements):
            os.dup2(replacement, number)
        yield
    finally:
        for number, descriptor in enumerate(kept):
            os.dup2(descriptor, number)
            os.close(descriptor)


@contextlib.contextmanager
def python_streams():
    """Replace `sys.stdin`, `sys.stdout` and `sys.stderr` with new streams on descriptors 0, 1 and 2.

    The new streams are not closed, because a library may store one on import.
    """

    def stream(number, mode, **options):
        return io.TextIOWrapper(open(number, mode, closefd=False), encoding="utf-8", **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", stream(0, "rb"))
        patch.setattr(sys, "stdout", stream(1, "wb"))
        patch.setattr(sys, "stderr", stream(2, "wb", errors="backslashreplace", line_buffering=True))
        yield


@contextlib.contextmanager
def replaced_environment(variables):
    """Reduce `os.environ` to these variables."""
    kept = dict(os.environ)
    try:
        os.environ.clear()
        os.environ.update(variables)
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


@contextlib.contextmanager
def fresh_libraries():
    """Reset state of the standard library to that of a new process.

    Imported modules stay, and so do caches that depend only on the installed packages and the machine, such as the
    catalog.
    """
    root, limit = logging.getLogger(), csv.field_size_limit()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        # Without pytest's handlers, warnings and errors in the log go to standard error.
        patch.setattr(root, "handlers", [])
        # Both are read from the environment once.
        patch.setattr(urllib.request, "_opener", None)
        patch.setattr(tempfile, "tempdir", None)
        csv.field_size_limit(131_072)
        try:
            yield
        finally:
            csv.field_size_limit(limit)


@pytest.fixture
def command(started):
    """Return `started`; an embedway.toml in the working directory is not named."""
    return started


@pytest.fixture
def own_settings(started, place):
    """Return `started` with `--config embedway.toml` if the working directory has that file."""

    def start(*arguments, **options):
        named = ("--config", "embedway.toml") if (place / "embedway.toml").exists() else ()
        return started(*named, *arguments, **options)

    return start


class Finished:
    """Result of a command."""

    def __init__(self, done):
        self.code = done.returncode
        self.stdout = (done.stdout or b"").decode()
        self.stderr = (done.stderr or b"").decode()

    @property
    def json(self):
        return json.loads(self.stdout)

    @property
    def lines(self):
        return [json.loads(line) for line in self.stdout.splitlines()]


@pytest.fixture(scope="session")
def weights_folder():
    """Return the folder of the default model, which is downloaded before the first test that needs it."""
    from embedway.config import Config

    folder = Config.load().weights.directory
    arguments = ["models", "pull", "all-MiniLM-L6-v2", "--json"]
    done = run_in_process(arguments, b"", Path(__file__).parent, dict(os.environ))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def with_model(environment, weights_folder):
    """Let commands find the default model, and download nothing."""
    environment["EMBEDWAY_WEIGHTS__DIRECTORY"] = str(weights_folder)
    environment["EMBEDWAY_WEIGHTS__OFFLINE"] = "1"
