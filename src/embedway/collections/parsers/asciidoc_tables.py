"""Tables of AsciiDoc: cells to rows, with spans and formats."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

#: Columns of a table; further ones are ignored. Repetitions of a cell are at most as many.
MAX_COLUMNS = 256
_SPEC = r"(?:(?P<across>\d{1,4})?(?:\.(?P<down>\d{1,4}))?(?P<sign>[+*]))?(?:[<^>])?(?:\.[<^>])?(?P<style>[a-z])?"
#: Border of cells with the specification of the next cell, which follows white space.
_BORDER = re.compile(rf"(?:(?:(?<=\s)|^){_SPEC})?(?<!\\)\|", re.MULTILINE)
_COLUMNS = re.compile(r"(?:(\d{1,4})\*)?[^,;]*+")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows as `a | b`, the line of each, and the number of characters of the header."""

    text: str
    lines: tuple[tuple[int, int], ...]
    header_length: int


@dataclass(frozen=True, slots=True)
class _Cell:
    text: str
    line: int
    across: int = 1
    down: int = 1


def read_table(
    lines: Sequence[str], line: int, settings: str, separator: str, clean: Callable[[str], str]
) -> Table | None:
    """Return the table of these lines, of which the first is `line`; `clean` converts the text of a cell."""
    settings = settings.strip("[]").replace("][", ",")
    named = _named(settings)
    columns = _column_count(named.get("cols", ""))
    form = named.get("format", {",": "csv", ":": "dsv"}.get(separator, "psv"))
    if form in {"csv", "tsv", "dsv"}:
        given = {"csv": ",", "tsv": "\t", "dsv": ":"}[form]
        rows = _separated(lines, line, given)
    else:
        first = next((number for number, text in enumerate(lines) if text.strip()), 0)
        cells = _cells(lines, line, separator)
        columns = columns or sum(cell.across for cell in cells if cell.line == line + first)
        rows = _rows(cells, min(max(columns, 1), MAX_COLUMNS))
    if not rows:
        return None
    return _write(rows, clean, header=_has_header(lines, settings, named))


def _named(settings: str) -> dict[str, str]:
    pairs = re.findall(r"""([\w-]+)[ \t]*=[ \t]*(?:"([^"]*)"|'([^']*)'|([^,"']*))""", settings)
    return {name.lower(): double or single or plain.strip() for name, double, single, plain in pairs}


def _column_count(value: str) -> int:
    if not value.strip():
        return 0
    counts = [int(found[1] or 1) for part in re.split("[,;]", value) if (found := _COLUMNS.match(part.strip()))]
    return min(sum(counts), MAX_COLUMNS)


def _has_header(lines: Sequence[str], settings: str, named: dict[str, str]) -> bool:
    """Return whether the first row is a header: by an option, or because a blank line follows it."""
    options = named.get("options", named.get("opts", ""))
    if "header" in options or re.search(r"%[\w%]*header", settings):
        return True
    if "noheader" in options or "noheader" in settings:
        return False
    return len(lines) > 1 and bool(lines[0].strip()) and not lines[1].strip()


def _cells(lines: Sequence[str], line: int, separator: str) -> list[_Cell]:
    """Return the cells of all rows, in order."""
    text = "\n".join(lines)
    border = _BORDER if separator == "|" else re.compile(_BORDER.pattern.replace(r"\|", separator), re.MULTILINE)
    cells: list[_Cell] = []
    spec: re.Match[str] | None = None
    begin = counted = 0
    for found in border.finditer(text):
        if spec is not None:
            _append(cells, text[begin : found.start()], line, spec)
        line += text.count("\n", counted, found.end())
        counted = begin = found.end()
        spec = found
    if spec is not None:
        _append(cells, text[begin:], line, spec)
    return cells


def _append(cells: list[_Cell], text: str, line: int, spec: re.Match[str]) -> None:
    across = min(int(spec["across"] or 1), MAX_COLUMNS)
    text = text.replace("\\|", "|").strip()
    if spec["sign"] == "*":
        # A repeated cell may multiply a text: long ones are written once.
        cells.extend([_Cell(text, line)] * (across if len(text) < 100 else 1))
    else:
        cells.append(_Cell(text, line, max(across, 1), max(int(spec["down"] or 1), 1)))


def _rows(cells: Iterable[_Cell], columns: int) -> list[list[_Cell]]:
    """Return rows of `columns` cells; a cell that spans others is followed by empty ones."""
    rows: list[list[_Cell]] = []
    row: list[_Cell] = []
    spanned = [0] * columns
    for cell in cells:
        while len(row) < columns and spanned[len(row)]:
            spanned[len(row)] -= 1
            row.append(_Cell("", cell.line))
            if len(row) == columns:
                rows.append(row)
                row = []
        for offset in range(min(cell.across, columns - len(row))):
            spanned[len(row)] = cell.down - 1
            row.append(cell if not offset else _Cell("", cell.line))
        if len(row) == columns:
            rows.append(row)
            row = []
    return [*rows, row] if row else rows


def _separated(lines: Sequence[str], line: int, separator: str) -> list[list[_Cell]]:
    """Return the rows of comma, tab or colon separated values; each line is a row."""
    rows: list[list[_Cell]] = []
    for number, text in enumerate(lines):
        if text.strip():
            values = text.split(separator) if separator == ":" or '"' not in text else _values(text, separator)
            rows.append([_Cell(value.strip(), line + number) for value in values])
    return rows


def _values(text: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([text], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:
        return text.split(separator)


def _write(rows: list[list[_Cell]], clean: Callable[[str], str], *, header: bool) -> Table:
    texts: list[str] = []
    lines: list[tuple[int, int]] = []
    length = 0
    for row in rows:
        text = " | ".join(" ".join(clean(cell.text).split()) for cell in row).strip()
        text = re.sub(r"(?:[ ]\|)+$", "", text)
        lines.append((length, row[0].line))
        texts.append(text)
        length += len(text) + 1
    return Table("\n".join(texts), tuple(lines), len(texts[0]) if header else 0)
