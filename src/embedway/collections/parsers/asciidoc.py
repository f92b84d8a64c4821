"""Parser of AsciiDoc, line by line in linear time.

No maintained Python library parses AsciiDoc (the reference, Asciidoctor, is written in Ruby), so this parser is our
own. It knows titles, attributes, delimited blocks, lists and tables. Comments, directives, anchors and settings of
blocks are removed, and no file is included.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from embedway.collections.documents import MAX_TITLE_CHARACTERS
from embedway.collections.parsers.asciidoc_inline import Attributes, inline_text
from embedway.collections.parsers.asciidoc_lists import ListGroup, match_item
from embedway.collections.parsers.asciidoc_tables import read_table
from embedway.collections.parsers.base import ParsedText, TextBuilder, line_marks
from embedway.collections.parsers.data_uris import without_data_uris
from embedway.collections.parsers.html_fragments import html_fragments
from embedway.collections.parsers.markdown import unify_newlines

if TYPE_CHECKING:
    from embedway.collections.documents import BlockKind

_TITLE = re.compile(r"(={1,6}|#{1,6})[ \t]+(\S.*)$")
_ENTRY = re.compile(r":(!?[A-Za-z0-9_][\w-]*+!?):(?:[ \t]+(.*))?$")
_SETTINGS = re.compile(r"\[(?:\[[^\[\]]*+\]|[^\[\]]*+(?:\[[^\[\]]*+\][^\[\]]*+)*+)\]$")
_BLOCK_TITLE = re.compile(r"\.(?=[^\s.])(.+)$")
_DIRECTIVE = re.compile(r"(?:include|ifdef|ifndef|ifeval|endif)::\S*?\[.*\]$")
_MACRO = re.compile(r"([a-z][\w-]*+)::([^\s\[\]]*+)\[(.*)\]$")
_DELIMITER = re.compile(r"(?:-{4,}|\.{4,}|={4,}|\*{4,}|_{4,}|\+{4,}|/{4,}|--|[|,:!]={3,}|`{3,}.*|~{4,})$")
_BREAK = re.compile(r"(?:'{3,}|<{3,}|-{3}|\*{3}|- - -|\* \* \*)$")
_ADMONITION = re.compile(r"(?:NOTE|TIP|IMPORTANT|WARNING|CAUTION):[ \t]+")
_CALLOUT = re.compile(r"[ \t]*+(?:(?://|#|--|;;|<!--)[ \t]*+)?(?:<(?:\d+|\.)>[ \t]*+)+(?:-->)?$", re.MULTILINE)
_UNDERLINE = re.compile(r"(=+|-+|~+|\^+|\++)$")
_UNDERLINES = {"=": 1, "-": 2, "~": 3, "^": 4, "+": 5}
_VERBATIM = frozenset({"source", "listing", "literal", "stem", "latexmath", "asciimath", "plantuml", "mermaid"})


class _Reader:
    """Blocks of a document. `at` is the present line, from 0."""

    def __init__(self, text: str) -> None:
        self.builder = TextBuilder()
        self.title: str | None = None
        self._lines = [line.rstrip() for line in text.split("\n")]
        self._at = 0
        self._attributes = Attributes(max(1 << 16, len(text)))
        self._settings = ""
        self._list = ListGroup(self.builder)
        #: Delimiters of the open blocks, and how many of each.
        self._open: list[str] = []

    def read(self) -> None:
        """Read all lines."""
        while self._at < len(self._lines):
            self._step(self._lines[self._at])
        self._list.flush()

    def _step(self, line: str) -> None:
        """Read one block, or a line that is none."""
        start = self._at
        self._at += 1
        if not line:
            self._list.note_blank_line()
        elif self._is_dropped(line, start):
            pass
        elif _DELIMITER.match(line):
            self._delimiter(line, start)
        elif line[0] == ":" and (found := _ENTRY.match(line)):
            self._define(found[1], found[2] or "")
        elif line[0] == "[" and _SETTINGS.match(line):
            self._settings += line
        elif line[0] == "." and (found := _BLOCK_TITLE.match(line)) and not match_item(line):
            self._list.flush()
            self._paragraph(found[1], start)
        elif line[0] in "=#" and (found := _TITLE.match(line)):
            self._heading(found[2], len(found[1]), start)
        else:
            self._text(line, start)

    def _is_dropped(self, line: str, start: int) -> bool:
        """Handle a comment, directive, macro, break or sign of continuation. Return whether the line is one."""
        if line.startswith("//"):
            return not line.startswith("///")
        if line.endswith("]") and "::" in line:
            return _DIRECTIVE.match(line) is not None or self._macro(line, start)
        if line == "+":
            self._list.note_continuation()
        elif _BREAK.match(line):
            self._end_block()
        else:
            return False
        return True

    def _text(self, line: str, start: int) -> None:
        """Read an item of a list, a title with an underline, or a paragraph."""
        if self._style() in _VERBATIM:
            self._code(self._take(start, verbatim=True), start)
        elif item := match_item(line):
            marker, text = item
            further = self._take(start, item=True)[1:]
            joined = "\n".join(filter(None, (text, *(part.strip() for part in further))))
            self._list.add_item(marker, self._inline(joined), start + 1)
            self._settings = ""
        elif (level := self._underlined(line)) and self._list.is_closed:
            self._at += 1
            self._heading(line, level, start)
        elif line[0] in " \t" and self._list.is_closed:
            self._code(self._take(start, verbatim=True), start)
        else:
            lines = self._take(start)
            text = _ADMONITION.sub("", "\n".join(part.strip() for part in lines), count=1)
            if not self._list.is_closed:
                self._list.add_text(self._inline(text), start + 1)
                self._settings = ""
            else:
                self._paragraph(text, start)

    def _take(self, start: int, *, verbatim: bool = False, item: bool = False) -> list[str]:
        """Return the lines of a paragraph, which ends before a blank line or another block."""
        lines = [self._lines[start]]
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if not line or _DELIMITER.match(line) or (line[0] == "[" and _SETTINGS.match(line)):
                break
            if not verbatim and (line == "+" or (item and match_item(line))):
                break
            if verbatim or not (line.startswith("//") or _DIRECTIVE.match(line)):
                lines.append(line)
            self._at += 1
        return lines

    def _style(self) -> str:
        """Return the first word of the settings before a block, such as `source` or `quote`."""
        settings = self._settings.rpartition("[")[2]
        return re.split(r"[\],.#% \t]", settings, maxsplit=1)[0].lower()

    def _underlined(self, line: str) -> int:
        """Return the level of a title that the next line underlines, or 0."""
        below = self._lines[self._at] if self._at < len(self._lines) else ""
        if len(below) < 2 or not _UNDERLINE.match(below) or abs(len(below) - len(line)) > 1:
            return 0
        return _UNDERLINES[below[0]] if line[0].isalnum() else 0

    def _inline(self, text: str) -> str:
        return inline_text(text, self._attributes)

    def _end_block(self) -> None:
        self._list.flush()
        self._settings = ""

    def _add(self, text: str, kind: BlockKind, start: int, *, language: str = "") -> None:
        self._end_block()
        self.builder.add(text, kind, line=start + 1, lines=line_marks(text, start + 1), language=language)

    def _paragraph(self, text: str, start: int) -> None:
        kind: BlockKind = "quote" if self._style() in {"quote", "verse"} or "_" in self._open[-1:] else "paragraph"
        self._add(self._inline(text), kind, start)

    def _code(self, lines: list[str], start: int) -> None:
        language = ""
        style = self._settings.rpartition("[")[2].rstrip("]")
        if found := re.match(r"(?:source|,)?[^,]*,[ \t]*([\w+#.-]+)(?:,|$)", style):
            language = found[1].lower()
        lines = [line for line in lines if not _DIRECTIVE.match(line)]
        self._add(_CALLOUT.sub("", "\n".join(lines)), "code", start, language=language)

    def _heading(self, text: str, level: int, start: int) -> None:
        self._end_block()
        first = self.title is None and level == 1
        if first:
            # The header may define attributes that the title refers to.
            self._header()
        text = " ".join(self._inline(re.sub(r"[ \t]=+$", "", text)).split())
        self.builder.add(text, "heading", line=start + 1, level=level)
        if first:
            self.title = text[:MAX_TITLE_CHARACTERS]

    def _header(self) -> None:
        """Skip the lines of the authors and the revision, which follow the title of the document."""
        others = 0
        while self._at < len(self._lines) and (line := self._lines[self._at]):
            found = _ENTRY.match(line)
            if found:
                self._at += 1
                self._define(found[1], found[2] or "")
                continue
            if not line.startswith("//"):
                others += 1
                if others > 2 or _DELIMITER.match(line) or _MACRO.match(line) or line[0] in "[=.*":
                    return
            self._at += 1

    def _define(self, name: str, value: str) -> None:
        """Define an attribute; a value goes on after a backslash at the end of its line."""
        parts = []
        while value.endswith("\\") and self._at < len(self._lines):
            parts.append(value[:-1].removesuffix(" +").strip())
            value = self._lines[self._at].strip()
            self._at += 1
        self._attributes.define(name, " ".join([*parts, value.strip()]).strip())

    def _macro(self, line: str, start: int) -> bool:
        """Read a block macro; only the text of an image is kept."""
        found = _MACRO.match(line)
        if found is None:
            return False
        self._end_block()
        if found[1] == "image":
            self._paragraph(f"image:x[{found[3]}]", start)
        return True

    def _delimiter(self, line: str, start: int) -> None:
        kind = line[0]
        if kind == "`" or (kind in "-." and line != "--"):
            lines = self._until("```" if kind == "`" else line)
            if kind == "`" and (language := line.strip("`").strip().partition(",")[0]):
                self._settings = f"[source,{language}]"
            self._code(lines, start + 1)
        elif kind == "/":
            self._until(line)
        elif kind in "|,:!":
            self._table(self._until(line), start + 1, kind)
        elif kind == "+":
            self._passthrough(self._until(line), start + 1)
        elif self._style() in _VERBATIM:
            self._code(self._until(line), start + 1)
        else:
            self._container(line)

    def _container(self, line: str) -> None:
        """Begin or end a block that has other blocks."""
        self._end_block()
        if line in self._open[-16:]:
            while self._open.pop() != line:
                pass
        else:
            self._open.append(line)

    def _until(self, delimiter: str) -> list[str]:
        """Return the lines before the next delimiter, or to the end."""
        start = self._at
        while self._at < len(self._lines) and self._lines[self._at] != delimiter:
            self._at += 1
        self._at += 1
        return self._lines[start : self._at - 1]

    def _table(self, lines: list[str], start: int, kind: str) -> None:
        table = read_table(lines, start + 1, self._settings, kind, self._inline)
        self._end_block()
        if table is not None:
            first = table.lines[0][1]
            self.builder.add(table.text, "table", line=first, lines=table.lines, header_length=table.header_length)

    def _passthrough(self, lines: list[str], start: int) -> None:
        """Add the text of raw HTML."""
        self._end_block()
        for block in html_fragments("\n".join(lines)):
            kind: BlockKind = "paragraph" if block.kind == "heading" else block.kind
            self.builder.add(block.text, kind, line=start + block.line + 1, header_length=block.header_length)


def parse_asciidoc(text: str, path: str) -> ParsedText:  # noqa: ARG001  no text is refused
    """Parse AsciiDoc. The title is that of the document (`= Title`)."""
    reader = _Reader(without_data_uris(unify_newlines(text)))
    reader.read()
    return reader.builder.build(reader.title or None)
