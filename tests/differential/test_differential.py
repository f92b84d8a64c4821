"""Comparison of two checkouts: it is repeatable, reaches every behaviour, and detects planted faults."""

import ast
import subprocess
import sys
from pathlib import Path

import compare
import mutants
import pytest
import renames
import scenarios

ROOT = Path(__file__).parents[2]
#: Scenarios of the quick runs. With these calls they reach every kind of outcome below.
SPAN = {"seed": 1, "first": 0, "last": 14, "calls": 10}
REACHED = (
    "hits",
    "saved money",
    "failovers",
    "retries",
    "refused requests that were halved",
    "refused rows",
    "truncations",
    "averaged",
    "rows with errors",
    "cancellations",
    "cancelled upstream",
    "pins",
    "reranked",
    "planned",
    "matryoshka sizes",
    "ledger rows",
    "cache entries in files",
    "cache entries in memory",
    "errors: BudgetExceededError",
    "errors: DeadlineError",
    "errors: TextTooLongError",
    "errors: InputError",
    "errors: UsageError",
)


def test_scenarios_follow_from_their_seed_and_number():
    code = "import scenarios; print([scenarios.scenario(3, number, 5) for number in range(4)])"
    command = [sys.executable, "-c", code]
    environ = {"PYTHONPATH": str(Path(__file__).parent), "PYTHONHASHSEED": "7"}
    other = subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout
    assert other.strip() == str([scenarios.scenario(3, number, 5) for number in range(4)])
    assert scenarios.scenario(4, 0) != scenarios.scenario(3, 0)


@pytest.fixture(scope="module")
def lines():
    return list(compare.run_child(ROOT, compare.span(**SPAN), hash_seed="0"))


def compared(lines, *more, hash_seed="0"):
    others = compare.run_child(ROOT, [*compare.span(**SPAN), *more], hash_seed=hash_seed)
    return compare.compare_lines(lines, others, seed=SPAN["seed"], calls=SPAN["calls"])


def test_a_checkout_does_the_same_as_itself_in_another_process_and_reaches_every_outcome(lines):
    comparison = compared(lines, hash_seed="1")
    assert comparison.found == []
    assert comparison.counts["stuck"] == comparison.counts["never ended"] == 0
    assert [name for name in REACHED if not comparison.counts[name]] == []


def test_planted_faults_are_reported_with_their_path(lines):
    comparison = compared(lines, "--plant", "rows", "tokens", "cost", "errors")
    places = {"rows[]", "receipt.tokens", "receipt.cost_nanousd", "errors[]"}
    assert {f"calls[].{place}" for place in places} <= {one.kind for one in comparison.found}


def test_the_innermost_differing_paths_are_listed():
    before = {"calls": [{"rows": [1, 2], "errors": {"3": "a"}}], "at": 1}
    after = {"calls": [{"rows": [1, 5], "errors": {}}], "at": 1.0}
    found = list(compare.differences(before, after))
    assert found == [("at", 1, 1.0), ("calls[0].errors.3", "a", "absent"), ("calls[0].rows[1]", 2, 5)]


def test_differences_that_are_meant_are_explained_by_name_and_others_are_not(tmp_path):
    file = tmp_path / "meant.toml"
    file.write_text(
        '[[meant]]\nname = "wording"\nreason = "it is clearer"\n'
        "path = 'calls\\[\\]\\.raised\\.message'\nbefore = 'is down'\n"
    )
    comparison = compare.Comparison()
    comparison.found = [compare.Difference(1, "calls[4].raised.message", "it is down", "the service is down")]
    assert compare.report(comparison, compare.read_meant(file))
    comparison.found.append(compare.Difference(1, "calls[4].receipt.tokens", 3, 4))
    assert not compare.report(comparison, compare.read_meant(file))


def checkout(folder, **files):
    for name, text in files.items():
        path = folder / "src" / "package" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


OLD = '''"""Old words."""
from package.other import b
def helper(crew: "Crew") -> int:
    """Help."""
    return crew.told + 1
class Crew:
    told = 1
'''


def test_moves_and_renames_of_the_map_are_no_difference(tmp_path):
    before = checkout(tmp_path / "before", one=OLD)
    moved = {
        "two": '"""New."""\nclass Backend:\n    """It."""\n    count = 1\n',
        "three": 'import os\ndef helper(crew: "Backend") -> int:\n    return crew.count + 1  # why\n',
    }
    names = {"Crew": "Backend", "told": "count"}
    assert renames.compare(before, checkout(tmp_path / "after", **moved), names) == ([], [])


def test_a_change_besides_the_renames_is_listed(tmp_path):
    before = checkout(tmp_path / "before", one=OLD)
    after = checkout(tmp_path / "after", one=OLD.replace("+ 1", "+ 2"))
    gone, come = renames.compare(before, after, {})
    assert ["told + 1" in text for text in gone] == [True]
    assert ["told + 2" in text for text in come] == [True]


CODE = '''
def f(a: "X | None", b=1):
    """Words."""
    _log.warning("%d", a + b)
    if a < b and b:
        return g(a, b)
    raise ValueError(f"{a + 1}")
'''


def test_mutants_are_the_same_for_a_seed_and_leave_wording_logging_and_types_alone(tmp_path):
    file = tmp_path / "f.py"
    file.write_text(CODE)
    kinds = sorted(kind for _, _, kind in mutants.mutants_of(file))
    assert kinds == ["and, or", "arguments swapped", "comparison", "condition negated", "return None at once"]
    chosen = mutants.choose([file], 3, 5)
    assert [one.key for one in chosen] == [one.key for one in mutants.choose([file], 3, 5)]
    for number in range(len(kinds)):
        mutant = mutants.make(file, number)
        assert mutant.before != mutant.after
        ast.parse(mutant.after)
