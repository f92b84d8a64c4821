"""Paths in settings and the environment."""

from __future__ import annotations

import os
from pathlib import Path


def expand_user(text: str | Path) -> Path:
    """Expand `~` to the user's home folder; leave the path of an unknown user unchanged."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def absolute(text: str | Path) -> Path:
    """Return the absolute path. Raises ValueError for an invalid path."""
    if not str(text).strip():
        raise ValueError("must name a folder")
    try:
        named = os.fsencode(text)
    except UnicodeEncodeError:
        named = b"\0"
    if b"\0" in named:
        raise ValueError("must not contain characters that are invalid in a path")
    path = expand_user(text)
    if path.parts[0].startswith("~"):
        # Write ./~name for a file of that name.
        raise ValueError(f"must not start with {path.parts[0]}: there is no such user")
    try:
        return path.absolute()
    except OSError:
        raise ValueError("must be absolute, because the working directory does not exist any more") from None
