"""Files and folders of sources that are not read, with the reason for each."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from embedway.remedies import option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

#: Maximum number of names that are kept for each reason; the others are only counted.
MAX_NAMES = 1000
#: Reasons, and how a summary calls one file and several.
REASONS: dict[str, tuple[str, str]] = {
    "ending": ("unknown ending", "unknown endings"),
    "ignored": ("ignored", "ignored"),
    "excluded": ("excluded", "excluded"),
    "not included": ("not included", "not included"),
    "hidden": ("hidden", "hidden"),
    "binary": ("binary", "binary"),
    "empty": ("empty", "empty"),
    "minified": ("minified", "minified"),
    "lock file": ("lock file", "lock files"),
    "build folder": ("build folder", "build folders"),
    "environment": ("virtual environment", "virtual environments"),
    "link": ("link", "links"),
    "broken link": ("broken link", "broken links"),
    "special file": ("pipe, socket or device", "pipes, sockets or devices"),
    "no text field": ("file of rows without the text field", "files of rows without the text field"),
    "library": ("file whose library is not installed", "files whose library is not installed"),
    "collection": ("file of a collection", "files of collections"),
    "named twice": ("file of two sources", "files of two sources"),
    "unreadable": ("unreadable", "unreadable"),
}
#: Reasons for which a user may want to act, and the remedy.
_REMEDIES: dict[str, Callable[[], str]] = {
    "link": lambda: f"{option('follow_links', True)} follows links",
    "no text field": lambda: f"{option('text_field')} names it",
    "library": lambda: "pip install 'embedway[pdf,office]'",
}
_SHOWN_ENDINGS = 4


class SkippedFiles:
    """Counts of skipped files and folders by reason, and their names. The name of a folder ends with a slash."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._names: dict[str, list[str]] = {}
        self._endings: Counter[str] = Counter()
        self._folders = False

    def add(self, reason: str, name: str) -> None:
        """Count a file or folder; `reason` is a key of `REASONS`."""
        self.counts[reason] += 1
        self._folders |= name.endswith("/")
        if reason == "ending":
            stem, dot, ending = name.rpartition("/")[2].rpartition(".")
            self._endings[f".{ending.lower()}" if stem and dot else "none"] += 1
        names = self._names.setdefault(reason, [])
        if len(names) < MAX_NAMES:
            names.append(name)

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> SkippedFiles:
        """Return the files of `to_json`."""
        skipped = cls()
        for reason, facts in value.get("reasons", {}).items():
            for name in facts["names"]:
                skipped.add(reason, name)
            skipped.counts[reason] = facts["count"]
        return skipped

    def update(self, other: SkippedFiles) -> None:
        """Add the files of another object."""
        for reason, count in other.counts.items():
            names = self._names.setdefault(reason, [])
            names += other.names(reason)[: MAX_NAMES - len(names)]
            self.counts[reason] += count
        self._endings.update(other._endings)
        self._folders |= other._folders

    @property
    def total(self) -> int:
        """Number of skipped files and folders."""
        return self.counts.total()

    def names(self, reason: str) -> tuple[str, ...]:
        """Return the names for a reason, at most `MAX_NAMES`."""
        return tuple(self._names.get(reason, ()))

    def summary(self, *, names_hint: bool = True) -> str:
        """Return one line with the counts by reason; empty if nothing was skipped."""
        if not self.total:
            return ""
        what = "file" if self.total == 1 else "files"
        if self._folders:
            what = "file or folder" if self.total == 1 else "files and folders"
        parts = [self._part(reason, count) for reason, count in self.counts.most_common()]
        notes = [remedy() for reason, remedy in _REMEDIES.items() if self.counts[reason]]
        if names_hint:
            notes.append("embedway -v names them")
        end = f" ({'; '.join(notes)})" if notes else ""
        return f"{self.total:,} {what} skipped: {', '.join(parts)}{end}"

    def lines(self) -> Iterator[str]:
        """Iterate over lines with the name of each file, and the reason."""
        for reason, names in self._names.items():
            for name in names:
                yield f"skipped {name}: {REASONS[reason][0]}"
            if (more := self.counts[reason] - len(names)) > 0:
                yield f"skipped {more:,} more: {REASONS[reason][more > 1]}"

    def to_json(self) -> dict[str, Any]:
        """Return the counts and names as JSON types."""
        reasons = {
            reason: {"count": count, "names": list(self.names(reason))} for reason, count in self.counts.most_common()
        }
        return {"count": self.total, "reasons": reasons}

    def _part(self, reason: str, count: int) -> str:
        part = f"{count:,} {REASONS[reason][count > 1]}"
        if reason == "ending":
            shown = [ending for ending, _ in self._endings.most_common(_SHOWN_ENDINGS)]
            more = ", …" if len(self._endings) > len(shown) else ""
            # No long or private names: only endings that look like one.
            if all(len(ending) <= 12 for ending in shown):
                part += f" ({', '.join(shown)}{more})"
        return part
