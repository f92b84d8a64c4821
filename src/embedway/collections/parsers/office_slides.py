"""Text and structure of a presentation: titles of slides, text, tables and notes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedway.collections.documents import MAX_TITLE_CHARACTERS
from embedway.collections.parsers.base import ParsedText, TextBuilder
from embedway.collections.parsers.data_uris import without_data_uris
from embedway.collections.parsers.packages import core_title

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedway.collections.documents import BlockKind

#: Placeholders that say the same on each slide.
_REPEATED = frozenset({"SLIDE_NUMBER", "FOOTER", "DATE", "HEADER"})


class _Writer:
    """Blocks of slides."""

    def __init__(self) -> None:
        self.builder = TextBuilder()
        self.title = ""

    def write(self, slide: Any, number: int) -> None:
        """Add a slide. The first title is that of the presentation, and the others are below it."""
        title = slide.shapes.title
        heading = " ".join(title.text_frame.text.split()) if title is not None and title.has_text_frame else ""
        if heading:
            level = 2 if self.title or number > 1 else 1
            self.title = self.title or (heading if number == 1 else "")
            self._add(heading, "heading", number, level=level)
        shown = None if title is None else title.shape_id
        for shape in _shapes(slide.shapes):
            if shape.shape_id != shown:
                self._shape(shape, number)
        if slide.has_notes_slide and (frame := slide.notes_slide.notes_text_frame) is not None:
            self._add(frame.text.replace("\v", "\n"), "paragraph", number)

    def _add(self, text: str, kind: BlockKind, number: int, *, level: int = 0, header_length: int = 0) -> None:
        text = without_data_uris(text)
        self.builder.add(text, kind, line=number, level=level, header_length=header_length, page=number)

    def _shape(self, shape: Any, number: int) -> None:
        if shape.is_placeholder and shape.placeholder_format.type.name in _REPEATED:
            return
        if getattr(shape, "has_table", False):
            self._table(shape.table, number)
        elif getattr(shape, "has_chart", False):
            chart = shape.chart
            if chart.has_title and chart.chart_title.has_text_frame:
                self._add(chart.chart_title.text_frame.text, "paragraph", number)
        elif shape.has_text_frame:
            self._text(shape.text_frame, number)
        else:
            text = _alt_text(shape)
            self._add(text, "paragraph", number)

    def _text(self, frame: Any, number: int) -> None:
        """Add a text: a list, if it has several paragraphs."""
        paragraphs = [(paragraph.level, paragraph.text.replace("\v", "\n").strip()) for paragraph in frame.paragraphs]
        paragraphs = [(level, text) for level, text in paragraphs if text]
        if len(paragraphs) == 1:
            self._add(paragraphs[0][1], "paragraph", number)
            return
        lines = []
        for level, text in paragraphs:
            indent = "  " * level
            lines.append(f"{indent}- " + text.replace("\n", f"\n{indent}  "))
        self._add("\n".join(lines), "list", number)

    def _table(self, table: Any, number: int) -> None:
        rows = []
        for row in table._tbl.tr_lst:  # noqa: SLF001  `rows[i].cells` builds each cell anew, in quadratic time
            cells = ("" if cell.hMerge or cell.vMerge else " ".join(cell.text.split()) for cell in row.tc_lst)
            rows.append(" | ".join(cells))
        rows = [row if row.strip(" |") else "" for row in rows]
        header = len(rows[0]) if table.first_row and len(rows) > 1 else 0
        self._add("\n".join(rows), "table", number, header_length=header)


def _shapes(shapes: Any) -> Iterator[Any]:
    """Iterate over shapes, also those in groups."""
    stack = [iter(shapes)]
    while stack:
        shape = next(stack[-1], None)
        if shape is None:
            stack.pop()
        elif hasattr(shape, "shapes"):
            stack.append(iter(shape.shapes))
        else:
            yield shape


def _alt_text(shape: Any) -> str:
    """Return the alternative text of a picture; a name of a file says nothing."""
    properties = shape._element.xpath("./*/p:cNvPr")  # noqa: SLF001  the library has no property for it
    text = str(properties[0].get("descr") or "").strip() if properties else ""
    return text if " " in text else ""


def read_slides(presentation: Any) -> ParsedText:
    """Return the text of a presentation of python-pptx.

    The title is that of the first slide, else the one in its properties.
    """
    writer = _Writer()
    for number, slide in enumerate(presentation.slides, 1):
        writer.write(slide, number)
    return writer.builder.build((writer.title or core_title(presentation))[:MAX_TITLE_CHARACTERS] or None)
