"""Directives of reStructuredText as nodes, by their kind."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from docutils import nodes, utils

from embedway.collections.parsers.rst_directives import LABELS, DirectiveKind, sets_module
from embedway.collections.parsers.rst_inline import inline_text

if TYPE_CHECKING:
    from docutils.statemachine import StringList

_OPTION = re.compile(r":(?![: ])([^:\\]|\\.|:(?!([ `]|$))){1,200}(?<! ):( +|$)")


class Definition(nodes.Element):
    """Directive that describes an object; `signatures` are pairs of (text, line)."""


class Labelled(nodes.Element):
    """Directive with a label before its content, such as a note or a change of version; `label` is a text."""


def _borders(block: StringList) -> tuple[int, int]:
    """Return the numbers of lines of a directive before its options, and before its content.

    The first line is the rest of the line with the name. Without options, both numbers are equal.
    """
    if block and not block[0].strip():
        # `.. figure::`, with the options or the content on the next line.
        end = 1
        while end < len(block) and block[end].strip() and _OPTION.match(block[1]):
            end += 1
        return (0, end) if end > 1 else (0, 0)
    # `.. function:: f(x)`, with more arguments on the next lines, before the options: `:no-index:`.
    begin = 0
    while begin < len(block) and block[begin].strip() and not _OPTION.match(block[begin]):
        begin += 1
    # Options end at an empty line.
    end = begin
    while end < len(block) and block[end].strip():
        end += 1
    return begin, end


class DirectiveBody:
    """Block of a directive: arguments, options and content."""

    def __init__(self, state: Any, block: StringList, offset: int, line: int, source_line: str) -> None:
        self._state, self._line = state, line
        self._source_line = source_line
        while block and not block[-1].strip():
            block.trim_end()
        end, options_end = _borders(block)
        self.arguments: list[tuple[str, int]] = [
            (text.strip(), line + number) for number, text in enumerate(block[:end]) if text.strip()
        ]
        self.options = self._read_options(block[end:options_end])
        self._whole = block
        self._options_span = (end, options_end)
        self.content, self._offset = block[options_end:], offset + options_end
        self._block_offset = offset

    @staticmethod
    def _read_options(lines: StringList) -> dict[str, str]:
        options: dict[str, str] = {}
        for line in lines:
            if found := _OPTION.match(line):
                name = line[1 : found.end()].rstrip().rstrip(":")
                options[name.lower()] = line[found.end() :].strip()
        return options

    def parse_as(self, name: str, kind: DirectiveKind) -> list[nodes.Node]:  # noqa: PLR0911  one for each kind
        """Return the nodes of a directive of this kind."""
        if kind == "dropped":
            return self._dropped(name)
        if kind == "code":
            return self._code(name)
        if kind == "definition":
            return self._definition(name)
        if kind == "note":
            return [self._parsed(_labelled(LABELS.get(name, ""), self._line), self._with_arguments())]
        if kind == "version":
            return [self._version(name)]
        if kind == "image":
            return self._image()
        if kind == "content":
            return self._parse(self.content, self._offset)
        if kind == "unknown":
            return self._unknown(name)
        # Titled content.
        result: list[nodes.Node] = []
        if self.arguments:
            title = inline_text(" ".join(text for text, _ in self.arguments))
            result.append(with_line(nodes.paragraph("", title), self._line))
        return [*result, *self._parse(self.content, self._offset)]

    def _dropped(self, name: str) -> list[nodes.Node]:
        document = self._state.document
        argument = self.arguments[0][0] if self.arguments else ""
        if sets_module(name):
            document.module = argument if argument != "None" else ""
            return self._parse(self.content, self._offset)
        if name == "highlight":
            document.highlight = argument.lower()
        if name == "toctree":
            entries = [line.strip() for line in self.content if line.strip()]
            document.linked_pages += [(_TARGET.sub("", entry) or entry).removesuffix(".rst") for entry in entries]
        return []

    def _code(self, name: str) -> list[nodes.Node]:
        state = self._state
        if name in {"math", "parsed-literal", "productionlist"}:
            block, language = self._with_arguments(), "latex" if name == "math" else ""
        else:
            block, language = self.content, self.arguments[0][0].lower() if self.arguments else ""
        while block and not block[0].strip():
            block.trim_start()
        if not block:
            return []
        text = "\n".join(block)
        if name == "parsed-literal":
            text = inline_text(text)
        if not language and name != "parsed-literal":
            language = "pycon" if name in {"doctest", "testcode"} else state.document.highlight
        return [with_line(nodes.literal_block(text, text, language=language), first_line(block))]

    def _definition(self, name: str) -> list[nodes.Node]:
        if name == "class" and not self.content and not self.options and "(" not in self._source_line:
            # docutils' directive, which sets the style of what follows.
            return []
        signatures = []
        joined = ""
        for text, line in self.arguments:
            joined += text.removesuffix("\\")
            if not text.endswith("\\"):
                signatures.append((self._signature(name, inline_signature(joined)), line))
                joined = ""
        if not signatures:
            return self._parse(self.content, self._offset)
        node = Definition(signatures=signatures)
        state = self._state
        state.document.definition_depth += 1
        self._parsed(node, self.content, self._offset)
        state.document.definition_depth -= 1
        return [with_line(node, self._line)]

    def _signature(self, name: str, text: str) -> str:
        document = self._state.document
        head = re.split(r"[(\s]", text, maxsplit=1)[0]
        top_level = name.removeprefix("py:") in _WITH_MODULE
        if document.module and top_level and "." not in head and not document.definition_depth:
            text = f"{document.module}.{text}"
        kind = name.removeprefix("py:")
        return f"{kind} {text}" if kind in {"class", "exception"} else text

    def _version(self, name: str) -> nodes.Element:
        words = " ".join(text for text, _ in self.arguments).split(maxsplit=2 if name == "deprecated-removed" else 1)
        label = LABELS[name]
        if words:
            label += f" {words.pop(0)}"
        if name == "deprecated-removed" and words:
            label += f", will be removed in version {words.pop(0)}"
        node = _labelled(label + (": " if words or self.content else "."), self._line)
        if words:
            node += with_line(nodes.paragraph("", inline_text(words[0])), self._line)
        return self._parsed(node, self.content, self._offset)

    def _image(self) -> list[nodes.Node]:
        result: list[nodes.Node] = []
        if alt := self.options.get("alt", ""):
            result.append(with_line(nodes.paragraph("", inline_text(alt)), self._line))
        return [*result, *self._parse(self.content, self._offset)]

    def _unknown(self, name: str) -> list[nodes.Node]:
        argument = " ".join(text for text, _ in self.arguments)
        if self.content and argument:
            return self._definition(name)
        if argument.count(" ") >= 3:
            return [with_line(nodes.paragraph("", inline_text(argument)), self._line)]
        return self._parse(self.content, self._offset)

    def _with_arguments(self) -> StringList:
        """Return arguments and content as one block, without options."""
        start, end = self._options_span
        if start == end:
            return self._whole
        return self._whole[:start] + self._whole[end:]

    def _parsed(self, node: nodes.Element, block: StringList, offset: int | None = None) -> nodes.Element:
        self._state.nested_parse(block, self._block_offset if offset is None else offset, node)
        return node

    def _parse(self, block: StringList, offset: int) -> list[nodes.Node]:
        return list(self._parsed(nodes.container(), block, offset).children) if block else []


#: Target of an entry with its own title: `Title <path>`.
_TARGET = re.compile(r"\s*<[^<>]*>$")
#: Objects of Python that Sphinx shows with their module.
_WITH_MODULE = frozenset({"function", "class", "exception", "data", "decorator", "coroutinefunction"})


def inline_signature(text: str) -> str:
    """Return a signature without escapes."""
    return str(nodes.unescape(utils.escape2null(text))) if "\\" in text else text


def _labelled(label: str, line: int) -> Labelled:
    node: Labelled = with_line(Labelled(label=label), line)
    return node


def with_line(node: Any, line: int) -> Any:
    """Set the line of a node, from 1, and return the node."""
    node.line = line
    return node


def first_line(block: StringList) -> int:
    """Return the line of the source, from 1, of the first line of a block."""
    offset: int | None = block.info(0)[1]
    return (offset or 0) + 1
