"""Parser of MDX: Markdown with imports, exports, comments in braces and JSX tags, all of which are removed.

Line numbers do not change. Braces with expressions stay text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from embedway.collections.parsers.markdown import parse_with, unify_newlines
from embedway.collections.parsers.markdown_syntax import fence_after, markdown_parser

if TYPE_CHECKING:
    from embedway.collections.parsers.base import ParsedText

_MODULE = re.compile(
    r"import[ \t]+(?:[\"'{*]|\w+[ \t,].*\bfrom\b)|export[ \t]+(?:default|const|let|var|function|async|class|[{*])"
)
#: Comment in braces, code span, or JSX tag. Values in braces have one level of further braces. No part of a tag
#: contains `<`, so that each position is scanned a constant number of times.
_PART = re.compile(
    r"`[^`\n]*+`|\{/\*[^*]*+(?:\*(?!/)[^*]*+)*+\*/\}"
    r"|</?(?:[A-Za-z][\w.:-]*+)?(?:[^<>{}\"'`]|\"[^\"<]*+\"|'[^'<]*+'|\{(?:[^{}<]|\{[^{}<]*+\})*+\})*+>"
)
#: Attributes that readers see.
_TITLE = re.compile(r"""\s(?:title|label|alt|summary)=(?:"([^"]*)"|'([^']*)')""")
#: Tags of HTML that decide on structure; Markdown handles them.
_KEPT = re.compile(r"</?(?:h[1-6]|br|table|thead|tbody|tr|td|th|pre)\b")


def parse_mdx(text: str, path: str) -> ParsedText:  # noqa: ARG001
    """Parse MDX; see `parse_markdown`."""
    return parse_with(markdown_parser(indented_code=False), _without_jsx(unify_newlines(text)))


def _without_jsx(text: str) -> str:
    pieces: list[str] = []
    prose: list[str] = []
    fence = ""
    module, depth, blank = False, 0, True
    for line in text.split("\n"):
        fence_then = fence_after(line, fence)
        if fence or (fence_then and not module):
            fence = fence_then
            if prose:
                pieces.append(_without_tags("\n".join(prose)))
                prose.clear()
            pieces.append(line)
            blank = True
            continue
        if not line.strip() and depth <= 0:
            module = False
        elif blank and not module and _MODULE.match(line):
            module, depth = True, 0
        if module:
            depth += line.count("{") + line.count("(") - line.count("}") - line.count(")")
        blank = not line.strip() or (module and depth <= 0)
        prose.append("" if module else line)
        module = module and depth > 0
    if prose:
        pieces.append(_without_tags("\n".join(prose)))
    return "\n".join(pieces)


def _without_tags(text: str) -> str:
    # An unclosed comment would be searched for from each of its beginnings.
    return _PART.sub(_replacement, text) if text.count("{/*") <= text.count("*/}") else text


def _replacement(found: re.Match[str]) -> str:
    part = found[0]
    if part.startswith("`"):
        return part
    breaks = "\n" * part.count("\n")
    if part.startswith("{"):
        return breaks
    if kept := _KEPT.match(part):
        return kept[0] + ">" + breaks
    return " ".join(title[1] or title[2] or "" for title in _TITLE.finditer(part)) + breaks
