"""Inline markup of reStructuredText as plain text, in linear time.

docutils searches the rest of a paragraph for the end of each construct. Here the search is not repeated for a kind of
construct that has no end in the rest, so a paragraph with 100,000 unclosed backquotes takes milliseconds.

Roles are shown as Sphinx shows them: `:func:`~os.path.join`` is `join()`, `:ref:`title <label>`` is `title`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from docutils.nodes import unescape
from docutils.utils import escape2null, punctuation_chars

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Delimiter of a name that is replaced when the whole document is known: of a substitution, or of a label.
MARK = "\x02"
#: Characters that names of one document may be replaced with.
MAX_FILLED_CHARACTERS = 1 << 20
_MARKED = re.compile(rf"{MARK}([sr])([^{MARK}]*){MARK}")

_OPENERS, _CLOSERS = punctuation_chars.openers, punctuation_chars.closers
_DELIMITERS, _CLOSING = punctuation_chars.delimiters, punctuation_chars.closing_delimiters
_BEFORE = rf"(?<![^\s{_OPENERS}{_DELIMITERS}])"
_AFTER = rf"(?=$|[\s\x00{_CLOSING}{_DELIMITERS}{_CLOSERS}])"
_NAME = r"(?:(?!_)\w)+(?:[-._+:](?:(?!_)\w)+)*"
_START = re.compile(
    rf"{_BEFORE}(?:(?P<literal>``)|(?P<target>_`)|(?P<phrase>(?::(?P<role>{_NAME}):)?`(?!`))|(?P<strong>\*\*)"
    r"|(?P<emphasis>\*(?!\*))|(?P<substitution>\|(?!\|)))(?![\s\x00])"
)
_END = {
    "literal": re.compile(rf"(?<!\s)``{_AFTER}"),
    "target": re.compile(rf"(?<![\s\x00])`{_AFTER}"),
    "phrase": re.compile(rf"(?<![\s\x00])`(?::(?P<role>{_NAME}):|__?)?{_AFTER}"),
    "strong": re.compile(rf"(?<![\s\x00])\*\*{_AFTER}"),
    "emphasis": re.compile(rf"(?<![\s\x00])\*{_AFTER}"),
    "substitution": re.compile(rf"(?<![\s\x00])\|_{{0,2}}{_AFTER}"),
}
#: Underscores of a reference: `name_` or `name__`.
_REFERENCE = re.compile(rf"(?<=[^\W_])__?{_AFTER}")
#: Reference to a footnote with an automatic number or symbol, which is not shown; and to another footnote or citation.
_AUTO_FOOTNOTE = re.compile(rf"[ \n]?\[(?:#[\w.-]{{0,80}}|\*)\]_{_AFTER}")
_FOOTNOTE = re.compile(rf"(\[[\w.+-]{{1,80}}\])_{_AFTER}")
_DASHES = re.compile(r"(?<=\s)(---?)(?=\s)")
_VARIABLE = re.compile(r"\{([^{}]*)\}")

#: Texts that Sphinx shows before the text of a role.
_PREFIXES = {"pep": "PEP ", "rfc": "RFC ", "cve": "CVE-", "cwe": "CWE-", "issue": "#"}
_CALLS = frozenset({"func", "meth", "cfunc"})
#: Roles whose text is code, in which a backslash is a backslash.
_VERBATIM = frozenset({"code", "math", "regexp", "literal"})
_VARIABLES = frozenset({"file", "samp"})
_WITHOUT_AMPERSANDS = frozenset({"guilabel", "menuselection"})


def inline_text(markup: str) -> str:
    """Return the text that inline markup shows. Lines are kept. Names to replace are marked; see `Names`."""
    if not any(character in markup for character in "`*|_\\-"):
        return markup
    text = escape2null(markup)
    pieces: list[str] = []
    missing: set[str] = set()
    position = shown = 0
    while found := _START.search(text, position):
        kind = found.lastgroup if found.lastgroup != "role" else "phrase"
        position = found.end()
        if kind is None or kind in missing or _is_quoted(text, found):
            continue
        end = _END[kind].search(text, position + 1)
        if end is None:
            missing.add(kind)
            continue
        pieces.append(_plain(text[shown : found.start()]))
        content = text[position : end.start()]
        if kind == "phrase":
            pieces.append(_role_text(found["role"] or end["role"] or "", content))
        else:
            pieces.append(_construct_text(kind, content))
        position = shown = end.end()
    pieces.append(_plain(text[shown:]))
    return "".join(pieces)


def label_name(text: str) -> str:
    """Return the form of a label in which labels are compared."""
    return " ".join(text.lower().split())


class Names:
    """Texts of the substitutions and of the labels of a document.

    A document may repeat a long text by a short name, so no name is replaced once `MAX_FILLED_CHARACTERS` are inserted.
    """

    def __init__(self, substitutions: Mapping[str, str], labels: Mapping[str, str]) -> None:
        self._left = MAX_FILLED_CHARACTERS
        self._labels: Mapping[str, str] = {}
        self._substitutions = {name: _without_marks(text) for name, text in substitutions.items()}
        # Substitutions may name others, and titles may name substitutions: one level is replaced.
        self._substitutions = {name: self.fill(text) for name, text in substitutions.items()}
        self._labels = {name: self.fill(text) for name, text in labels.items()}

    def fill(self, text: str) -> str:
        """Return a text with its marked names replaced. An unknown name remains, without its marks."""
        return _MARKED.sub(self._text_of, text).replace(MARK, "") if MARK in text else text

    def _text_of(self, found: re.Match[str]) -> str:
        kind, name = found.groups()
        texts, key = (self._substitutions, " ".join(name.split())) if kind == "s" else (self._labels, label_name(name))
        text = texts.get(key, name)
        self._left -= len(text)
        return text if self._left >= 0 else name


def _without_marks(text: str) -> str:
    return _MARKED.sub(r"\2", text).replace(MARK, "")


def _is_quoted(text: str, found: re.Match[str]) -> bool:
    """Return whether the start of a construct stands between quotes or brackets, as in `"*"`."""
    start, end = found.span()
    return start > 0 and end < len(text) and bool(punctuation_chars.match_chars(text[start - 1], text[end]))


def _plain(text: str) -> str:
    """Return text between constructs, without references and escapes."""
    if not text:
        return text
    if "]_" in text:
        text = _FOOTNOTE.sub(r"\1", _AUTO_FOOTNOTE.sub("", text))
    if "_" in text:
        text = _REFERENCE.sub("", text)
    if "--" in text:
        text = _DASHES.sub(lambda found: "\u2014" if len(found[1]) == len("---") else "\u2013", text)
    return str(unescape(text)) if "\x00" in text else text


def _construct_text(kind: str, content: str) -> str:
    if kind == "literal":
        return str(unescape(content, restore_backslashes=True))
    if kind == "substitution":
        return f"{MARK}s{unescape(content)}{MARK}"
    return str(unescape(content))


def _role_text(role: str, content: str) -> str:  # noqa: PLR0911  one for each kind of role
    domain, _, name = role.lower().rpartition(":")
    if name in _VERBATIM:
        return str(unescape(content, restore_backslashes=True))
    if content.endswith(">") and (start := content.rfind("<")) >= 0 and content[start - 1 : start] != "\x00":
        if title := content[:start].strip():
            return str(unescape(title))
        content = content[start + 1 : -1]
    text = str(unescape(content))
    if not role:
        return text
    if name == "ref":
        return f"{MARK}r{text}{MARK}"
    if name in _WITHOUT_AMPERSANDS:
        return text.replace("-->", ">").replace("&&", "\x01").replace("&", "").replace("\x01", "&")
    if name in _VARIABLES:
        return _VARIABLE.sub(r"\1", text)
    return _object_text(name, domain, text.removeprefix("!"))


def _object_text(name: str, domain: str, text: str) -> str:
    """Return the text of a reference to an object: without its module after `~`, with parentheses if it is called."""
    if text.startswith("~"):
        text = text[1:].rpartition(".")[2] if name not in {"ref", "doc"} else text[1:]
    if name in _CALLS and text and not text.endswith(")"):
        text += "()"
    if name in _PREFIXES and not domain:
        text = _PREFIXES[name] + text
    return text
