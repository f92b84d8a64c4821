"""Licences that forbid commercial use, from `licences.toml`."""

from __future__ import annotations

import fnmatch
import functools
import tomllib
from importlib import resources

#: Licence of a model to which the terms of its service apply.
SERVICE = "service"


def is_non_commercial(licence: str) -> bool:
    """Return whether a licence forbids commercial use; False for an unknown one."""
    return any(fnmatch.fnmatchcase(licence.casefold(), pattern) for pattern in _patterns())


@functools.cache
def _patterns() -> tuple[str, ...]:
    text = resources.files("embedway.catalog").joinpath("licences.toml").read_text(encoding="utf-8")
    return tuple(pattern for row in tomllib.loads(text)["non_commercial"] for pattern in row["identifiers"])
