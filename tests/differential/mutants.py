"""Check whether the differential runs and the tests detect small faults in the code.

`python tests/differential/mutants.py src/embedway/pipeline src/embedway/cache --count 30` makes one change in these
folders at a time, in a copy of `src`, and runs a differential of some requests against the unchanged checkout. If it
does not detect the change, the command of `--tests` runs. A mutant that neither kills survives, and its change is
printed. `--equal` names a file of lines `KEY  REASON` for mutants without an observable effect.
"""

import argparse
import ast
import difflib
import hashlib
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_COMPARE = Path(__file__).with_name("compare.py")
_OTHER = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
#: Calls whose removal or change has no observable effect: they format, log, or measure time.
_QUIET = ("_log", "warn", "metrics", "perf_counter", "cast", "TypeVar", "Timing")


@dataclass(frozen=True)
class Mutant:
    """Change of one node of a file."""

    path: Path
    line: int
    what: str
    before: str
    after: str

    @property
    def key(self) -> str:
        """Name in the list of equal mutants; it does not depend on line numbers."""
        changed = "\n".join(line for line in self.diff() if line[:1] in "+-" and line[:3] not in {"+++", "---"})
        return hashlib.blake2b(f"{self.path.name}\n{changed}".encode(), digest_size=5).hexdigest()

    def diff(self) -> list[str]:
        """Return the change, as a unified diff of the normalized code."""
        name = str(self.path.relative_to(ROOT)) if self.path.is_relative_to(ROOT) else self.path.name
        lines = self.before.splitlines(), self.after.splitlines()
        return list(difflib.unified_diff(*lines, f"{name}:{self.line}", self.what, n=2, lineterm=""))


