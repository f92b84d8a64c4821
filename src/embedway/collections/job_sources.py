"""Sources of a job, compared with those of the collection's record."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from embedway.collections.inventory import STANDARD_INPUT, find_sources
from embedway.collections.record import ReadRecord
from embedway.errors import SinkError, SourceError, UsageError
from embedway.remedies import option

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from embedway.collections.changes import Changes
    from embedway.collections.documents import ReadOptions
    from embedway.collections.inventory import Inventory
    from embedway.collections.options import RunOptions, SyncOptions
    from embedway.collections.record import Record, SourceRecord

_log = logging.getLogger("embedway.collections")

#: Options of reading that decide which documents a source has.
_READ_OPTIONS = ("text_field", "id_field", "format", "encoding", "include", "exclude", "follow_links")
_NAMED_SOURCES = 5


def recorded_sources(old: Record | None, destination: str) -> list[str]:
    """Return the recorded sources in the form `NAME=PATH`, without standard input.

    Raises SinkError if there is no collection, and UsageError if standard input is the only source.
    """
    if old is None:
        raise SinkError("there is no such collection; name a source to create it", destination=destination)
    found = [f"{one.name}={one.path}" for one in old.sources if one.path != STANDARD_INPUT]
    if old.sources and not found:
        raise UsageError(
            "the only source of the collection is standard input; name it again as -, or name another source"
        )
    return found


def find_known_sources(sources: Sequence[str], options: ReadOptions, old: Record | None) -> Inventory:
    """Return the files of sources. A folder that the record knows may be empty. Raises as `find_sources` does."""
    known = () if old is None else tuple(one.name for one in old.sources)
    return find_sources(sources, options, may_be_empty=known)


def named_sources(old: Record, given: Sequence[str]) -> set[str]:
    """Return the names of recorded sources that are given by name or path. Raises UsageError for others."""
    names = {one.name for one in old.sources}
    paths = {one.path: one.name for one in old.sources}
    found = set()
    for text in given:
        name = text if text in names else paths.get(os.path.abspath(text))  # noqa: PTH100  it does not follow links
        if name is None:
            known = ", ".join(sorted(names)) or "none"
            raise UsageError(f"the collection has no source {text!r}; its sources are: {known}")
        found.add(name)
    return found


def refuse_itself(sources: Sequence[str], destination: str) -> None:
    """Raise `UsageError` if a source is the file of the collection, which need not be a collection yet."""
    own = os.path.realpath(destination)
    for text in sources:
        if os.path.isfile(text) and os.path.realpath(text) == own:  # noqa: PTH113  the text is as it was given
            raise UsageError(f"{text} is a source and would be overwritten; choose another destination")


def without_written(inventory: Inventory, written: Iterable[str]) -> Inventory:
    """Return the inventory without files in folders that the job writes. Raises UsageError if one was named."""
    own = {os.path.realpath(path) for path in written}
    files = []
    for file in inventory.files:
        if file.real not in own:
            files.append(file)
        elif file.named:
            raise UsageError(f"{file.name} is a source and would be overwritten; choose another destination")
        else:
            inventory.skipped.add("collection", file.name)
    return replace(inventory, files=tuple(files))


def refuse_same_names(found: Sequence[SourceRecord], recorded: Sequence[SourceRecord], given: Sequence[str]) -> None:
    """Raise `UsageError` for a source with the name of a recorded one and another path, unless the name was given."""
    paths = {one.name: one.path for one in recorded}
    for one in found:
        known = paths.get(one.name, one.path)
        if known != one.path and not any(text.startswith(f"{one.name}=") for text in given):
            raise UsageError(
                f"the collection has a source {one.name!r} from {known}; give {one.path} another name with "
                f"NAME={one.path}, or replace that source with {one.name}={one.path}"
            )


def check_not_removed_too(found: Sequence[SourceRecord], removed_sources: Collection[str]) -> None:
    """Raise `UsageError` for a source that is to be read and to be removed."""
    for one in found:
        if one.name in removed_sources:
            raise UsageError(f"the source {one.name!r} is given both to be read and to be removed")


def joined_sources(
    old: Record | None, found: Sequence[SourceRecord], removed_sources: Collection[str] = ()
) -> tuple[SourceRecord, ...]:
    """Return the recorded sources, and those of this job in place of recorded ones with their names."""
    sources = {} if old is None else {one.name: one for one in old.sources if one.name not in removed_sources}
    return tuple({**sources, **{one.name: one for one in found}}.values())


def reading_record(options: RunOptions) -> ReadRecord:
    """Return the options of the readers for the record."""
    return ReadRecord(
        options.text_field,
        options.id_field,
        options.format,
        options.encoding,
        options.include,
        options.exclude,
        options.follow_links,
        dict(options.keep_types),
    )


def note_reading(
    old: Record | None, options: RunOptions, found: Sequence[SourceRecord], removed_sources: Collection[str]
) -> tuple[str, ...]:
    """Warn if options of reading change for recorded sources that this job does not read; return the warnings."""
    if old is None:
        return ()
    read, new = {one.name for one in found} | set(removed_sources), reading_record(options)
    others = [one.name for one in old.sources if one.name not in read and one.path != STANDARD_INPUT]
    changed = [option(name) for name in _READ_OPTIONS if getattr(new, name) != getattr(old.reading, name)]
    if not others or not changed:
        return ()
    shown = ", ".join(others[:_NAMED_SOURCES]) + (", …" if len(others) > _NAMED_SOURCES else "")
    text = f"a collection has these options once: the next sync of {shown} uses this {', '.join(changed)} too"
    _log.warning("%s", text)
    return (text,)


def refuse_emptied(changes: Changes, sync: SyncOptions) -> None:
    """Raise `SourceError` for a source of which nothing is left, unless that is allowed."""
    emptied = changes.emptied()
    if emptied and not sync.allow_empty:
        raise SourceError(
            f"has no document, but the collection has documents of it; {option('allow_empty', True)} removes them",
            path=emptied[0].path,
        )
