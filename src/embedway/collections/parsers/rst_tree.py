"""Tree of a reStructuredText document: docutils' parser with directives of docutils, Sphinx and others.

docutils finds directives in tables of the whole process, and some of them read files, run code or change these tables.
Here a document has its own states, in which every directive becomes one of the few kinds of `rst_directives.py`. So no
file is read, threads do not meet, and other users of docutils see no change.
"""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any, ClassVar

from docutils import frontend, nodes, utils
from docutils.parsers.rst import Directive, DirectiveError, Parser, states
from docutils.parsers.rst.directives import tables
from docutils.statemachine import StringList, string2lines

from embedway.collections.parsers.rst_directives import LABELS, DirectiveKind, directive_kind, sets_module
from embedway.collections.parsers.rst_inline import inline_text

#: Characters of a grid table. docutils takes quadratic time for a table, so a larger one is kept as it is.
_MAX_TABLE_CHARACTERS = 50_000
_OPTION = re.compile(r":(?![: ])([^:\\]|\\.|:(?!([ `]|$))){1,200}(?<! ):( +|$)")
#: Target without an address: `.. _name:`.
_LABEL = re.compile(r"\.\.[ ]+_`?([^`:]{1,200})`?:\s*$")
_SUBSTITUTION = re.compile(r"\.\.[ ]+\|(?![ ])([^|]{1,200})\|(?:[ ]+([\w:.-]+)::[ ]*(.*))?$")
_UNICODE = re.compile(r"^(?:0x|x|\\x|U\+?|u|\\u|&#x)([0-9a-f]{1,6});?$", re.IGNORECASE)
#: Directives of docutils that are run: they parse their content alone.
_TABLES: dict[str, type[Directive]] = {
    "table": tables.RSTTable,
    "list-table": tables.ListTable,
    "csv-table": tables.CSVTable,
}


class Definition(nodes.Element):
    """Directive that describes an object; `signatures` are pairs of (text, line)."""


class Labelled(nodes.Element):
    """Directive with a label before its content, such as a note or a change of version; `label` is a text."""


class Label(nodes.Element):
    """Name of the section that follows, for references such as `:ref:`name``; `label` is the name."""


class _Inliner:
    """Inline parser that returns the shown text."""

    def init_customizations(self, _settings: object) -> None:
        """Change nothing; docutils calls this for each document."""

    def parse(self, text: str, _lineno: int, _memo: object, _parent: object) -> tuple[list[nodes.Node], list[Any]]:
        """Return one node of text, and no messages."""
        return [nodes.Text(inline_text(text))], []


class _OurStates:
    """Part of our states that replaces docutils' directives, targets, substitutions and comments."""

    #: Our own list: docutils' state machines have docutils' states.
    nested_sm_cache: ClassVar[list[Any]] = []

    def __init__(self, state_machine: Any, debug: bool = False) -> None:
        super().__init__(state_machine, debug)  # type: ignore[call-arg]
        self.nested_sm_kwargs = {"state_classes": _STATES, "initial_state": "Body"}

    def comment(self: Any, match: re.Match[str]) -> tuple[list[nodes.Node], bool]:
        if self.state_machine.is_next_line_blank() and not match.string[match.end() :].strip():
            return [], True
        *_, blank_finish = self.state_machine.get_first_known_indented(match.end())
        return [], blank_finish

    def isolate_grid_table(self: Any) -> Any:
        block, messages, blank_finish = super().isolate_grid_table()  # type: ignore[misc]
        if block and sum(map(len, block)) > _MAX_TABLE_CHARACTERS:
            text = "\n".join(block)
            return [], [_with_line(nodes.literal_block(text, text), _first_line(block))], blank_finish
        return block, messages, blank_finish


def _hyperlink_target(state: Any, match: re.Match[str]) -> tuple[list[nodes.Node], bool]:
    *_, blank_finish = state.state_machine.get_first_known_indented(match.end(), until_blank=True, strip_indent=False)
    found = _LABEL.match(match.string)
    return [Label(label=found[1])] if found else [], blank_finish


def _substitution(state: Any, match: re.Match[str]) -> tuple[list[nodes.Node], bool]:
    block, *_, blank_finish = state.state_machine.get_first_known_indented(match.end(), strip_indent=False)
    found = _SUBSTITUTION.match(match.string)
    if found is None or found[2] is None:
        return [], blank_finish
    directive, argument = found[2].lower(), found[3].strip()
    rest = [line.strip() for line in block[1:]]
    text = ""
    if directive == "replace":
        text = inline_text(" ".join([argument, *rest]).strip())
    elif directive == "image":
        text = next((line[5:].strip() for line in rest if line.startswith(":alt:")), "")
    elif directive == "unicode":
        text = "".join(_characters(word) for word in argument.split(" .. ")[0].split()[:40])
    else:
        text = argument
    state.document.substitution_texts.setdefault(" ".join(found[1].split()), text)
    return [], blank_finish


def _characters(word: str) -> str:
    if found := _UNICODE.match(word):
        code = int(found[1], 16)
        return chr(code) if 0x20 <= code <= 0x10FFFF and not 0xD800 <= code < 0xE000 else ""
    return word


def _directive(state: Any, match: re.Match[str]) -> tuple[list[nodes.Node], bool]:
    """Parse a directive of any name."""
    machine = state.state_machine
    name = match[1].lower()
    line = _line(machine)
    first = machine.line_offset
    if name in _TABLES:
        return _table_directive(state, match, name, line)
    block, _, offset, blank_finish = machine.get_first_known_indented(match.end(), strip_top=0)
    blank_finish = blank_finish or machine.is_next_line_blank()
    body = _Body(state, block, offset, line, machine.input_lines[first])
    return body.parse_as(name, directive_kind(name)), blank_finish


