"""Front matter of Markdown: settings before the text, in YAML (`---`) or TOML (`+++`).

Only the title is used. It is read without a YAML library, because front matter of real sites has templates and custom
tags, which a YAML library refuses.
"""

from __future__ import annotations

import re

from embedway.collections.documents import MAX_TITLE_CHARACTERS

#: Maximum number of lines that are searched for the end of front matter.
_MAX_LINES = 2000
_KEY = re.compile(r"[\w.$@-]+[ \t]*+:(?=[ \t]|$)|[\"'][^\"']*[\"'][ \t]*+:(?=[ \t]|$)")
_TITLE = re.compile(r"""(?:title|"title"|'title')[ \t]*+[:=][ \t]*+(.*)$""", re.IGNORECASE)
_BLOCK_SCALAR = re.compile(r"[|>][+-]?[0-9]?[ \t]*+(?:#.*)?$")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*+)"')
_SINGLE = re.compile(r"'((?:[^']|'')*+)'")
_ESCAPE = re.compile(r"\\(.)")
_COMMENT = re.compile(r"(?:^|[ \t])#.*$")


def split_front_matter(lines: list[str]) -> tuple[str | None, int]:
    """Return the title in the front matter, and the number of lines of the front matter; 0 if there is none."""
    fence = lines[0].rstrip() if lines else ""
    if fence not in {"---", "+++"}:
        return None, 0
    ends = {"---", "..."} if fence == "---" else {"+++"}
    for number, line in enumerate(lines[1:_MAX_LINES], 1):
        if line.rstrip() in ends:
            inner = lines[1:number]
            return (_title(inner), number + 1) if fence == "+++" or _is_yaml(inner) else (None, 0)
    return None, 0


def _is_yaml(lines: list[str]) -> bool:
    """Return whether lines are settings, and not text between two horizontal rules."""
    outer = [line for line in lines if line.strip() and line[0] not in " \t#"]
    return not outer or (_KEY.match(outer[0]) is not None and all(map(_may_be_yaml, outer)))


def _may_be_yaml(line: str) -> bool:
    return line[0] in "-]}" or _KEY.match(line) is not None


def _title(lines: list[str]) -> str | None:
    for number, line in enumerate(lines):
        if found := _TITLE.match(line):
            return _value(found[1].strip(), lines[number + 1 :])
    return None


def _value(value: str, following: list[str]) -> str | None:
    """Return the text of a value, whose further lines are indented; None if it is empty."""
    if not value or _BLOCK_SCALAR.match(value):
        further = []
        for line in following:
            if line.strip() and line[0] not in " \t":
                break
            further.append(line.strip())
        value = " ".join(filter(None, further))
        quoted = None
    else:
        quoted = _DOUBLE.match(value) or _SINGLE.match(value)
    if quoted is None:
        text = _COMMENT.sub("", value).strip()
        text = "" if text in {"null", "~", "Null", "NULL"} else text
    elif quoted.re is _DOUBLE:
        text = _ESCAPE.sub(r"\1", quoted[1])
    else:
        text = quoted[1].replace("''", "'")
    return " ".join(text.split())[:MAX_TITLE_CHARACTERS] or None
