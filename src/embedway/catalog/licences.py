"""Licences that forbid commercial use, from `licences.toml`."""

from __future__ import annotations

import fnmatch
import functools
import itertools
import re
import tomllib
from collections import deque
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

#: Licence of a model to which the terms of its service apply.
SERVICE = "service"


def is_non_commercial(licence: str) -> bool:
    """Return whether a licence forbids commercial use; False for an unknown one.

    A choice of licences (`OR`) forbids it if all of them do; licences that apply together (`AND`) if one does.
    """
    return not _permits(licence, lambda name: not any(fnmatch.fnmatchcase(name, one) for one in _patterns()))


def is_allowed(licence: str, allowed: Collection[str]) -> bool:
    """Return whether licences that are allowed, folded with `fold`, permit the use of a licence or expression."""
    return fold(licence) in allowed or _permits(licence, allowed.__contains__)


def fold(licence: str) -> str:
    """Return a licence without differences of case, separators, parentheses, and the prefix `LicenseRef-`."""
    folded = re.sub(r"[\s_-]+", "-", licence.casefold().strip(" \t\n()"))
    return re.sub(r"^(documentref-[^:]*:)?licen[sc]eref-", "", folded)


def _permits(licence: str, test: Callable[[str], bool]) -> bool:
    """Return whether an SPDX expression of licences permits a use, by the test of each licence.

    https://spdx.github.io/spdx-spec/v3.0.1/annexes/spdx-license-expressions/
    """
    words = deque(re.findall(r"[()]|[^\s()]+", licence))
    found = _any_of(words, test)
    while words:
        # Text after the expression, such as a note in parentheses, applies too.
        if words[0] == ")":
            words.popleft()
        else:
            found = _any_of(words, test) and found
    return found


def _any_of(words: deque[str], test: Callable[[str], bool]) -> bool:
    return any(_joined(words, "or", lambda: _all_of(words, test)))


def _all_of(words: deque[str], test: Callable[[str], bool]) -> bool:
    return all(_joined(words, "and", lambda: _one(words, test)))


def _joined(words: deque[str], operator: str, read_part: Callable[[], bool]) -> list[bool]:
    """Read parts that are joined by an operator, all of them, and return the result of each."""
    found = [read_part()]
    while words and words[0].casefold() == operator:
        words.popleft()
        found.append(read_part())
    return found


def _one(words: deque[str], test: Callable[[str], bool]) -> bool:
    if words and words[0] == "(":
        words.popleft()
        found = _any_of(words, test)
        if words and words[0] == ")":
            words.popleft()
        return found
    name: list[str] = []
    while words and words[0].casefold() not in {"(", ")", "and", "or"}:
        name.append(words.popleft())
    # An exception (`WITH`) permits more than the licence, but not commercial use.
    plain = itertools.takewhile(lambda word: word.casefold() != "with", name)
    return test(fold(" ".join(plain)))


@functools.cache
def _patterns() -> tuple[str, ...]:
    text = resources.files("embedway.catalog").joinpath("licences.toml").read_text(encoding="utf-8")
    return tuple(pattern for row in tomllib.loads(text)["non_commercial"] for pattern in row["identifiers"])
