"""Paths out of settings and the environment."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(text: str | Path) -> Path:
    """A path with the user's folder in the place of `~`; one of a user that is unknown here stays as it is."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def absolute(text: str | Path) -> Path:
    """An absolute path. Raises ValueError, which says why, for one that no file can have."""
    if not str(text).strip():
        raise ValueError("must name a folder")
    try:
        named = os.fsencode(text)
    except UnicodeEncodeError:
        named = b"\0"
    if b"\0" in named:
        raise ValueError("must hold no character that no path has")
    path = expanded(text)
    if path.parts[0].startswith("~"):
        # Its own file of that name is meant by ./~name.
        raise ValueError(f"must not start with {path.parts[0]}, which is no user here")
    return path.absolute()
