"""Settings files of a model folder. A name that is not a readable regular file is an error, never a missing file.

Otherwise a dangling link in place of an optional file would silently change the vectors.
"""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any

from embedway.errors import WeightsError
from embedway.files import read_regular

if TYPE_CHECKING:
    from pathlib import Path

#: Maximum size of a settings file in bytes. The largest known tokenizer.json has 33 MB.
_MAX_SETTINGS_BYTES = 256 * 1024 * 1024


def is_file(path: Path) -> bool:
    """Return whether a regular file exists. Raises WeightsError for anything else, including a dangling link."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return _check_absent(path)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(mode):
        raise WeightsError(f"{path} is not a regular file")
    return True


def read_optional(path: Path) -> bytes | None:
    """Read a settings file once; None if it is missing. Raises WeightsError if it is not a regular file."""
    try:
        data = read_regular(path, most_bytes=_MAX_SETTINGS_BYTES)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if data is None:
        _check_absent(path)
    return data


def read_required(path: Path) -> bytes:
    """Read a settings file that every model folder must have. Raises WeightsError."""
    found = read_optional(path)
    if found is None:
        raise WeightsError(f"{path} is missing: a model folder needs it")
    return found


def parse_object(data: bytes, path: Path) -> dict[str, Any]:
    """Parse a JSON object; `path` names the file in errors. Raises WeightsError."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path} is not a JSON object")
    return value


def read_required_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a required file. Raises WeightsError."""
    return parse_object(read_required(path), path)


def read_optional_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty if the file is missing. Raises WeightsError."""
    found = read_optional(path)
    return {} if found is None else parse_object(found, path)


def _check_absent(path: Path) -> bool:
    """Return False if nothing has that name. Raises WeightsError for a dangling link."""
    if os.path.lexists(path):
        raise WeightsError(f"{path} is a link to a file that does not exist")
    return False


def _unreadable(path: Path, error: Exception) -> WeightsError:
    return WeightsError(f"{path} cannot be read: {getattr(error, 'strerror', None) or type(error).__name__}")
