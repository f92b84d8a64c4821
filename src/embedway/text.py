"""Sanitizing of external text for terminals, logs and error messages."""

from __future__ import annotations

import re
from typing import Any
from unicodedata import category


def printable(text: str, *, keep_layout: bool = False) -> str:
    r"""Write each non-printable character as an escape such as `\x1b`.

    Names of files and keys may contain escape sequences, which a terminal executes. With `keep_layout`, line ends, tabs
    and the spaces of Unicode are not changed: use it for messages of several lines, not for names.
    """
    if text.isprintable() or (keep_layout and _PLAIN.fullmatch(text)):
        return text
    kept = _is_layout if keep_layout else str.isprintable
    return "".join(char if kept(char) else char.encode("unicode_escape").decode() for char in text)


#: Text of several lines without any character to escape, in ASCII; most output is.
_PLAIN = re.compile(r"[\n\t -~]*")


def _is_layout(char: str) -> bool:
    return char.isprintable() or char in "\n\t" or category(char) == "Zs"


def single_line(text: str) -> str:
    """Return the text on one line; white space and non-printable characters become single spaces."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def count_of(number: int, one: str, several: str = "") -> str:
    """Return a number of things for people: `1 row`, `1,234 rows`; `several` is a plural that is not just an added s.

    Both may have a verb: `count_of(n, "row was", "rows were")`.
    """
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def redact(text: str, *secrets: str | None) -> str:
    """Return a message of another program on one line, without `secrets` and without credentials in URLs."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    text = re.sub(r"(\w+://)[^/@\s]*@", r"\1***@", text)
    text = re.sub(r"(\w+://[^\s?]*)\?\S*", r"\1?***", text)
    return single_line(text)[:500]


def has_surrogate(text: str) -> bool:
    """Return whether a text is not valid Unicode: half of a surrogate pair in JSON, or a byte that is not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


#: String that an error may repeat: a number, or the name of a choice. Longer ones may be a user's text.
_WORD = re.compile(r"[\w.+$%-]{0,32}|[\w.+$% -]{0,12}")
#: Maximum characters of a name, and of a name with white space, that an error repeats. Longer ones may be a text.
_LONGEST_NAME, _LONGEST_PHRASE = 200, 64


def shown(value: Any) -> str:
    """Return the repr of a number or a short word, for an error message; else the type.

    Methods of subclasses are not called: they may return anything, or raise.
    """
    kind = type(value)
    if kind is bool:
        return repr(value)
    if issubclass(kind, float):
        return float.__repr__(value)
    if issubclass(kind, int) and abs(plain := int.__index__(value)) < 10**18:
        return repr(plain)
    if issubclass(kind, str) and _WORD.fullmatch(word := str.__str__(value)):
        return repr(word)
    return f"of type {kind.__name__}"


def shown_name(name: str) -> str:
    """Return the repr of a name of a model, a collection or a key for an error message; of a long one its length."""
    phrase = len(name) <= _LONGEST_PHRASE
    if phrase or (len(name) <= _LONGEST_NAME and not any(char.isspace() for char in name)) or _is_short_path(name):
        return repr(name)
    return f"(a name of {len(name):,} characters)"


def _is_short_path(name: str) -> bool:
    return len(name) <= _LONGEST_NAME and name.startswith(("/", "./", "../", "~/"))
