"""Commands in a process of their own that get a signal at a chosen moment."""

import contextlib
import subprocess
import sys

from paid_model import MODEL

#: Before the command: `ready` tells the test that the moment has come.
START = """
import sys
def ready():
    sys.stdout.write("ready\\n")
    sys.stdout.flush()
{prelude}
from embedway.__main__ import program
program()
"""
PARSER = """
from embedway.collections.parsers import html
def parse(text, path):
    ready()
    {work}
html.parse_html = parse
"""
COMMIT = """
from embedway.collections.stores.jsonl import JsonlStore
good = JsonlStore.commit
def commit(self):
    ready()
    sys.stdin.readline()
    good(self)
JsonlStore.commit = commit
"""


@contextlib.contextmanager
def started_command(place, variables, prelude, *arguments):
    """Start a command with a prelude, and wait until it is ready, if the prelude says so."""
    (place / "embedway.toml").write_text(MODEL)
    with subprocess.Popen(
        [sys.executable, "-c", START.format(prelude=prelude), "--config", "embedway.toml", *arguments],
        cwd=place,
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            if "ready()" in prelude:
                assert process.stdout.readline() == b"ready\n", process.stderr.read()
            yield process
        finally:
            process.kill()


def ended(process, number):
    """Send a signal; return the exit code and the lines on standard error."""
    process.send_signal(number)
    # A generous bound: the limit is two seconds of a machine that is not loaded.
    code = process.wait(30)
    return code, process.stderr.read().decode().splitlines()


def files(folder):
    # A process that is ended at once leaves its lock file: by then, another process may hold a lock on it.
    paths = (one for one in folder.iterdir() if one.is_file() and not one.name.endswith(".embedway-lock"))
    return {path.name: path.read_bytes() for path in paths}
