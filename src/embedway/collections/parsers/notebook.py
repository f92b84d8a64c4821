"""Parser of Jupyter notebooks: text cells as Markdown, code cells as code, and short outputs of text.

Images and other outputs are never read. Line numbers do not exist in a notebook, so the line of each text is the number
of its cell, from 1.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from embedway.collections.documents import LineMarks
from embedway.collections.json_rows import json_reason
from embedway.collections.parsers.data_uris import without_data_uris
from embedway.collections.parsers.markdown import MarkdownWriter, document_title, unify_newlines
from embedway.collections.parsers.markdown_syntax import markdown_parser
from embedway.errors import SourceError

if TYPE_CHECKING:
    from embedway.collections.parsers.base import ParsedText

#: Maximum characters of the outputs of one cell.
MAX_OUTPUT_CHARACTERS = 2000
#: While cells are parsed, the lines of each begin at its number times two to this power.
_CELL_BITS = 32


def parse_notebook(text: str, path: str) -> ParsedText:
    """Parse a notebook in JSON. Raises SourceError if it is none."""
    try:
        notebook = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"is no notebook: it {json_reason(error)}", path=path) from None
    cells = _cells(notebook)
    if cells is None:
        raise SourceError("is no notebook: it has no list of cells", path=path)
    writer = MarkdownWriter(markdown_parser())
    language = _language(notebook)
    for number, cell in enumerate(cells, 1):
        if not isinstance(cell, dict):
            raise SourceError(f"is no notebook: its cell {number:,} is no object", path=path)
        source, line = _clean(cell.get("source", cell.get("input", ""))), number << _CELL_BITS
        if cell.get("cell_type") == "markdown":
            writer.write(source, line)
        elif cell.get("cell_type") == "code":
            writer.add(source, "code", line, language=language)
            writer.add(_outputs(cell), "code", line)
    parsed = writer.builder.build(document_title(writer.headings, begins_with_text=writer.begins_with_text))
    cell_marks = LineMarks()
    for offset, line in parsed.line_marks:
        cell_marks.add(offset, line >> _CELL_BITS)
    return replace(parsed, line_marks=cell_marks)


def _cells(notebook: Any) -> list[Any] | None:
    """Return the cells; version 3 has them in worksheets."""
    if not isinstance(notebook, dict):
        return None
    cells = notebook.get("cells")
    sheets = notebook.get("worksheets")
    if cells is None and isinstance(sheets, list) and sheets and isinstance(sheets[0], dict):
        cells = sheets[0].get("cells")
    return cells if isinstance(cells, list) else None


def _language(notebook: dict[str, Any]) -> str:
    metadata = notebook.get("metadata")
    for part, key in (("kernelspec", "language"), ("language_info", "name")):
        facts = metadata.get(part) if isinstance(metadata, dict) else None
        name = facts.get(key) if isinstance(facts, dict) else None
        if isinstance(name, str):
            return name.lower()
    return ""


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "".join(part for part in value if isinstance(part, str))
    return value if isinstance(value, str) else ""


def _clean(value: Any) -> str:
    return without_data_uris(unify_newlines(_text(value)))


def _outputs(cell: dict[str, Any]) -> str:
    """Return the beginning of the text that a cell printed."""
    outputs = cell.get("outputs")
    pieces: list[str] = []
    for output in outputs if isinstance(outputs, list) else ():
        if not isinstance(output, dict):
            continue
        data = output.get("data")
        value = data.get("text/plain") if isinstance(data, dict) else output.get("text")
        if piece := _clean(_text(value)[: 4 * MAX_OUTPUT_CHARACTERS]).strip("\n"):
            pieces.append(piece)
        if sum(map(len, pieces)) > MAX_OUTPUT_CHARACTERS:
            break
    return "\n".join(pieces)[:MAX_OUTPUT_CHARACTERS]
