"""No library reports anything: no third-party file in the home folder, no Internet socket, no process."""

import ast
import functools
import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path

import pytest

import embedway.errors
from embedway.opt_out import VARIABLES, opt_out_of_telemetry
from quiet import assert_quiet, needs_seccomp, run_quietly
from quiet_child import KILLED
from valkey_server import start_valkey

PACKAGE = Path(embedway.errors.__file__).parent

COMMAND = """
import sys
from embedway.cli import main
main(sys.argv[1:])
"""
LIBRARY = """
import sys
from embedway import Config, Embedder
settings = {"weights.directory": sys.argv[1], "weights.offline": True}
settings.update(pair.split("=", 1) for pair in sys.argv[2:])
settings.update((name, value == "true") for name, value in settings.items() if value in ("true", "false"))
for _ in range(2):
    with Embedder(config=Config.load(environ={}, overrides=settings)) as embedder:
        result = embedder.embed(["a text", "another text"])
        assert result.vectors.shape == (2, 384)
        embedder.select(["a text"])
"""
SPAWNING = """
import multiprocessing, sys
from embedway import Config, Embedder

def embed(directory, text):
    with Embedder(config=Config.load(environ={}, overrides={"weights.directory": directory})) as embedder:
        return embedder.embed(text).vectors.shape

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(embed, (sys.argv[1], "a text")) == (1, 384)
"""


@pytest.fixture
def quiet(tmp_path):
    """Run a script in an empty home without the Internet; return its result, left files and started processes."""
    return functools.partial(run_quietly, tmp_path)


@pytest.fixture
def here(default_model_directory):
    """Return variables by which a command finds the default model only."""
    return {"EMBEDWAY_WEIGHTS__DIRECTORY": str(default_model_directory), "EMBEDWAY_WEIGHTS__OFFLINE": "1"}


@pytest.fixture
def documents(tmp_path):
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "a.md").write_text("# Log files\n\nLog files are rotated when they grow too large.\n")
    (folder / "b.py").write_text("def rotate(path):\n    return path\n")
    (folder / "c.html").write_text("<html><body><h1>Logs</h1><p>They are rotated.</p></body></html>")
    return folder


@needs_seccomp
@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6"])
@pytest.mark.parametrize("inner", [False, True], ids=["itself", "a-child"])
def test_a_socket_of_the_internet_is_seen(quiet, family, inner):
    source = f"import socket\nsocket.socket(socket.{family})\n"
    if inner:
        source = f"import subprocess, sys\nsys.exit(subprocess.call([sys.executable, '-c', {source!r}]))\n"
    done = quiet(source)
    assert done.returncode in {KILLED, KILLED % 256}
    assert len(done.started) == inner


@needs_seccomp
def test_onnx_runtime_without_the_opt_out_is_seen(quiet):
    library = next(Path(importlib.util.find_spec("onnxruntime").origin).parent.glob("capi/*pybind11_state*"))
    if b"ORT_DISABLE_TELEMETRY" not in library.read_bytes():
        pytest.skip("this version of ONNX Runtime has no telemetry")
    assert any(path.endswith("deviceid") for path in quiet("import onnxruntime").left)
    assert quiet("import onnxruntime", variables={"ORT_DISABLE_TELEMETRY": "0"}).left


@needs_seccomp
def test_openvino_without_the_opt_out_is_seen(quiet):
    if "openvino_telemetry" not in importlib.metadata.packages_distributions():
        pytest.skip("OpenVINO's telemetry is not installed")
    done = quiet("import openvino")
    assert any(path.startswith("intel/") for path in done.left)
    assert any(line.startswith("os.fork") for line in done.started)


@needs_seccomp
@pytest.mark.parametrize("module", ["onnxruntime", "openvino"])
def test_a_library_is_quiet_after_the_opt_out(quiet, module):
    source = "from embedway.opt_out import opt_out_of_telemetry\nopt_out_of_telemetry()\n"
    assert_quiet(quiet(f"{source}import {module}\n"))


@needs_seccomp
@pytest.mark.parametrize("module", ["onnx_backend", "openvino_backend"])
def test_a_backend_that_is_imported_alone_is_quiet(quiet, module):
    assert_quiet(quiet(f"import embedway.local.{module}\n"))


