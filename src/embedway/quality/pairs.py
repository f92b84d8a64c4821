"""Query-passage pairs: a small retrieval task for baselines, built in or from a user's file.

The task: for each query, find its own passage among all passages of the set. The built-in pairs are about software and
its operation, in prose, code, API references, German, French, Spanish, Chinese and Japanese. They were written for
this project, so they are in no benchmark and no training data of a model that exists today.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from embedway._public import public
from embedway.errors import SourceError
from embedway.files import read_bounded, read_package_text
from embedway.text import has_surrogate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

#: Version of the built-in pairs, and their `digest_of`. A baseline is of one version: after any change of the file,
#: the version increases, and older baselines cannot be compared.
BUILT_IN_VERSION = 1
BUILT_IN_DIGEST = "e416a35c2aacaafa"

MIN_PAIRS, MAX_PAIRS = 2, 5000
MAX_FILE_BYTES = 1 << 26
MAX_LINES = 100_000
MAX_TEXT_CHARACTERS = 100_000
MAX_NAME_CHARACTERS = 200
_FIELDS = ("id", "group", "query", "passage")


@public
@dataclass(frozen=True, slots=True)
class Pair:
    """A query, and the only passage of its set that answers it. `group` is empty if a user's pair has none."""

    id: str
    group: str
    query: str
    passage: str


@functools.cache
def built_in_pairs() -> tuple[Pair, ...]:
    """Return the pairs that are part of the package."""
    text = read_package_text("embedway.quality", "pairs.jsonl")
    return _checked(_rows(text.encode(), "pairs.jsonl"), "pairs.jsonl")


def read_pairs(path: Path | str) -> tuple[Pair, ...]:
    """Read pairs of JSON Lines: objects with `query` and `passage`, and optionally `id` and `group`.

    The default id is the number of the line. Blank lines are skipped, and other fields ignored. Raises SourceError with
    file, line and field for a file that cannot be read, an invalid line, a duplicate, and fewer than 2 or more than
    5,000 pairs.
    """
    try:
        data = read_bounded(Path(path), most_bytes=MAX_FILE_BYTES)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "the path is invalid"
        raise SourceError(f"cannot be read: {reason}", path=path) from None
    return _checked(_rows(data, str(path)), str(path))


def checked_pairs(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """Return pairs that are not from a file, checked as those of a file. Raises SourceError."""
    rows = ({name: getattr(pair, name) for name in _FIELDS} for pair in pairs)
    return _checked(enumerate(rows, 1), "pairs", defaults=False)


def digest_of(pairs: Sequence[Pair]) -> str:
    """Return a digest of 16 hexadecimal digits of all fields of the pairs, in any order of the pairs."""
    rows = sorted(json.dumps([pair.id, pair.group, pair.query, pair.passage]) for pair in pairs)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def _checked(
    rows: Iterable[tuple[int, Mapping[str, object]]], source: str, *, defaults: bool = True
) -> tuple[Pair, ...]:
    """Return the pairs of numbered rows; with `defaults`, they may lack an id and a group. Raises SourceError."""
    lines: dict[tuple[str, str], int] = {}
    pairs: list[Pair] = []
    for line, row in rows:
        pair = _pair(row, source, line, defaults=defaults)
        for field in ("id", "query", "passage"):
            first = lines.setdefault((field, getattr(pair, field)), line)
            if first != line:
                reason = f"is the same as in line {first}; each pair needs its own"
                raise SourceError(reason, path=source, line=line, field=field)
        pairs.append(pair)
        if len(pairs) > MAX_PAIRS:
            raise SourceError(f"has more than {MAX_PAIRS:,} pairs; use a sample of them", path=source, line=line)
    if len(pairs) < MIN_PAIRS:
        raise SourceError(f"has {len(pairs)} pairs; a comparison needs at least {MIN_PAIRS}", path=source)
    return tuple(pairs)


def _rows(data: bytes, source: str) -> Iterator[tuple[int, dict[str, object]]]:
    lines = data.count(b"\n")
    if lines > MAX_LINES:
        raise SourceError(f"has {lines:,} lines; it may have {MAX_LINES:,}, with blank ones", path=source)
    for line, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not raw.strip():
            continue
        try:
            row = json.loads(raw.decode())
        except UnicodeDecodeError:
            raise SourceError("is not UTF-8", path=source, line=line) from None
        except (ValueError, RecursionError) as error:
            where = f" (column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
            raise SourceError(f"is not JSON{where}", path=source, line=line) from None
        if not isinstance(row, dict):
            raise SourceError(f"must be a JSON object, is {type(row).__name__}", path=source, line=line)
        yield line, row


def _pair(row: Mapping[str, object], source: str, line: int, *, defaults: bool) -> Pair:
    def text(field: str, most: int, default: str | None = None) -> str:
        value = row.get(field)
        if value is None and default is not None and defaults:
            return default
        if isinstance(value, str) and not value and default == "":
            return ""
        reason = _fault(value, most)
        if reason:
            raise SourceError(reason, path=source, line=line, field=field)
        return str.__str__(value)

    return Pair(
        text("id", MAX_NAME_CHARACTERS, str(line)),
        text("group", MAX_NAME_CHARACTERS, ""),
        text("query", MAX_TEXT_CHARACTERS),
        text("passage", MAX_TEXT_CHARACTERS),
    )


def _fault(value: object, most: int) -> str:
    """Return why a value cannot be a field of a pair; empty if it can."""
    if value is None:
        return "is missing"
    if not isinstance(value, str):
        return f"must be text, is {type(value).__name__}"
    if not value.replace("\x00", " ").strip():
        return "is empty"
    if len(value) > most:
        return f"has {len(value):,} characters; it may have {most:,}"
    if has_surrogate(value):
        return "contains half of a surrogate pair, which is invalid in a text"
    return ""
