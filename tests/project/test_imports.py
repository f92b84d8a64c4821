"""Directions of imports, access to the environment, and modules that `import embedway` may load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import embedway.errors

PACKAGE = Path(embedway.errors.__file__).parent

#: Parts of the package from the lowest up: each may import those before it, and itself.
ORDER = (
    "_public",
    "text",
    "remedies",
    "sizes",
    "errors",
    "third_party",
    "_version",
    "opt_out",
    "unfinished",
    "watchdog",
    "interrupts",
    "isolation",
    "forks",
    "worker",
    "files",
    "space",
    "money",
    "types",
    "store_failures",
    "shared_servers",
    "sqlite_open",
    "formats",
    "sqlite",
    "sqlite_thread",
    "concurrency",
    "vectors",
    "urgency",
    "arguments",
    "quality_commands",
    "telemetry",
    "catalog",
    "weights",
    "config",
    "ledger",
    "compute",
    "quality",
    "cache",
    "local",
    "providers",
    "rerank",
    "dispatch",
    "batching",
    "models",
    "selection",
    "pipeline",
    "_engine",
    "_options",
    "_admin",
    "_quality_admin",
    "_embedder",
    "_sync_admin",
    "_sync",
    "collections",
    "state",
    "server",
    "conformance",
    "cli",
)
LEVELS = {part: level for level, part in enumerate(ORDER)}
#: Parts that pass variables to other libraries and child processes; they read no setting.
HANDING_ON = {"forks", "opt_out", "isolation"}
#: The module that reads the variable of prometheus-client, which is no setting of ours.
FOREIGN = {"telemetry/multiprocess.py"}
#: The program's start and the public names: both are above everything.
TOP = {"__init__", "__main__"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def part_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path):
    """Return (line, dotted name) of each import of the package's own parts, anywhere in the module."""
    tree = ast.parse(path.read_text("utf-8"))
    package = ["embedway", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "embedway":
                yield node.lineno, name


def allowed(source, target):
    return source in TOP or LEVELS[target] <= LEVELS[source]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    source = part_of(path)
    assert source in LEVELS or source in TOP, f"{path}: add the new part to ORDER in {Path(__file__).name}"
    wrong = []
    for line, name in imports(path):
        parts = name.split(".")
        target = parts[1] if len(parts) > 1 else "__init__"
        if target not in LEVELS:  # a public name, imported from the top
            if source not in TOP and source != "cli":
                wrong.append(f"{path}:{line}: {name}: import from the module that defines it")
        elif not allowed(source, target):
            wrong.append(f"{path}:{line}: {source} may not import {target}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_config_reads_the_environment(path):
    if part_of(path) in {"config", *HANDING_ON} or path.relative_to(PACKAGE).as_posix() in FOREIGN:
        return
    tree = ast.parse(path.read_text("utf-8"))
    readers = {"environ", "environb", "getenv", "getenvb"}
    found = [
        f"{path}:{node.lineno}"
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in readers)
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and any(a.name in readers for a in node.names))
    ]
    assert not found, f"read settings from embedway.config: {found}"


#: Packages that are imported when a model, a file or a store needs them.
RUNTIMES = {"torch", "onnxruntime", "openvino", "onnx", "pyarrow", "lancedb", "huggingface_hub", "tokenizers"}


def loaded_by(statement):
    code = f"import sys; {statement}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_embedway_loads_no_runtime():
    assert not RUNTIMES & loaded_by("import embedway")


def test_importing_the_command_line_loads_nothing_heavy():
    heavy = RUNTIMES | {"numpy", "pydantic", "rich", "semantic_text_splitter", "asyncio"}
    assert not heavy & loaded_by("import embedway.cli")
