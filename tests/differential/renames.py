"""Check that commits only rename and move: the syntax trees of two checkouts are equal under a map of names.

`python tests/differential/renames.py BEFORE AFTER --names MAP.toml` compares the top-level definitions of both `src`
folders as a multiset, in any module. Docstrings, comments and imports do not count. The map has one table, `[names]`,
of old names and new ones; a dotted name in a string annotation is mapped part by part.
"""

import argparse
import ast
import collections
import re
import sys
import tomllib
from pathlib import Path

_WORD = re.compile(r"[^\W\d]\w*")


class _Renamed(ast.NodeTransformer):
    """Transformer that removes docstrings and imports, and renames."""

    def __init__(self, names: dict[str, str]) -> None:
        self._names = names
        self._annotation = False

    def _name(self, name: str) -> str:
        return self._names.get(name, name)

    def visit_Import(self, node):
        return None

    def visit_ImportFrom(self, node):
        return None

    def generic_visit(self, node):
        for field in ("id", "attr", "arg", "name", "rest"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                setattr(node, field, self._name(value))
        for field in ("names", "kwd_attrs"):
            value = getattr(node, field, None)
            if isinstance(value, list) and all(isinstance(one, str) for one in value):
                setattr(node, field, [self._name(one) for one in value])
        super().generic_visit(node)
        for field in ("body", "orelse", "finalbody"):
            body = getattr(node, field, None)
            if isinstance(body, list):
                setattr(node, field, [one for one in body if not _is_text(one)] or [ast.Pass()])
        if isinstance(getattr(node, "orelse", None), list) and all(isinstance(one, ast.Pass) for one in node.orelse):
            node.orelse = []
        if isinstance(getattr(node, "finalbody", None), list):
            node.finalbody = [one for one in node.finalbody if not isinstance(one, ast.Pass)]
        return node

    def visit_Constant(self, node):
        if self._annotation and isinstance(node.value, str):
            node.value = _WORD.sub(lambda match: self._name(match.group()), node.value)
        return node

    def _annotated(self, node):
        before, self._annotation = self._annotation, True
        changed = self.visit(node)
        self._annotation = before
        return changed

    def visit_arg(self, node):
        if node.annotation is not None:
            node.annotation = self._annotated(node.annotation)
        node.arg = self._name(node.arg)
        return node

    def visit_AnnAssign(self, node):
        node.annotation = self._annotated(node.annotation)
        node.target = self.visit(node.target)
        node.value = node.value and self.visit(node.value)
        return node

    def visit_FunctionDef(self, node):
        if node.returns is not None:
            node.returns = self._annotated(node.returns)
        return self.generic_visit(node)

    def visit_AsyncFunctionDef(self, node):
        return self.visit_FunctionDef(node)

    def visit_Call(self, node):
        # cast("Type", value) and TypeVar("T", bound="Type") contain types as strings.
        if isinstance(node.func, ast.Name) and node.func.id in {"cast", "TypeVar", "ParamSpec", "NewType"}:
            node.args = [self._annotated(one) if isinstance(one, ast.Constant) else one for one in node.args]
        return self.generic_visit(node)

    def visit_Subscript(self, node):
        # Crew["Sending", Outcome]: a string in the subscript of a class is a type, unless it is a key.
        if isinstance(node.value, ast.Name) and node.value.id[:1].isupper():
            node.slice = self._annotated(node.slice)
        return self.generic_visit(node)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def definitions(source: Path, names: dict[str, str]) -> collections.Counter:
    """Count the top-level statements in the modules below a folder, as text under the new names."""
    found: collections.Counter = collections.Counter()
    for path in sorted(source.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        # Code that only the type checker reads consists of imports and types.
        tree = _Renamed(names).visit(tree)
        for node in tree.body:
            if isinstance(node, ast.Pass) or _is_empty(node) or _is_export(node):
                continue
            found[ast.unparse(ast.fix_missing_locations(node))] += 1
    return found


def _is_empty(node: ast.AST) -> bool:
    """Return whether a statement contained only imports."""
    return isinstance(node, ast.If) and all(isinstance(one, ast.Pass) for one in node.body) and not node.orelse


def _is_export(node: ast.AST) -> bool:
    """Return whether a statement is `__all__`: it lists names as strings, which move with their modules."""
    return isinstance(node, ast.Assign) and any(
        isinstance(one, ast.Name) and one.id == "__all__" for one in node.targets
    )


def compare(before: Path, after: Path, names: dict[str, str]) -> tuple[list[str], list[str]]:
    """Return the definitions that exist only before, under the new names, and those that exist only after."""
    old, new = definitions(before / "src", names), definitions(after / "src", {})
    return sorted((old - new).elements()), sorted((new - old).elements())


def read_names(path: Path | None) -> dict[str, str]:
    """Return the map of a TOML file."""
    return {} if path is None else tomllib.loads(path.read_text("utf-8"))["names"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="a checkout")
    parser.add_argument("after", type=Path, help="a checkout")
    parser.add_argument("--names", type=Path, help="TOML file with a table [names] of old and new names")
    arguments = parser.parse_args()
    gone, come = compare(arguments.before, arguments.after, read_names(arguments.names))
    for mark, several in (("-", gone), ("+", come)):
        for text in several:
            print("\n".join(f"{mark} {line}" for line in text.splitlines()), end="\n\n")
    total = sum(definitions(arguments.after / "src", {}).values())
    print(f"{total:,} definitions, {len(gone)} only before and {len(come)} only after")
    return 1 if gone or come else 0


if __name__ == "__main__":
    sys.exit(main())
