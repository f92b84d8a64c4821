"""Parser of reStructuredText."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.collections.documents import MAX_TITLE_CHARACTERS
from embedway.collections.parsers.base import ParsedText, TextBuilder, line_marks

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONTROLS = {0: "\ufffd", 1: "\ufffd", 2: "\ufffd"}


def parse_rst(text: str, path: str) -> ParsedText:  # noqa: ARG001  no text is refused
    """Return the structure of a document. No file is read, and no directive is run.

    A document that is nested too deeply is split into paragraphs at its blank lines, without other structure.
    """
    # docutils takes a tenth of a second to import.
    from embedway.collections.parsers.rst_blocks import write_blocks  # noqa: PLC0415
    from embedway.collections.parsers.rst_tree import parse_tree  # noqa: PLC0415

    text = text.translate(_CONTROLS)
    builder = TextBuilder()
    try:
        title = write_blocks(parse_tree(text), builder)
    except Exception:  # noqa: BLE001  docutils has no error of its own for what it cannot parse
        builder, title = TextBuilder(), None
        for block, line in _paragraphs(text):
            builder.add(block, "paragraph", line=line, lines=line_marks(block, line))
    return builder.build(title[:MAX_TITLE_CHARACTERS] if title else None)


def _paragraphs(text: str) -> Iterator[tuple[str, int]]:
    lines: list[str] = []
    number = 0
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            lines.append(line.strip())
        elif lines:
            yield "\n".join(lines), number - len(lines)
            lines = []
    if lines:
        yield "\n".join(lines), number - len(lines) + 1
