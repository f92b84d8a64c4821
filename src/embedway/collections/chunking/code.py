"""Source code: grammars of tree-sitter, and the names of the classes and functions around a place."""

from __future__ import annotations

from bisect import bisect_right
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Module and function of each language's grammar.
_GRAMMARS = {
    "python": ("tree_sitter_python", "language"),
    "javascript": ("tree_sitter_javascript", "language"),
    "jsx": ("tree_sitter_javascript", "language"),
    "typescript": ("tree_sitter_typescript", "language_typescript"),
    "tsx": ("tree_sitter_typescript", "language_tsx"),
    "c": ("tree_sitter_c", "language"),
    "cpp": ("tree_sitter_cpp", "language"),
    "c++": ("tree_sitter_cpp", "language"),
    "go": ("tree_sitter_go", "language"),
    "java": ("tree_sitter_java", "language"),
    "rust": ("tree_sitter_rust", "language"),
}
#: Parts of the types of nodes that define a name.
_DEFINING = (
    "class",
    "function",
    "method",
    "constructor",
    "struct",
    "enum",
    "interface",
    "impl",
    "trait",
    "namespace",
    "mod_item",
)
_BODIES = ("body", "block")
_MAX_NAME = 120
_MAX_DEPTH = 8
#: Deepest nodes that are searched for definitions.
_MAX_NODES_DEEP = 64


class Definition(NamedTuple):
    """Definition in source code: `text[start:end]`, its first line as a name, and where its body begins."""

    start: int
    body: int
    end: int
    name: str


@cache
def grammar(language: str) -> Any:
    """Return the grammar of a language in lower case; None if there is none, or the extra `code` is not installed."""
    if language not in _GRAMMARS:
        return None
    module, function = _GRAMMARS[language]
    try:
        return getattr(import_module(module), function)()
    except ImportError:
        return None


def definitions(text: str, language: str) -> list[Definition]:
    """Return the definitions in a text, ordered by start, outer ones first; an empty list without a grammar."""
    known = grammar(language)
    if known is None:
        return []
    try:
        from tree_sitter import Language, Parser  # noqa: PLC0415  the extra `code`
    except ImportError:
        return []
    data = text.encode()
    found: list[tuple[int, int, int]] = []
    waiting = [(Parser(Language(known)).parse(data).root_node, 0)]
    while waiting:
        node, depth = waiting.pop()
        if depth >= _MAX_NODES_DEEP:
            continue
        body = next((child for field in _BODIES if (child := node.child_by_field_name(field)) is not None), None)
        if body is not None and any(word in node.type for word in _DEFINING):
            found.append((node.start_byte, body.start_byte, node.end_byte))
        waiting += [(child, depth + 1) for child in node.named_children if child.named_child_count]
    return _named(text, data, sorted(found, key=lambda span: (span[0], -span[2])))


def _named(text: str, data: bytes, spans: Sequence[tuple[int, int, int]]) -> list[Definition]:
    """Return definitions with offsets in characters, from spans in bytes."""
    offsets = sorted({offset for span in spans for offset in span})
    characters = {}
    byte = character = 0
    for offset in offsets:
        character += len(data[byte:offset].decode(errors="replace"))
        byte = offset
        characters[offset] = character
    made = []
    for start, body, end in spans:
        first, last = characters[start], characters[body]
        name = " ".join(text[first : min(last, first + 4 * _MAX_NAME)].split()).rstrip("{:( ")
        made.append(Definition(first, last, characters[end], _shortened(name)))
    return made


def _shortened(name: str) -> str:
    """Return a signature without its parameters."""
    return name.split("(", 1)[0].strip()[:_MAX_NAME] or name[:_MAX_NAME]


def enclosing(found: Sequence[Definition], starts: Sequence[int], offset: int) -> tuple[str, ...]:
    """Return the names of the definitions that begin before an offset and end after it, outermost first."""
    names: list[str] = []
    first = bisect_right(starts, offset) - 1
    outer = None
    for number in range(first, max(first - 512, -1), -1):
        one = found[number]
        if one.start < offset < one.end and (outer is None or one.start < outer):
            names.append(one.name)
            outer = one.start
    return tuple(reversed(names))[:_MAX_DEPTH]