_OTHER_FILE = re.compile(r"^[ \t]+:(?:file|url):", re.MULTILINE)


def _table_directive(state: Any, match: re.Match[str], name: str, line: int) -> tuple[list[nodes.Node], bool]:
    try:
        result, blank_finish = state.run_directive(_TABLES[name], match, name, {})
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, DirectiveError):
        # Errors of docutils on malformed tables. The directive's lines are consumed before its content is parsed.
        return [], True
    if any(isinstance(node, nodes.system_message) and _OTHER_FILE.search(node.astext()) for node in result):
        # The rows are in a file or at an address, which is not read.
        return [], blank_finish
    for node in result:
        if isinstance(node, nodes.Element) and node.line is None:
            node.line = line
    return result, blank_finish


class _Body:
    """Block of a directive: arguments, options and content."""

    def __init__(self, state: Any, block: StringList, offset: int, line: int, source_line: str) -> None:
        self._state, self._line = state, line
        self._source_line = source_line
        while block and not block[-1].strip():
            block.trim_end()
        end = 0
        while end < len(block) and block[end].strip() and not (end and _OPTION.match(block[end])):
            end += 1
        if block and _OPTION.match(block[0]):
            end = 0
        self.arguments: list[tuple[str, int]] = [
            (text.strip(), line + number) for number, text in enumerate(block[:end]) if text.strip()
        ]
        options_end = end
        while options_end < len(block) and block[options_end].strip():
            options_end += 1
        is_options = options_end > end and (end or _OPTION.match(block[0]) or not block[0].strip())
        # A directive's first line may be empty, with the options or the content on the next.
        if end == 0 and block and not block[0].strip():
            options_end = 1
            while options_end < len(block) and block[options_end].strip() and _OPTION.match(block[1]):
                options_end += 1
            is_options = options_end > 1
        self.options = self._read_options(block[end:options_end]) if is_options else {}
        start = options_end if is_options or end else 0
        self._whole = block
        self._options_span = (end, options_end) if is_options else (0, 0)
        self.content, self._offset = block[start:], offset + start
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
            result.append(_with_line(nodes.paragraph("", title), self._line))
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
        return [_with_line(nodes.literal_block(text, text, language=language), _first_line(block))]

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
        return [_with_line(node, self._line)]

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
            node += _with_line(nodes.paragraph("", inline_text(words[0])), self._line)
        return self._parsed(node, self.content, self._offset)

    def _image(self) -> list[nodes.Node]:
        result: list[nodes.Node] = []
        if alt := self.options.get("alt", ""):
            result.append(_with_line(nodes.paragraph("", inline_text(alt)), self._line))
        return [*result, *self._parse(self.content, self._offset)]

    def _unknown(self, name: str) -> list[nodes.Node]:
        argument = " ".join(text for text, _ in self.arguments)
        if self.content and argument:
            return self._definition(name)
        if argument.count(" ") >= 3:
            return [_with_line(nodes.paragraph("", inline_text(argument)), self._line)]
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
    node: Labelled = _with_line(Labelled(label=label), line)
    return node


def _with_line(node: Any, line: int) -> Any:
    """Set the line of a node, from 1, and return the node."""
    node.line = line
    return node


def _first_line(block: StringList) -> int:
    """Return the line of the source, from 1, of the first line of a block."""
    offset: int | None = block.info(0)[1]
    return (offset or 0) + 1


def _line(machine: Any) -> int:
    return int(machine.get_source_and_line()[1] or 1)


def _constructs() -> list[tuple[Any, re.Pattern[str]]]:
    """Return docutils' explicit constructs with our methods."""
    body: Any = states.Body
    ours = {
        "hyperlink_target": _hyperlink_target,
        "substitution_def": _substitution,
        "directive": _directive,
    }
    return [(ours.get(method.__name__, method), pattern) for method, pattern in body.explicit.constructs]


_EXPLICIT = SimpleNamespace(patterns=states.Body.explicit.patterns, constructs=_constructs())


def _our_state(state: type) -> type:
    # The name is the key of a state in its machine. `explicit` exists in states of bodies alone.
    members = {"explicit": _EXPLICIT} if issubclass(state, states.Body) else {}
    return type(state.__name__, (_OurStates, state), members)


_STATES = tuple(_our_state(state) for state in states.state_classes)


def parse_tree(text: str) -> nodes.document:
    """Return the tree of a document. Raises RecursionError for deep nesting, and any error of docutils."""
    settings = _SETTINGS.copy()
    document: Any = utils.new_document("", settings)
    document.substitution_texts = {}
    document.module = ""
    document.linked_pages = []
    document.highlight = ""
    document.definition_depth = 0
    machine = states.RSTStateMachine(state_classes=_STATES, initial_state="Body")
    lines = string2lines(text, tab_width=8, convert_whitespace=True)
    machine.run(lines, document, inliner=_Inliner())  # type: ignore[arg-type]
    tree: nodes.document = document
    return tree


def _settings() -> frontend.Values:
    settings = frontend.get_default_settings(Parser)
    settings.file_insertion_enabled = settings.raw_enabled = False
    settings.halt_level = settings.report_level = 5
    settings.syntax_highlight = "none"
    settings.warning_stream = ""
    return settings


_SETTINGS = _settings()
