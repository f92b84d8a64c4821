"""Collections with a name like that of one that does not exist, for messages."""

from __future__ import annotations

import difflib
import itertools
import os
from pathlib import Path

#: Maximum entries of a folder that are compared, and least similarity of names, from 0 to 1.
_MAX_ENTRIES = 2000
_SIMILARITY = 0.6


def did_you_mean(destination: str, endings: tuple[str, ...]) -> str:
    """Return `; did you mean X?` if the folder of a path has a collection with a similar name; else an empty text.

    `endings` are those of files that are collections. A folder with tables of LanceDB is such a collection, too.
    """
    path = Path(destination)
    try:
        tables = _names(path, (".lance",)) if path.is_dir() else []
        if tables:
            return f"; did you mean {f'lancedb:{destination}#{Path(tables[0]).stem}'!r}?"
        names = _names(path.parent, endings)
    except (OSError, ValueError):
        return ""
    name = path.name
    same = [one for one in names if Path(one).stem == name]
    near = same or difflib.get_close_matches(name, names, 1, _SIMILARITY)
    return f"; did you mean {str(path.with_name(near[0]))!r}?" if near else ""


def _names(folder: Path, endings: tuple[str, ...]) -> list[str]:
    with os.scandir(folder) as entries:
        some = itertools.islice(entries, _MAX_ENTRIES)
        return sorted(entry.name for entry in some if entry.name.lower().endswith(endings))
