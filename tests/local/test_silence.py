"""Nothing is told to anybody: no request, no lookup, no fork, no file in the home folder."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys
seen = []
def hook(event, arguments):
    if event in {"socket.connect", "socket.getaddrinfo", "urllib.Request", "os.fork", "os.forkpty"}:
        seen.append((event, str(arguments)[:200]))
sys.addaudithook(hook)
from embedway import Config, Embedder
from embedway.cli import main
if sys.argv[1] == "doctor":
    sys.argv = ["embedway", "doctor"]
    try:
        main()
    except SystemExit:
        pass
else:
    overrides = {"weights.directory": sys.argv[1], "weights.offline": True}
    if sys.argv[2] == "openvino":
        overrides["local.backend"] = "openvino"
    with Embedder(Config.load(environ={}, overrides=overrides)) as embedder:
        embedder.embed("a text")
assert "openvino" in sys.modules or "onnxruntime" in sys.modules
assert not seen, seen
"""


@pytest.mark.parametrize("what", ["openvino", "auto", "doctor"])
def test_computing_and_looking_tell_nobody(what, default_model_directory, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    arguments = ["doctor"] if what == "doctor" else [str(default_model_directory), what]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        env={"HOME": str(home), "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (home / "intel").exists()
