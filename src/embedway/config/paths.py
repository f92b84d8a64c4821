"""Paths in settings and the environment."""

from __future__ import annotations

import os
from pathlib import Path


def expand_user(text: str | Path) -> Path:
    """Expand `~` to the user's folder; the path of an unknown user stays unchanged."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def absolute(text: str | Path) -> Path:
    """Return the absolute path. Raises ValueError for a path that no file can have."""
    if not str(text).strip():
        raise ValueError("must name a folder")
    try:
        named = os.fsencode(text)
    except UnicodeEncodeError:
        named = b"\0"
    if b"\0" in named:
        raise ValueError("must hold no character that no path has")
    path = expand_user(text)
    if path.parts[0].startswith("~"):
        # A file of that name is written ./~name.
        raise ValueError(f"must not start with {path.parts[0]}, which is no user here")
    return path.absolute()
