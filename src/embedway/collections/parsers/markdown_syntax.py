"""CommonMark parser with tables, and with the blocks that documentation sites add to it.

The additions are fences of containers (`:::note`, `/// tip`), indented admonitions and tabs (`!!! note`, `=== "Mac"`),
and lines that only site generators read (attribute lists, template tags, includes, targets). They become tokens of the
types `marker`, which has the title as its content, and `dropped`. Blocks that are nested too deeply become paragraphs;
the parser alone would drop them.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from collections.abc import Callable

    from markdown_it.ruler import RuleOptionsType
    from markdown_it.rules_block import StateBlock
    from markdown_it.rules_inline import StateInline

#: Maximum depth of the parser, which is recursive. A quote adds one level, and a list adds two.
MAX_LEVEL = 20
#: Level at which blocks become paragraphs: a list in a list item of this level would exceed the maximum.
_TOO_DEEP = MAX_LEVEL - 2
#: Blocks that a new block may interrupt.
_INTERRUPTS: RuleOptionsType = {"alt": ["paragraph", "reference", "blockquote", "list"]}

#: Fence of a container, its kind and its title: `:::note Title`, `:::{tip} Title`, `::: tip[Title]`, `/// tip | T`.
_FENCE = re.compile(r"(?::{3,}|/{3,})[ \t]*+(\{?[\w.:-]*+\}?)[ \t]*+(.*)$", re.DOTALL)
#: Line before an indented block: an admonition, a collapsed one, or a tab.
_INDENTED = re.compile(r"(?:!!!|\?\?\?\+?|===[!+]?(?=[ \t]+[\"']))[ \t]+(.*)$", re.DOTALL)
#: Beginning or end of a code block.
_CODE_FENCE = re.compile(r"[ \t]*+(`{3,}|~{3,})")
_MAX_COMMENT = 1000
_QUOTED = re.compile(r"""(["'])(.*)\1""")
#: Attributes in braces: `{#id}`, `{.class}`, `{: .class}`.
ATTRIBUTES = r"\{:?[ \t]*+(?:[.#][\w.:-]++|[\w-]++=[^{}]*+)[^{}]*+\}"
#: Lines that include a file: `--8<-- "file.md"`, `{! file.md !}`, `{* file.py ln[1:3] *}`.
_INCLUDE = r"-++8<-++.*+|\{![^{}]*!\}|\{\*[^{}]*\*\}"
_INCLUDES = re.compile(rf"(?:(?:[ \t]*+(?>{_INCLUDE})[ \t]*+)?+(?:\n|\Z))++", re.IGNORECASE)
#: First and last line of a list of files to include, and the lines between them: a path, a comment, or nothing.
_INCLUDE_LIST_MARK = re.compile(r"-+8<-+[ \t]*$")
_INCLUDE_LIST_LINE = re.compile(r"(?:;.*|[^\s./]*+[./]\S*[ \t]*)?$")
_MAX_INCLUDE_LIST_LINES = 100
#: Whole lines without text: attribute lists, template tags, includes, targets, tables of contents.
_DROPPED = re.compile(
    rf"(?:{ATTRIBUTES}|\{{:[^{{}}]*\}}|\{{%[^{{}}]*%\}}|\{{\{{[<%][^{{}}]*[>%]\}}\}}|{_INCLUDE}"
    r"|\([\w:.-]++\)=|\[TOC\]|\[\[_?TOC_?\]\])[ \t]*$",
    re.IGNORECASE,
)


@functools.cache
def markdown_parser(*, indented_code: bool = True) -> MarkdownIt:
    """Return the parser. In MDX, indented text is not code. Tokens of links and code have `meta["end"]`: their end."""
    parser = MarkdownIt("commonmark", {"maxNesting": MAX_LEVEL}).enable(["table", "strikethrough"])
    if not indented_code:
        parser.disable("code")
    # Links are never opened, so all are valid. An image with a refused address would be text.
    parser.validateLink = lambda url: True  # type: ignore[method-assign]  # noqa: ARG005
    parser.normalizeLink = lambda url: url  # type: ignore[method-assign]
    parser.block.ruler.before("table", "too_deep", _too_deep)
    parser.block.ruler.before("blockquote", "container", _container, _INTERRUPTS)
    parser.block.ruler.before("blockquote", "indented", _indented, _INTERRUPTS)
    parser.block.ruler.before("blockquote", "dropped", _dropped, _INTERRUPTS)
    parser.inline.ruler.before("backticks", "comment", _comment)
    for name in ("backticks", "link", "image"):
        parser.inline.ruler.at(name, _with_end(_inline_rule(parser, name)))
    return parser


def _comment(state: StateInline, silent: bool) -> bool:
    """Skip a comment of MDX, which sites write in Markdown too: `{/*id*/}`."""
    if not state.src.startswith("{/*", state.pos):
        return False
    end = state.src.find("*/}", state.pos, state.pos + _MAX_COMMENT)
    if end < 0:
        return False
    if not silent:
        state.push("html_inline", "", 0).content = "\n" * state.src.count("\n", state.pos, end)
    state.pos = end + 3
    return True


def _inline_rule(parser: MarkdownIt, name: str) -> Callable[[StateInline, bool], bool]:
    return next(rule.fn for rule in parser.inline.ruler.__rules__ if rule.name == name)


def _with_end(rule: Callable[[StateInline, bool], bool]) -> Callable[[StateInline, bool], bool]:
    """Return a rule whose last token has its end in the source. Its text can have fewer line breaks than its source."""

    def run(state: StateInline, silent: bool) -> bool:
        count = len(state.tokens)
        done = rule(state, silent)
        if done and len(state.tokens) > count:
            state.tokens[-1].meta = {"end": state.pos}
        return done

    return run


def _line(state: StateBlock, line: int) -> str:
    return state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]]