@needs_seccomp
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["doctor"],
        ["embed", "a text", "--backend", "onnxruntime"],
        ["embed", "a text", "--backend", "openvino"],
        ["select", "DOCUMENTS"],
        ["plan", "DOCUMENTS"],
        ["models", "list"],
        ["models", "show", "all-MiniLM-L6-v2"],
        ["cache", "stats"],
        ["budget", "show"],
    ],
    ids=" ".join,
)
def test_a_command_is_quiet(quiet, here, documents, arguments):
    arguments = [str(documents) if word == "DOCUMENTS" else word for word in arguments]
    assert_quiet(quiet(COMMAND, *arguments, variables=here))


@needs_seccomp
# urllib3, which lancedb imports, binds a socket to ::1 to check for IPv6.
@pytest.mark.parametrize(
    ("destination", "flags"), [("o.parquet", []), ("o.jsonl", []), ("lancedb:o#rows", ["--no-ipv6"])]
)
def test_a_run_and_a_search_are_quiet(quiet, here, documents, destination, flags):
    assert_quiet(quiet(COMMAND, "run", documents, "--to", destination, flags=flags, variables=here))
    assert_quiet(quiet(COMMAND, "search", destination, "rotated logs", flags=flags, variables=here))


@needs_seccomp
@pytest.mark.parametrize(
    "settings",
    [["cache.zstd=true"], ["cache.backend=memory"], ["local.backend=openvino"], ["local.backend=onnxruntime"]],
    ids=" ".join,
)
def test_the_library_is_quiet(quiet, default_model_directory, settings):
    assert_quiet(quiet(LIBRARY, default_model_directory, *settings))


@needs_seccomp
def test_the_library_is_quiet_with_redis(quiet, default_model_directory, tmp_path):
    path = tmp_path / "socket"
    server = start_valkey(tmp_path / "valkey", unix_socket_path=path)
    try:
        settings = [
            f"{part}.{name}" for part in ("cache", "ledger") for name in ("backend=redis", f"url=unix://{path}")
        ]
        assert_quiet(quiet(LIBRARY, default_model_directory, *settings))
    finally:
        server.stop()


@needs_seccomp
def test_a_spawned_process_is_quiet(quiet, default_model_directory):
    done = quiet(SPAWNING, default_model_directory)
    assert done.returncode == 0, done.stderr
    assert done.left == []


def test_a_users_own_value_stays(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    monkeypatch.setitem(sys.modules, "openvino_telemetry", theirs := object())
    opt_out_of_telemetry()
    assert {name: os.environ[name] for name in VARIABLES} == {**VARIABLES, "ORT_DISABLE_TELEMETRY": "0"}
    assert sys.modules["openvino_telemetry"] is theirs


#: Libraries that report, or that import one that does.
REPORTING = {
    "fastembed",
    "huggingface_hub",
    "lancedb",
    "magika",
    "onnxruntime",
    "openvino",
    "sentence_transformers",
    "transformers",
}


def imported(node):
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return {node.module.partition(".")[0]}
    return set()


def statements(body):
    """Yield the statements of a function or module in order, without those of inner functions."""
    for statement in body:
        yield statement
        if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            for name in ("body", "orelse", "finalbody", "handlers"):
                yield from statements(getattr(statement, name, []))


def unsilenced(tree):
    for scope in ast.walk(tree):
        if isinstance(scope, (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            opted_out = False
            for statement in statements(scope.body):
                opted_out |= isinstance(statement, ast.Expr) and ast.unparse(statement) == "opt_out_of_telemetry()"
                if imported(statement) & REPORTING and not opted_out:
                    yield statement.lineno


def test_each_import_of_a_library_that_reports_comes_after_the_opt_out():
    found = {
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in PACKAGE.rglob("*.py")
        for line in unsilenced(ast.parse(path.read_text("utf-8")))
    }
    assert found == set()
    assert list(unsilenced(ast.parse("def f():\n    import onnxruntime\n    opt_out_of_telemetry()\n"))) == [2]
