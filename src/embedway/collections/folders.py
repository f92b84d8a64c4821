"""Files below a folder, in sorted order, and those that are skipped. Links are followed only on request."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedway.collections.collection_files import is_collection_file, is_collection_folder, is_collection_name
from embedway.collections.file_formats import (
    FORMATS,
    format_of,
    is_lock_file,
    is_named_minified,
    lacks_library,
)
from embedway.collections.ignore_rules import IGNORE_FILES, Rules, patterns, read_rules, rules_above
from embedway.errors import SourceError
from embedway.remedies import option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from embedway.collections.documents import ReadOptions
    from embedway.collections.skipped import SkippedFiles
    from embedway.collections.values import SourceFormat

#: Folders that contain only what programs made, whatever is beside them.
_MADE_FOLDERS = frozenset({"__pycache__", "node_modules", "bower_components", "__pypackages__"})
#: Folders that programs write to, if a file of a build is beside them.
_OUTPUT_FOLDERS = frozenset({"build", "dist", "target", "out", "obj"})
_BUILD_FILES = frozenset(
    (
        "package.json",
        "pyproject.toml",
        "setup.py",
        "setup.cfg",
        "cargo.toml",
        "pom.xml",
        "build.gradle",
        "build.gradle.kts",
        "cmakelists.txt",
        "build.sbt",
        "mix.exs",
        "meson.build",
        "composer.json",
        "stack.yaml",
    )
)
#: Files that mark a folder as the cache of a program (https://bford.info/cachedir/) or as an environment.
_CACHE_TAG = "CACHEDIR.TAG"
_ENVIRONMENT_TAGS = ("pyvenv.cfg", "conda-meta")


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file below a folder. `relative` is its path below the folder, with slashes, as the system has it."""

    path: str
    relative: str
    real: str
    size_bytes: int
    format: SourceFormat
    language: str
    gzipped: bool


@dataclass(frozen=True, slots=True)
class _Folder:
    path: str
    relative: str  # empty, or with a slash at its end
    real: str
    rules: Rules | None


