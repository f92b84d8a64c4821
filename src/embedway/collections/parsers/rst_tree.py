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
from docutils.statemachine import string2lines

from embedway.collections.parsers.rst_bodies import DirectiveBody, first_line, with_line
from embedway.collections.parsers.rst_directives import directive_kind
from embedway.collections.parsers.rst_inline import inline_text

#: Characters of a grid table. docutils takes quadratic time for a table, so a larger one is kept as it is.
_MAX_TABLE_CHARACTERS = 50_000
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
            return [], [with_line(nodes.literal_block(text, text), first_line(block))], blank_finish
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
    body = DirectiveBody(state, block, offset, line, machine.input_lines[first])
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
