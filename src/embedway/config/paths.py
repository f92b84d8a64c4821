"""Paths in settings and the environment."""

from __future__ import annotations

import os
import re
from pathlib import Path

#: Start of a URL. One slash is enough, because `Path` joins two.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
_SERVERS = frozenset({"redis", "rediss", "valkey", "valkeys", "unix"})


def is_url(text: str) -> bool:
    """Return whether a text that should be a path is a URL."""
    return _URL.match(text) is not None


def _check_no_url(text: str) -> None:
    found = _URL.match(text)
    if found is not None:
        scheme = found[1].casefold()
        instead = '; for a server, set backend = "redis" and url' if scheme in _SERVERS else ""
        instead = instead or ("; write the path alone" if scheme == "file" else "")
        raise ValueError(f"must be a path, not a URL{instead}")


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
    _check_no_url(str(text).strip())
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
