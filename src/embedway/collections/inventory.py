"""Files of sources: which are read, as which documents, and which are skipped."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from embedway.arguments import check_path, is_a
from embedway.collections.file_formats import FORMATS, format_of
from embedway.collections.folders import FolderWalk, describe_endings, printable_path
from embedway.collections.record import SourceRecord
from embedway.collections.skipped import SkippedFiles
from embedway.errors import SourceError, UsageError
from embedway.remedies import by_place, option

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from embedway.collections.documents import ReadOptions
    from embedway.collections.values import SourceFormat

STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read. `named` is true for a path given by the caller, false for a file found in a folder.

    `document_id` is the id of its document, or what the ids of its rows begin with. `format` is `auto` only for
    standard input whose format is found from its beginning.
    """

    path: str
    source: str
    document_id: str
    format: SourceFormat
    named: bool
    size_bytes: int | None
    language: str = ""
    gzipped: bool = False
    #: The path without links; empty for standard input.
    real: str = ""

    @property
    def name(self) -> str:
        """The path as valid text; bytes that are not UTF-8 are escaped."""
        return printable_path(self.path)


@dataclass(frozen=True, slots=True)
class Inventory:
    """Files of sources in reading order, skipped ones, and errors of folders and files that cannot be read."""

    files: tuple[SourceFile, ...]
    sources: tuple[SourceRecord, ...]
    skipped: SkippedFiles = field(default_factory=SkippedFiles)
    faults: tuple[SourceError, ...] = ()


def find_sources(sources: Sequence[str], options: ReadOptions, *, may_be_empty: Collection[str] = ()) -> Inventory:
    """Return the files of sources, without duplicates: `PATH`, `NAME=PATH`, or `-` for standard input.

    Raises `UsageError` if two sources have the same name, and `SourceError` for sources that do not exist, all in one,
    and for a folder without a file that can be read, unless `may_be_empty` has the name of the source.
    """
    return _Finder(options, may_be_empty).find(sources)


