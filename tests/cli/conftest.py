"""Starting the command as a user does: its own process, an empty home, and no settings but the test's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

#: Variables that would change what the command does.
OURS = ("EMBEDWAY_", "HF_", "HUGGING_FACE_", "TRANSFORMERS_", "XDG_")


@pytest.fixture
def environment(tmp_path):
    """The variables that a command is started with. Without LANG of its own, so that UTF-8 is not a given."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return {**kept, "HOME": str(home)}


@pytest.fixture
def place(tmp_path):
    """The folder that a command is started in."""
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


@pytest.fixture
def started(environment, place):
    """Start `embedway` with arguments, and wait for its end."""

    def start(*arguments, stdin="", variables=None, **options):
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        data = stdin if isinstance(stdin, bytes) else stdin.encode()
        done = subprocess.run(
            [sys.executable, "-m", "embedway", *map(str, arguments)],
            input=data,
            cwd=place,
            env={**environment, **(variables or {})},
            timeout=240,
            check=False,
            **options,
        )
        return Finished(done)

    return start


@pytest.fixture
def command(started):
    """The same, with an embedway.toml in the folder that nobody named."""
    return started


@pytest.fixture
def own_settings(started, place):
    """The same, where the folder's embedway.toml is the user's own: it is named, once there is one."""

    def start(*arguments, **options):
        named = ("--config", "embedway.toml") if (place / "embedway.toml").exists() else ()
        return started(*named, *arguments, **options)

    return start


class Finished:
    """A command that has ended."""

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
    """Where the default model is, fetched there before the first test that needs it."""
    from embedway.config import Config

    folder = Config.load().weights.directory
    done = subprocess.run(
        [sys.executable, "-m", "embedway", "models", "pull", "all-MiniLM-L6-v2", "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def with_model(environment, weights_folder):
    """Commands find the default model, and fetch nothing."""
    environment["EMBEDWAY_WEIGHTS__DIRECTORY"] = str(weights_folder)
    environment["EMBEDWAY_WEIGHTS__OFFLINE"] = "1"