class FolderWalk:
    """Walk of one folder.

    Skipped files go to `skipped`. A folder or file that cannot be read goes to `on_fault`, with its path below the
    root; that of a folder is empty or ends with a slash. A folder with several paths is walked once.
    """

    def __init__(
        self,
        root: str,
        options: ReadOptions,
        skipped: SkippedFiles,
        on_fault: Callable[[SourceError, str], None],
    ) -> None:
        self._root = "" if root in {".", "./"} else root
        self._options = options
        self._skipped = skipped
        self._on_fault = on_fault
        self._include = patterns(options.include, name=option("include"), below=True)
        self._exclude = patterns(options.exclude, name=option("exclude"))

    def files(self) -> Iterator[FoundFile]:
        """Iterate over the files to read. The files of a folder come before those of its subfolders."""
        try:
            rules = rules_above(self._root or ".")
        except SourceError as error:
            self._on_fault(error, "")
            return
        waiting = [_Folder(self._root, "", os.path.realpath(self._root or "."), rules)]
        walked = set()
        while waiting:
            folder = waiting.pop()
            if folder.real in walked:
                continue
            walked.add(folder.real)
            folders: list[_Folder] = []
            try:
                entries, names = _entries(folder.path)
                rules = self._rules(folder, names)
            except SourceError as error:
                self._skipped.add("unreadable", f"{folder.path or '.'}/")
                self._on_fault(error, folder.relative)
                continue
            for entry in entries:
                try:
                    found = self._look_at(entry, folder, names, rules)
                except OSError as error:  # such as a file that was removed since the folder was listed
                    self._report_unreadable(entry, folder, error)
                    continue
                if isinstance(found, _Folder):
                    folders.append(found)
                elif found is not None:
                    yield found
            waiting += reversed(folders)

    def _report_unreadable(self, entry: os.DirEntry[str], folder: _Folder, error: OSError) -> None:
        name = printable_path(entry.path)
        self._skipped.add("unreadable", name)
        self._on_fault(SourceError(f"cannot be read: {error.strerror}", path=name), f"{folder.relative}{entry.name}")

    def _rules(self, folder: _Folder, names: frozenset[str]) -> Rules | None:
        if not any(name in names for name in IGNORE_FILES):
            return folder.rules
        strip = len(folder.relative)
        links = self._options.follow_links
        return read_rules(folder.path, names, prefix="", strip=strip, above=folder.rules, follow_links=links)

    def _look_at(
        self, entry: os.DirEntry[str], folder: _Folder, names: frozenset[str], rules: Rules | None
    ) -> FoundFile | _Folder | None:
        is_folder = _has_kind(entry.is_dir)
        relative = f"{folder.relative}{entry.name}{'/' if is_folder else ''}"
        reason = self._reason(entry, relative, names, rules, is_folder=is_folder)
        if reason:
            self._skipped.add(reason, printable_path(f"{entry.path}{'/' if is_folder else ''}"))
            return None
        path = os.path.join(folder.path, entry.name)  # noqa: PTH118  a Path for each of many files takes long
        linked = entry.is_symlink()
        real = os.path.realpath(path) if linked else os.path.join(folder.real, entry.name)  # noqa: PTH118
        if is_folder:
            return _Folder(path, relative, real, rules)
        # With --include, a file may have any ending.
        name, language, gzipped = format_of(entry.name) or ("text", "", False)
        return FoundFile(path, relative, real, entry.stat().st_size, name, language, gzipped)

    def _reason(
        self, entry: os.DirEntry[str], path: str, names: frozenset[str], rules: Rules | None, *, is_folder: bool
    ) -> str:
        """Return the reason to skip an entry, or an empty text."""
        if reason := self._rule_reason(entry, path, rules):
            return reason
        if is_folder:
            reason = _folder_reason(entry, names)
        elif _has_kind(entry.is_file):
            reason = self._file_reason(entry, path)
        elif entry.is_symlink():
            return "broken link"
        else:
            return "special file"
        if not reason and entry.is_symlink() and not self._options.follow_links:
            # A link may lead out of the folder that the user named.
            return "link"
        return reason or ("collection" if not is_folder and is_collection_file(entry.path) else "")

    def _rule_reason(self, entry: os.DirEntry[str], path: str, rules: Rules | None) -> str:
        if entry.name.startswith("."):
            return "hidden"
        if rules is not None and rules.ignores(path):
            return "ignored"
        return "excluded" if self._exclude is not None and self._exclude.decide(path) else ""

    def _file_reason(self, entry: os.DirEntry[str], path: str) -> str:
        found = format_of(entry.name)
        if self._include is not None and not self._include.decide(path):
            return "not included"
        if is_collection_name(entry.name):
            return "collection"
        # A file that is included explicitly may have any name.
        if self._include is None and (reason := _name_reason(entry.name)):
            return reason
        if found is not None and lacks_library(found[0]):
            return "library"
        return "" if entry.is_symlink() or entry.stat().st_size else "empty"


def printable_path(path: str) -> str:
    """Return a path as valid text. Bytes that are not UTF-8 are escaped, so that different paths stay different."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def describe_endings() -> str:
    """Return the formats that are read, for messages."""
    return ", ".join(name for name in FORMATS if name not in {"text", "lines", "code"}) + ", text and source code"


def _entries(path: str) -> tuple[list[os.DirEntry[str]], frozenset[str]]:
    """Return the sorted entries of a folder, and their names."""
    try:
        with os.scandir(path or ".") as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise SourceError(
            f"cannot be listed: {error.strerror}; make it readable, or skip it with {option('exclude')}",
            path=printable_path(path or "."),
        ) from None
    return found, frozenset(entry.name for entry in found)


def _folder_reason(entry: os.DirEntry[str], names: frozenset[str]) -> str:
    if is_collection_folder(entry.name, names):
        return "collection"
    if entry.name in _MADE_FOLDERS:
        return "build folder"
    if entry.name in _OUTPUT_FOLDERS and any(name.lower() in _BUILD_FILES for name in names):
        return "build folder"
    if any(_contains(entry, tag) for tag in _ENVIRONMENT_TAGS):
        return "environment"
    return "build folder" if _contains(entry, _CACHE_TAG) else ""


def _name_reason(name: str) -> str:
    if is_lock_file(name):
        return "lock file"
    if format_of(name) is None:
        return "ending"
    return "minified" if is_named_minified(name) else ""


def _contains(entry: os.DirEntry[str], name: str) -> bool:
    return os.path.lexists(os.path.join(entry.path, name))  # noqa: PTH118


def _has_kind(check: Callable[[], bool]) -> bool:
    """Return the result of a check; False for a link that leads to itself."""
    try:
        return check()
    except OSError:
        return False
