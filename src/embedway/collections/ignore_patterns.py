"""Patterns of `.gitignore`, as regular expressions that take linear time.

Between two wildcards, the leftmost match of a fixed part is as good as any other, so it is matched in an atomic group:
no pattern tries the places of one wildcard for each place of another.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

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
    "space": "\\s",
    "upper": "A-Z",
    "xdigit": "0-9a-fA-F",
}
_CLASS = re.compile(r"\[(?P<not>[!^]?)(?P<items>\]?(?:\[:\w+:\]|\\.|[^\]\\])*+)\]", re.DOTALL)
_CLASS_ITEM = re.compile(r"\[:(\w+):\]|\\(.)|(.)", re.DOTALL)
_TRAILING_SPACES = re.compile(r"(?<!\\)[ ]+\Z")


class Patterns:
    """List of patterns, of which the last that matches decides. `below` matches what is below a folder, too."""

    def __init__(self, lines: Iterable[str], *, below: bool = False) -> None:
        #: From the last one to the first: expression, whether it is for folders only, and whether it ignores.
        self._patterns: list[tuple[re.Pattern[str], bool, bool]] = []
        for line in lines:
            negated = line.startswith("!")
            text = _TRAILING_SPACES.sub("", line.removesuffix("\r"))[negated:]
            for_folders = text.endswith("/")
            expression = _expression(text.removesuffix("/"), below=below, for_folders=for_folders)
            if expression is not None:
                # What is below a folder shows that it is one.
                self._patterns.append((re.compile(expression, re.DOTALL), for_folders and not below, not negated))
        self._patterns.reverse()

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
    parts = text.removeprefix("/").split("/")
    if "" in parts:
        return None
    if not anchored:
        if (name := _component(parts[0])) is None:
            return None
        folders = _ANY_FOLDERS if below else r"(?:[^/]*+/)*+"
        return folders + name + _end(below=below, for_folders=for_folders)
    groups = _groups(parts)
    if groups is None:
        return None
    *middle, last = groups
    pieces = [middle.pop(0) + "/"] if middle else []
    if pieces == ["/"]:
        pieces = []
    pieces += [f"(?>{_ANY_FOLDERS}{group}/)" for group in middle]
    if not last:
        return "".join(pieces) + ".+"
    if len(groups) > 1:
        pieces.append(_ANY_FOLDERS)
    return "".join(pieces) + last + _end(below=below, for_folders=for_folders)


def _end(*, below: bool, for_folders: bool) -> str:
    if not below:
        return r"\Z"
    return "/" if for_folders else r"(?:/|\Z)"


def _groups(parts: list[str]) -> list[str] | None:
    """Return expressions of the parts between each `**`; the first and the last may be empty."""
    groups: list[list[str]] = [[]]
    for part in parts:
        if part == "**":
            if groups[-1] or len(groups) == 1:
                groups.append([])
        elif (component := _component(part)) is not None:
            groups[-1].append(component)
        else:
            return None
    return ["/".join(group) for group in groups]


def _component(text: str) -> str | None:
    """Return the expression of a part without slash; None if it is invalid."""
    fixed = [""]
    at = 0
    while at < len(text):
        character = text[at]
        at += 1
        if character == "*":
            if fixed[-1] or len(fixed) == 1:
                fixed.append("")
        elif character == "?":
            fixed[-1] += "[^/]"
        elif character == "[":
            found = _CLASS.match(text, at - 1)
            if found is None:
                return None
            fixed[-1] += _class(found["items"], negated=bool(found["not"]))
            at = found.end()
        elif character == "\\":
            if at == len(text):
                return None
            fixed[-1] += re.escape(text[at])
            at += 1
        else:
            fixed[-1] += re.escape(character)
    first, *others = fixed
    if not others:
        return f"{first}(?=/|\\Z)"
    middle = "".join(f"(?>[^/]*?{part})" for part in others[:-1])
    return f"(?>{first}{middle}[^/]*{others[-1]}(?=/|\\Z))"


def _class(items: str, *, negated: bool) -> str:
    """Return a class of characters, such as `[a-z[:digit:]]`."""
    pieces: list[str] = []
    found = [(one[1], one[2] or one[3]) for one in _CLASS_ITEM.finditer(items)]
    at = 0
    while at < len(found):
        name, character = found[at]
        if name:
            pieces.append(_CLASSES.get(name, ""))
        elif at + 2 < len(found) and found[at + 1][1] == "-" and found[at + 2][1]:
            last = found[at + 2][1]
            if character <= last:
                pieces.append(f"{re.escape(character)}-{re.escape(last)}")
            at += 2
        else:
            pieces.append(re.escape(character))
        at += 1
    inner = "".join(pieces)
    if negated:
        return f"[^/{inner}]"
    return f"(?!/)[{inner}]" if inner else "(?!)"
