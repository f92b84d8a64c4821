"""The tree of tests mirrors the package: src/embedway/x/y.py is tested by tests/x/test_y.py."""

from pathlib import Path

import pytest

import embedway.errors

PACKAGE = Path(embedway.errors.__file__).parent
TESTS = Path(__file__).parents[1]
#: Optional suffixes after the name of the module: test_y_ASPECT.py.
ASPECTS = {
    "chromium": "needs the program chromium, and runs with make test-page",
    "contract": "a suite that runs over every implementation",
    "faults": "damaged, hostile or failing environment",
    "order": "properties of an order, for many generated cases",
    "peers": "needs torch and transformers, and runs with make test-peers",
    "property": "properties for many generated cases",
    "structure": "documents of known structure",
    "tokenizers": "tokenizers of real models",
    "processes": "several processes, some of them killed",
}
#: Folders that mirror no package: helpers, tests of the checkout, the comparison of two checkouts, the
#: fuzz harness, typing, and tests of the files in `deploy`.
OTHERS = {"support", "project", "differential", "fuzz", "typing", "deploy"}
#: Tests of several commands that a user types one after the other, and of the way that commands are tested.
COMMANDS = {
    "cli/test_in_process.py",
    "cli/test_run_search_embed.py",
    "cli/test_run_search_scripts.py",
    "cli/test_select_plan_budget.py",
    "cli/test_sync_export_verify_forget.py",
}
FILES = sorted(
    path.relative_to(TESTS) for path in TESTS.rglob("test_*.py") if path.relative_to(TESTS).parts[0] not in OTHERS
)
PACKAGES = sorted(path.parent.relative_to(PACKAGE) for path in PACKAGE.rglob("*/__init__.py"))


def is_tested(file):
    """Return whether a test file, relative to `tests`, names a module, a package, or its own folder's package."""
    folder = PACKAGE / file.parent
    words = file.stem.removeprefix("test_").split("_")
    while len(words) > 1 and words[-1] in ASPECTS:
        words.pop()
    name = "_".join(words)
    if not (folder / "__init__.py").is_file():
        return False
    own = file.parent.name == name
    return own or any((folder / one).exists() for one in (f"{name}.py", f"_{name}.py", name))


@pytest.mark.parametrize("file", FILES, ids=str)
def test_each_test_file_names_what_it_tests(file):
    assert is_tested(file) or file.as_posix() in COMMANDS, (
        f"tests/{file}: src/embedway/{file.parent} has no module of this name; move the file to the path of the module "
        f"that it tests, with a suffix ({', '.join(ASPECTS)}) if needed"
    )


@pytest.mark.parametrize("package", PACKAGES, ids=str)
def test_each_package_has_tests(package):
    beside = TESTS / package.parent / f"test_{package.name}.py"
    assert beside.is_file() or any((TESTS / package).glob("test_*.py"))


def test_every_other_file_is_a_conftest_or_a_helper():
    paths = (path.relative_to(TESTS) for path in TESTS.rglob("*.py"))
    left = [path for path in paths if path.parts[0] not in OTHERS and path.name != "conftest.py"]
    assert [str(path) for path in left if not path.name.startswith("test_")] == []


@pytest.mark.parametrize("name", ["test_nothing.py", "nowhere/test_base.py", "cache/test_base_sometimes.py"])
def test_a_wrong_name_is_found(name):
    assert not is_tested(Path(name))


def test_the_exceptions_exist():
    assert [name for name in sorted(COMMANDS) if not (TESTS / name).is_file()] == []
