"""Files below a folder, in sorted order. Symbolic links are followed only on request."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from embedway.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

_SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules", "venv"})


def walk_folder(
    folder: Path, endings: Collection[str], *, follow_links: bool, on_link: Callable[[str], None]
) -> Iterator[tuple[str, str, int]]:
    """Iterate over regular files with one of these endings: path, real path, and size in bytes.

    The files of a folder come before those of its subfolders. Hidden files and folders, virtual environments and
    folders of installed packages are skipped. Without `follow_links`, links to such a file, or to a folder, go to
    `on_link`: they may lead out of the folder that the user named. A folder with several paths is walked once. Raises
    `SourceError` if a folder cannot be listed.
    """
    waiting = [("" if str(folder) == "." else str(folder), os.path.realpath(folder))]
    walked = set()
    while waiting:
        path, real = waiting.pop()
        if real in walked:
            continue
        walked.add(real)
        folders = []
        for entry in _entries(path):
            is_folder = _has_kind(entry.is_dir)
            if not (_is_readable_folder(entry) if is_folder else _is_readable_file(entry, endings)):
                continue
            linked = entry.is_symlink()
            if linked and not follow_links:
                on_link(entry.path)
                continue
            found = os.path.join(path, entry.name)  # noqa: PTH118  a Path for each of many files takes long
            found_real = os.path.realpath(found) if linked else os.path.join(real, entry.name)  # noqa: PTH118
            if is_folder:
                folders.append((found, found_real))
            else:
                yield found, found_real, entry.stat().st_size
        waiting += reversed(folders)


def _entries(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path or ".") as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise SourceError(f"cannot be listed: {error.strerror}", path=error.filename) from None


def _is_readable_folder(entry: os.DirEntry[str]) -> bool:
    return entry.name not in _SKIPPED_FOLDERS and not os.path.lexists(os.path.join(entry.path, "pyvenv.cfg"))  # noqa: PTH118


def _is_readable_file(entry: os.DirEntry[str], endings: Collection[str]) -> bool:
    return os.path.splitext(entry.name)[1].lower() in endings and _has_kind(entry.is_file)  # noqa: PTH122


def _has_kind(check: Callable[[], bool]) -> bool:
    """Return the result of a check; False for a link that leads to itself."""
    try:
        return check()
    except OSError:
        return False
