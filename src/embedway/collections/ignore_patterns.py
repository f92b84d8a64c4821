"""Patterns of `.gitignore`, as regular expressions that take linear time.

They match as in git, but `?` and classes stand for a character, where git takes a byte of UTF-8.

Between two wildcards, the leftmost match of a fixed part is as good as any other, so it is matched in an atomic group:
no pattern tries the places of one wildcard for each place of another.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Maximum characters of a pattern: the longest path of Linux.
MAX_CHARACTERS = 4096
_ANY_FOLDERS = r"(?:[^/]*+/)*?"
_CLASSES = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "blank": " \\t",
    "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": "!-/:-@\\[-`{-~",
    "space": " \\t\\n\\r",
    "upper": "A-Z",
    "xdigit": "0-9a-fA-F",
}
#: End of a range; an item of a class, `[:digit:]` or a character that may begin a range; and a class, whose first
#: character may be `]`. No part is matched in two ways, so these take linear time.
_RANGE = r"(?:-(?:\\.|[^\\\]]))?+"
_ITEM = rf"\[:[^\]]++(?<=:)\]|(?:\\.|[^\\\]]){_RANGE}"
_CLASS = rf"\[(?:[!^]?+)(?:\]{_RANGE})?+(?:{_ITEM})*+\]"
#: Name with its last colon, or first and last character of a range.
_CLASS_ITEM = re.compile(r"\[:([^\]]+)(?<=:)\]|\\?(.)(?:-(\\.|[^\\\]]))?", re.DOTALL)
#: Unit of a component: stars, a class, an escaped character, or any other character.
_UNIT = re.compile(rf"(?P<stars>\*+)|(?P<class>{_CLASS})|\\(?P<escaped>.)|(?P<other>[^\[\\])", re.DOTALL)
#: Component of a pattern, and the slash after it. A slash in a class separates nothing.
_PART = re.compile(rf"((?:{_CLASS}|\\[^/]|[^/\\\[])*+)(\\?/|\Z)", re.DOTALL)
_SPECIAL = re.compile(r"[*?\[\\]")
#: A line without the spaces at its end, unless a backslash escapes them.
_WITHOUT_SPACES = re.compile(r"(?:\\.|[^ \\]|[ ]++(?!\Z)|\\\Z)*+", re.DOTALL)


class _Pattern(NamedTuple):
    expression: re.Pattern[str]
    for_folders: bool
    ignores: bool


class Patterns:
    """List of patterns, of which the last that matches decides. With `below`, they also match what is in a folder."""

    def __init__(self, lines: Iterable[str], *, below: bool = False) -> None:
        #: From the last one to the first.
        self._patterns: list[_Pattern] = []
        for line in lines:
            negated = line.startswith("!")
            found = _WITHOUT_SPACES.match(line.removesuffix("\r"))
            text = found[0][negated:] if found else ""
            for_folders = text.endswith("/")
            expression = _expression(text.removesuffix("/"), below=below, for_folders=for_folders)
            if expression is not None:
                # With `below`, the expression itself matches only paths in a folder.
                only_folders = for_folders and not below
                self._patterns.append(_Pattern(re.compile(expression, re.DOTALL), only_folders, not negated))
        self._patterns.reverse()

    def without(self, path: str) -> Patterns:
        """Return these patterns without those that ignore a folder, whose path ends with a slash."""
        name = path.removesuffix("/")
        kept = Patterns(())
        kept._patterns = [one for one in self._patterns if not (one.ignores and one.expression.match(name))]
        return kept

    def decide(self, path: str) -> bool | None:
        """Return whether a path is ignored, or included again; None if no pattern matches. Folders end with a slash."""
        is_folder = path.endswith("/")
        name = path.removesuffix("/")
        for expression, for_folders, ignores in self._patterns:
            if (is_folder or not for_folders) and expression.match(name):
                return ignores
        return None


def pattern_fault(line: str) -> str | None:
    """Return why a pattern cannot be used, or None."""
    if len(line) > MAX_CHARACTERS and not line.startswith("#"):
        return f"the pattern has more than {MAX_CHARACTERS:,} characters"
    return None


def _expression(text: str, *, below: bool, for_folders: bool) -> str | None:
    """Return a pattern as a regular expression; None if it matches nothing, as an invalid one in git."""
    anchored = "/" in text
    if not anchored:
        if (name := _component(text)) is None:
            return None
        folders = _ANY_FOLDERS if below else r"(?:[^/]*+/)*+"
        return folders + name + _end(below=below, for_folders=for_folders)
    groups = _groups(text.removeprefix("/"))
    if groups is None:
        return None
    first, *middle = ["/".join(group) for group in groups]
    if not middle:
        return first + _end(below=below, for_folders=for_folders)
    last = middle.pop()
    pieces = [first, *(f"(?>{_ANY_FOLDERS}{group}/)" for group in middle)]
    pieces.append(_ANY_FOLDERS + last + _end(below=below, for_folders=for_folders) if last else ".*")
    return "".join(pieces)


def _end(*, below: bool, for_folders: bool) -> str:
    if not below:
        return r"\Z"
    return "/" if for_folders else r"(?:/|\Z)"


def _groups(text: str) -> list[list[str]] | None:
    """Return the expressions of the components between each `**`, in groups; None if the pattern matches nothing.

    An empty text at the end of the first group stands for its slash. As in git, `**` may also end a component if no
    character before it is special: `ab**/c` matches `abc` and `ab/x/c`.
    """
    groups: list[list[str]] = [[]]
    at = 0
    while True:
        found = _PART.match(text, at)
        if found is None or not found[1]:
            return None
        part, slash = found[1], found[2]
        fixed = part.rstrip("*")
        if part.endswith("**") and not (fixed and _SPECIAL.search(text, 0, at + len(fixed))):
            if len(groups) == 1:
                groups[0] += [re.escape(fixed)] if fixed or groups[0] else []
            if len(groups) == 1 or groups[-1]:
                groups.append([])
            if slash == "\\/":  # an escaped slash is a slash, but after `**` it needs a folder
                groups[-1].append("[^/]*+")
        elif (component := _component(part)) is not None:
            groups[-1].append(component)
        else:
            return None
        at = found.end()
        if not slash:
            return groups


def _component(text: str) -> str | None:
    """Return the expression of a component; None if it is invalid."""
    fixed = [""]
    at = 0
    while at < len(text):
        found = _UNIT.match(text, at)
        if found is None:
            return None
        at = found.end()
        if found["stars"]:
            if fixed[-1] or len(fixed) == 1:
                fixed.append("")
        elif found["class"]:
            if (expression := _class(found["class"])) is None:
                return None
            fixed[-1] += expression
        else:
            fixed[-1] += "[^/]" if found["other"] == "?" else re.escape(found["escaped"] or found["other"])
    first, *others = fixed
    if not others:
        return f"{first}(?=/|\\Z)"
    middle = "".join(f"(?>[^/]*?{part})" for part in others[:-1])
    return f"(?>{first}{middle}[^/]*{others[-1]}(?=/|\\Z))"


def _class(text: str) -> str | None:
    """Return a class of characters, such as `[a-z[:digit:]]`; None if one of its names is unknown."""
    negated = text[1] in "!^"
    pieces: list[str] = []
    for name, character, last in _CLASS_ITEM.findall(text[1 + negated : -1]):
        if name:
            if name[:-1] not in _CLASSES:
                return None
            pieces.append(_CLASSES[name[:-1]])
            continue
        pieces.append(re.escape(character))  # also if the range is empty, as in git
        if character < last[-1:]:
            pieces.append(f"{re.escape(character)}-{re.escape(last[-1])}")
    inner = "".join(pieces)
    return f"[^/{inner}]" if negated else f"(?!/)[{inner}]"
