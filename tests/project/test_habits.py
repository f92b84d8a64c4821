"""Workflows, pre-commit hooks, documents and release are consistent with the rest of the repository."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from embedway import __version__

CHECKOUT = Path(__file__).parents[2]
WORKFLOWS = sorted((CHECKOUT / ".github" / "workflows").glob("*.yml"))
HOOKS = CHECKOUT / ".pre-commit-config.yaml"


def read(name):
    return (CHECKOUT / name).read_text("utf-8")


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_targets_of_the_makefile_and_pinned_actions_alone(workflow):
    text = workflow.read_text("utf-8")
    targets = set(re.findall(r"^([\w-]+):", read("Makefile"), re.MULTILINE))
    commands = re.findall(r"^ *(?:- )?run: *(.*)", text, re.MULTILINE)
    assert commands
    assert [line for line in commands if line.removeprefix("make ") not in targets] == []
    actions = re.findall(r"uses: *(.*)", text)
    assert [action for action in actions if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", action)] == []


def test_the_tests_run_on_every_python_of_the_classifiers():
    classifiers = tomllib.loads(read("pyproject.toml"))["project"]["classifiers"]
    versions = [name.removeprefix(start) for name in classifiers if re.match(start := "Programming.* :: 3[.]", name)]
    matrix = re.search(r"python-version: \[(.*)\]", read(".github/workflows/test.yml"))[1]
    assert [f'"{name.rpartition(" ")[2]}"' for name in versions] == matrix.split(", ")


@pytest.mark.parametrize("path", [HOOKS, *(CHECKOUT / ".github").rglob("*.yml")], ids=lambda path: path.name)
def test_yaml_is_indented_by_two_spaces(path):
    lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    assert [line for line in lines if "\t" in line or (len(line) - len(line.lstrip())) % 2] == []
    known = r" *(#.*|(- )?[\w-]+:( .*)?|- .*)"
    assert [line for line in lines if not re.fullmatch(known, line)] == []


def test_every_hook_is_of_a_pinned_release_and_ruff_is_that_of_make_lint():
    blocks = re.split(r"^  - repo: ", HOOKS.read_text("utf-8"), flags=re.MULTILINE)[1:]
    pinned = {}
    for block in blocks:
        repository, revision, _ = block.split("\n", 2)
        pinned[repository.rpartition("/")[2]] = re.match(r"    rev: (v[\d.]+)\b", revision)[1]
        assert re.findall(r"^      - id: ([\w-]+)", block, re.MULTILINE)
    ruff = re.search(r"^ruff==(.*)$", read("constraints.txt"), re.MULTILINE)[1]
    assert pinned["ruff-pre-commit"] == f"v{ruff}"
    assert {"codespell", "validate-pyproject", "pre-commit-hooks"} < set(pinned)


def test_the_readme_s_figures_are_those_of_the_results():
    readme, results = read("README.md"), read("benchmarks/RESULTS.md")
    reasons = re.findall(r"\*\*(\d[\d,.]*)[ *]", readme)
    assert len(reasons) == 5
    assert [figure for figure in reasons if not re.search(rf"(?<![\d.,]){re.escape(figure)}(?![\d,])", results)] == []
    measured = [re.findall(r"[\w=.-]+", line) for line in results.splitlines() if line.startswith("| ")]
    for line in readme.splitlines():
        cells = re.findall(r"[\w=.-]+", line) if line.startswith("| ") and "---" not in line else []
        assert not cells or "peak" in cells or any(set(cells) <= set(row) for row in measured), line


def test_the_readme_s_example_is_the_file_of_the_examples():
    block = re.search(r"```python\n(.*?)```\n```text\n(.*?)```", read("README.md"), re.DOTALL)
    code, printed = block.groups()
    assert read("examples/first_vectors.py").endswith(f'"""\n\n{code}')
    assert printed.count("\n") == 4


def test_every_make_that_the_documents_name_is_a_target():
    targets = set(re.findall(r"^([\w-]+):", read("Makefile"), re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md"):
        named = re.findall(r"(?:^    |`)make ([\w-]+)", read(page), re.MULTILINE)
        assert named
        assert set(named) <= targets


def test_every_path_that_the_contributor_s_page_names_exists():
    paths = re.findall(r"`((?:src|tests|docs|benchmarks|examples)/[\w./-]+)`", read("CONTRIBUTING.md"))
    assert len(paths) > 20
    assert [
        path for path in paths if not (CHECKOUT / path).exists() and "NAME" not in path and "FAMILY" not in path
    ] == []


def test_a_release_builds_and_its_version_is_in_the_changelog(tmp_path):
    assert re.search(rf"^## \[{re.escape(__version__)}\] - \d{{4}}-\d\d-\d\d$", read("CHANGELOG.md"), re.MULTILINE)
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path)]
    subprocess.run(build, cwd=CHECKOUT, check=True, capture_output=True)
    (wheel,), (archive,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as packed:
        metadata = packed.read(f"embedway-{__version__}.dist-info/METADATA").decode()
    assert f"\nVersion: {__version__}\n" in metadata
    assert metadata.rstrip().endswith(read("README.md").rstrip())
    with tarfile.open(archive) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    assert {"README.md", "CHANGELOG.md", "LICENSE", "Makefile", "pyproject.toml", "src/embedway/__init__.py"} <= names
