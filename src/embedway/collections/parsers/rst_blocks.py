"""Blocks of a reStructuredText document, from its tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from docutils import nodes

from embedway.collections.parsers.base import line_marks
from embedway.collections.parsers.rst_bodies import Definition, Labelled
from embedway.collections.parsers.rst_inline import Names, label_name
from embedway.collections.parsers.rst_tree import Label

if TYPE_CHECKING:
    from embedway.collections.documents import BlockKind
    from embedway.collections.parsers.base import TextBuilder

_FIRST_DEFINITION_LEVEL = 7
_LAST_HEADING_LEVEL = 6
#: Fields that configure Sphinx.
_DROPPED_FIELDS = frozenset({"orphan", "tocdepth", "nocomments", "nosearch", "noindex", "no-index"})
_ITEMS = (nodes.bullet_list, nodes.enumerated_list, nodes.definition_list, nodes.field_list, nodes.option_list)


def write_blocks(document: Any, builder: TextBuilder) -> str | None:
    """Add the blocks of a document, and return its title, which is that of its first section."""
    writer = _Writer(document, builder)
    writer.children(document)
    writer.flush()
    if document.linked_pages and not builder.has_body:
        # The page of a table of contents: without them it would be a title alone.
        builder.add("\n".join(f"- {page}" for page in document.linked_pages), "list", line=1)
    return writer.title


class _Writer:
    """State of the walk through a tree."""

    def __init__(self, document: Any, builder: TextBuilder) -> None:
        self._builder = builder
        self._names = Names(document.substitution_texts, _labels(document))
        self.title: str | None = None
        self._line = 1
        self._section = self._definition = 0
        #: Level of the last definition if it has ended and no text is written since; else 0.
        self._ended = 0
        self._label = ""
        #: Lines of the list that is being written, with their source lines.
        self._items: list[tuple[str, int]] = []
        self._depth = 0
        self._marker = ""
        self._kind: BlockKind = "paragraph"

    def children(self, node: Any) -> None:
        for child in node.children:
            self.visit(child)

    def visit(self, node: Any) -> None:
        if getattr(node, "line", None):
            self._line = node.line
        if self._depth and not isinstance(node, (*_ITEMS, nodes.paragraph)):
            self._other(node)
            return
        if isinstance(node, _ITEMS):
            self._list(node)
        else:
            self._other(node)

    def _other(self, node: Any) -> None:  # noqa: C901, PLR0912  one branch for each kind of node
        if isinstance(node, nodes.section):
            self._section += 1
            self.children(node)
            self._section -= 1
        elif isinstance(node, nodes.title):
            self._heading(node)
        elif isinstance(node, (nodes.paragraph, nodes.line_block)):
            self._paragraph(node)
        elif isinstance(node, (nodes.literal_block, nodes.doctest_block)):
            self._code(node)
        elif isinstance(node, Definition):
            self._define(node, node["signatures"])
        elif isinstance(node, Labelled):
            self._labelled(node)
        elif isinstance(node, nodes.table):
            self._table(node)
        elif isinstance(node, nodes.block_quote):
            kind, self._kind = self._kind, "quote"
            self.children(node)
            self._kind = kind
        elif isinstance(node, nodes.system_message):
            for child in node.children:
                if isinstance(child, nodes.literal_block):
                    child.line = node.get("line") or self._line
                    self._code(child)
        elif isinstance(node, (nodes.footnote, nodes.citation)):
            label = next((child.astext() for child in node.children if isinstance(child, nodes.label)), "")
            self._label = f"[{label}] " if label else ""
            for child in node.children:
                if not isinstance(child, nodes.label):
                    self.visit(child)
            self._label = ""
        else:
            self.children(node)

    def _text(self, node: Any) -> str:
        return self._names.fill(node.astext())

    def _heading(self, node: Any) -> None:
        if not isinstance(node.parent, nodes.section):
            self._paragraph(node)
            return
        self.flush()
        text = " ".join(self._text(node).split())
        self._ended = 0
        if self.title is None:
            self.title = text
        self._builder.add(text, "heading", line=node.line or self._line, level=min(self._section, _LAST_HEADING_LEVEL))

    def _paragraph(self, node: Any) -> None:
        text = self._label + self._text(node)
        self._label = ""
        if self._depth:
            indent = "  " * (self._depth - 1)
            before = indent + self._marker if self._marker else indent + "  "
            self._marker = ""
            for number, line in enumerate(text.split("\n")):
                if number and not isinstance(node, nodes.line_block):
                    last, first = self._items[-1]
                    self._items[-1] = (f"{last} {line.strip()}", first)
                else:
                    self._items.append((before + line.strip(), self._line + number))
            return
        self.flush()
        marks = line_marks(text, self._line)
        if not isinstance(node, nodes.line_block):
            text = text.replace("\n", " ")
        self._builder.add(text, self._kind, line=self._line, lines=marks, level=self._closing())

    def _code(self, node: Any) -> None:
        self.flush()
        text = self._text(node)
        line = node.line or self._line
        marks = line_marks(text, line)
        language = "pycon" if isinstance(node, nodes.doctest_block) else node.get("language", "")
        self._builder.add(text, "code", line=line, lines=marks, language=language, level=self._closing())

    def _define(self, node: Any, signatures: list[tuple[str, int]]) -> None:
        self.flush()
        depth, self._depth = self._depth, 0
        text = "\n".join(signature for signature, _ in signatures)
        level = _FIRST_DEFINITION_LEVEL + self._definition
        self._builder.add(text, "definition", line=signatures[0][1], level=level)
        self._ended = 0
        self._definition += 1
        self.children(node)
        self.flush()
        self._definition -= 1
        self._ended = level
        self._depth = depth

    def _labelled(self, node: Any) -> None:
        self._label += node["label"]
        if not any(isinstance(child, nodes.Element) for child in node.children):
            self._paragraph(nodes.paragraph())
        self.children(node)
        self._label = ""

    def _list(self, node: Any) -> None:
        if not self._depth:
            self.flush()
        self._depth += 1
        start = int(node.get("start", 1)) if isinstance(node, nodes.enumerated_list) else 0
        for number, item in enumerate(node.children):
            if getattr(item, "line", None):
                self._line = item.line
            if isinstance(item, nodes.list_item):
                self._marker = f"{start + number}. " if start else "- "
                self.children(item)
                self._marker = ""
            elif isinstance(item, (nodes.definition_list_item, nodes.field, nodes.option_list_item)):
                self._pair(item)
            else:
                self.visit(item)
        self._depth -= 1
        if not self._depth:
            self.flush()

    def _pair(self, item: Any) -> None:
        """Write a term, the name of a field, or options, with what follows them."""
        names = [child for child in item.children if not isinstance(child, nodes.Element) or not _is_body(child)]
        name = " : ".join(self._text(child) for child in names)
        if isinstance(item, nodes.field):
            if name.split(" ")[0].lower() in _DROPPED_FIELDS:
                return
            self._marker = "- " if self._depth > 1 else ""
            self._label = f"{name}: "
        elif isinstance(item, nodes.option_list_item):
            options = [option for child in names for option in child.children]
            self._label = ", ".join(option.astext() for option in options) + "  "
        else:
            self._items.append(("  " * (self._depth - 1) + name, self._line))
        for child in item.children:
            if _is_body(child):
                self.children(child)
        if self._label:
            self._paragraph(nodes.paragraph())
        self._marker = ""

    def _table(self, node: Any) -> None:
        self.flush()
        rows: list[str] = []
        line = self._line
        header_length = 0
        for child in node.children:
            if isinstance(child, nodes.title):
                self._paragraph(child)
        for group in node.findall(lambda part: isinstance(part, (nodes.thead, nodes.tbody))):
            for row in group.children:
                cells = [" ".join(self._text(entry).split()) for entry in row.children]
                rows.append(" | ".join(cells))
            if isinstance(group, nodes.thead):
                header_length = len("\n".join(rows))
        self._builder.add("\n".join(rows), "table", line=line, header_length=header_length, level=self._closing())

    def flush(self) -> None:
        """Add the list that is being written."""
        if not self._items:
            return
        marks, offset = [], 0
        for text, line in self._items:
            marks.append((offset, line))
            offset += len(text) + 1
        items, self._items = self._items, []
        text = "\n".join(text for text, _ in items)
        self._builder.add(text, "list", line=items[0][1], lines=marks, level=self._closing())

    def _closing(self) -> int:
        """Return the level of a block: 0, or that of the definitions that end before it."""
        level, self._ended = self._ended, 0
        return level


def _labels(document: Any) -> dict[str, str]:
    """Return the titles of the sections that stand directly after labels, by the names of the labels."""
    labels: dict[str, str] = {}
    waiting: list[str] = []
    for node in document.findall(nodes.Element):
        if isinstance(node, Label):
            waiting.append(label_name(node["label"]))
        elif isinstance(node, nodes.title):
            labels |= dict.fromkeys(waiting, " ".join(node.astext().split()))
            waiting = []
        elif not isinstance(node, nodes.section):
            waiting = []
    return labels


def _is_body(node: Any) -> bool:
    return isinstance(node, (nodes.definition, nodes.field_body, nodes.description))
