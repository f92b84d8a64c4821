"""Rules of `.gitignore` and `.embedwayignore`, in the folders above a source and below it, and patterns of options."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from embedway.collections.ignore_patterns import Patterns, pattern_fault
from embedway.errors import SourceError, UsageError
from embedway.files import READ_FLAGS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


#: Files of rules. In one folder, the rules of the later one override those of the earlier one.
IGNORE_FILES = (".gitignore", ".embedwayignore")
_REPOSITORY = ".git"
_MAX_BYTES = 1 << 20
#: Errors of opening a link that is not followed (EMLINK on FreeBSD), or that leads to itself.
_LINK_ERRORS = frozenset({errno.ELOOP, errno.EMLINK})


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules of one folder, and those of the folders above it.

    They are asked for paths relative to the source's root: without the first `strip` characters, and after `prefix`,
    the path is relative to the folder of the rules.
    """

    patterns: Patterns
    prefix: str
    strip: int
    above: Rules | None

    def ignores(self, path: str) -> bool:
        """Return whether a path is ignored; that of a folder ends with a slash. The lowest folder decides."""
        rules: Rules | None = self
        while rules is not None:
            decision = rules.patterns.decide(rules.prefix + path[rules.strip :])
            if decision is not None:
                return decision
            rules = rules.above
        return False


def patterns(lines: Iterable[str], *, name: str, below: bool = False) -> Patterns | None:
    """Return the patterns of an option; None if there are none. Raises UsageError for an invalid one.

    With `below`, a folder that matches stands for all files below it.
    """
    given = list(lines)
    if not given:
        return None
    for line in given:
        if fault := pattern_fault(line):
            raise UsageError(f"{name} {line!r}: {fault}")
    return Patterns(given, below=below)


def rules_above(root: str) -> Rules | None:
    """Return the rules of the folders above a source, up to the root of its repository.

    Patterns that ignore the source itself are left out, because the user named it. Raises SourceError.
    """
    folder = os.path.abspath(root)  # noqa: PTH100
    top = _repository_of(folder)
    if top is None or top == folder:
        return None
    below = Path(os.path.relpath(folder, top)).parts
    rules: Rules | None = None
    path = top
    for level, part in enumerate(below):
        prefix = "/".join(below[level:]) + "/"
        rules = read_rules(path, IGNORE_FILES, prefix=prefix, strip=0, above=rules, follow_links=False)
        if rules is not None and rules.ignores(""):
            rules = replace(rules, patterns=rules.patterns.without(prefix))
        path = os.path.join(path, part)  # noqa: PTH118
    return rules


def read_rules(
    folder: str, names: Collection[str], *, prefix: str, strip: int, above: Rules | None, follow_links: bool
) -> Rules | None:
    """Return the rules of a folder, whose files have these names, below those above. Raises SourceError."""
    lines: list[str] = []
    for name in IGNORE_FILES:
        if name in names:
            lines += _read_lines(os.path.join(folder, name), follow_links=follow_links)  # noqa: PTH118
    return Rules(Patterns(lines), prefix, strip, above) if lines else above


def _repository_of(folder: str) -> str | None:
    """Return the root of the repository that contains a folder, or None."""
    while True:
        if os.path.lexists(os.path.join(folder, _REPOSITORY)):  # noqa: PTH118
            return folder
        parent = os.path.dirname(folder)  # noqa: PTH120
        if parent == folder:
            return None
        folder = parent


def _read_lines(path: str, *, follow_links: bool) -> list[str]:
    """Return the patterns of a file; none if it does not exist, is a folder, or is a link that is not followed.

    Git reads no linked file of rules either.
    """
    flags = READ_FLAGS | (0 if follow_links else getattr(os, "O_NOFOLLOW", 0))
    try:
        with os.fdopen(os.open(path, flags), "rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except (FileNotFoundError, IsADirectoryError):
        return []
    except OSError as error:
        if error.errno in _LINK_ERRORS:
            return []
        raise SourceError(f"its patterns cannot be read: {error.strerror}", path=path) from None
    if len(data) > _MAX_BYTES:
        raise SourceError(f"has more than {_MAX_BYTES:,} bytes, the limit for patterns; shorten it", path=path)
    lines = data.decode("utf-8-sig", "surrogateescape").split("\n")
    for number, line in enumerate(lines, 1):
        if fault := pattern_fault(line):
            raise SourceError(fault, path=path, line=number)
    return [line for line in lines if line and not line.startswith("#")]