def _places(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Yield nodes inside functions that can be changed, with the kind of change."""

    def walk(node: ast.AST, *, inside: bool) -> Iterator[tuple[ast.AST, str]]:
        if isinstance(node, (ast.Raise, ast.Assert, ast.JoinedStr, ast.Import, ast.ImportFrom)):
            return  # error messages
        call = node.value if isinstance(node, ast.Expr) else node
        if isinstance(call, ast.Call) and any(name in ast.unparse(call.func) for name in _QUIET):
            return
        if inside:
            yield from ((node, kind) for kind in _kinds(node))
        within = inside or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for field, value in ast.iter_fields(node):
            if field in {"annotation", "returns", "decorator_list", "defaults", "kw_defaults"}:
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from walk(child, inside=within)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and len(node.body) > 1:
            yield node, "return None at once"

    yield from walk(tree, inside=False)


def _kinds(node: ast.AST) -> Iterator[str]:
    if isinstance(node, (ast.If, ast.IfExp, ast.While)):
        yield "condition negated"
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _OTHER:
        yield "comparison"
    if isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in _OTHER and not _is_type(node):
        yield "operator"
    if isinstance(node, ast.BoolOp):
        yield "and, or"
    if isinstance(node, ast.Constant) and type(node.value) in {int, float}:
        yield "constant + 1"
        yield "constant - 1"
    if isinstance(node, ast.Constant) and type(node.value) is bool:
        yield "constant negated"
    if isinstance(node, (ast.Assign, ast.AugAssign, ast.Delete)) or (
        isinstance(node, ast.Expr) and isinstance(node.value, (ast.Call, ast.Await))
    ):
        yield "statement dropped"
    if isinstance(node, ast.Call) and len(node.args) >= 2 and not any(isinstance(a, ast.Starred) for a in node.args):
        yield "arguments swapped"


def _is_type(node: ast.BinOp | ast.AugAssign) -> bool:
    return isinstance(node, ast.BinOp) and any(
        isinstance(side, ast.Constant) and isinstance(side.value, str) for side in (node.left, node.right)
    )


def _change(node: ast.AST, kind: str) -> ast.AST:
    """Change the node; return it, or the statement that replaces it."""
    if kind == "condition negated":
        node.test = ast.UnaryOp(ast.Not(), node.test)
    elif kind == "comparison":
        node.ops[0] = _OTHER[type(node.ops[0])]()
    elif kind in {"operator", "and, or"}:
        node.op = _OTHER[type(node.op)]()
    elif kind.startswith("constant"):
        node.value = not node.value if kind.endswith("negated") else node.value + (1 if "+" in kind else -1)
    elif kind == "arguments swapped":
        node.args[0], node.args[1] = node.args[1], node.args[0]
    elif kind == "return None at once":
        node.body.insert(0, ast.Return(ast.Constant(None)))
    else:
        return ast.copy_location(ast.Pass(), node)
    return node


class _At(ast.NodeTransformer):
    """Transformer that changes one node."""

    def __init__(self, target: ast.AST, kind: str) -> None:
        self._target, self._kind = target, kind

    def visit(self, node):
        return _change(node, self._kind) if node is self._target else self.generic_visit(node)


def mutants_of(path: Path) -> Iterator[tuple[int, int, str]]:
    """Yield every mutant of a file: its number, line and kind."""
    for number, (node, kind) in enumerate(_places(ast.parse(path.read_text("utf-8")))):
        yield number, getattr(node, "lineno", 0), kind


def make(path: Path, number: int) -> Mutant:
    """Return the mutant of a file with that number."""
    tree = ast.parse(path.read_text("utf-8"))
    before = ast.unparse(tree)
    node, kind = list(_places(tree))[number]
    line = getattr(node, "lineno", 0)
    changed = ast.fix_missing_locations(_At(node, kind).visit(tree))
    return Mutant(path, line, kind, before, ast.unparse(changed))


def choose(packages: list[Path], count: int, seed: int) -> list[Mutant]:
    """Return `count` mutants of the packages, the same for the same seed and code."""
    files = sorted(
        {file for package in packages for file in ([package] if package.is_file() else package.rglob("*.py"))}
    )
    places = [(file, number) for file in files for number, _, _ in mutants_of(file)]
    chosen = random.Random(seed).sample(places, min(len(places), count))
    made = (make(*place) for place in chosen)
    return [mutant for mutant in made if mutant.before != mutant.after]


def judge(mutant: Mutant, *, requests: int, tests: str, timeout_s: float) -> tuple[str, str]:
    """Return `killed` or `survived`, and what killed it."""
    with tempfile.TemporaryDirectory() as folder:
        copy_ = Path(folder, "checkout")
        shutil.copytree(ROOT / "src", copy_ / "src", ignore=shutil.ignore_patterns("__pycache__"))
        (copy_ / mutant.path.relative_to(ROOT)).write_text(mutant.after, "utf-8")
        differential = [sys.executable, str(_COMPARE), str(ROOT), str(copy_), "--requests", str(requests)]
        differential += ["--jobs", "1", "--quick", "--no-caches"]
        if not _passes(differential, {}, timeout_s):
            return "killed", "differential"
        if tests:
            environ = {"PYTHONPATH": str(copy_ / "src")}
            if not _passes([sys.executable, "-m", "pytest", "-x", "-q", *shlex.split(tests)], environ, timeout_s):
                return "killed", "tests"
    return "survived", ""


def _passes(command: list[str], environ: dict[str, str], timeout_s: float) -> bool:
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environ}
    child = subprocess.Popen(
        command, env=environ, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        return child.wait(timeout_s) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        if child.poll() is None:
            os.killpg(child.pid, 9)
            child.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, nargs="+", help="folders or files of this checkout")
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--tests", default="", help="arguments of pytest after -x -q; empty for no tests")
    parser.add_argument("--timeout-s", type=float, default=300)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--equal", type=Path, help="file of mutants without an effect: key and reason in each line")
    arguments = parser.parse_args()
    equal: dict[str, str] = {}
    if arguments.equal:
        for line in arguments.equal.read_text("utf-8").splitlines():
            key, _, reason = line.partition(" ")
            equal |= {key: reason.strip()} if key and not key.startswith("#") else {}
    mutants = choose([package.resolve() for package in arguments.packages], arguments.count, arguments.seed)

    def verdict(mutant: Mutant) -> tuple[str, str]:
        if mutant.key in equal:
            return "equal", equal[mutant.key]
        return judge(mutant, requests=arguments.requests, tests=arguments.tests, timeout_s=arguments.timeout_s)

    counts = {"killed": 0, "survived": 0, "equal": 0}
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for mutant, (state, by) in zip(mutants, pool.map(verdict, mutants), strict=True):
            counts[state] += 1
            print(f"{state} {mutant.key} {by}".rstrip())
            print("\n".join(f"    {line}" for line in mutant.diff()), flush=True)
    print(", ".join(f"{number} {state}" for state, number in counts.items()))
    return 1 if counts["survived"] else 0


if __name__ == "__main__":
    sys.exit(main())
