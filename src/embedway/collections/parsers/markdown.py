"""Parser of Markdown: CommonMark with tables, front matter, HTML and the additions of documentation sites.

Links and images become their texts. Removed are HTML tags, comments, definitions of links, fences of code and of
containers, attributes such as `{#id}`, and encoded data. markdown-it-py parses blocks and inline text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from embedway.collections.documents import MAX_TITLE_CHARACTERS
from embedway.collections.parsers.base import ParsedText, TextBuilder, line_marks
from embedway.collections.parsers.data_uris import without_data_uris
from embedway.collections.parsers.front_matter import split_front_matter
from embedway.collections.parsers.html_fragments import html_fragments
from embedway.collections.parsers.markdown_inline import InlineText, heading_text
from embedway.collections.parsers.markdown_syntax import fence_after, has_only_includes, markdown_parser

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from markdown_it import MarkdownIt
    from markdown_it.token import Token

    from embedway.collections.documents import BlockKind

#: Language of fenced code: `python`, `{python}`, `{code-block} python`, `python title="x"`.
_INFO = re.compile(r"\{?\.?([\w+#.:-]*)[\w ,=.\"'-]*\}?[ \t]*+(\S*)")
_CODE_DIRECTIVES = frozenset({"code", "code-block", "code-cell", "sourcecode", "literalinclude", "highlight"})
#: Directives of MyST whose content is Markdown, and those that have no text.
_NAMES = (
    "note warning tip important caution danger hint attention error seealso admonition dropdown versionadded "
    "versionchanged deprecated card tab-item tab-set grid grid-item-card epigraph sidebar topic"
)
_TEXT_DIRECTIVES = frozenset(_NAMES.split())
_DROPPED_DIRECTIVES = frozenset({"toctree", "contents", "include", "eval-rst"})
_OPTIONS = re.compile(r"\A(?:[ \t]*:[\w-]+:.*\n?)+")
_ALERT = re.compile(r"\A\[!\w+\][+-]?[ \t]*\n?")
_MAX_DIRECTIVES = 8
_MAX_SEGMENT = 1 << 20
_ATX = re.compile(r"#{1,6}[ \t]")


class MarkdownWriter:
    """Blocks of Markdown documents that are parts of one document, such as the cells of a notebook."""

    def __init__(self, parser: MarkdownIt) -> None:
        self.builder = TextBuilder()
        self.headings: list[tuple[int, str]] = []
        #: Whether text stands before the first heading.
        self.begins_with_text = False
        self._parser = parser
        self._line = 1
        #: Lists and quotes around the present token: the marker of the next item, and None for a quote.
        self._containers: list[str | None] = []
        self._numbers: list[int | None] = []
        self._group: list[str] = []
        self._group_kind: BlockKind = "list"
        self._group_length = 0
        self._group_lines: list[tuple[int, int]] = []
        self._directives = 0

    def write(self, source: str, line: int) -> None:
        """Add the blocks of a source that begins at a line."""
        before, self._line = self._line, line
        try:
            tokens = self._parser.parse(source)
        except RecursionError:
            self._write_paragraphs(source)
        else:
            self._write_tokens(tokens)
        self._flush()
        self._line = before

    def add(self, text: str, kind: BlockKind, line: int, *, language: str = "", header_length: int = 0) -> None:
        """Add a block that is no heading."""
        self._flush()
        if text.strip():
            self.begins_with_text = self.begins_with_text or not self.headings
            self.builder.add(
                text, kind, line=line, lines=line_marks(text, line), language=language, header_length=header_length
            )

    def _write_paragraphs(self, source: str) -> None:
        line = self._line
        for paragraph in re.split(r"(\n[ \t]*\n)", source):
            self.add(paragraph, "paragraph", line)
            line += paragraph.count("\n")

    def _write_tokens(self, tokens: Sequence[Token]) -> None:
        position = 0
        while position < len(tokens):
            token = tokens[position]
            if token.type in {"heading_open", "paragraph_open"}:
                self._write_text(token, tokens[position + 1])
                position += 3
            elif token.type == "table_open":
                position = self._write_table(tokens, position)
            else:
                self._write_token(token)
                position += 1

    def _write_token(self, token: Token) -> None:
        line = self._line + token.map[0] if token.map else self._line
        if token.type == "fence":
            self._write_fence(token, line)
        elif token.type == "code_block":
            self.add(token.content, "code", line)
        elif token.type == "html_block":
            self._write_html(token, line)
        elif token.type in {"marker", "plain"}:
            self._flow(token.content, line_marks(token.content, line), line)
        elif token.type.endswith("_open"):
            self._open(token)
        elif token.type.endswith("_close"):
            self._close(token)

    def _open(self, token: Token) -> None:
        """Enter a list, an item or a quote."""
        if token.type == "ordered_list_open":
            self._numbers.append(int(token.attrs.get("start", 1)))
        elif token.type == "bullet_list_open":
            self._numbers.append(None)
        elif token.type == "list_item_open":
            self._open_item()
        else:
            self._containers.append(None)

    def _close(self, token: Token) -> None:
        if token.type in {"list_item_close", "blockquote_close"}:
            self._containers.pop()
        else:
            self._numbers.pop()
        if not self._containers and token.type != "list_item_close":
            self._flush()

    def _open_item(self) -> None:
        number = self._numbers[-1]
        self._containers.append("- " if number is None else f"{number}. ")
        if number is not None:
            self._numbers[-1] = number + 1

    def _write_text(self, opening: Token, inline: Token) -> None:
        line = self._line + (opening.map[0] if opening.map else 0)
        content = InlineText(inline.content, inline.children or (), line)
        if opening.type == "heading_open" and not self._containers:
            self._heading(heading_text(content.text), int(opening.tag[1:]), line)
            return
        text, lines = content.text, content.lines
        if self._containers and self._containers[-1] is None and (alert := _ALERT.match(text)):
            text = text[alert.end() :]
            lines = [(offset - alert.end(), later) for offset, later in lines if offset >= alert.end()]
            line += "\n" in alert[0]
        self._flow(text, lines, line)

    def _heading(self, text: str, level: int, line: int) -> None:
        self._flush()
        if text:
            self.headings.append((level, text))
            self.builder.add(text, "heading", line=line, level=level)

    def _flow(self, text: str, lines: Sequence[tuple[int, int]], line: int) -> None:
        """Add text; inside of lists and quotes, to the present group."""
        if not text.strip():
            return
        self.begins_with_text = self.begins_with_text or not self.headings
        if not self._containers:
            self._flush()
            self.builder.add(text, "paragraph", line=line, lines=lines)
            return
        depth = sum(marker is not None for marker in self._containers)
        marker = self._containers[-1]
        indent = "  " * depth
        prefix = indent
        if marker:
            prefix = "  " * (depth - 1) + marker
            self._containers[-1] = ""
        if self._group:
            self._put("\n" if depth else "\n\n")
        else:
            self._group_kind = "list" if depth else "quote"
        self._group_lines.append((self._group_length, line))
        starts = dict(lines)
        self._put(prefix)
        begin = 0
        for part in text.split("\n"):
            if begin:
                self._put("\n" + indent)
            if begin in starts:
                self._group_lines.append((self._group_length, starts[begin]))
            self._put(part)
            begin += len(part) + 1

    def _put(self, text: str) -> None:
        self._group.append(text)
        self._group_length += len(text)

    def _flush(self) -> None:
        """Add the group of text in lists and quotes."""
        if self._group:
            first = self._group_lines[0][1]
            self.builder.add("".join(self._group), self._group_kind, line=first, lines=self._group_lines)
        self._group, self._group_lines, self._group_length = [], [], 0

    def _write_fence(self, token: Token, line: int) -> None:
        found = _INFO.match(token.info.strip())
        language, argument = (found[1].lower(), found[2].lower()) if found else ("", "")
        if token.info.strip().startswith("{") and language in _DROPPED_DIRECTIVES:
            return
        if token.info.strip().startswith("{") and language in _CODE_DIRECTIVES:
            language = argument
        elif token.info.strip().startswith("{") and language in _TEXT_DIRECTIVES:
            self._write_directive(token, line)
            return
        if not has_only_includes(token.content):
            self.add(token.content, "code", line + 1, language=language)

    def _write_directive(self, token: Token, line: int) -> None:
        """Write the title and the content of a directive of MyST."""
        title = token.info.partition("}")[2].strip()
        self._flow(title, (), line)
        options = _OPTIONS.match(token.content)
        content = token.content[options.end() :] if options else token.content
        if self._directives >= _MAX_DIRECTIVES:
            self.add(content, "paragraph", line + 1)
            return
        self._directives += 1
        containers, self._containers = self._containers, []
        numbers, self._numbers = self._numbers, []
        self.write(content, line + 1 + (options[0].count("\n") if options else 0))
        self._containers, self._numbers = containers, numbers
        self._directives -= 1

    def _write_html(self, token: Token, line: int) -> None:
        for block in html_fragments(token.content):
            if block.kind == "heading" and not self._containers:
                self._heading(block.text, block.level, line + block.line)
            elif block.kind in {"heading", "paragraph"}:
                self._flow(block.text, (), line + block.line)
            else:
                self.add(block.text, block.kind, line + block.line, header_length=block.header_length)

    def _write_table(self, tokens: Sequence[Token], position: int) -> int:
        rows: list[str] = []
        lines: list[tuple[int, int]] = []
        cells: list[str] = []
        length = first = 0
        while tokens[position].type != "table_close":
            token = tokens[position]
            if token.type == "tr_open":
                cells = []
                line = self._line + (token.map[0] if token.map else 0)
                first = first or line
                lines.append((length, line))
            elif token.type == "inline":
                cells.append(" ".join(InlineText(token.content, token.children or (), 0).text.split()))
            elif token.type == "tr_close":
                row = " | ".join(cells).strip() if any(cells) else ""
                rows.append(row)
                length += len(row) + 1
            position += 1
        self._flush()
        self.begins_with_text = self.begins_with_text or not self.headings
        header = len(rows[0]) if rows else 0
        self.builder.add("\n".join(rows), "table", line=first, lines=lines, header_length=header)
        return position + 1


def document_title(headings: Sequence[tuple[int, str]], *, begins_with_text: bool) -> str | None:
    """Return the heading that is the title of a document: the first of level 1, or the one above all others.

    A heading of a lower level after text, or with others of its level, is that of a section.
    """
    for level, text in headings:
        if level == 1:
            return text[:MAX_TITLE_CHARACTERS]
    if not headings or begins_with_text:
        return None
    (first, text), *others = headings
    return None if any(level <= first for level, _ in others) else text[:MAX_TITLE_CHARACTERS]


def parse_markdown(text: str, path: str) -> ParsedText:  # noqa: ARG001
    """Parse Markdown. The title is that of the front matter, else the document's own heading."""
    return parse_with(markdown_parser(), text)


def parse_with(parser: MarkdownIt, text: str) -> ParsedText:
    """Parse Markdown by a parser."""
    lines = without_data_uris(unify_newlines(text)).split("\n")
    title, count = split_front_matter(lines)
    writer = MarkdownWriter(parser)
    for start, end in _segments(lines, count):
        writer.write("\n".join(lines[start:end]), start + 1)
    return writer.builder.build(title or document_title(writer.headings, begins_with_text=writer.begins_with_text))


def _segments(lines: list[str], first: int) -> Iterator[tuple[int, int]]:
    """Iterate over the spans of lines that are parsed at once, since tokens need many times the memory of a text.

    A span ends before a heading outside of fenced code. Definitions of links hold within a span.
    """
    fence, size, start = "", 0, first
    for number in range(first, len(lines)):
        line = lines[number]
        if size > _MAX_SEGMENT and not fence and _ATX.match(line):
            yield start, number
            start, size = number, 0
        size += len(line) + 1
        fence = fence_after(line, fence)
    yield start, len(lines)


def unify_newlines(text: str) -> str:
    """Return a text whose lines end with a line feed, without NUL characters and byte order mark."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")
