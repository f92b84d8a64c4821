"""The image: hadolint reads its Dockerfile, and its parts are run as far as that needs no Docker."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from containers import DOCKERFILE, ROOT, final_stage, health_command, image_variables, instructions

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def hadolint(path):
    program = Path(sysconfig.get_path("scripts")) / "hadolint"
    return subprocess.run([program, "--no-color", path], capture_output=True, text=True, check=False, cwd="/")


def copied(ignore_file):
    """Return the files of the source tree that the build receives."""
    rules = [line for line in ignore_file.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    included = [rule[1:] for rule in rules if rule.startswith("!")]
    assert {rule for rule in rules[1:] if not rule.startswith("!")} == {"**/__pycache__", "**/*.pyc"}
    return included


def test_hadolint_has_no_remark():
    done = hadolint(DOCKERFILE)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_hadolint_reports_a_fault(tmp_path):
    text = DOCKERFILE.read_text("utf-8").replace("WORKDIR /source", "WORKDIR source")
    (tmp_path / "Dockerfile").write_text(text)
    assert "DL3000" in hadolint(tmp_path / "Dockerfile").stdout


def test_the_image_runs_as_a_user_without_rights():
    users = [text for name, text in final_stage() if name == "USER"]
    assert users == ["10001:10001"]
    assert not [text for name, text in instructions() if name == "ADD"]


def test_the_version_of_python_is_supported_and_pinned():
    arguments = dict(text.split("=", 1) for name, text in instructions() if name == "ARG" and "=" in text)
    version = tuple(map(int, re.match(r"(\d+)\.(\d+)-slim-\w+$", arguments["PYTHON"]).groups()))
    assert version >= (3, 11)
    assert {text.split(" AS ")[0] for name, text in instructions() if name == "FROM"} == {"python:${PYTHON}"}


def test_the_extras_of_the_image_exist():
    arguments = dict(text.split("=", 1) for name, text in instructions() if name == "ARG" and "=" in text)
    extras = set(arguments["EXTRAS"].split(","))
    assert {"server", "redis"} <= extras <= set(PROJECT["project"]["optional-dependencies"])


def test_the_build_receives_all_files_that_it_copies_and_no_others():
    copies = [text.split() for name, text in instructions() if name == "COPY" and "--from" not in text]
    sources = {source for words in copies for source in words[:-1]}
    assert {source.removeprefix("./") for source in sources} == set(copied(ROOT / ".dockerignore"))


def test_the_package_is_built_from_the_files_that_the_build_receives(tmp_path):
    for name in copied(ROOT / ".dockerignore"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "wheel"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert len(list((tmp_path / "wheel").glob("embedway-*.whl"))) == 1


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.paths.append(self.path)
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_):
        pass


def check_health(port):
    command = [part.replace("8080", str(port)) for part in health_command()]
    assert command[0] == "python"
    # Proxies that the container may have.
    proxies = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    environment = {**os.environ, **proxies}
    return subprocess.run([sys.executable, *command[1:]], env=environment, capture_output=True, check=False).returncode


@pytest.mark.parametrize(("status", "is_healthy"), [(200, True), (503, False), (404, False)])
def test_the_health_check_passes_only_for_a_live_gateway(status, is_healthy):
    with HTTPServer(("127.0.0.1", 0), _Answer) as server:
        server.status, server.paths = status, []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            assert (check_health(server.server_port) == 0) is is_healthy
        finally:
            server.shutdown()
            thread.join()
    assert server.paths == ["/health/live"]


def test_the_health_check_fails_without_a_gateway():
    with HTTPServer(("127.0.0.1", 0), _Answer) as server:
        port = server.server_port
    assert check_health(port) != 0


def test_the_folders_of_the_image_are_those_that_embedway_uses():
    code = (
        "import json; from embedway import Config; c = Config(); print(json.dumps([str(one) for one in ("
        "c.ledger.path, c.pins.path, c.server.state_directory, c.cache.path, c.search.directory, c.tune.directory,"
        "c.weights.directory)]))"
    )
    environment = {**image_variables(), "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    folders = ["/var/lib/embedway"] * 3 + ["/var/cache/embedway"] * 3 + ["/srv/embedway"]
    for path, folder in zip(json.loads(done.stdout), folders, strict=True):
        assert path.startswith(f"{folder}/")
    made = " ".join(text for name, text in instructions() if name == "RUN")
    assert all(folder in made for folder in folders)


def test_the_image_starts_the_gateway_with_the_mounted_settings():
    (entry,) = [json.loads(text) for name, text in final_stage() if name == "ENTRYPOINT"]
    (command,) = [json.loads(text) for name, text in final_stage() if name == "CMD"]
    assert [*entry, *command] == ["embedway", "--config", "/etc/embedway/embedway.toml", "serve"]