def _push(state: StateBlock, kind: str, content: str, start: int, end: int) -> None:
    token = state.push(kind, "", 0)
    token.content = content
    token.map = [start, end]
    state.line = end


def _too_deep(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    if state.level < _TOO_DEEP or silent:
        return False
    line = start + 1
    while line < end and (state.isEmpty(line) or state.sCount[line] >= state.blkIndent):
        line += 1
    _push(state, "plain", state.getLines(start, line, state.blkIndent, False), start, line)
    return True


def _container(state: StateBlock, start: int, end: int, silent: bool) -> bool:  # noqa: ARG001
    text = _line(state, start)
    if text[:1] not in {":", "/"} or state.is_code_block(start):
        return False
    found = _FENCE.match(text)
    if found is None or (text[0] == "/" and found[2] and not found[1]):
        return False
    if not silent:
        _push(state, "marker", _container_title(found[1], found[2]), start, start + 1)
    return True


def _container_title(kind: str, rest: str) -> str:
    title = re.sub(r"\{[^{}]*+\}[ \t]*$", "", rest).strip()
    if title.startswith("["):
        title = title[1:].partition("]")[0]
    title = title.lstrip("|").strip(": \t")
    # `::: package.module` stands for the documentation of an object, so its name is text.
    return title or (kind if "." in kind.strip(".") else "")


def _indented(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    text = _line(state, start)
    if text[:1] not in {"!", "?", "="} or state.is_code_block(start):
        return False
    found = _INDENTED.match(text)
    if found is None:
        return False
    if silent:
        return True
    quoted = _QUOTED.search(found[1])
    last = line = start + 1
    while line < end and (state.isEmpty(line) or state.sCount[line] >= state.blkIndent + 4):
        line += 1
        last = last if state.isEmpty(line - 1) else line
    _push(state, "marker", quoted[2] if quoted else "", start, start + 1)
    outer, parent = state.lineMax, state.parentType
    state.lineMax, state.parentType = last, "container"
    state.blkIndent += 4
    state.level += 1
    state.md.block.tokenize(state, start + 1, last)
    state.level -= 1
    state.blkIndent -= 4
    state.lineMax, state.parentType = outer, parent
    state.line = last
    return True


def _dropped(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    text = _line(state, start)
    if text[:1] not in {"{", "-", "(", "["} or state.is_code_block(start) or not _DROPPED.match(text):
        return False
    if not silent:
        last = _end_of_include_list(state, start, end) if _INCLUDE_LIST_MARK.match(text) else start + 1
        _push(state, "dropped", "", start, last)
    return True


def _end_of_include_list(state: StateBlock, start: int, end: int) -> int:
    """Return the line after a list of files to include; the next line if there is no list, as below a cutting mark."""
    for number in range(start + 1, min(end, start + _MAX_INCLUDE_LIST_LINES)):
        line = _line(state, number)
        if _INCLUDE_LIST_MARK.match(line):
            return number + 1
        if not _INCLUDE_LIST_LINE.match(line) or (line and state.sCount[number] < state.blkIndent):
            break
    return start + 1


def has_only_includes(code: str) -> bool:
    """Return whether the lines of a code block only include files."""
    return _INCLUDES.fullmatch(code) is not None


def fence_after(line: str, fence: str) -> str:
    """Return the fence of the code block that is open after a line; `fence` is the one before it, or is empty."""
    found = _CODE_FENCE.match(line)
    if found is None:
        return fence
    closes = fence and found[1].startswith(fence) and not line.strip().strip(fence[0])
    return "" if closes else fence or found[1]