def source_texts(sources: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Return sources as texts. Raises UsageError for anything but a list of paths and of texts `NAME=PATH`."""
    if is_a(sources, (str, bytes, Mapping, os.PathLike)) or not is_a(sources, Iterable):
        raise UsageError(f"sources is of type {type(sources).__name__}; it must be a list of paths")
    try:
        listed = list(sources)
    except Exception as error:
        raise UsageError(f"sources cannot be read: their iteration raised {type(error).__name__}") from error
    return [check_path(source, "a source", "a path, or a text NAME=PATH") for source in listed]


def source_record(given: str) -> tuple[SourceRecord, str]:
    """Return the record of a source, and its path. Raises UsageError."""
    name, equals, path = given.partition("=")
    if not equals or os.path.lexists(given) or not name or os.sep in name:
        name, path = "", given
    if not path.strip():
        raise UsageError("a source has an empty name; is a variable unset?")
    if path == STANDARD_INPUT:
        return SourceRecord(name or STANDARD_INPUT, STANDARD_INPUT), path
    absolute = os.path.abspath(path)  # noqa: PTH100  it does not follow links
    found = printable_path(os.path.basename(absolute) or absolute)  # noqa: PTH119
    return SourceRecord(name or found, printable_path(absolute)), path


class _Finder:
    """Search for the files of sources."""

    def __init__(self, options: ReadOptions, may_be_empty: Collection[str]) -> None:
        self._options = options
        self._may_be_empty = may_be_empty
        self._skipped = SkippedFiles()
        self._faults: list[SourceError] = []
        self._files: dict[str, SourceFile] = {}

    def find(self, sources: Sequence[str]) -> Inventory:
        records = _unique_records(sources)
        missing = [self._missing(*one) for one in records if one[1] != STANDARD_INPUT and not os.path.exists(one[1])]  # noqa: PTH110
        if missing:
            for error in missing[1:]:
                missing[0].add_note(str(error))
            raise missing[0]
        for record, path in records:
            if path == STANDARD_INPUT:
                self._add_standard_input(record.name)
            elif os.path.isdir(path):  # noqa: PTH112
                self._add_folder(record.name, path)
            else:
                self._add_file(record, path)
        return Inventory(
            tuple(self._files.values()), tuple(record for record, _ in records), self._skipped, tuple(self._faults)
        )

    def _missing(self, record: SourceRecord, path: str) -> SourceError:
        """Return the error of a source that does not exist; the collection may have documents of it."""
        known = record.name in self._may_be_empty
        remove = by_place(command=f"--remove {record.name}", python=f"remove=[{record.name!r}]")
        remedy = f"; {remove} removes its documents from the collection" if known else ""
        return SourceError(f"there is no such file or folder{remedy}", path=printable_path(path))

    def _add_standard_input(self, source: str) -> None:
        name = "lines" if self._options.format == "text" else self._options.format
        document_id = "" if name == "auto" or FORMATS[name].rows else STANDARD_INPUT
        self._files[STANDARD_INPUT] = SourceFile(STANDARD_INPUT, source, document_id, name, named=True, size_bytes=None)

    def _add_file(self, record: SourceRecord, path: str) -> None:
        name = os.path.basename(path)  # noqa: PTH119
        found = format_of(name)
        if found is None and self._options.format == "auto":
            raise SourceError(
                f"its ending is not known ({describe_endings()}); name its format, such as {option('format', 'text')}",
                path=printable_path(path),
            )
        form, language, gzipped = found or (self._options.format, "", name.lower().endswith(".gz"))
        try:
            status = os.stat(path)  # noqa: PTH116
        except OSError:  # it was removed since the sources were looked for
            raise self._missing(record, path) from None
        size = status.st_size if stat.S_ISREG(status.st_mode) else None
        document_id = "" if FORMATS[form].rows else printable_path(name)
        real = os.path.realpath(path)
        self._add(SourceFile(path, record.name, document_id, form, True, size, language, gzipped, real))

    def _add_folder(self, source: str, path: str) -> None:
        before, faults = self._skipped, len(self._faults)
        own = SkippedFiles()
        ids: dict[str, str] = {}
        count = 0

        def on_fault(error: SourceError, relative: str) -> None:
            error.key, error.key_is_prefix = (source, printable_path(relative)), True
            self._faults.append(error)

        for found in FolderWalk(path, self._options, own, on_fault).files():
            count += 1
            document_id = printable_path(found.relative)
            if document_id in ids:
                error = SourceError(
                    f"is written like another file, {ids[document_id]}, because its name is not UTF-8; rename one",
                    path=printable_path(found.path),
                )
                error.key = (source, document_id)
                self._faults.append(error)
                continue
            ids[document_id] = printable_path(found.path)
            prefix = f"{document_id}/" if FORMATS[found.format].rows else document_id
            facts = (found.format, False, found.size_bytes, found.language, found.gzipped, found.real)
            self._add(SourceFile(found.path, source, prefix, *facts))
        before.update(own)
        if not count and len(self._faults) == faults and source not in self._may_be_empty:
            told = f"; {own.summary(names_hint=False)}" if own.total else ""
            raise SourceError(
                f"the folder has no file that can be read ({describe_endings()}){told}", path=printable_path(path)
            )

    def _add(self, file: SourceFile) -> None:
        known = self._files.setdefault(file.real, file)
        if known.source != file.source:
            self._skipped.add("named twice", file.name)


def _unique_records(sources: Iterable[str]) -> list[tuple[SourceRecord, str]]:
    """Return the records and paths of sources. Raises UsageError for two sources with one name."""
    found: dict[str, tuple[SourceRecord, str]] = {}
    for given in sources:
        record, path = source_record(given)
        known = found.setdefault(record.name, (record, path))
        if known[0].path != record.path:
            raise UsageError(
                f"the sources {known[0].path} and {record.path} have the same name, {record.name!r}; give one another "
                f"name: NAME={path}"
            )
    return list(found.values())
