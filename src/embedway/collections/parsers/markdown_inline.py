"""Text of inline Markdown: links and images become their texts, tags are removed."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from embedway.collections.parsers.markdown_syntax import ATTRIBUTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markdown_it.token import Token

_TAG_NAME = re.compile(r"</?([a-zA-Z][\w:-]*)")
_ALT = re.compile(r"""\salt\s*+=\s*+(?:"([^"]*)"|'([^']*)'|([^\s"'=<>`]+))""", re.IGNORECASE)
_SOURCE = re.compile(r"""\ssrc\s*+=\s*+["']?([^\s"'>]+)""", re.IGNORECASE)
#: Hosts that serve nothing but pictures of a project's state, such as "build passing", and those that serve them below
#: paths with `badge` or `status`.
_BADGE_HOSTS = (
    r"(?:[\w-]+\.)*(?:shields\.io|badgen\.net|badge\.fury\.io|badges\.\w+\.\w+|badge\.\w+\.\w+|codecov\.io|coveralls\.io"
    r"|travis-ci\.(?:org|com)|circleci\.com|pepy\.tech|deps\.rs|david-dm\.org|isitmaintained\.com|pypip\.in)"
)
_PROJECT_HOSTS = (
    r"(?:[\w-]+\.)*(?:readthedocs\.(?:org|io|com)|appveyor\.com|azure\.com|visualstudio\.com"
    r"|buildkite\.com|codacy\.com|codeclimate\.com|sonarcloud\.io|goreportcard\.com|godoc\.org|go\.dev|docs\.rs|snyk\.io"
    r"|coreinfrastructure\.org|bestpractices\.dev|securityscorecards\.dev|scorecard\.dev|zenodo\.org|mybinder\.org"
    r"|pre-commit\.ci|anaconda\.org|opencollective\.com|snapcraft\.io|tidelift\.com|repology\.org|netlify\.com"
    r"|research\.google\.com|discord(?:app)?\.com)"
)
#: Absolute addresses of badges: at these hosts, in a folder `badges` of a repository, or of a file `badge.svg`.
_BADGE = re.compile(
    rf"(?:https?:)?//(?:{_BADGE_HOSTS}(?:[:/]|\Z)|{_PROJECT_HOSTS}/(?:[^?#]*[/_-])?(?:badges?|status|widget)[/_.?-]"
    r"|git(?:hub|lab)\.com/[^?#]*/badges/[^?#]+\.svg|[^/]+/(?:[^?#]*[/_-])?badge\.(?:svg|png)(?:[?#]|\Z)|[\w-]+-badge\.)",
    re.IGNORECASE,
)
_LINE_TAGS = frozenset({"br", "p", "div", "li", "tr", "td", "th", "h1", "h2", "h3", "h4", "h5", "h6"})
_SKIPPED = frozenset({"script", "style"})
#: Names of icons, as sites with Material for MkDocs write them, with their attributes.
_ICON = re.compile(r":(?:material|fontawesome|octicons|simple)-[\w-]+:(?:\{[^{}]*+\})?[ ]?")
_LEADING_ATTRIBUTES = re.compile(ATTRIBUTES)
_BEFORE_ATTRIBUTES = frozenset({"link_close", "image", "code_inline", "strong_close", "em_close"})
_HEADING_ATTRIBUTES = re.compile(rf"{ATTRIBUTES}|\{{#[^{{}}]*+\}}")


def alt_text(tag: str) -> str:
    """Return the alternative text of an `<img>` tag; nothing for a badge."""
    source = _SOURCE.search(tag)
    if source is not None and _BADGE.match(source[1]):
        return ""
    found = _ALT.search(tag)
    return html.unescape(found[1] or found[2] or found[3] or "") if found else ""


class InlineText:
    """Text of one inline token. `lines` has pairs of (offset, source line) for each line after the first."""

    def __init__(self, content: str, children: Sequence[Token], line: int) -> None:
        self._content = content
        self._first = self._line = line
        self._counted = self._breaks = 0
        self._pieces: list[str] = []
        self._length = 0
        self._skipped = ""
        self.lines: list[tuple[int, int]] = []
        previous = ""
        for child in children:
            self._add(child, previous)
            previous = child.type
        self.text = "".join(self._pieces)

    def _add(self, token: Token, previous: str) -> None:
        if token.type in {"softbreak", "hardbreak"}:
            self._append("\n")
            self._move(self._line + 1)
        elif token.type == "html_inline":
            self._tag(token.content)
        elif token.type == "image" and _BADGE.match(str(token.attrs.get("src", ""))):
            pass
        elif token.type == "image":
            alt = InlineText(token.content, token.children or (), 0).text
            self._append(alt.replace("\n", " "))
        elif token.content:
            text = token.content
            if token.type == "text":
                text = _ICON.sub("", text) if ":" in text else text
                if previous in _BEFORE_ATTRIBUTES and text.startswith("{"):
                    text = _LEADING_ATTRIBUTES.sub("", text, count=1)
            self._append(text)
        if end := token.meta.get("end"):
            # The text of code and of addresses has no line breaks, but their source may have.
            self._breaks += self._content.count("\n", self._counted, end)
            self._counted = end
            self._move(self._first + self._breaks)

    def _append(self, text: str) -> None:
        if not self._skipped:
            self._pieces.append(text)
            self._length += len(text)

    def _move(self, line: int) -> None:
        if line > self._line:
            self._line = line
            self.lines.append((self._length, line))

    def _tag(self, tag: str) -> None:
        found = _TAG_NAME.match(tag)
        name = found[1].lower() if found else ""
        if self._skipped:
            self._skipped = "" if tag.startswith("</") and name == self._skipped else self._skipped
        elif name in _SKIPPED and not tag.startswith("</"):
            self._skipped = name
        elif name == "img":
            self._append(alt_text(tag))
        elif name in _LINE_TAGS and self._pieces and not self._pieces[-1].endswith("\n"):
            self._append("\n")
        self._move(self._line + tag.count("\n"))


def heading_text(text: str) -> str:
    """Return a heading in one line, without its attributes (`{#id}`)."""
    text = text.rstrip()
    if text.endswith("}") and (start := text.rfind("{")) > 0 and _HEADING_ATTRIBUTES.fullmatch(text, start):
        text = text[:start]
    return " ".join(text.split())
